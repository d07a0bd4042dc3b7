"""What becomes of a process, by the phase that its keeper is in and by what is asked then: with real children."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from supervisor_kit import DEADLINE, FAKE_PROJECT, Events, FakeHub, child

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.keeper import Keeper
from liteyuki_host.supervisor.life import Context
from liteyuki_host.supervisor.lock import HostLocks
from liteyuki_host.supervisor.process_output import Output
from liteyuki_host.supervisor.spawning import Spawner
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State, Transition
from liteyuki_host.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake child speaks over an inherited descriptor")


class Watched(Events):
    """Follows the states of a process, and holds its keeper where a test wants to ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.spawning, self.ending = asyncio.Event(), asyncio.Event()
        """Set while the keeper is held there."""
        self.refuse_spawns = 0
        """So many starts find the system out of descriptors."""
        self.broken = False
        """No start can succeed: the project's folder is not what it should be."""
        self._loop = asyncio.get_running_loop()
        self._may_spawn, self._may_end = threading.Event(), asyncio.Event()
        self._may_spawn.set()
        self._may_end.set()
        self._stepped = asyncio.Event()

    def hold_spawns(self) -> None:
        self._may_spawn.clear()

    def hold_ends(self) -> None:
        self._may_end.clear()

    def go_on(self) -> None:
        self._may_spawn.set()
        self._may_end.set()

    def inspect(self, spec: ProcessSpec) -> ProjectPlan:
        """Called in a thread, at the beginning of each start."""
        if not self._may_spawn.is_set():
            self._loop.call_soon_threadsafe(self.spawning.set)
        assert self._may_spawn.wait(DEADLINE)
        if self.broken:
            raise ProcessFailed("no bot in this folder")
        if self.refuse_spawns:
            self.refuse_spawns -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return ProjectPlan(FAKE_PROJECT, Path(sys.executable), "toml", None)

    async def before_process_shutdown(self, context: Context) -> None:
        self.ending.set()
        await self._may_end.wait()

    def stepped(self, step: Transition) -> None:
        super().stepped(step)
        self._stepped.set()

    @property
    def states(self) -> list[State]:
        return [step.state for step in self.steps]

    async def entered(self, state: State, count: int = 1) -> None:
        async def wait() -> None:
            while self.states.count(state) < count:
                self._stepped.clear()
                await self._stepped.wait()

        await asyncio.wait_for(wait(), DEADLINE)


@asynccontextmanager
async def kept(spec: ProcessSpec) -> AsyncIterator[tuple[Supervisor, Watched]]:
    watched = Watched()
    supervisor = Supervisor(FakeHub(), {"bot": spec}, events=watched, inspect=watched.inspect)
    serving = asyncio.create_task(supervisor.serve())
    await asyncio.sleep(0)
    try:
        yield supervisor, watched
    finally:
        watched.go_on()
        supervisor.kill_now()
        await asyncio.wait_for(supervisor.stop_all(), DEADLINE)
        await asyncio.wait_for(serving, DEADLINE)


# How the keeper comes to each phase.

Hold = Callable[[], contextlib.AbstractAsyncContextManager[tuple[Supervisor, Watched]]]


@asynccontextmanager
async def resting() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child(autostart=False)) as (supervisor, watched):
        yield supervisor, watched


@asynccontextmanager
async def spawning() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child(autostart=False)) as (supervisor, watched):
        watched.hold_spawns()
        supervisor.start("bot")
        await asyncio.wait_for(watched.spawning.wait(), DEADLINE)
        yield supervisor, watched


@asynccontextmanager
async def watching() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child()) as (supervisor, watched):
        await supervisor.wait_ready("bot", DEADLINE)
        yield supervisor, watched


@asynccontextmanager
async def ending() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child()) as (supervisor, watched):
        await supervisor.wait_ready("bot", DEADLINE)
        watched.hold_ends()
        supervisor.stop("bot")
        await asyncio.wait_for(watched.ending.wait(), DEADLINE)
        yield supervisor, watched


@asynccontextmanager
async def backing_off() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child(behaviour="exit-at-once", backoff_base=3600.0, backoff_max=3600.0)) as (supervisor, watched):
        await watched.entered(State.BACKING_OFF)
        yield supervisor, watched


