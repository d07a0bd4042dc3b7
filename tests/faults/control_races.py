"""Every operation on a process while every other one is under way: nothing hangs, and the last word comes true."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faults_kit import Report
from kit import eventually
from live_kit import LiveHost, Traces, live_host
from supervisor_kit import Events, FakeHub, FakeSession, child, plan

from liteyuki_host.comm.errors import LycommError
from liteyuki_host.supervisor.life import ProcessStatus
from liteyuki_host.supervisor.spec import Restart
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.supervisor import Supervisor

TITLE = "operations that race"
SHORT = {"pairs": 48, "lanes": 6, "host_pairs": 3, "seed": 16}
LONG = {"pairs": 5000, "lanes": 6, "host_pairs": 100, "seed": 16}

WEDGED = 10.0
"""Seconds after which a start or a stop is said to hang."""

LONGEST_GAP = 0.12
"""Seconds between two racing operations at most; such a child is ready in half of it."""


@dataclass
class Wrongs:
    """What was not as it should be, each with the race that showed it."""

    wedged: list[str] = field(default_factory=list)
    last_word: list[str] = field(default_factory=list)
    not_once: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def run(report: Report, folder: Path, *, pairs: int, lanes: int, host_pairs: int, seed: int) -> None:
    traces, wrongs = Traces(folder), Wrongs()
    await _race_in_supervisor(report, traces, wrongs, pairs, lanes, seed)
    await _race_in_host(folder, traces, wrongs, host_pairs, seed)
    what = f"{pairs:,} pairs of operations, {host_pairs:,} of them in a real host" if host_pairs else f"{pairs:,} pairs"
    report.none(f"{what}: start or stop not done in {WEDGED:g} s", wrongs.wedged)
    report.none("the last word did not come true", wrongs.last_word)
    report.none("done twice was not as done once", wrongs.not_once)
    report.none("errors that are not of this project's own", wrongs.errors)
    await traces.report(report)


# With a real supervisor and children that start in no time.


class _Hub(FakeHub):
    """Remembers only who is connected now."""

    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, FakeSession] = {}

    def connect(self, process: str, *rest: Any, **options: Any) -> FakeSession:
        self.now[process] = super().connect(process, *rest, **options)
        self.sessions.clear()
        return self.now[process]


@dataclass
class Lane:
    """One process, and its races one after another."""

    name: str
    restart: Restart
    supervisor: Supervisor
    hub: _Hub
    wrongs: Wrongs
    dice: random.Random

    @property
    def status(self) -> ProcessStatus:
        return next(status for status in self.supervisor.status() if status.name == self.name)

    async def operate(self, operation: str) -> None:
        """Returns when it is done, or has failed as it may."""
        with contextlib.suppress(LycommError):
            if operation in ("start", "stop", "restart"):
                getattr(self.supervisor, operation)(self.name)
            elif operation in ("astart", "astop", "arestart"):
                await getattr(self.supervisor, operation)(self.name)
            elif operation == "wait_ready":
                await self.supervisor.wait_ready(self.name, 0.05)
            elif operation == "reload":
                self.supervisor.reload(self.name)
                await self.reloaded()
            elif operation == "cancelled":
                await self._cancelled()
            else:
                await self._end(operation)

    async def _cancelled(self) -> None:
        waiting = asyncio.ensure_future(self.supervisor.arestart(self.name))
        await asyncio.wait({waiting}, timeout=self.dice.uniform(0, LONGEST_GAP))
        waiting.cancel()
        await asyncio.wait({waiting})

    async def _end(self, how: str) -> None:
        """The child ends unasked."""
        pid = self.status.pid
        if pid is None:
            return
        if how == "killed":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        else:
            self.hub.now[self.name].tell(exit=int(how.rpartition(" ")[2]))
        await eventually(lambda: self.status.pid != pid, WEDGED)

    async def reloaded(self) -> None:
        # Nobody is told when a reload is over; that it is, is not for operators to wait for.
        under_way = self.supervisor._reloaders[self.name]._one_at_a_time
        await asyncio.sleep(0)  # it begins
        await eventually(lambda: not under_way.locked(), WEDGED)

    async def settled(self) -> None:
        """Ready, or with no child; with nothing on the way."""
        await self.reloaded()
        keeper = self.supervisor._keepers[self.name]
        resting = (State.STOPPED, State.DECLARED, State.FAILED)

        def at_rest() -> bool:
            gone = self.status.state in resting and self.status.pid is None and not keeper.is_wanted
            return gone or keeper.is_ready  # which says no while something asked for has not been acted upon

        await eventually(at_rest, WEDGED)


STARTS = ("start", "restart", "astart", "arestart", "cancelled")
STOPS = ("stop", "astop")
ENDS = ("killed", "exits 0", "exits 1")
OPERATIONS = (*STARTS, *STOPS, *ENDS, "wait_ready", "reload")
BEFORE = ("ready", "stopped", "starting")
RESTARTS = (Restart.ON_FAILURE, Restart.ALWAYS)
TWICE = ("start", "restart", "stop", "reload")


async def _race_in_supervisor(
    report: Report, traces: Traces, wrongs: Wrongs, pairs: int, count: int, seed: int
) -> None:
    dice, hub = random.Random(seed), _Hub()
    every = list(itertools.product(OPERATIONS, OPERATIONS))
    races = [race for _ in range(pairs // len(every) + 1) for race in dice.sample(every, len(every))][:pairs]
    specs = {}
    for number in range(count):
        name = f"lane{number}"
        options: dict[str, Any] = {"restart": RESTARTS[number % 2], "max_restarts": 1000}
        options |= {"backoff_base": 0.01, "backoff_max": 0.05, "autostart": False}
        specs[name] = child(name, env=traces.environment(name), **options)
    supervisor = Supervisor(hub, specs, events=Events(), inspect=plan)
    serving = asyncio.ensure_future(supervisor.serve())
    lanes = [
        Lane(name, RESTARTS[number % 2], supervisor, hub, wrongs, random.Random(seed + number))
        for number, name in enumerate(specs)
    ]
    try:
        await asyncio.gather(*(_lane(lane, [races.pop()]) for lane in lanes))  # threads of pools come to stay
        before = await _belongings()
        await asyncio.gather(*(_lane(lane, races) for lane in lanes))
        after = await _belongings(at_most=before)
    finally:
        supervisor.kill_now()
        await supervisor.stop_all()
        await serving
    for what, had in before.items():
        report.hold(f"{what} after all races", after[what], f"at most {had}, as before", after[what] <= had)


async def _lane(lane: Lane, races: list[tuple[str, str]]) -> None:
    while races:
        first, second = races.pop()
        before, gap = lane.dice.choice(BEFORE), lane.dice.choice((0.0, lane.dice.uniform(0, LONGEST_GAP)))
        race = f"{first}, {gap * 1000:.0f} ms later {second}, when {before} ({lane.name})"
        try:
            await _one_race(lane, first, second, before, gap, race)
        except (asyncio.TimeoutError, AssertionError) as exc:
            told = [f"{step.state} ({step.cause})" for step in lane.supervisor.history(lane.name)[-8:]]
            lane.wrongs.wedged.append(f"{race}: {exc!r}: {lane.status}: {told}")
        except Exception as exc:
            lane.wrongs.errors.append(f"{race}: {exc!r}")


async def _one_race(lane: Lane, first: str, second: str, before: str, gap: float, race: str) -> None:
    supervisor, name = lane.supervisor, lane.name
    if before == "ready":
        await asyncio.wait_for(supervisor.astart(name), WEDGED)
    elif before == "starting":
        supervisor.start(name)
    racing = [asyncio.ensure_future(lane.operate(first))]
    await asyncio.sleep(gap)  # of 0, too: the first one has begun
    racing.append(asyncio.ensure_future(lane.operate(second)))
    await asyncio.wait_for(asyncio.gather(*racing), WEDGED)
    await lane.settled()
    expected = _last_word(before, first, second)
    if "exits 0" in (first, second) and lane.restart is Restart.ON_FAILURE:
        expected = None  # it meant to end, before or after it was asked to start
    if expected is not None and (lane.status.state is State.READY) is not expected:
        lane.wrongs.last_word.append(f"{race}: is {lane.status.state}")
    await asyncio.wait_for(supervisor.astart(name), WEDGED)
    await supervisor.wait_ready(name, WEDGED)
    await _twice(lane, race)
    pid = lane.status.pid
    await asyncio.wait_for(supervisor.astop(name), WEDGED)
    if pid is not None and psutil.pid_exists(pid):
        lane.wrongs.wedged.append(f"{race}: stopped, and pid {pid} is there")


def _last_word(before: str, *operations: str) -> bool | None:
    """Whether it is to run."""
    runs = before != "stopped"
    for operation in operations:
        runs = operation in STARTS or (runs and operation not in STOPS)
    return runs


async def _twice(lane: Lane, race: str) -> None:
    """Asked for twice at once, it is done once."""
    operation = lane.dice.choice(TWICE)
    had = lane.status
    getattr(lane.supervisor, operation)(lane.name)
    getattr(lane.supervisor, operation)(lane.name)
    if operation == "stop":
        await asyncio.wait_for(lane.supervisor.astop(lane.name), WEDGED)
        await asyncio.wait_for(lane.supervisor.astart(lane.name), WEDGED)
    elif operation == "restart":
        await eventually(lambda: lane.status.restarts > had.restarts, WEDGED)
    await lane.settled()
    await lane.supervisor.wait_ready(lane.name, WEDGED)
    starts = lane.status.restarts - had.restarts
    if starts != (operation != "start"):
        lane.wrongs.not_once.append(f"{operation} twice after {race}: {starts} starts")


async def _belongings(at_most: dict[str, int] | None = None) -> dict[str, int]:
    """Counted while every process is stopped, and once what is ending has ended."""

    def count() -> dict[str, int]:
        return {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "descriptors": psutil.Process().num_fds(),
        }

    if at_most is None:
        await asyncio.sleep(0.5)  # threads that have told their last are just ending
    else:
        with contextlib.suppress(AssertionError):
            await eventually(lambda: all(count()[what] <= had for what, had in at_most.items()), 3)
    return count()


# With a real host and bots, some of which ask themselves.

Operation = Callable[[], Awaitable[Any]]


async def _race_in_host(folder: Path, traces: Traces, wrongs: Wrongs, pairs: int, seed: int) -> None:
    dice = random.Random(seed)
    quick = {"backoff_base": 0.05, "max_restarts": 1000, "restart": "always"}
    async with live_host(folder, traces, {"bot": quick, "other": quick}) as lab:
        await lab.ready("bot", "other")
        races = list(itertools.permutations(_operations_of_host(lab), 2))
        for number in range(pairs):
            (first, begin), (second, follow) = dice.choice(races)
            gap = dice.choice((0.0, dice.uniform(0, 0.5)))
            race = f"{first}, {gap * 1000:.0f} ms later {second}"
            try:
                await _one_race_in_host(lab, begin, follow, gap, also_stop=number % 3 == 0)
            except (asyncio.TimeoutError, AssertionError, LycommError) as exc:
                wrongs.wedged.append(f"{race}: {exc!r}: {lab.host.status()}")


def _operations_of_host(lab: LiveHost) -> list[tuple[str, Operation]]:
    def asked(process: str, verb: str) -> tuple[str, Operation]:
        return f"{process} asks {verb}", lambda: lab.damage(process, "control", verb=verb, target="bot", timeout=2)

    async def kill() -> None:
        if (pid := lab.status("bot")["pid"]) is not None:
            os.kill(pid, signal.SIGKILL)

    return [
        *(asked(process, verb) for process in ("bot", "other") for verb in ("restart", "stop", "start", "reload")),
        ("killed", kill),
        ("arestart", lambda: lab.host.arestart_process("bot")),
        ("astop", lambda: lab.host.astop_process("bot")),
        ("astart", lambda: lab.host.astart_process("bot")),
    ]


async def _one_race_in_host(lab: LiveHost, begin: Operation, follow: Operation, gap: float, also_stop: bool) -> None:
    async def quietly(operation: Operation) -> None:
        with contextlib.suppress(LycommError):  # who asks may be gone before the answer
            await operation()

    first = asyncio.ensure_future(quietly(begin))
    await asyncio.sleep(gap)
    await asyncio.wait_for(asyncio.gather(first, quietly(follow)), 2 * WEDGED)
    # What the bot was told to ask while it was gone, the next one asks: that has to be over.
    await asyncio.wait_for(quietly(lambda: lab.host.astart_process("bot")), WEDGED)
    await quietly(lambda: lab.ask("bot", "echo", value=1, timeout=WEDGED))
    await asyncio.wait_for(lab.host.astart_process("bot"), WEDGED)
    await lab.ready("bot", "other", timeout=WEDGED)
    if also_stop:
        pid = lab.pid("bot")
        await asyncio.wait_for(lab.host.astop_process("bot"), WEDGED)
        assert not psutil.pid_exists(pid), f"stopped, and pid {pid} is there"
        await asyncio.wait_for(lab.host.astart_process("bot"), WEDGED)
