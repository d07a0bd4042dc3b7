"""Passive mode: one task on the process's loop that gives each message to the callbacks, one at a time and in order.

Here is who runs, and when; what it does is in ``run.py``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..loops import call_on, call_soon_on
from .callbacks import Callback, Callbacks
from .unit import Received, Unit

if TYPE_CHECKING:
    import asyncio

    from ..protocol.credit import Stream
    from .run import Run

__all__ = ["Consumer"]


class Consumer:
    """See the module's docstring. Works on the queue of an ``Incoming``, which has the arguments' descriptions.

    Args:
        lock: guards the front of *units*.

    Attributes:
        loop: where to run.
        run: what has been announced there, or on an earlier loop, and has not ended.
        stream: what brings most of the messages, while there is a link.
    """

    def __init__(
        self,
        name: str,
        units: deque[Unit],
        lock: threading.Lock,
        handle: Callable[[Received], Awaitable[None]],
        callbacks: Callbacks | None,
        failed: Callable[[str, Callback, BaseException], None],
    ) -> None:
        self.name = name
        self.units = units
        self.lock = lock
        self.handle = handle
        self.callbacks = callbacks
        self.failed = failed
        self.loop: asyncio.AbstractEventLoop | None = None
        self.run: Run | None = None
        self.stream: Stream | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is somebody to give messages to."""
        return self.callbacks is None or self.callbacks.any

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on *loop* from the next :meth:`wake` on. From any thread."""
        self.loop = loop

    def detach(self) -> None:
        """Stop; a message in progress is cancelled, and not counted as handled. From any thread."""
        self.loop = None
        run = self.run
        if run is not None and run.task is not None and not run.loop.is_closed():
            call_on(run.loop, run.task.cancel)

    def end(self) -> None:
        """Stop when the message in progress is done with. From any thread."""
        self.loop = None
        run = self.run
        if run is not None:
            call_soon_on(run.loop, run.resume)

    def wake(self) -> None:
        """Something has arrived, or there is somebody who wants it. From any thread; never waits."""
        loop = self.loop
        if loop is None or not self.units or not self.wanted:
            return
        run = self.run
        if run is not None and run.loop is loop and not loop.is_closed():
            # Not free: it looks at the queue again before it parks, and it says so before it looks.
            if run.free:
                run.free = False
                call_soon_on(loop, run.resume)
            return
        from .run import Run

        with self.lock:
            if self.run is not run or (run is not None and run.busy):
                return  # somebody else has just started one; or the one on the old loop wakes us when it is done
            self.run = fresh = Run(self, loop)
        if not call_on(loop, lambda: self._start(fresh)):
            self.forget(fresh)

    def _start(self, run: Run) -> None:
        if self.run is run and self.loop is run.loop:
            run.start()
        else:
            self.forget(run)
            self.wake()

    def forget(self, run: Run) -> None:
        """It has ended."""
        with self.lock:
            if self.run is run:
                self.run = None
