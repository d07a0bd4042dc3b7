"""lycomm as its users have it: a host with a declared NoneBot bot, and nothing but the public names.

The bot has NoneBot's driver without a server (``~none``) and one plugin, ``lycomm_bot``, which does the child's half.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Job, Measure
from benchmarks.payloads import PAYLOADS
from benchmarks.peers.base import DEADLINE, Peer, Result
from benchmarks.timing import rate, trips

if TYPE_CHECKING:
    from liteyuki_host import Host

JOB_VARIABLE = "BENCHMARKS_JOB"
"""Tells the bot's plugin what it is there for."""

ROLE_VARIABLE = "BENCHMARKS_ROLE"
"""Tells a child without NoneBot the same: a role of ``lycomm_light``, and its argument."""

START_SECONDS = 3.0
"""That a host waits for each bot of many, beside ``DEADLINE``: on a busy machine they start one after another."""


@dataclass(frozen=True)
class Stage:
    """A host whose bots are ready, as the thread sees it that measures."""

    job: Job
    host: Host
    loop: asyncio.AbstractEventLoop
    started_in: float
    """Seconds from the start of the host until all bots were ready."""

    @property
    def payload(self) -> Any:
        return PAYLOADS.get(self.job.subject, PAYLOADS["S"])

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have it done on the host's loop, and wait; as long as a turn may take, which the runner watches."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def ask(self, question: Any) -> Any:
        """What the bot's plugin answers to it."""
        return self.on_loop(_channel("bench-passive").request(question, timeout=None))

    def ask_thread(self, question: Any) -> Any:
        """The same of a bot that reads in a thread."""
        channel = _channel("bench-active")
        channel.send(question)
        return channel.receive(DEADLINE)


class Lycomm(Peer):
    name = "lycomm"

    def does(self, measure: Measure) -> bool:
        return True

    def measure(self, job: Job) -> Result:
        if job.workload in WORK:
            return with_host(job, ["bench"], WORK[job.workload])
        from benchmarks.peers import lycomm_growth, lycomm_whole

        return lycomm_growth.measure(job) if job.workload == "growth" else lycomm_whole.measure(job)


def bot_project(folder: Path) -> Path:
    """A NoneBot project whose only plugin is ours."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[tool.nonebot]\nadapters = []\nplugins = ["benchmarks.peers.lycomm_bot"]\nplugin_dirs = []\n'
    )
    (folder / ".env").write_text("DRIVER=~none\nLOG_LEVEL=WARNING\n")
    return folder


def light_project(folder: Path) -> Path:
    """A project that gets as far as importing NoneBot, and finds ``lycomm_light`` in its place."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.nonebot]\nadapters = []\nplugins = []\n")
    (folder / "nonebot.py").write_text("from benchmarks.peers.lycomm_light import run\n\nrun()\n")
    return folder


