"""Where the exceptions of work go that lasts as long as the host: they are told once, and the work is tried again."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, TypeVar

from loguru import logger

from liteyuki_host.comm.shortage import describe, is_shortage, remedy
from liteyuki_host.comm.threads import DaemonThread, call_soon

__all__ = ["Boundary", "in_thread", "in_thread_or_here"]

T = TypeVar("T")

FIRST_DELAY = 0.5
"""Seconds until the first new try. Most shortages are as short as the burst that made them."""

LONGEST_DELAY = 10.0
"""Seconds between two tries, at most. A try costs next to nothing, and what it is for does not work meanwhile."""


class Boundary:
    """Tells of the failures of one piece of work, each kind once, and says how long to wait before the next try.

    For one thread at a time. It keeps no exception, and so nothing that one's traceback names. Its methods never raise,
    whatever the log's sinks do: an exception here would end the very work that this class keeps alive.

    Args:
        what: the subject of the log lines: ``child web: watching its files``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: set[str] = set()  # since it last worked
        self._delay = FIRST_DELAY

    def failed(self, error: BaseException) -> float:
        """Log *error*, unless its like has been logged since the work last succeeded. Returns the seconds to wait,
        which double from one failure to the next."""
        delay = self._delay
        self._delay = min(2 * delay, LONGEST_DELAY)
        short = is_shortage(error)
        words = describe(error) if short else type(error).__name__
        if words not in self._told and len(self._told) < 10:  # whatever is different each time is not told for ever
            self._told.add(words)
            try:
                if short:
                    logger.error(
                        f"{self._what} failed: {words}; trying again until it works. What helps: {remedy(error)}"
                    )
                else:
                    logger.opt(exception=error).error(
                        f"{self._what} failed inside lycomm; trying again. Please report this"
                    )
            except Exception:  # a sink that was added with catch=False; there is nobody else to tell
                pass
        return delay

    def succeeded(self) -> None:
        """The work does what it is there for."""
        if self._told:
            self._told.clear()
            self._delay = FIRST_DELAY
            try:
                logger.info(f"{self._what} works again")
            except Exception:  # as above
                pass


async def in_thread(function: Callable[..., T], *arguments: object, name: str = "lycomm-worker") -> T:
    """Call a *function* that may block in a daemon thread of its own, and wait for its result.

    Cancelling stops the waiting only. A thread for each call, unlike those that anyio keeps: their start and their
    answer get lost when there is no memory, and nobody would hear of it.

    Raises:
        RuntimeError, MemoryError: no thread can be started. Besides, what *function* raises.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            value = context.run(function, *arguments)
        except Exception as error:
            call_soon(loop, _settle, result, None, error)
        else:
            call_soon(loop, _settle, result, value, None)

    DaemonThread(run, name=name).start()
    return await result


def _settle(result: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if result.done():
        return  # nobody waits for it any more
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)


async def in_thread_or_here(function: Callable[[], T]) -> T:
    """Call a *function* that may block, for a second at most, in a thread; on this one when none can be started.

    For what has to be done at an end, whatever is short.
    """
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function()

    try:
        return await in_thread(call)
    except (RuntimeError, MemoryError):
        if begun:
            raise
    return function()
