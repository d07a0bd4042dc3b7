"""The standard library's pipe and queue, and the ancestor's channel, which is a pipe."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.measures import Job, Measure
from benchmarks.payloads import PAYLOADS
from benchmarks.peers.base import DuplexPeer, End, Readable, Result, answer, over_bare, resident, spawning


class PipeEnd(End):
    """``multiprocessing.Pipe``: pickle, one write per message."""

    def __init__(self, connection: Connection) -> None:
        self.send = connection.send
        self.receive = connection.recv
        self._readable = Readable(connection.fileno())

    async def areceive(self) -> Any:
        await self._readable.wait()
        return self.receive()


class QueueEnd(End):
    """``multiprocessing.Queue``: a pipe, a lock and a thread that writes."""

    def __init__(self, outbox: Any, inbox: Any) -> None:
        self.send = outbox.put
        self.receive = inbox.get


class ChanEnd(End):
    """magicoca's ``Chan``, one for each direction, as the ancestor had it."""

    def __init__(self, outbox: Any, inbox: Any) -> None:
        self.send = outbox.send
        self.receive = inbox.recv
        self._readable = Readable(inbox.recv_conn.fileno())

    async def areceive(self) -> Any:
        await self._readable.wait()
        return self.receive()


class Pipe(DuplexPeer):
    name = "mp.Pipe"
    has_round_trip_for_change = True

    def seats(self) -> tuple[Any, Any]:
        return spawning.Pipe()

    def end(self, seat: Any, payload: Any) -> End:
        return PipeEnd(seat)

    def does(self, measure: Measure) -> bool:
        return super().does(measure) or (measure.workload == "W4" and measure.subject == "child")

    def measure(self, job: Job) -> Result:
        if job.workload != "W4":
            return super().measure(job)
        ours, theirs = spawning.Pipe()
        command = [sys.executable, "-c", _ECHO, str(theirs.fileno())]  # a child with nothing of ours in it
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as child:
            ours.send(PAYLOADS["S"])
            answer(ours)
            memory = over_bare(resident(child.pid))
            child.kill()
        return memory


_ECHO = """
import sys
from multiprocessing.connection import Connection

pipe = Connection(int(sys.argv[1]))
while True:
    pipe.send(pipe.recv())
"""


class Queue(DuplexPeer):
    name = "mp.Queue"

    def seats(self) -> tuple[Any, Any]:
        there, back = spawning.Queue(), spawning.Queue()
        return (there, back), (back, there)

    def end(self, seat: Any, payload: Any) -> End:
        return QueueEnd(*seat)


class Magicoca(DuplexPeer):
    name = "magicoca"
    modules = ("magicoca",)

    def seats(self) -> tuple[Any, Any]:
        import magicoca

        chan: Any = magicoca.Chan
        there, back = chan(), chan()
        return (there, back), (back, there)

    def end(self, seat: Any, payload: Any) -> End:
        return ChanEnd(*seat)
