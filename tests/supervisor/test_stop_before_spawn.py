"""A stop that arrives while a start is prepared, before there is a child."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from supervisor_kit import DEADLINE, FAKE_PROJECT, Events, FakeHub, LogLines, child

from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake child speaks over an inherited descriptor")


class Preparation:
    """Holds the start of a child where its folder is looked at, which happens in a thread."""

    def __init__(self) -> None:
        self.begun, self._may_end = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()

    def inspect(self, spec: ProcessSpec) -> ProjectPlan:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._may_end.wait(DEADLINE)
        return ProjectPlan(FAKE_PROJECT, Path(sys.executable), "toml", None)

    def end(self) -> None:
        self._may_end.set()


STOPS: dict[str, Callable[[Supervisor], object]] = {
    "the process": lambda supervisor: supervisor.stop("bot"),
    "the host": lambda supervisor: asyncio.ensure_future(supervisor.stop_all()),
    "at once": lambda supervisor: supervisor.kill_now(),
}


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
async def test_no_child_is_spawned(log_lines: LogLines, stop: Callable[[Supervisor], object]) -> None:
    hub, preparation = FakeHub(), Preparation()
    supervisor = Supervisor(hub, {"bot": child()}, events=Events(), inspect=preparation.inspect)
    serving = asyncio.create_task(supervisor.serve())
    await asyncio.wait_for(preparation.begun.wait(), DEADLINE)
    stopping = stop(supervisor)
    await asyncio.sleep(0)
    preparation.end()
    await asyncio.wait_for(supervisor.stop_all(), DEADLINE)
    await asyncio.wait_for(serving, DEADLINE)
    if isinstance(stopping, asyncio.Future):
        await stopping
    assert hub.sessions == []
    assert log_lines.count("child bot started") == 0
    assert log_lines.count("cannot start|could not be started|ERROR") == 0
    assert supervisor.history("bot")[-1].state is State.STOPPED


async def test_a_start_that_overtakes_the_stop_names_its_own_reason(log_lines: LogLines) -> None:
    hub, preparation = FakeHub(), Preparation()
    supervisor = Supervisor(hub, {"bot": child()}, events=Events(), inspect=preparation.inspect)
    serving = asyncio.create_task(supervisor.serve())
    await asyncio.wait_for(preparation.begun.wait(), DEADLINE)
    supervisor.stop("bot")
    supervisor.start("bot")
    preparation.end()
    await supervisor.wait_ready("bot", DEADLINE)
    await log_lines.line(r"^child bot started \(pid \d+\): with the host$")
    await asyncio.wait_for(supervisor.stop_all(), DEADLINE)
    await asyncio.wait_for(serving, DEADLINE)
    assert len(hub.sessions) == 1
