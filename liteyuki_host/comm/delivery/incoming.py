"""One direction of a channel as its receiver sees it: a queue, and one of two ways to empty it.

Messages stay encoded in the queue and are decoded by whoever consumes them, so a value that cannot be decoded is one
message's error, on the thread that can name it. Consuming is what grants credit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import ChannelClosed, ChannelModeError, ChannelTaken
from ..protocol.credit import MESSAGE_CHARGE
from ..protocol.frames import Flag
from ..reporting import log
from ..waiting import NOTHING, Nothing, Waiters, running_loop

if TYPE_CHECKING:
    import asyncio

__all__ = ["Callback", "Incoming", "Received", "Source", "call", "error_text", "is_failure", "redelivered"]

YIELD_SECONDS = 0.005
"""Seconds after which the consumer lets the loop do something else, although no callback has suspended."""


class Source(Protocol):
    """Where messages came from, and where their consumption is reported."""

    def count(self, cost: int) -> None:
        """*cost* bytes have been consumed. By one consumer at a time."""
        ...

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Answer a request. Replies have no credit: who sends them awaits :meth:`replied` before the next."""
        ...

    async def replied(self) -> None:
        """Wait until the replies that have not left this process are few."""
        ...


class Received(NamedTuple):
    """One message, still encoded."""

    payload: bytes
    flags: int
    request_id: int
    source: Source


class _Unit:
    """What arrived at once."""

    __slots__ = ("flags", "payloads", "position", "request_id", "source")

    def __init__(self, payloads: list[bytes], flags: int, request_id: int, source: Source) -> None:
        self.payloads = payloads
        self.flags = flags
        self.request_id = request_id
        self.source = source
        self.position = 0


redelivered: ContextVar[bool] = ContextVar("lycomm_redelivered", default=False)
"""Whether the message being handled was handed to an earlier incarnation of this process before."""


class Callback(NamedTuple):
    """A registered receiver."""

    function: Callable[[Any], Any]
    filter: Callable[[Any], Any] | None
    decode: Callable[[bytes, int], Any]

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', repr(self.function))}"


