"""One direction of a channel as its receiver sees it: a queue, and one of two ways to empty it.

Messages stay encoded in the queue and are decoded by whoever consumes them, so a value that cannot be decoded is one
message's error, on the thread that can name it. Consuming is what grants credit.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.unit import Received, Source, Taken, Unit
from liteyuki_host.comm.channel.worker import Worker
from liteyuki_host.comm.errors import ChannelClosed, ChannelModeError, ChannelTaken
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.loops import turn_of
from liteyuki_host.comm.waiting.waiting import NOTHING, Bringer, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

__all__ = ["Inbox", "redelivered"]

redelivered: ContextVar[bool] = ContextVar("lycomm_redelivered", default=False)
"""Whether the message being handled was handed to an earlier incarnation of this process before."""


class Inbox:
    """See the module's docstring.

    Args:
        name: of the channel or topic, for messages.
        handle: consumes one message on the loop in passive mode.
        callbacks: who is registered; messages wait while nobody is. A single callback without a filter is called
            without *handle*, unless there is more to a message than its payload. None: *handle* takes everything.
        failed: told what of such a callback has failed, and why.
        replied: told of each answer to a request, with its number, flags and payload.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Received], Awaitable[None]],
        *,
        callbacks: Callbacks | None = None,
        failed: Callable[[str, Callback, BaseException], None] = lambda what, callback, error: None,
        replied: Callable[[int, int, bytes], None] = lambda request_id, flags, payload: None,
    ) -> None:
        self.name = name
        self._replied = replied
        self._lock = threading.Lock()
        self.units: deque[Unit] = deque()
        self._worker = Worker(name, self.units, self._lock, handle, callbacks, failed)
        self.mode: str | None = None  # None until the first use, then "passive" or "active"
        self.closed = False
        self._refused: str | None = None
        self.arrived = Waiters()
        self.received = 0
        self.stream: Stream | None = None

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

    def follow(self, link: Bringer, stream: Stream) -> None:
        """*stream* of *link* is what brings messages from now on."""
        self.stream = self._worker.stream = stream
        self.arrived.link = link
        self.arrived.wake()  # who sleeps because there was no link may read this one

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Source) -> None:
        """Take messages in. Called by the link's reader; never waits."""
        current = self._worker.current
        if (
            current is not None
            and current.free
            and not flags
            and len(payloads) == 1
            and (turn := turn_of(current.loop))
        ):
            # As a link does with what arrives alone, if it can: it needs no queue.
            current.free = False
            current.handed = payloads[0], source
            self.received += 1
            turn.due.append(current.take)
            return
        if flags & Flag.REPLY:
            self._replied(request_id, flags, payloads[0])
            return
        self.received += len(payloads)
        self.units.append(Unit(payloads, flags, request_id, source))
        if self.arrived.callbacks:
            self.arrived.wake()
        if self.mode == "passive":
            self._worker.wake()

    def close(self, refused: str | None = None) -> None:
        """Nothing more will be received, or this process is *refused* as an end: wake all who wait."""
        self._refused = refused
        self.closed = True
        with self._lock:
            for unit in list(self.units)[:1]:
                unit.count()  # what this process has handled is not to be handed to the next
        self.arrived.wake()

    # --- emptying -------------------------------------------------------------------------------------------

    def take(self) -> Taken | Nothing:
        """The next message. It counts as consumed: the link gathers grants for a moment, and a counted message is never
        redelivered after a planned end, and after a kill only when that moment had not passed.

        Raises:
            ChannelClosed: there is none and there will be none.
            ChannelTaken: there is none, and this process is no end of the channel.
        """
        if not self.units and not self.closed:
            return NOTHING
        with self._lock:
            if not self.units:
                if self._refused is not None:
                    raise ChannelTaken(self._refused)
                if self.closed:
                    raise ChannelClosed(f"channel {self.name!r} is closed: this process is shutting down")
                return NOTHING
            unit = self.units[0]
            payload = unit.payloads[unit.position]
            unit.position += 1
            source = unit.source
            source.count(len(payload) + MESSAGE_CHARGE)
            if unit.position == len(unit.payloads):
                self.units.popleft()  # last: who finds the queue empty may count without the lock
            return payload, unit.flags, unit.request_id, source

    def receive(self, timeout: float | None) -> Taken | Nothing:
        """Wait for the next message in this thread; NOTHING after *timeout* seconds. Counts and raises as :meth:`take`
        does."""
        link = self.arrived.link
        if link is not None and not self.units and not self.closed:
            # Read by this thread and alone, it needs no queue.
            deadline = None if timeout is None else time.monotonic() + timeout
            message: Taken | Nothing = link.lead(self._ready, deadline, self.stream)
            if message is not NOTHING:
                return message
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0.0)
        return self.arrived.wait(self.take, timeout)

    def _ready(self) -> object:
        """Whether :meth:`take` has something to say."""
        return self.units or self.closed

    def waiting(self) -> int:
        """Messages that arrived and were not taken."""
        with self._lock:
            return sum(len(unit.payloads) - unit.taken for unit in list(self.units))

    def reopen(self) -> None:
        """There is a new link. What an earlier one brought and nobody took is dropped: its sender still has it."""
        with self._lock:
            for unit in list(self.units):
                unit.payloads.clear()  # a consumer may be in the middle of it
            self.units.clear()
            self.closed = False

    # --- passive mode ---------------------------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Consume on *loop* from now on, in passive mode. Safe from any thread."""
        self._worker.attach(loop)
        if self.mode == "passive":
            self._worker.wake()

    def detach_loop(self) -> None:
        """Stop consuming; a message in progress is cancelled, not counted, and so handed over again."""
        self._worker.detach()

    def end_consuming(self) -> None:
        """The same for good, but a message in progress is handled to its end."""
        self._worker.end()
