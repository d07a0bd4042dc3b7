"""A lock of the shared memory whose holder is killed: the next in line has it at once, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bare_kit import BareHost, bare_child, bare_host
from faults_kit import Report
from kit import eventually
from live_kit import DEADLINE, Traces, percentile

from liteyuki_host.comm.storage import SharedMemory

TITLE = "killed lock holders"
SHORT = {"children": 5, "kills": 30}
LONG = {"children": 10, "kills": 1000}

FREED = 1.0
"""Seconds from the kill of a holder until the next in line holds the lock."""

HOST = "host"


@dataclass(frozen=True)
class Turn:
    """Somebody holds the lock."""

    who: str
    pid: int
    at: float
    """``time.monotonic()``, which all processes of a machine share."""
    fence: int
    alone: bool
    """Nobody else had the file locked that goes with it."""


async def run(
    report: Report, folder: Path, *, children: int, kills: int, seed: int = 1, patience: float = DEADLINE
) -> None:
    """Every fourth kill hits a waiter first, and every tenth time the host gets in line, too.

    Args:
        patience: seconds until a turn that does not come is an asyncio.TimeoutError.
    """
    traces = Traces(folder)
    dice = random.Random(seed)
    file = folder / "turn"
    file.touch()
    names = [f"bot{number}" for number in range(children)]
    specs = [bare_child(folder, traces, name, "take_turns", TURN=str(file)) for name in names]
    freed: list[float] = []
    killed: Counter[str] = Counter()
    async with bare_host(specs) as host:
        line = Line(host, file, patience)
        for name in names:
            line.listen(name)
        turn = await line.next_turn()
        while killed["holders"] < kills:
            waiting = await line.waiting()
            if killed["holders"] % 10 == 0:
                await line.host_waits()
            if dice.random() < 0.25:
                killed["waiters"] += host.kill(dice.choice(waiting))
            began = time.monotonic()
            if turn.who == HOST:
                line.host_is_done()
            else:
                assert host.kill(turn.who)
                killed["holders"] += 1
            following = await line.next_turn()
            if turn.who != HOST:
                freed.append(following.at - began)
            turn = following
        turns = list(line.turns)  # when all are asked to end, a lock is free a moment before its holder is gone
        await line.end()
    report.hold(f"killed (seed {seed})", dict(killed), f"{kills} holders", killed["holders"] == kills)
    report.below("until the next holds it, at most", max(freed), FREED, "s")
    report.below("until the next holds it, p50", percentile(freed, 0.5), FREED, "s")
    report.none(f"two holders at once, in {len(turns)} turns", [turn for turn in turns if not turn.alone])
    fences = [turn.fence for turn in turns]
    rises = all(one < other for one, other in itertools.pairwise(fences))
    report.hold("the fence rises with each turn", rises, "True", rises)
    hosts = sum(turn.who == HOST for turn in turns)
    report.hold("turns of the host among them", hosts, "1 or more", hosts > 0)
    await traces.report(report)


class Line:
    """Who waits for the lock and who holds it, as they say themselves. The host gets in line when asked."""

    def __init__(self, host: BareHost, file: Path, patience: float) -> None:
        self.turns: list[Turn] = []
        self._host = host
        self._patience = patience
        self._file = file
        self._memory = SharedMemory(host.hub)
        self._next: asyncio.Queue[Turn] = asyncio.Queue()
        self._waits: dict[str, int] = {}  # name to the pid that said so
        self._done = asyncio.Event()
        self._host_waits: asyncio.Task[None] | None = None

    def listen(self, name: str) -> None:
        @self._host.channel(f"told-{name}").on_receive()
        def told(message: list[object]) -> None:
            what, pid, at, fence = message
            assert isinstance(pid, int)
            assert isinstance(at, float)
            assert isinstance(fence, int)
            if what == "waits":
                self._waits[name] = pid
            else:
                self._holds(Turn(name, pid, at, fence, what == "holds"))

    def _holds(self, turn: Turn) -> None:
        self._waits.pop(turn.who, None)
        self.turns.append(turn)
        self._next.put_nowait(turn)

    async def next_turn(self) -> Turn:
        return await asyncio.wait_for(self._next.get(), self._patience)

    async def waiting(self) -> list[str]:
        """Those in line; waits until there are two, so that one can be killed."""

        def look() -> list[str] | None:
            pids = {status.name: status.pid for status in self._host.supervisor.status()}
            names = [name for name, pid in self._waits.items() if pids[name] == pid]
            return names if len(names) > 1 else None

        names: list[str] = await eventually(look, DEADLINE)
        return names

    async def host_waits(self) -> None:
        """Get in line with this process, if it is not."""
        if self._host_waits is None or self._host_waits.done():
            self._done.clear()
            self._host_waits = asyncio.create_task(self._take_turn())

    async def _take_turn(self) -> None:
        async with self._memory.lock("turn", timeout=DEADLINE) as lock:
            at = time.monotonic()
            with self._file.open("a") as file:
                alone = True
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    alone = False
                self._holds(Turn(HOST, os.getpid(), at, lock.fence, alone))
                await self._done.wait()

    def host_is_done(self) -> None:
        self._done.set()

    async def end(self) -> None:
        if self._host_waits is not None:
            self._host_waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._host_waits
