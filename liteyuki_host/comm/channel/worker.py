"""Passive mode: when the task runs that gives an inbox's messages to the callbacks, and on which loop.

What the task does with a message is in ``worker_task.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.unit import Received, Unit
from liteyuki_host.comm.waiting.loops import call_on, call_soon_on
from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host.comm.channel.requests import Requests
    from liteyuki_host.comm.channel.worker_task import WorkerTask

__all__ = ["Worker"]


class Worker:
    """Starts, wakes and stops the task that consumes the queue of an inbox. At most one task runs at a time.

    Args:
        name, units, handle, callbacks, failed, keep: see ``Inbox``.
        monitor: the inbox's; guards the front of *units* and the change of :attr:`current`.

    Attributes:
        loop: where the task is to run; None: nowhere. Set by :meth:`attach`, :meth:`detach` and :meth:`end`.
        current: the task that has been announced, on *loop* or an earlier one, and has not ended. Set under *lock*.
        requests: those of the same end of a channel; None for a topic or a watch. Set once, before the first message.
        draining: whether what waits is consumed for nobody, and the task ends then. Set by :meth:`drain`, for good.
    """

    def __init__(
        self,
        name: str,
        units: deque[Unit],
        monitor: Monitor,
        handle: Callable[[Received], Awaitable[None]],
        callbacks: Callbacks | None,
        failed: Callable[[str, Callback, BaseException], None],
        *,
        keep: bool = True,
    ) -> None:
        self.name = name
        self.units = units
        self.monitor = monitor
        self.lock = monitor.lock
        self.handle = handle
        self.callbacks = callbacks
        self.failed = failed
        self._keep = keep
        self.loop: asyncio.AbstractEventLoop | None = None
        self.current: WorkerTask | None = None
        self.requests: Requests | None = None
        self.draining = False

    @property
    def wanted(self) -> bool:
        """Whether messages are consumed now, rather than kept for a callback that is registered later."""
        return self.callbacks is None or self.callbacks.any or not self._keep or self.draining

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on *loop*, from the next :meth:`wake` on. From any thread."""
        self.loop = loop

    def detach(self) -> None:
        """Stop. A callback in progress is cancelled, and its message goes back to the queue. From any thread."""
        self.loop = None
        current = self.current
        if current is not None and current.task is not None and not current.loop.is_closed():
            current.detached = True
            call_on(current.loop, current.task.cancel)

    def end(self) -> None:
        """Stop when the message in progress has been handled. From any thread."""
        self.loop = None
        current = self.current
        if current is not None:
            call_soon_on(current.loop, current.resume)

    def drain(self) -> bool:
        """Consume for nobody what waits and what comes later, and end the task. From any thread. False: there is no
        loop to do that on."""
        self.draining = True
        current = self.current
        if current is not None and not current.loop.is_closed() and call_soon_on(current.loop, current.resume):
            return True
        self.wake()
        return self.loop is not None and not self.loop.is_closed()

    def wake(self) -> None:
        """Have the task look at the queue, and start it if there is none. Called when a message has arrived, or a
        callback or a loop has come. From any thread; never waits."""
        loop = self.loop
        if loop is None or not self.units or not self.wanted:
            return
        current = self.current
        if current is not None and current.loop is loop and not loop.is_closed():
            # A task that is not free looks at the queue once more after it has set `free` and before it parks.
            if current.free:
                current.free = False
                call_soon_on(loop, current.resume)
            return
        from liteyuki_host.comm.channel.worker_task import WorkerTask

        with self.lock:
            if self.current is not current or (current is not None and current.busy):
                return  # another thread has just started one; or the old loop's task wakes us when it ends
            self.current = fresh = WorkerTask(self, loop)
        # To make a task is to call the loop's task factory, perhaps code of the user's: not while the lock is held.
        hand_over = call_soon_on if self.monitor.owned() else call_on
        if not hand_over(loop, lambda: self._start(fresh)):
            self.forget(fresh)

    def _start(self, fresh: WorkerTask) -> None:
        """Start an announced task, on its loop, unless things have changed since."""
        if self.current is fresh and self.loop is fresh.loop:
            fresh.start()
        else:
            self.forget(fresh)
            self.wake()

    def forget(self, ended: WorkerTask) -> None:
        """Note that a task has ended, or will not be started."""
        with self.lock:
            if self.current is ended:
                self.current = None

    def put_back(self, unit: Unit) -> None:
        """Put messages in front of the queue, because their callback was cancelled or could not be called."""
        with self.lock:
            self.units.appendleft(unit)