def with_host(
    job: Job,
    names: Sequence[str],
    work: Callable[[Stage], Result],
    *,
    project: Callable[[Path], Path] = bot_project,
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> Result:
    """Run a host with these bots, and *work* in an ordinary thread of it when all are ready.

    Args:
        project: makes each bot's.
        environment: for the bots, beside the job.
    """
    from liteyuki_host import Host

    with tempfile.TemporaryDirectory(prefix="lycomm-benchmarks-") as folder:
        env = {JOB_VARIABLE: job.to_json(), **(environment or {})}
        declared = {name: {"project": str(project(Path(folder, name))), "env": env} for name in names}
        host = Host(folder, processes=declared, log_level="WARNING", **settings)
        results: list[Result] = []
        trouble: list[Exception] = []

        @host.on_after_start
        async def begin() -> None:
            patience = DEADLINE + START_SECONDS * len(names)
            try:
                await asyncio.gather(*(host.wait_ready(name, patience) for name in names))
                stage = Stage(job, host, asyncio.get_running_loop(), time.perf_counter() - began)
                results.append(await asyncio.to_thread(work, stage))
            except Exception as error:
                trouble.append(error)
            finally:
                host.stop()

        began = time.perf_counter()
        host.run()
        if trouble:
            raise trouble[0]
        return results[0]


def with_light_host(
    job: Job, names: Sequence[str], role: str, work: Callable[[Stage], Result], **settings: Any
) -> Result:
    """The same with children without NoneBot, which have that *role* and no handlers that could be drained."""
    environment = {ROLE_VARIABLE: role}
    return with_host(job, names, work, project=light_project, environment=environment, drain_timeout=0, **settings)


def _channel(name: str) -> Any:
    from liteyuki_host.comm import get_channel

    return get_channel(name)


# One way. The receiver is a coroutine callback; it is told the number first, and the clock runs until it has them all.


def _one_way(stage: Stage) -> Result:
    channel, payload = _channel("bench-passive"), stage.payload

    def work(count: int) -> float:
        send = channel.send
        began = time.perf_counter()
        send(count)
        for _ in range(count):
            send(payload)
        channel.receive(DEADLINE)
        return time.perf_counter() - began

    return {"value": rate(work, stage.job.seconds)}


def _one_way_from_a_coroutine(stage: Stage) -> Result:
    channel, payload = _channel("bench-passive"), stage.payload

    async def burst(count: int) -> None:
        asend = channel.asend
        await asend(count)
        for _ in range(count):
            await asend(payload)

    def work(count: int) -> float:
        began = time.perf_counter()
        stage.on_loop(burst(count))
        channel.receive(DEADLINE)
        return time.perf_counter() - began

    return {"value": rate(work, stage.job.seconds)}


def _one_way_back(stage: Stage) -> Result:
    channel = _channel("bench-active")
    complete = threading.Event()
    left = 0

    async def take(value: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            complete.set()

    channel.on_receive()(take)

    def work(count: int) -> float:
        nonlocal left
        left = count
        complete.clear()
        began = time.perf_counter()
        channel.send(count)
        if not complete.wait(DEADLINE):
            raise TimeoutError(f"{left} of {count} messages have not come")
        return time.perf_counter() - began

    return {"value": rate(work, stage.job.seconds)}


# Round trips.


def _trips(stage: Stage, channel: str) -> Result:
    end, payload = _channel(channel), stage.payload
    send, receive = end.send, end.receive

    def trip() -> None:
        send(payload)
        receive()

    return trips(trip, stage.job.seconds)


def _trips_under_load(stage: Stage) -> Result:
    """Another thread of the host sends 64 KiB messages as fast as they are taken. The control round trip is the one
    that every bot can make: it asks the host for the state of the processes, which travels as control messages."""
    flooding, flood = threading.Event(), _channel("flood")
    flooding.set()

    def send_large() -> None:
        large = PAYLOADS["L"]
        while flooding.is_set():
            flood.send(large)

    flooder = threading.Thread(target=send_large, daemon=True)
    flooder.start()
    try:
        if stage.job.subject == "control":
            answer: Result = stage.ask("control")
            return answer
        return _trips(stage, "bench-active")
    finally:
        flooding.clear()
        flooder.join(DEADLINE)


# Shared memory.


def _shared_memory(stage: Stage) -> Result:
    if stage.job.subject == "change":
        return _changes(stage)
    answer: Result = stage.ask(stage.job.subject)
    return answer


def _changes(stage: Stage) -> Result:
    """One way, from before the set in this process to inside the callback in the other: their clock is the same."""
    from liteyuki_host.comm import shared_memory

    channel = _channel("bench-passive")
    latencies: list[float] = []

    def trip() -> None:
        shared_memory.set("tick", time.perf_counter())
        latencies.append(channel.receive(DEADLINE))

    return trips(trip, stage.job.seconds, latencies)


WORK: dict[str, Callable[[Stage], Result]] = {
    "W1": _one_way,
    "W1r": _one_way_back,
    "W1a": _one_way_from_a_coroutine,
    "W1ar": _one_way_back,
    "W2": partial(_trips, channel="bench-active"),
    "W2b": partial(_trips, channel="bench-passive"),
    "W2load": _trips_under_load,
    "W3": _shared_memory,
}