HANGS: dict[str, Any] = {"behaviour": "hook-hangs", "ready_timeout": 0.2, "stop_timeout": 0.1, "max_restarts": 0}
"""A child that is never ready; the policy gives it up when it has been ended."""


@asynccontextmanager
async def ending_unhealthy() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child(**HANGS)) as (supervisor, watched):
        await watched.entered(State.STOPPING)
        yield supervisor, watched


@asynccontextmanager
async def given_up() -> AsyncIterator[tuple[Supervisor, Watched]]:
    async with kept(child(**HANGS)) as (supervisor, watched):
        await watched.entered(State.FAILED)
        yield supervisor, watched


ASKS: dict[str, Callable[[Supervisor], None]] = {
    "start": lambda supervisor: supervisor.start("bot"),
    "stop": lambda supervisor: supervisor.stop("bot"),
    "restart": lambda supervisor: supervisor.restart("bot"),
}

CALLED_OFF = [State.STARTING, State.STOPPED]
ONE_START = [State.STARTING, State.HOOKS_DONE, State.READY]
ENDED = [*ONE_START, State.STOPPING]

CASES: dict[tuple[Hold, str], list[State]] = {
    (resting, "start"): ONE_START,
    (resting, "stop"): [],
    (resting, "restart"): ONE_START,
    (spawning, "start"): ONE_START,
    (spawning, "stop"): CALLED_OFF,
    (spawning, "restart"): [State.STARTING, State.STOPPING, *ONE_START],
    (watching, "start"): ONE_START,
    (watching, "stop"): [*ENDED, State.STOPPED],
    (watching, "restart"): [*ENDED, *ONE_START],
    (ending, "start"): [*ENDED, *ONE_START],
    (ending, "stop"): [*ENDED, State.STOPPED],
    (ending, "restart"): [*ENDED, *ONE_START],
    (ending_unhealthy, "start"): [State.STARTING, State.STOPPING, State.STARTING],
    (ending_unhealthy, "stop"): [State.STARTING, State.STOPPING, State.STOPPED],
    (ending_unhealthy, "restart"): [State.STARTING, State.STOPPING, State.STARTING],
    (given_up, "start"): [State.STARTING, State.STOPPING, State.FAILED, State.STARTING],
    (given_up, "stop"): [State.STARTING, State.STOPPING, State.FAILED],
    (given_up, "restart"): [State.STARTING, State.STOPPING, State.FAILED, State.STARTING],
    (backing_off, "start"): [State.STARTING, State.BACKING_OFF, State.STARTING, State.BACKING_OFF],
    (backing_off, "stop"): [State.STARTING, State.BACKING_OFF, State.STOPPED],
    (backing_off, "restart"): [State.STARTING, State.BACKING_OFF, State.STARTING, State.BACKING_OFF],
}
"""The states that follow one another, by the phase and by what is asked in it."""


@pytest.mark.parametrize(("phase", "ask"), list(CASES), ids=lambda part: getattr(part, "__name__", part))
async def test_the_states_follow_from_phase_and_wish(phase: Hold, ask: str) -> None:
    expected = CASES[phase, ask]
    async with phase() as (supervisor, watched):
        ASKS[ask](supervisor)
        await asyncio.sleep(0)
        watched.go_on()
        if expected:
            await watched.entered(expected[-1], expected.count(expected[-1]))
        assert watched.states == expected


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        (("restart", "start"), [*ENDED, *ONE_START]),
        (("restart", "restart"), [*ENDED, *ONE_START]),
        (("restart", "stop"), [*ENDED, State.STOPPED]),
        (("start", "restart"), [*ENDED, *ONE_START]),
        (("start", "stop"), [*ENDED, State.STOPPED]),
        (("stop", "restart"), [*ENDED, *ONE_START]),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
async def test_two_wishes_in_a_row_become_one(asks: tuple[str, str], expected: list[State]) -> None:
    """Both are asked before the keeper looks."""
    async with watching() as (supervisor, watched):
        for ask in asks:
            ASKS[ask](supervisor)
        await watched.entered(expected[-1], expected.count(expected[-1]))
        assert watched.states == expected


