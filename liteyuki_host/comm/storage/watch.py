"""Watching the shared memory: a stream of its changes, for tasks, threads and callbacks.

Theory of operation
-------------------

A :class:`Watch` is one of the exchange's *watchers*. The exchange tells it of every change, in order, by
:meth:`Watch.changed`. A change whose key has the watch's prefix is put, still encoded, into a queue like that of a
channel (``channel/inbox.py``). Whoever reads decodes it: a task (``async for``), a thread (``for``), or the queue's own
task, which calls the registered functions on the process's event loop.

*Bounds.* Whoever makes changes never waits for a watch. So a watch that is not read is ended when too much waits, by
number or by bytes: ``_FELL_BEHIND`` is put in the place of the change, no more are taken, and the reader gets
``WatchOverrun`` when it has read the changes before.

*End.* A watch ends with :meth:`Watch.close`, when this process leaves its host, or when nobody refers to it. For the
last, the exchange and the queue refer to it weakly. A registered function keeps the watch (``Exchange.keep_watcher``),
as nobody else may.

Threads and the lock
--------------------

``changed`` is called by one thread at a time: in the process that has the authority under the exchange's lock,
elsewhere by the thread that reads the link. Readers may be in any thread, one at a time. The queue has the exchange's
lock; the watch itself needs none, as each of its attributes is replaced in one step.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import Callback, Callbacks, call_each
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.registering import check_callback
from liteyuki_host.comm.channel.unit import Here, Received
from liteyuki_host.comm.errors import ValueUnreadable, WatchOverrun
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW, MESSAGE_CHARGE
from liteyuki_host.comm.protocol.messages import Change, decode_change
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.waiting.checkpoints import checkpoint, may_go_on
from liteyuki_host.comm.waiting.loops import refuse_event_loop
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

if TYPE_CHECKING:
    import asyncio

__all__ = ["Changed", "Watch"]

F = TypeVar("F", bound="Callable[[Changed], Any]")

_FELL_BEHIND = b""
"""Stands in the queue for the first change that was too many. No encoded change is empty."""

_NO_CHANGE: tuple[bytes, Change | None] = (b"", None)
"""What ``Watch._latest`` is when there is none: an event that no change has."""


class Changed(NamedTuple):
    """One step of the shared memory, as a watch reports it."""

    revision: int
    key: str
    value: Any
    """The new value, a copy of your own; None when deleted."""
    deleted: bool


class _Waiting(Here):
    """Counts the bytes of changes that wait to be read, each change charged as a message of a channel is.

    It takes the place of a link as the source of messages: the queue calls :meth:`count` for what has been consumed.

    Attributes:
        arrived: bytes that came, in all; written by :meth:`Watch.changed`.
        read: bytes that have been read, in all; written by the reader. Less than *arrived* by what waits.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.read = 0

    def count(self, cost: int) -> None:
        self.read += cost


