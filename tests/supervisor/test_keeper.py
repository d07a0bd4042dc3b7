"""What becomes of a process, by the phase that its keeper is in and by what is asked then: with real children."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from supervisor_kit import DEADLINE, FAKE_PROJECT, Events, FakeHub, child

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.life import Context
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
