"""One direction of a channel as its receiver sees it: a queue, and one of two ways to empty it.

Messages stay encoded in the queue and are decoded by whoever consumes them, so a value that cannot be decoded is one
message's error, on the thread that can name it. Consuming is what grants credit.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from loguru import logger

from ..errors import ChannelClosed, ChannelModeError
from ..protocol.credit import MESSAGE_CHARGE
from .waiting import NOTHING, Nothing, Waiters

__all__ = ["Callback", "Incoming", "Received", "Source", "call", "redelivered"]

GRANT_SECONDS = 0.005
"""Seconds after which a callback's consumption is granted even inside a batch, so that a slow one's messages are
not redelivered after a crash although they were handled."""

GRANT_BYTES = 256 * 1024
"""Bytes after which it is granted inside a batch: a sixteenth of the default window."""


class Source(Protocol):
    """Where messages came from, and where their consumption is reported."""

    def consumed(self, cost: int) -> None:
        """*cost* bytes have been consumed."""
        ...

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Answer a request."""
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
        handle: consumes one message on the loop in passive mode: called with it, awaited if need be.
    """

    def __init__(self, name: str, handle: Callable[[Received], Awaitable[None]]) -> None:
        self.name = name
        self._handle = handle
        self._lock = threading.Lock()
        self._units: deque[_Unit] = deque()
        self._uncounted = 0
        self._uncounted_source: Source | None = None
        self.mode: str | None = None  # None until the first use, then "passive" or "active"
        self.closed = False
        self.arrived = Waiters()
        self.received = 0
        self.handled = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle = True  # the consumer task waits, and has to be woken

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

    def close(self) -> None:
        """Nothing more will be received: wake all who wait."""
        self.closed = True
        self.arrived.wake()

    # --- emptying -------------------------------------------------------------------------------------------

    def take(self) -> Received | Nothing:
        """The next message, counted as consumed with the next :meth:`count` or take.

        Raises:
            ChannelClosed: there is none and there will be none.
        """
        with self._lock:
            if not self._units:
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

    def count(self, message: Received, *, now: bool = False) -> None:
        """Count *message* as consumed; the grant goes out per batch, or at once with *now*."""
        cost = len(message.payload) + MESSAGE_CHARGE
        due: list[tuple[Source, int]] = []
        with self._lock:
            if self._uncounted_source is not message.source:
                if self._uncounted_source is not None and self._uncounted:
                    due.append((self._uncounted_source, self._uncounted))
                self._uncounted_source, self._uncounted = message.source, 0
            self._uncounted += cost
            units = self._units
            if now or message.flags or self._uncounted >= GRANT_BYTES or not units or not units[0].position:
                due.append((message.source, self._uncounted))
                self._uncounted = 0
        for source, amount in due:
            source.consumed(amount)

    def waiting(self) -> int:
        """Messages that arrived and were not taken."""
        with self._lock:
            return sum(len(unit.payloads) - unit.position for unit in self._units)

    def waiting_cost(self) -> int:
        """The same in bytes, charged as on the link."""
        with self._lock:
            return sum(
                len(payload) + MESSAGE_CHARGE for unit in self._units for payload in unit.payloads[unit.position :]
            )

    def drop_from(self, source: Source) -> int:
        """Forget what *source* sent and nobody took; returns how many messages."""
        with self._lock:
            kept = deque(unit for unit in self._units if unit.source is not source)
            dropped = sum(len(unit.payloads) - unit.position for unit in self._units if unit.source is source)
            self._units = kept
        return dropped

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
            if asyncio._get_running_loop() is loop:
                task.cancel()
            else:
                try:
                    loop.call_soon_threadsafe(task.cancel)
                except RuntimeError:  # closed meanwhile
                    pass

    def _wake_consumer(self) -> None:
        loop = self._loop
        if loop is None or self.mode != "passive" or not self._units:
            return
        with self._lock:
            if not self._idle:
                return
            self._idle = False
        try:
            loop.call_soon_threadsafe(self._start_consumer, loop)
        except RuntimeError:  # the loop is closed; detach_loop is on its way
            with self._lock:
                self._idle = True

    def _start_consumer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._task = loop.create_task(self._consume(), name=f"lycomm-{self.name}")
        else:
            with self._lock:
                self._idle = True

    async def _consume(self) -> None:
        """Handle messages until there are none. One at a time and in order: a slow one delays this channel only."""
        emptied = False  # left with the queue empty and `_idle` set in one step, so the next arrival starts anew
        try:
            granted = time.monotonic()
            while True:
                with self._lock:
                    if not self._units:
                        self._idle = emptied = True
                        return
                message = self.take()
                if isinstance(message, Nothing):
                    continue
                await self._handle(message)
                now = time.monotonic()
                self.count(message, now=now - granted > GRANT_SECONDS)
                if now - granted > GRANT_SECONDS:
                    granted = now
                    # Callbacks that never suspend must not keep the loop from everything else.
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # ours: a user's failure has been dealt with in `handle`
            logger.opt(exception=error).error(f"receiving on {self.name!r} failed inside lycomm; please report this")
        finally:
            if not emptied:
                with self._lock:
                    self._idle = True
                self._wake_consumer()


async def call(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call a sync or async function and wait for its result."""
    result = function(argument)
    if inspect.isawaitable(result):
        result = await result
    return result