async def test_a_start_asked_before_the_trouble_is_forgotten() -> None:
    """It meant the child that was there then, which has become unhealthy: the policy decides what follows."""
    async with kept(child(**HANGS)) as (supervisor, watched):
        await watched.entered(State.STARTING)
        supervisor.start("bot")
        await watched.entered(State.FAILED)
        assert watched.states == [State.STARTING, State.STOPPING, State.FAILED]


async def test_a_refused_restart_is_not_asked_again() -> None:
    """The child that works stays, and when it crashes later, that is a crash."""
    async with kept(child(backoff_base=3600.0, backoff_max=3600.0)) as (supervisor, watched):
        await supervisor.wait_ready("bot", DEADLINE)
        watched.broken = True
        with pytest.raises(ProcessFailed, match="no bot in this folder"):
            await asyncio.wait_for(supervisor.arestart("bot"), DEADLINE)
        watched.broken = False
        pid = supervisor.status()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await watched.entered(State.BACKING_OFF)
        assert watched.states == [*ONE_START, State.BACKING_OFF]


@pytest.mark.parametrize("phase", [resting, spawning, watching, ending, backing_off], ids=lambda phase: phase.__name__)
async def test_who_waits_for_a_stop_is_told(
    phase: Hold,
) -> None:
    async with phase() as (supervisor, watched):
        stopped = asyncio.ensure_future(supervisor.astop("bot"))
        await asyncio.sleep(0)
        watched.go_on()
        await asyncio.wait_for(stopped, DEADLINE)
        assert supervisor.status()[0].pid is None


async def test_a_start_overtakes_a_stop_that_is_waited_for() -> None:
    async with watching() as (supervisor, watched):
        stopped = asyncio.ensure_future(supervisor.astop("bot"))
        await asyncio.sleep(0)  # it has been asked for, and the keeper has not looked yet
        supervisor.start("bot")
        with pytest.raises(ProcessFailed, match="bot was asked to start again"):
            await asyncio.wait_for(stopped, DEADLINE)
        assert watched.states == ONE_START


# What was asked counts for one start only, and before any delay.


async def test_a_start_that_fails_is_backed_off() -> None:
    """Also when somebody has asked for that start: the request was for this try and not for the next one."""
    async with kept(child(autostart=False, backoff_base=0.05)) as (supervisor, watched):
        watched.refuse_spawns = 1
        supervisor.start("bot")
        await watched.entered(State.READY)
        assert watched.states == [State.STARTING, State.BACKING_OFF, *ONE_START]
        first, backed_off, again = watched.steps[:3]
        assert again.at - backed_off.at >= 0.2, "the least delay after a shortage is 0.25 s, less 20 %"
        assert first.cause == "asked"


@asynccontextmanager
async def alone(spec: ProcessSpec) -> AsyncIterator[tuple[Keeper, Watched]]:
    """A keeper without a supervisor."""
    watched = Watched()
    spawner = Spawner(
        spec,
        FakeHub(),
        Output(spec.name, show=()),
        inspect=watched.inspect,
        host_python=Path(sys.executable),
        locks=HostLocks(),
    )
    keeper = Keeper(spec, spawner, events=watched, on_unasked_end=lambda name, cause: None, on_rest=lambda: None)
    running = asyncio.create_task(keeper.run())
    try:
        yield keeper, watched
    finally:
        keeper.close()
        keeper.kill()
        await asyncio.wait_for(running, DEADLINE)


@pytest.mark.parametrize("ask", ["restart", "stop"])
async def test_nothing_is_backed_off_once_somebody_has_asked(ask: str) -> None:
    """The child has crashed and the policy has decided; before the back-off, the keeper waits for a candidate to end,
    and somebody asks for something meanwhile."""
    async with alone(child(backoff_base=3600.0, backoff_max=3600.0)) as (keeper, watched):
        keeper.start()
        await asyncio.wait_for(keeper.ready(), DEADLINE)
        pid, of_no_use = keeper.status().pid, asyncio.Event()
        assert pid is not None
        with keeper.candidate(of_no_use):
            os.kill(pid, signal.SIGKILL)
            await asyncio.wait_for(of_no_use.wait(), DEADLINE)
            getattr(keeper, ask)()
        await watched.entered(*((State.READY, 2) if ask == "restart" else (State.STOPPED, 1)))
        assert watched.states == [*ONE_START, *(ONE_START if ask == "restart" else [State.STOPPED])]
