from __future__ import annotations

import asyncio
import sys

import pytest
from supervisor_kit import LogLines, child

from liteyuki_host.supervisor.ladder import climb, rungs_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the rungs of POSIX")


class Stubborn:
    """A child that ends on one kind of asking only."""

    def __init__(self, ends_on: str) -> None:
        self.ends_on = ends_on
        self.asked: list[str] = []
        self.gone = asyncio.Event()

    def ask(self) -> None:
        self._hear("the stop message")

    def interrupt(self) -> None:
        self._hear("SIGINT")

    def terminate(self) -> None:
        self._hear("SIGTERM")

    def kill(self) -> None:
        self._hear("a kill")

    def _hear(self, what: str) -> None:
        self.asked.append(what)
        if what == self.ends_on:
            self.gone.set()


LADDER = ["the stop message", "SIGINT", "SIGTERM", "a kill"]
QUICK = child(stop_timeout=0.01, interrupt_timeout=0.01, terminate_timeout=0.01)


async def stop(stubborn: Stubborn, *, reachable: bool = True, hurry: asyncio.Event | None = None) -> str | None:
    rungs = rungs_for(QUICK, stubborn, stubborn.ask if reachable else None)
    return await climb("bot", rungs, stubborn, gone=stubborn.gone, hurry=hurry or asyncio.Event())


@pytest.mark.parametrize("ends_on", LADDER)
async def test_each_rung_is_tried_once_and_the_one_that_worked_is_named(ends_on: str, log_lines: LogLines) -> None:
    stubborn = Stubborn(ends_on)
    assert await stop(stubborn) == ends_on
    assert stubborn.asked == LADDER[: LADDER.index(ends_on) + 1]
    assert log_lines.count("still there") == LADDER.index(ends_on)


async def test_a_child_that_cannot_be_reached_starts_at_sigint() -> None:
    stubborn = Stubborn("SIGTERM")
    assert await stop(stubborn, reachable=False) == "SIGTERM"
    assert stubborn.asked == ["SIGINT", "SIGTERM"]


async def test_a_child_that_has_not_come_up_starts_at_sigterm() -> None:
    stubborn = Stubborn("a kill")
    rungs = rungs_for(QUICK, stubborn, None, greeted=False)
    assert await climb("bot", rungs, stubborn, gone=stubborn.gone, hurry=asyncio.Event()) == "a kill"
    assert stubborn.asked == ["SIGTERM", "a kill"]


async def test_a_child_that_is_gone_already_is_not_asked() -> None:
    stubborn = Stubborn("nothing")
    stubborn.gone.set()
    assert await stop(stubborn) is None
    assert stubborn.asked == []


async def test_hurry_in_the_middle_of_a_rung_goes_straight_to_the_kill() -> None:
    stubborn = Stubborn("a kill")
    hurry = asyncio.Event()
    patient = child(stop_timeout=3600.0)
    rungs = rungs_for(patient, stubborn, stubborn.ask)
    climbing = asyncio.create_task(climb("bot", rungs, stubborn, gone=stubborn.gone, hurry=hurry))
    while not stubborn.asked:
        await asyncio.sleep(0)
    hurry.set()
    assert await asyncio.wait_for(climbing, 5) == "a kill"
    assert stubborn.asked == ["the stop message", "a kill"]
