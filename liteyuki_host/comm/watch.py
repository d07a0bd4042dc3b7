"""Watching the shared memory: a stream of its changes, for tasks, threads and callbacks."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import codec
from .delivery.callbacks import is_awaitable, is_failure
from .errors import WatchOverrun
from .exchange import Exchange
from .loops import call_soon_on, parked_type, refuse_event_loop
from .protocol.messages import Change
from .reporting import log
from .waiting import NOTHING, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

    from .parking import Parked

__all__ = ["Changed", "Watch"]

F = TypeVar("F", bound=Callable[..., Any])


class Changed(NamedTuple):
    """One step of the shared memory, as a watch reports it."""

    revision: int
    key: str
    value: Any
    """The new value, a copy of your own; None when deleted."""
    deleted: bool


class Watch:
    """A stream of changes; made by ``shared_memory.watch``. Ends with ``close()`` or its ``with`` block."""

    LIMIT = 10_000
    """Changes that may wait to be read; more end the watch with WatchOverrun instead of growing without bound."""

    def __init__(self, exchange: Exchange, prefix: str) -> None:
        self._exchange = exchange
        self._prefix = prefix
        self._queue: deque[Change] = deque()
        self._arrived = Waiters()
        self._overrun = False
        self._closed = False
        self._function: Callable[[Changed], Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._parked: Parked | None = None  # what the task waits for between two changes
        exchange.add_watcher(self)

    def changed(self, change: Change) -> None:
        """Called by the exchange with every change, in order."""
        if self._overrun or not change.key.startswith(self._prefix):
            return
        if len(self._queue) >= self.LIMIT:
            self._overrun = True
        else:
            self._queue.append(change)
        self._wake()
        if self._function is not None and (self._task is None or self._task.done()):
            self._start()

    def _wake(self) -> None:
        if self._arrived.callbacks:
            self._arrived.wake()
        parked = self._parked
        if parked is not None:
            self._parked = None  # once is enough
            call_soon_on(parked.get_loop(), parked.resume)

    def _take(self) -> Changed | Nothing | None:
        if self._queue:
            change = self._queue.popleft()
            value = None if change.value is None else codec.decode(change.value)
            return Changed(change.revision, change.key, value, change.value is None)
        if self._overrun:
            self._exchange.remove_watcher(self)
            raise WatchOverrun(
                f"the watch of {self._prefix!r} fell behind by {self.LIMIT:,} changes; "
                "read the current state, then watch again"
            )
        return None if self._closed else NOTHING

    def __aiter__(self) -> AsyncIterator[Changed]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Changed]:
        while True:
            change = await self._arrived.wait_async(self._take, None)
            if change is None or change is NOTHING:
                return
            yield change

    def __iter__(self) -> Iterator[Changed]:
        refuse_event_loop("for change in shared_memory.watch()", "anext(aiter(watch))")
        while True:
            change = self._arrived.wait(self._take, None)
            if change is None or change is NOTHING:
                return
            yield change

    def __call__(self, function: F) -> F:
        """Call *function* (sync or async) with every :class:`Changed`, on the process's event loop."""
        self._function = function
        self._start()
        return function

    def loop_attached(self) -> None:
        """Called by the exchange: changes may have waited for a loop."""
        if self._function is not None:
            self._start()

    def detached(self) -> None:
        """Called by the exchange when the process leaves. A decorated function stays, for a host that may follow."""
        if self._function is None:
            self.close()

    def _start(self) -> None:
        loop = self._exchange.loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop closed meanwhile: nobody is left to call
                loop.call_soon_threadsafe(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._call(loop))

    async def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        """The task. Its own loop, as the ways of waiting for all cost more than a change."""
        function, parking = self._function, parked_type()
        assert function is not None
        try:
            while (change := self._take()) is not None:
                if change is NOTHING:
                    self._parked = parked = parking(loop=loop)
                    # What came before that, and woke nobody, is seen here.
                    if not (self._queue or self._overrun or self._closed):
                        await parked
                    self._parked = None
                    continue
                try:
                    result = function(change)
                    if is_awaitable(result):
                        await result
                except BaseException as error:
                    if not is_failure(error):
                        raise
                    log().opt(exception=error).error(
                        f"a watcher of {self._prefix!r} failed; the next change is handled"
                    )
                result = change = None  # nothing is kept while it is parked
        except WatchOverrun as error:  # there is no caller to raise it to
            log().error(f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}: {error}")

    def close(self) -> None:
        """End the watch; what it has not handed out is dropped. It also ends when this process leaves its host."""
        self._closed = True
        self._queue.clear()
        self._exchange.remove_watcher(self)
        self._wake()

    def __enter__(self) -> Watch:  # noqa: PYI034  (nothing derives from it)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
