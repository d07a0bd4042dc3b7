"""The stop ladder: ask over the link, ask by signal, ask harder, kill. Each rung has its own seconds."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from liteyuki_host.supervisor.spec import ProcessSpec

KILL_SECONDS = 10.0
"""A killed process is gone in milliseconds, unless it hangs in the kernel (a dead network disk)."""


class Stoppable(Protocol):
    """What the ladder needs of a child."""

    def interrupt(self) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True)
class Rung:
    name: str
    act: Callable[[], None]
    seconds: float


def rungs_for(
    spec: ProcessSpec, child: Stoppable, ask: Callable[[], None] | None, *, greeted: bool = True
) -> list[Rung]:
    """The rungs before the kill, in order.

    Args:
        ask: sends the stop message. None for a child that cannot be reached: nobody there would read it.
        greeted: whether the child has come up. One that has not runs no code of the bot yet, so nothing is lost by
            SIGTERM, whose default action ends it at once; to SIGINT an interpreter that is coming up answers with a
            traceback. On Windows it is killed.
    """
    if not greeted:
        return [] if sys.platform == "win32" else [Rung("SIGTERM", child.terminate, spec.terminate_timeout)]
    rungs = [] if ask is None else [Rung("the stop message", ask, spec.stop_timeout)]
    if sys.platform == "win32":
        return [*rungs, Rung("CTRL_BREAK", child.interrupt, spec.interrupt_timeout)]
    return [
        *rungs,
        Rung("SIGINT", child.interrupt, spec.interrupt_timeout),
        Rung("SIGTERM", child.terminate, spec.terminate_timeout),
    ]


async def climb(
    name: str,
    rungs: list[Rung],
    child: Stoppable,
    *,
    gone: asyncio.Event,
    hurry: asyncio.Event,
    put_off: Callable[[float], float] = lambda deadline: deadline,
    look_again: asyncio.Event | None = None,
    before_kill: Callable[[], Awaitable[None]] | None = None,
) -> str | None:
    """Try each rung for its seconds, then kill. Returns the one that worked, None when none was needed.

    Args:
        gone: set when the child has ended.
        hurry: set by an impatient operator; goes straight to the kill.
        put_off: a deadline in, the later one that the child has asked for out.
        look_again: set when ``put_off`` may have another answer, an earlier one for instance; cleared here.
        before_kill: awaited before a kill that nobody is impatient for.
    """
    started = time.monotonic()
    changes = [] if look_again is None else [look_again]
    for index, rung in enumerate(rungs):
        if gone.is_set() or hurry.is_set():
            break
        rung.act()
        deadline = time.monotonic() + rung.seconds
        while (left := put_off(deadline) - time.monotonic()) > 0 and not (gone.is_set() or hurry.is_set()):
            await first_of(gone, hurry, *changes, timeout=left)
            for change in changes:
                change.clear()
        if gone.is_set():
            return rung.name
        if not hurry.is_set():
            following = rungs[index + 1].name if index + 1 < len(rungs) else "a kill"
            waited = f"{time.monotonic() - started:.1f} s"
            logger.warning(f"child {name} is still there {waited} after the first request; next: {following}")
    if before_kill is not None and not (gone.is_set() or hurry.is_set()):
        await before_kill()
    if gone.is_set():
        return None
    child.kill()
    await first_of(gone, timeout=KILL_SECONDS)
    if not gone.is_set():
        logger.error(f"child {name} is still there {KILL_SECONDS:g} s after the kill: the system keeps it")
        await gone.wait()
    return "a kill"


async def first_of(*events: asyncio.Event, timeout: float) -> None:
    """Wait until one of the events is set, for at most ``timeout`` seconds."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
