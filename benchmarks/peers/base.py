"""What a peer is: something that can do some of the measures, each time in fresh processes."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import psutil

from benchmarks.measures import Job, Measure
from benchmarks.payloads import PAYLOADS
from benchmarks.timing import rate, trips

Result = dict[str, float]
"""``value``, in the unit of the measure, and what else there is to say, such as ``p99``."""

DEADLINE = 20.0
"""Seconds, for a step that takes milliseconds. Waits inside a peer's own library end with the process, which
the runner ends."""

PART = 64
"""Messages that a broadcast sends to one child before it turns to the next: what is batched, is by about so many."""

spawning = multiprocessing.get_context("spawn")


class Peer(ABC):
    """One way to connect two processes. Its objects hold nothing: the work is done in processes of its own."""

    name: str
    modules: tuple[str, ...] = ()
    """What has to be installed."""

    def missing(self) -> str | None:
        """Why it cannot be measured here, in words; None: it can."""
        missing = [module for module in self.modules if importlib.util.find_spec(module) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    @abstractmethod
    def does(self, measure: Measure) -> bool:
        """Whether it has such a thing at all."""

    @abstractmethod
    def measure(self, job: Job) -> Result:
        """Do the job; called in a fresh process, which is the host."""


class End:
    """One process's end of a pair. The loops are methods, so that a peer that batches can write its own."""

    # Methods, or the library's own functions: nothing of ours stands in between where nothing has to.
    send: Callable[[Any], None]
    """Send without waiting for more to send."""
    receive: Callable[[], Any]
    """Block until the next value is there."""

    async def areceive(self) -> Any:
        """The same on an event loop. Here for peers that nothing better is possible with: by a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(None, self.receive)

    def burst(self, value: Any, count: int) -> None:
        """Send *value* so many times, each time serialised afresh."""
        send = self.send
        for _ in range(count):
            send(value)

    def drain(self, count: int) -> None:
        """Receive so many values, each made into objects."""
        receive = self.receive
        for _ in range(count):
            receive()

    def wire(self, value: Any) -> Any:
        """What travels for that payload. Ends that do not serialise have bytes."""
        return value


class Readable:
    """Waits on an event loop until a descriptor can be read: what ``add_reader`` is there for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._descriptor, self._report)
        self._ready = self._loop.create_future()
        await self._ready

    def _report(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)


class DuplexPeer(Peer):
    """A peer with two equal ends. Counts and confirmations go over a pipe of their own, not over what is measured."""

    has_round_trip_for_change = False
    """Stands in the table of changes with its round trip, as the measure that the others are compared with."""

    @abstractmethod
    def seats(self) -> tuple[Any, Any]:
        """What the two processes make their ends of; the second one travels to the child by pickle."""

    @abstractmethod
    def end(self, seat: Any, payload: Any) -> End:
        """This process's end. *payload* is what will travel, for who needs its size."""

    def does(self, measure: Measure) -> bool:
        if measure.workload == "W3":
            return measure.subject == "change" and self.has_round_trip_for_change
        return measure.workload in ("W1", "W1r", "W2", "W2b", "broadcast")

    def measure(self, job: Job) -> Result:
        if job.workload == "broadcast":
            return self._broadcast(job)
        role = {"W1": "sink", "W1r": "source", "W2b": "answer"}.get(job.workload, "echo")
        child = self._child(job, role)
        try:
            return self._measure(job, child)
        finally:
            end_all([child.process])

    def _child(self, job: Job, role: str) -> Child:
        ours, theirs = self.seats()
        control, controlled = spawning.Pipe()
        process = start(_run_child, self, theirs, controlled, job, role)
        end = self.end(ours, _payload(job))
        answer(control)  # it is up
        return Child(process, end, control)

    def _measure(self, job: Job, child: Child) -> Result:
        end, control = child.end, child.control
        payload = end.wire(_payload(job))

        def there(count: int) -> float:
            began = time.perf_counter()
            control.send(count)
            end.burst(payload, count)
            answer(control)
            return time.perf_counter() - began

        def back(count: int) -> float:
            began = time.perf_counter()
            control.send(count)
            end.drain(count)
            return time.perf_counter() - began

        def trip() -> None:
            end.send(payload)
            end.receive()

        if job.workload == "W1":
            return {"value": rate(there, job.seconds)}
        if job.workload == "W1r":
            return {"value": rate(back, job.seconds)}
        return trips(trip, job.seconds)

    def _broadcast(self, job: Job) -> Result:
        children: list[Child] = []
        try:
            for _ in range(job.children):
                children.append(self._child(job, "sink"))
            payload = children[0].end.wire(_payload(job))

            def work(count: int) -> float:
                began = time.perf_counter()
                for child in children:
                    child.control.send(count)
                for sent in range(0, count, PART):
                    for child in children:
                        child.end.burst(payload, min(PART, count - sent))
                for child in children:
                    answer(child.control)
                return time.perf_counter() - began

            return {"value": job.children * rate(work, job.seconds)}
        finally:
            end_all([child.process for child in children])


class Child(NamedTuple):
    """The other process, as its host holds it."""

    process: SpawnProcess
    end: End
    control: Connection


def _payload(job: Job) -> Any:
    return PAYLOADS.get(job.subject, PAYLOADS["S"])


def _run_child(peer: DuplexPeer, seat: Any, control: Connection, job: Job, role: str) -> None:
    """The other process. It works until it is ended, or until its host is."""
    end = peer.end(seat, _payload(job))
    payload = end.wire(_payload(job))
    control.send("up")
    try:
        ROLES[role](end, control, payload)
    except (EOFError, OSError):  # the host is gone
        pass


def _sink(end: End, control: Connection, payload: Any) -> None:
    while True:
        end.drain(control.recv())
        control.send("done")


def _source(end: End, control: Connection, payload: Any) -> None:
    while True:
        end.burst(payload, control.recv())


def _echo(end: End, control: Connection, payload: Any) -> None:
    send, receive = end.send, end.receive
    while True:
        send(receive())


def _echo_in_a_coroutine(end: End, control: Connection, payload: Any) -> None:
    async def run() -> None:
        while True:
            end.send(await end.areceive())

    asyncio.run(run())


ROLES: dict[str, Callable[[End, Connection, Any], None]] = {
    "sink": _sink,
    "source": _source,
    "echo": _echo,
    "answer": _echo_in_a_coroutine,
}


# Processes.


def start(target: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """A child of multiprocessing, started afresh; it inherits what this process is pinned to."""
    process = spawning.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def end_all(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(DEADLINE)


def answer(control: Connection) -> Any:
    """What the child says next."""
    if not control.poll(DEADLINE):
        raise TimeoutError(f"the child has not answered in {DEADLINE:g} s")
    return control.recv()


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use, with what it shares with others."""
    return int(psutil.Process(pid).memory_info().rss)


def bare_resident(module: str = "sys") -> int:
    """Bytes of memory of a Python that has imported one module."""
    command = [sys.executable, "-c", f"import {module}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        bare.stdout.readline()  # it is up
        size = resident(bare.pid)
        bare.kill()
    return size


def over_bare(size: int) -> Result:
    """Bytes of resident memory, as MiB over those of a Python that has imported nothing."""
    nothing = bare_resident()
    return {"value": (size - nothing) / 2**20, "bare": nothing / 2**20}