class Watch:
    """A stream of changes, read by ``async for``, by ``for`` or by functions; made by ``shared_memory.watch``.

    Ends with ``close()``, with its ``with`` block, or when nothing refers to it any more: a loop that is left by
    ``break`` needs no ``close()``. A watch that calls functions stays until ``close()``.

    A change to a value that cannot be decoded raises ValueUnreadable in the loop that reads the watch. The watch goes
    on: a new loop over the same object begins with the next change. For a callback it is logged.
    """

    LIMIT = 10_000
    """Changes that may wait to be read; more end the watch with WatchOverrun instead of growing without bound."""

    LIMIT_BYTES = 5 * DEFAULT_WINDOW
    """Bytes of changes that may wait to be read (20 MiB), likewise: as much as a topic may queue for one process. A
    change that is larger is taken when nothing waits."""

    def __init__(self, exchange: Exchange, prefix: str) -> None:
        if not isinstance(prefix, str):
            raise TypeError(
                f"watch takes the text that keys begin with, not {prefix!r:.80}; "
                "as a decorator write @shared_memory.watch() with its parentheses"
            )
        self._exchange = exchange
        self._prefix = prefix
        self._callbacks = Callbacks(exchange.monitor)
        # The queue's functions refer to the watch weakly. So there is no reference cycle, and a watch that nobody reads
        # any more is gone with its last reference instead of at the next garbage collection.
        weak = weakref.ref(self)

        async def handle(message: Received) -> None:
            if (watch := weak()) is not None:
                await call_each(watch._callbacks, message.payload, message.flags, watch._callback_failed)

        def failed(what: str, callback: Callback, error: BaseException) -> None:
            if (watch := weak()) is not None:
                watch._callback_failed(what, callback, error)

        self._changes = Inbox(
            f"watch of {prefix!r}", handle, callbacks=self._callbacks, failed=failed, monitor=exchange.monitor
        )
        self._waiting = _Waiting()
        # The last change that came, encoded, and decoded if the exchange has done that: a reader that keeps up need not
        # decode it again. Replaced as a whole: by changed(), and by the reader, which lets go of it.
        self._latest = _NO_CHANGE
        # What was too much, in words. Set once, by changed(), which takes no more changes then.
        self._overrun: str | None = None
        self._closed = False  # set once, by close(), from any thread
        exchange.add_watcher(self)

    def __call__(self, function: F) -> F:
        """Call *function* (sync or async) with every :class:`Changed`, on the process's event loop. For use as a
        decorator; returns the function as it is. Without a loop the changes wait for one, within the limits.

        Raises:
            TypeError: what is registered could never be called with a change. The watch is closed.
        """
        try:
            check_callback(function, "a watcher", "change")
        except TypeError:
            self.close()
            raise
        self._exchange.keep_watcher(self)  # a decorator's caller keeps the function, not the watch
        self._callbacks.add(Callback(function, None, self._decode))
        self._changes.use("passive")
        loop = self._exchange.loop
        if loop is not None:
            self._changes.attach_loop(loop)
        return function

    def __aiter__(self) -> AsyncIterator[Changed]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Changed]:
        while True:
            if not may_go_on():  # so that changes that follow each other without end leave other tasks their turn
                await checkpoint()
            change = await self._changes.arrived.wait_async(self._take, None)
            if change is None or change is NOTHING:
                return
            yield change

    def __iter__(self) -> Iterator[Changed]:
        refuse_event_loop("for change in shared_memory.watch()", "anext(aiter(watch))")
        while True:
            change = self._changes.arrived.wait(self._take, None)
            if change is None or change is NOTHING:
                return
            yield change

    def close(self) -> None:
        """End the watch and drop what has not been read; a reader that waits stops. From any thread; more calls do
        nothing."""
        self._closed = True
        monitor = self._exchange.monitor
        if monitor.owned():  # called by a finalizer in the middle of our own work, which may be a change to this queue
            monitor.defer(self._close, f"closing the watch of {self._prefix!r}", 0)
        else:
            self._close()

    def _close(self) -> None:
        self._exchange.remove_watcher(self)
        self._changes.end_consuming()
        self._callbacks.remove(None)  # they refer to the watch
        self._changes.reopen()  # empties the queue
        self._changes.arrived.wake()  # who waits sees that it is closed

    def __enter__(self) -> Watch:  # noqa: PYI034  (nothing derives from it)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Watcher: called by the exchange ----------------------------------------------------------------------

    def changed(self, key: str, event: bytes, change: Change | None = None) -> None:
        """Queue the change, if it has the prefix and there is room; else end the watch with an overrun.

        Never waits and calls nothing of the user's: where a function is to be called, the queue wakes its task.
        """
        if self._overrun is not None or self._closed or not key.startswith(self._prefix):
            return
        changes, waiting = self._changes, self._waiting
        left = waiting.arrived - waiting.read  # bytes that wait; a reader may just be making it less
        if len(changes.units) >= self.LIMIT:
            self._overrun, event = f"{self.LIMIT:,} changes", _FELL_BEHIND
        elif left and left + len(event) + MESSAGE_CHARGE > self.LIMIT_BYTES:
            self._overrun, event = f"{self.LIMIT_BYTES:,} bytes of changes", _FELL_BEHIND
        self._latest = event, change  # before it can be read
        waiting.arrived += len(event) + MESSAGE_CHARGE
        changes.deliver([event], 0, 0, waiting)

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._changes.attach_loop(loop)

    def detach_loop(self) -> None:
        self._changes.detach_loop()

    def detached(self) -> None:
        """End the watch: this process leaves its host. A decorated function stays, for a host that may follow."""
        if not self._callbacks:
            self.close()

    # --- reading ----------------------------------------------------------------------------------------------

    def _take(self) -> Changed | Nothing | None:
        """Take the next change. NOTHING: there is none yet. None: the watch is closed.

        Raises:
            WatchOverrun: everything before the overrun has been read.
            ValueUnreadable: the value cannot be decoded. The change counts as read.
        """
        if self._changes.units:
            taken = self._changes.take()
            if taken is not NOTHING:
                return self._decode(taken[0], taken[1])
        if self._overrun is not None:  # each further attempt to read raises it again
            raise self._fell_behind()
        return None if self._closed else NOTHING

    def _decode(self, event: bytes, flags: int) -> Changed:
        """Make what users get of a queued change; the decoder of the callbacks, too (*flags* is theirs and not used).

        Raises:
            WatchOverrun: *event* stands for what was too many.
            ValueUnreadable: the value cannot be decoded.
        """
        if event == _FELL_BEHIND:
            self._exchange.remove_watcher(self)
            raise self._fell_behind()
        latest, change = self._latest
        if latest is not event:  # it has waited, and newer ones have come
            change = decode_change(event)
        else:
            self._latest = _NO_CHANGE  # its value need not stay in memory until the next change
            change = change or decode_change(event)
        value = change.value
        if value is None:
            return Changed(change.revision, change.key, None, True)
        try:
            return Changed(change.revision, change.key, codec.decode(value), False)
        except ValueUnreadable as error:
            raise ValueUnreadable(f"shared_memory[{change.key!r}]: {error}") from error

    def _fell_behind(self) -> WatchOverrun:
        """Make the error of a watch that was not read fast enough."""
        return WatchOverrun(
            f"the watch of {self._prefix!r} fell behind by {self._overrun}; read the current state, then watch again"
        )

    def _callback_failed(self, what: str, callback: Callback, error: BaseException) -> None:
        """Log what a function has raised, or that the watch has fallen behind it."""
        if isinstance(error, WatchOverrun):  # there is no caller to raise it to
            log().error(f"{callback.name}: {error}")
        else:
            log().opt(exception=error).error(f"a watcher of {self._prefix!r} failed; the next change is handled")