class Incoming:
    """See the module's docstring.

    Args:
        name: of the channel or topic, for messages.
        handle: consumes one message on the loop in passive mode.
        callbacks: who is registered; messages wait while nobody is. A single callback without a filter is called
            without *handle*, unless there is more to a message than its payload.
        failed: told what of such a callback has failed, and why.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Received], Awaitable[None]],
        *,
        callbacks: Sequence[Callback] | None = None,
        failed: Callable[[str, Callback, BaseException], None] = lambda what, callback, error: None,
    ) -> None:
        self.name = name
        self._handle = handle
        self._callbacks = callbacks
        self._failed = failed
        self._lock = threading.Lock()
        self._units: deque[_Unit] = deque()
        self.mode: str | None = None  # None until the first use, then "passive" or "active"
        self.closed = False
        self._refused: str | None = None
        self.arrived = Waiters()
        self.received = 0
        self.handled = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle = True  # there is no consumer task, and the next message has to start one
        self._consuming_on: asyncio.AbstractEventLoop | None = None  # where it was started last

    def use(self, mode: str) -> None:
        """Claim this side for a mode.

        Raises:
            ChannelModeError: it is used in the other.
        """
        with self._lock:
            if self.mode is None:
                self.mode = mode
            elif self.mode != mode:
                first = "on_receive callbacks (passive)" if self.mode == "passive" else "receive() (active)"
                wanted = "on_receive" if mode == "passive" else "receive()"
                raise ChannelModeError(
                    f"channel {self.name!r} is already read by {first} in this process; a channel has one receive "
                    f"mode per side, so {wanted} is refused. Use the other channel, or a channel of your own"
                )

    # --- filling --------------------------------------------------------------------------------------------

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Source) -> None:
        """Take messages in. Called by the link's reader; never waits."""
        with self._lock:
            self.received += len(payloads)
            self._units.append(_Unit(payloads, flags, request_id, source))
        self.arrived.wake()
        if self._loop is not None:
            self._wake_consumer()

    def close(self, refused: str | None = None) -> None:
        """Nothing more will be received, or this process is *refused* as an end: wake all who wait."""
        self._refused = refused
        self.closed = True
        self.arrived.wake()

    # --- emptying -------------------------------------------------------------------------------------------

    def take(self) -> Received | Nothing:
        """The next message; :meth:`count` says that it is consumed.

        Raises:
            ChannelClosed: there is none and there will be none.
            ChannelTaken: there is none, and this process is no end of the channel.
        """
        if not self._units and not self.closed:
            return NOTHING
        with self._lock:
            if not self._units:
                if self._refused is not None:
                    raise ChannelTaken(self._refused)
                if self.closed:
                    raise ChannelClosed(f"channel {self.name!r} is closed: this process is shutting down")
                return NOTHING
            unit = self._units[0]
            payload = unit.payloads[unit.position]
            unit.position += 1
            if unit.position == len(unit.payloads):
                self._units.popleft()
            self.handled += 1
            return Received(payload, unit.flags, unit.request_id, unit.source)

    def count(self, message: Received) -> None:
        """Count *message* as consumed. The link gathers grants for a moment; a counted message is never redelivered
        after a planned end, and after a kill only when that moment had not passed."""
        with self._lock:  # several threads may receive at once
            message.source.count(len(message.payload) + MESSAGE_CHARGE)

    def waiting(self) -> int:
        """Messages that arrived and were not taken."""
        with self._lock:
            return sum(len(unit.payloads) - unit.position for unit in self._units)

    def reopen(self) -> None:
        """There is a new link. What an earlier one brought and nobody took is dropped: its sender still has it."""
        with self._lock:
            for unit in self._units:
                unit.payloads = []  # a consumer may be in the middle of it
            self._units.clear()
            self.closed = False

    # --- passive mode: one consumer task on the process's loop ------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Consume on *loop* from now on, in passive mode. Safe from any thread."""
        self._loop = loop
        self._wake_consumer()

    def detach_loop(self) -> None:
        """Stop consuming; a message in progress is cancelled, not counted, and so handed over again."""
        loop, self._loop = self._loop, None
        task, self._task = self._task, None
        if task is not None and loop is not None and not loop.is_closed():
            if running_loop() is loop:
                task.cancel()
            else:
                try:
                    loop.call_soon_threadsafe(task.cancel)
                except RuntimeError:  # closed meanwhile
                    pass

    def _wake_consumer(self) -> None:
        loop = self._loop
        if loop is None or self.mode != "passive" or not self._units or not self._wanted:
            return
        with self._lock:
            busy_on = self._consuming_on
            # A consumer on a closed loop ended with it, perhaps without a chance to say so.
            if not self._idle and busy_on is not None and not busy_on.is_closed():
                return
            self._idle = False
            self._consuming_on = loop
        if running_loop() is loop:
            self._start_consumer(loop)
            return
        try:
            loop.call_soon_threadsafe(self._start_consumer, loop)
        except RuntimeError:  # the loop is closed; detach_loop is on its way
            with self._lock:
                self._idle = True

    def _start_consumer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._task = loop.create_task(self._consume(), name=f"lycomm-{self.name}")
        else:  # there is another loop by now, which took this start for a consumer at work
            with self._lock:
                self._idle = True
            self._wake_consumer()

    @property
    def _wanted(self) -> bool:
        return self._callbacks is None or bool(self._callbacks)

    async def _consume(self) -> None:
        """Handle messages until there are none. One at a time and in order: a slow one delays this channel only."""
        emptied = False  # left with the queue empty and `_idle` set in one step, so the next arrival starts anew
        try:
            yielded = time.monotonic()
            while True:
                with self._lock:
                    if not self._units or not self._wanted:
                        self._idle = emptied = True
                        return
                    unit = self._units[0]
                yielded = await self._consume_unit(unit, yielded)
        finally:
            if not emptied:
                with self._lock:
                    self._idle = True
                self._wake_consumer()

    async def _consume_unit(self, unit: _Unit, yielded: float) -> float:
        """Handle what arrived at once, as long as anybody wants it.

        Args:
            yielded: when the loop was last free to do something else, by ``time.monotonic``. Returns that anew.
        """
        flags, count = unit.flags, unit.source.count
        callbacks = self._callbacks if not flags & ~Flag.RAW else None
        while (position := unit.position) < len(unit.payloads) and self._wanted:
            payload = unit.payloads[position]
            unit.position = position + 1
            if unit.position == len(unit.payloads):
                self._finished(unit)
            self.handled += 1
            if callbacks is not None and len(callbacks) == 1 and callbacks[0].filter is None:
                callback = callbacks[0]
                what = "a message that cannot be decoded"
                try:
                    data = callback.decode(payload, flags)
                    what = "the callback"
                    result = callback.function(data)
                    if is_awaitable(result):
                        await result
                except BaseException as error:
                    if not is_failure(error):
                        raise
                    self._failed(what, callback, error)
            else:
                try:
                    await self._handle(Received(payload, flags, unit.request_id, unit.source))
                except Exception as error:  # ours: a user's failure has been dealt with in `handle`
                    log().opt(exception=error).error(
                        f"receiving on {self.name!r} failed inside lycomm; please report this"
                    )
            count(len(payload) + MESSAGE_CHARGE)
            now = time.monotonic()
            if now - yielded > YIELD_SECONDS:
                import asyncio

                yielded = now
                # Callbacks that never suspend must not keep the loop from everything else.
                await asyncio.sleep(0)
        return yielded

    def _finished(self, unit: _Unit) -> None:
        with self._lock:
            if self._units and self._units[0] is unit:
                self._units.popleft()


def is_failure(error: BaseException) -> bool:
    """Whether *error*, out of user code in this task, is that code's failure. Else it is the end of the task, or of
    the process.

    A callback that awaited something cancelled raises the same CancelledError as one whose own task is cancelled.
    Python 3.10 cannot tell the two apart: there it is always taken for the task's end.
    """
    if isinstance(error, Exception):
        return True
    import asyncio

    if not isinstance(error, asyncio.CancelledError):
        return False
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() == 0


def error_text(error: BaseException) -> str:
    """``str(error)``, whatever its class does there."""
    try:
        return str(error)
    except Exception as failure:
        return f"(its text cannot be shown: {type(failure).__name__})"


async def call(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call a sync or async function and wait for its result."""
    result = function(argument)
    if is_awaitable(result):
        result = await result
    return result


def is_awaitable(result: Any) -> bool:
    """As ``inspect.isawaitable``, which is not loaded for what coroutine functions return."""
    if type(result) is CoroutineType:
        return True
    if result is None:
        return False
    import inspect

    return inspect.isawaitable(result)
