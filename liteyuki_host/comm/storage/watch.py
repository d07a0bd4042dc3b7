"""Watching the shared memory: a stream of its changes, for tasks, threads and callbacks."""

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
"""In the place of a change: those after it were too many."""

_NO_CHANGE: tuple[bytes, Change | None] = (b"", None)


class Changed(NamedTuple):
    """One step of the shared memory, as a watch reports it."""

    revision: int
    key: str
    value: Any
    """The new value, a copy of your own; None when deleted."""
    deleted: bool


class _Waiting(Here):
    """The bytes of changes that wait to be read, each change charged as a message of a channel is.

    Attributes:
        arrived: bytes that came; written by who brings changes, one at a time.
        read: bytes that have been read; written by who reads them, one at a time.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.read = 0

    def count(self, cost: int) -> None:
        self.read += cost


class Watch:
    """A stream of changes; made by ``shared_memory.watch``.

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
        # Changes wait and are handled as the messages of a channel are. The queue refers to the watch weakly: without
        # a reference cycle, a watch that nobody reads any more is gone at once and not at the next garbage collection.
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
        self._latest = _NO_CHANGE  # the last one that came, and decoded
        self._overrun: str | None = None  # what was too much, in words; no more changes are taken then
        self._closed = False
        exchange.add_watcher(self)

    def __call__(self, function: F) -> F:
        """Call *function* (sync or async) with every :class:`Changed`, on the process's event loop.

        Raises:
            TypeError: what is registered could never be called with a change. The watch is closed.
        """
        try:
            check_callback(function, "a watcher", "change")
        except TypeError:
            self.close()
            raise
        self._exchange.keep_watcher(self)
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
            if not may_go_on():
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
        """End the watch and drop what it has not handed out. It also ends when this process leaves its host."""
        self._closed = True
        monitor = self._exchange.monitor
        if monitor.owned():  # by a finalizer, in the middle of our work
            monitor.defer(self._close, f"closing the watch of {self._prefix!r}", 0)
        else:
            self._close()

    def _close(self) -> None:
        self._exchange.remove_watcher(self)
        self._changes.end_consuming()
        self._callbacks.remove(None)  # which refer to the watch
        self._changes.reopen()  # and empty
        self._changes.arrived.wake()

    def __enter__(self) -> Watch:  # noqa: PYI034  (nothing derives from it)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the exchange tells us (Watcher) -----------------------------------------------------------------

    def changed(self, key: str, event: bytes, change: Change | None = None) -> None:
        if self._overrun is not None or self._closed or not key.startswith(self._prefix):
            return
        changes, waiting = self._changes, self._waiting
        left = waiting.arrived - waiting.read
        if len(changes.units) >= self.LIMIT:
            self._overrun, event = f"{self.LIMIT:,} changes", _FELL_BEHIND
        elif left and left + len(event) + MESSAGE_CHARGE > self.LIMIT_BYTES:
            self._overrun, event = f"{self.LIMIT_BYTES:,} bytes of changes", _FELL_BEHIND
        self._latest = event, change
        waiting.arrived += len(event) + MESSAGE_CHARGE
        changes.deliver([event], 0, 0, waiting)

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._changes.attach_loop(loop)

    def detach_loop(self) -> None:
        self._changes.detach_loop()

    def detached(self) -> None:
        if not self._callbacks:  # a decorated function stays, for a host that may follow
            self.close()

    # --- inside -----------------------------------------------------------------------------------------------

    def _take(self) -> Changed | Nothing | None:
        if self._changes.units:
            taken = self._changes.take()
            if taken is not NOTHING:
                return self._decode(taken[0], taken[1])
        if self._overrun is not None:
            raise self._fell_behind()
        return None if self._closed else NOTHING

    def _decode(self, event: bytes, flags: int) -> Changed:
        if event == _FELL_BEHIND:
            self._exchange.remove_watcher(self)
            raise self._fell_behind()
        latest, change = self._latest
        if latest is not event:  # it has waited, and others have come
            change = decode_change(event)
        else:
            self._latest = _NO_CHANGE  # not kept until the next one comes
            change = change or decode_change(event)
        value = change.value
        if value is None:
            return Changed(change.revision, change.key, None, True)
        try:
            return Changed(change.revision, change.key, codec.decode(value), False)
        except ValueUnreadable as error:
            raise ValueUnreadable(f"shared_memory[{change.key!r}]: {error}") from error

    def _fell_behind(self) -> WatchOverrun:
        return WatchOverrun(
            f"the watch of {self._prefix!r} fell behind by {self._overrun}; read the current state, then watch again"
        )

    def _callback_failed(self, what: str, callback: Callback, error: BaseException) -> None:
        if isinstance(error, WatchOverrun):  # there is no caller to raise it to
            log().error(f"{callback.name}: {error}")
        else:
            log().opt(exception=error).error(f"a watcher of {self._prefix!r} failed; the next change is handled")
