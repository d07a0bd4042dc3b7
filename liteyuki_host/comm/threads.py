"""Threads of ours. They are daemons, and their start and what they tell an event loop survive a lack of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["DaemonThread", "call_soon", "core_threads"]

core_threads: set[int] = set()
"""The threads that a link or the shared memory depends on, by ``threading.get_ident``. A log sink that runs there must
not wait for room in a channel: what would make room may be this very thread's work."""

START_SECONDS = 1.0
"""For a new thread to run its first line. It takes well under a millisecond, on a machine that is overloaded 0.1 s."""

NO_MEMORY_SECONDS = 0.05
"""Between two tries to hand something to an event loop."""


class DaemonThread(threading.Thread):
    """A daemon thread whose :meth:`start` comes to an end.

    That of Python waits without a limit until the new thread says that it runs. One that runs out of memory before it
    can say so is gone by then, and who has started it waits for ever, which may be the event loop (CPython issue
    140746; corrected in 3.13.10 and 3.14.1).

    Args:
        core: it is one of :data:`core_threads` while it runs.
    """

    def __init__(
        self, target: Callable[..., object], *, name: str, args: tuple[Any, ...] = (), core: bool = False
    ) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        self._core = core
        self._handshake = threading.Lock()
        self._given_up = False
        self._died = False  # before its target
        # Python's own event of the same name; there is no public way to give its wait a limit.
        self._started = _EventWithLimit()

    def start(self) -> None:
        """Call once.

        Raises:
            RuntimeError, MemoryError: no thread can be started; nothing of the target runs, nor will.
        """
        super().start()
        with self._handshake:
            if self._started.is_set() and not self._died:
                return
            self._given_up = True  # should it come late after all, it returns at once
        self._started.clear()  # it is not alive, and cannot be joined
        getattr(threading, "_limbo", {}).pop(self, None)  # where Python keeps those whose start has not come to its end
        raise MemoryError("a new thread had no memory for its first line")

    def _bootstrap(self) -> None:
        """What Python calls in the new thread; it sets the event, and calls :meth:`run`."""
        with self._handshake:
            if self._given_up:
                return
        try:
            super()._bootstrap()  # type: ignore[misc]  # not public
        except BaseException:
            self._died = True
            self._started.set()  # nobody has to wait for the limit

    def run(self) -> None:
        with self._handshake:
            if self._given_up:
                return
        if not self._core:
            super().run()
            return
        thread = threading.get_ident()
        core_threads.add(thread)
        try:
            super().run()
        finally:
            core_threads.discard(thread)


class _EventWithLimit(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(START_SECONDS if timeout is None else timeout)


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> bool:
    """Have *loop* call *function*, from any thread. False: the loop is closed.

    What cannot be handed over for lack of memory is tried again: the end of a process that nobody hears of would never
    be acted on.
    """
    while True:
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        except MemoryError:
            time.sleep(NO_MEMORY_SECONDS)
        else:
            return True
