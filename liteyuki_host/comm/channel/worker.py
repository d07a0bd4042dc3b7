"""Passive mode: one task on the process's loop that gives each message to the callbacks, one at a time and in order.

Here is who runs, and when; what it does is in ``worker_task.py``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.unit import Received, Unit
from liteyuki_host.comm.waiting.loops import call_on, call_soon_on

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host.comm.channel.worker_task import WorkerTask
    from liteyuki_host.comm.protocol.stream import Stream

__all__ = ["Worker"]


class Worker:
    """See the module's docstring. Works on the queue of an :class:`Inbox`, which has the arguments' descriptions.

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
        self.current: WorkerTask | None = None
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
        current = self.current
        if current is not None and current.task is not None and not current.loop.is_closed():
            call_on(current.loop, current.task.cancel)

    def end(self) -> None:
        """Stop when the message in progress is done with. From any thread."""
        self.loop = None
        current = self.current
        if current is not None:
            call_soon_on(current.loop, current.resume)

    def wake(self) -> None:
        """Something has arrived, or there is somebody who wants it. From any thread; never waits."""
        loop = self.loop
        if loop is None or not self.units or not self.wanted:
            return
        current = self.current
        if current is not None and current.loop is loop and not loop.is_closed():
            # Not free: it looks at the queue again before it parks, and it says so before it looks.
            if current.free:
                current.free = False
                call_soon_on(loop, current.resume)
            return

        from liteyuki_host.comm.channel.worker_task import WorkerTask

        with self.lock:
            if self.current is not current or (current is not None and current.busy):
                return  # somebody else has just started one; or the one on the old loop wakes us when it is done
            self.current = fresh = WorkerTask(self, loop)
        if not call_on(loop, lambda: self._start(fresh)):
            self.forget(fresh)

    def _start(self, current: WorkerTask) -> None:
        if self.current is current and self.loop is current.loop:
            current.start()
        else:
            self.forget(current)
            self.wake()

    def forget(self, current: WorkerTask) -> None:
        """It has ended."""
        with self.lock:
            if self.current is current:
                self.current = None
