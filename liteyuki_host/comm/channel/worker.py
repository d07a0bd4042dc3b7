"""Passive mode: when the task runs that gives an inbox's messages to the callbacks, and on which loop.

Theory of operation
-------------------

A :class:`Worker` belongs to one inbox. It decides when a task is needed, and starts, wakes or ends it; what the task
does with a message is in ``worker_task.py``. A task is needed when a loop is attached, messages wait, and somebody is
there to take them (:attr:`Worker.wanted`). Everything that may change one of the three calls :meth:`Worker.wake`.

At most one task handles messages at a time, so that messages are handled in order. :attr:`Worker.current` is set before
the task is created: to announce it is what keeps a second thread from starting another one. When the loop changes in
the middle of a message, the old loop's task first finishes that message and then calls :meth:`Worker.wake`, which
starts the task on the new loop.

Threads and locks
-----------------

Any thread may call the methods, except :meth:`Worker._start`, which runs on the task's loop. None of them waits for a
task or a message. The lock is that of the exchange (``waiting/monitor.py``) and is held for a few assignments only.
:meth:`Worker.wake` reads without it first, because it is called for every message that is queued.
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
        lock: the monitor's. Reentrant.
        loop: where the task is to run; None: nowhere. Set by :meth:`attach`, :meth:`detach` and :meth:`end`, from any
            thread and without the lock. A task compares it with its own loop after each message.
        current: the task that has been announced, on *loop* or an earlier one, and has not ended. Set by :meth:`wake`
            and cleared by :meth:`forget`, both under *lock*; read without it.
        requests: those of the same end of a channel; None for a topic or a watch. Set once, before the first message.
        draining: whether messages are consumed although no callback is registered, and the task ends when none is left.
            Set by :meth:`drain` and never cleared.
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
        """Stop now: cancel the task, and with it a callback in progress, whose message goes back to the queue. From any
        thread."""
        self.loop = None
        current = self.current
        if current is not None and current.task is not None and not current.loop.is_closed():
            current.detached = True
            call_on(current.loop, current.task.cancel)

    def end(self) -> None:
        """Stop when the message in progress has been handled. A parked task is resumed to see that it has to end. From
        any thread."""
        self.loop = None
        current = self.current
        if current is not None:
            call_soon_on(current.loop, current.resume)

    def drain(self) -> bool:
        """Consume what waits and what arrives later although no callback is registered any more, and end the task
        whenever none is left. A message in progress is handled to its end. From any thread.

        Returns:
            False if no loop can do that; then the caller has to empty the queue.
        """
        self.draining = True
        current = self.current
        if current is not None and not current.loop.is_closed() and call_soon_on(current.loop, current.resume):
            return True
        self.wake()
        return self.loop is not None and not self.loop.is_closed()

    def wake(self) -> None:
        """Have the task look at the queue, and start one if there is none.

        Called when a message was queued, a loop was attached (again for each new callback), the inbox is drained, or a
        task ended. Does nothing when no task is needed. From any thread; never waits for a task.
        """
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
            # Another thread has just announced a task; or the task on the old loop is in the middle of a message, and
            # calls this method when it ends.
            if self.current is not current or (current is not None and current.busy):
                return
            self.current = fresh = WorkerTask(self, loop)
        # Creating a task runs code of the loop, which may be any implementation. So it does not happen while this
        # thread holds the lock for lycomm's own work: then the loop creates the task later, even on its own thread.
        hand_over = call_soon_on if self.monitor.owned() else call_on
        if not hand_over(loop, lambda: self._start(fresh)):
            self.forget(fresh)

    def _start(self, fresh: WorkerTask) -> None:
        """Start an announced task, on its loop. If the worker has been stopped or moved to another loop since, the
        announcement is withdrawn and the decision made anew."""
        if self.current is fresh and self.loop is fresh.loop:
            fresh.start()
        else:
            self.forget(fresh)
            self.wake()

    def forget(self, ended: WorkerTask) -> None:
        """Note that a task has ended, or will not be started. Does nothing if another task was announced meanwhile."""
        with self.lock:
            if self.current is ended:
                self.current = None

    def put_back(self, unit: Unit) -> None:
        """Put messages in front of the queue, because their callback was cancelled or could not be called yet."""
        with self.lock:
            self.units.appendleft(unit)
