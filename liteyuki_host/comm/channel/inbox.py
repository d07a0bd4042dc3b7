"""One direction of a channel as its receiver sees it: a queue, and one of two ways to empty it.

Theory of operation
-------------------

A message takes one of three ways to its consumer. All are decided here:

- **The queue.** :meth:`Inbox.deliver` appends what arrived. In active mode ``receive()`` takes messages off one by one
  (:meth:`Inbox.take`); in passive mode a :class:`Worker` runs a task that gives them to the callbacks.
- **To the reading thread.** A thread that waits in ``receive()`` reads the link itself. A message that it reads alone
  is returned to it without a queue (:meth:`Inbox.pass_to_reader`).
- **To the worker's task.** The event loop reads the link, and the only callback runs there at once, in the name of
  the parked task (:meth:`Inbox.pass_to_task`).

The rule for both direct ways is: *only if nothing waits in the queue.* Otherwise a message would overtake others.

Messages stay encoded in the queue and are decoded by their consumer, so a value that cannot be decoded is one message's
error, on the thread that can name it. A message that was consumed is counted at its source, which grants credit for it.

Locks and threads
-----------------

The link's reader appends to ``units``; consumers work at its front under ``_lock``. At most one consumer runs at a time
in passive mode (the worker's task); in active mode any number of threads and tasks may take.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.unit import Received, Source, Taken, Unit
from liteyuki_host.comm.channel.worker import Worker
from liteyuki_host.comm.errors import ChannelClosed, ChannelModeError, ChannelTaken
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.loops import Turn, turn_of
from liteyuki_host.comm.waiting.monitor import Monitor, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Bringer, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

__all__ = ["Inbox"]


class Inbox:
    """A queue of messages and the ways to empty it, as the module describes them.

    Args:
        name: of the channel or topic, for messages to people.
        handle: consumes one message on the loop, in passive mode.
        callbacks: the registered callbacks. A single one without a filter is called without *handle*, unless a message
            has flags. None: *handle* takes every message.
        keep: whether messages wait while no callback is registered; False: *handle* takes them then, too.
        failed: called with what has failed, the callback and the error, when such a single callback fails.
        replied: called by the link's reader with each answer to a request: its number, flags and payload.
        asked: called by the link's reader with the flags, number and source of each request; True: it has been
            answered, and is not queued.
        monitor: guards the front of the queue, with everything else of its exchange; None: one of its own.

    Attributes:
        units: what waits. Appended to by the link's reader; its front is taken off under ``_lock``.
        mode: ``passive``, ``active``, or None before the first use. Set once, under ``_lock``.
        closed: nothing more will be received. Set by :meth:`close` and :meth:`reopen`, from any thread.
        received: messages that have arrived, by all three ways. Counted by the link's reader.
        arrived: the threads and tasks that wait for a message in active mode.
        stream: brings the messages, while there is a link. Set by the thread that binds the channel.
        worker: calls the callbacks, in passive mode.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[Received], Awaitable[None]],
        *,
        callbacks: Callbacks | None = None,
        keep: bool = True,
        failed: Callable[[str, Callback, BaseException], None] = lambda what, callback, error: None,
        replied: Callable[[int, int, bytes], None] = lambda request_id, flags, payload: None,
        asked: Callable[[int, int, Source], bool] = lambda flags, request_id, source: False,
        monitor: Monitor | None = None,
    ) -> None:
        self.name = name
        self._replied = replied
        self._asked = asked
        self.monitor = monitor or Monitor()
        self._lock = self.monitor.lock
        self.units: deque[Unit] = deque()
        self._callbacks = Callbacks() if callbacks is None else callbacks
        self.worker = Worker(name, self.units, self.monitor, handle, callbacks, failed, keep=keep)
        self.mode: str | None = None
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
        """Receive from *stream* of *link* from now on."""
        self.stream = stream
        stream.inbox = self
        self.arrived.link = link
        self.arrived.wake()  # a thread that waited without a link may read this one

    def unfollow(self) -> None:
        """Let go of the link, which has ended or does not carry this channel any more. What it brought stays."""
        self.stream = None
        self.arrived.link = None

    def drop_oldest(self, limit: int) -> int:
        """Drop the oldest messages that wait beyond *limit* bytes, and return how many those were. Called at the end of
        a link, so that senders that come and go do not fill this process's memory with what nobody reads.

        Two kinds of messages are kept whatever they cost:

        - those of the first unit. A consumer may be in the middle of it, and iterates over it without the lock.
        - the newest message. One that is larger than the window is sent alone.

        With the window as *limit*, one sender alone never loses anything here: nothing behind the first unit has been
        counted as consumed, so its credit bounds that to a window. Counting the first unit, or what has been taken of
        it, would break this: credit for taken messages has been given back, and the sender may have used it again.
        """
        dropped = 0
        with self._lock:
            units = self.units
            excess = sum(unit.cost for unit in list(units)[1:]) - limit  # a copy: a reader may append meanwhile
            while excess > 0 and len(units) > 1:
                oldest = units[1]
                count, cost = oldest.drop(excess, keep=len(units) == 2)
                dropped += count
                excess -= cost
                if oldest.position < len(oldest.payloads):
                    break
                del units[1]
        return dropped

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Source) -> None:
        """Take messages in. Called by the link's reader; never waits."""
        if flags & Flag.REPLY:
            self._replied(request_id, flags, payloads[0])
            return
        current = self.worker.current
        if (
            current is not None
            and current.free
            and not flags
            and len(payloads) == 1
            and (turn := turn_of(current.loop)) is not None
            and self.pass_to_task(payloads[0], source, turn)
        ):
            return
        self.received += len(payloads)
        if flags & Flag.REQUEST and self._asked(flags, request_id, source):
            source.consumed(len(payloads[0]) + MESSAGE_CHARGE)
            return
        self.units.append(Unit(payloads, flags, request_id, source))
        if self.arrived.callbacks:
            self.arrived.wake()
        if self.mode == "passive":
            self.worker.wake()

    def pass_to_reader(self, size: int, source: Source) -> bool:
        """Whether the thread that reads the link and waits in :meth:`receive` may keep a message of *size* bytes. If
        so, it is counted as received and consumed. Called by the link's reader."""
        if self.units:
            return False
        self.received += 1
        source.count(size + MESSAGE_CHARGE)
        return True

    def pass_to_task(self, payload: bytes, source: Source, turn: Turn) -> bool:
        """Whether the worker's task has taken a message without flags. It then gives it to the callback at the end of
        *turn*, in which its loop reads just now. Called by the link's reader, on that loop."""
        task = self.worker.current
        if task is None or not task.free or task.loop is not turn.loop or self.units or self._callbacks.only is None:
            return False
        task.free = False
        task.handed = payload, source
        self.received += 1
        turn.due.append(task.take)
        return True

    def close(self, refused: str | None = None) -> None:
        """Receive nothing more, and wake everybody who waits.

        Args:
            refused: why this process is no end of the channel; None: it leaves, or its host has gone.
        """
        self._refused = refused
        self.closed = True
        with self._lock:
            for unit in list(self.units)[:1]:
                unit.count()  # what this process has handled is not to be given to the next one
        self.arrived.wake()

    # --- emptying -------------------------------------------------------------------------------------------

    def take(self) -> Taken | Nothing:
        """Take the next message; NOTHING when there is none. It counts as consumed: the link gathers grants for a
        moment, and a counted message is never redelivered after a planned end, and after a kill only when that moment
        had not passed.

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
                self.units.popleft()  # after the count: pass_to_reader counts without the lock once this is empty
            return payload, unit.flags, unit.request_id, source

    def receive(self, timeout: float | None) -> Taken | Nothing:
        """Wait for the next message in this thread; NOTHING after *timeout* seconds. Counts and raises as :meth:`take`
        does."""
        link = self.arrived.link
        if link is not None and not self.units and not self.closed:
            if timeout is not None and timeout <= 0:
                return self.arrived.wait(self.take, link.look())
            deadline = None if timeout is None else time.monotonic() + timeout
            message: Taken | Nothing = link.lead(self._ready, deadline, self.stream)
            if message is not NOTHING:
                return message
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0.0)
        elif link is None:
            refuse_to_wait(f"channel {self.name!r}: receive()")
        return self.arrived.wait(self.take, timeout)

    def _ready(self) -> object:
        """Whether :meth:`take` would return a message or raise."""
        return self.units or self.closed

    def waiting(self) -> int:
        """How many messages have arrived and were not taken."""
        with self._lock:
            return sum(len(unit.payloads) - unit.taken for unit in list(self.units))

    def reopen(self) -> None:
        """Begin anew with a new link. Messages of an earlier link that nobody took are dropped: their sender still has
        them, and sends them again."""
        with self._lock:
            for unit in list(self.units):
                unit.payloads.clear()  # the worker may be in the middle of it
            self.units.clear()
            self.closed = False

    # --- passive mode ---------------------------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call callbacks on *loop* from now on, in passive mode. From any thread."""
        self.worker.attach(loop)
        if self.mode == "passive":
            self.worker.wake()

    def detach_loop(self) -> None:
        """Stop calling callbacks. A callback in progress is cancelled; its message is not counted as consumed, and is
        given to the callbacks again, marked as redelivered, when a loop is attached. From any thread."""
        self.worker.detach()

    def drain(self) -> None:
        """Consume what waits, and what comes from now on, for nobody; end the task that handles messages, but a message
        in progress to its end. From any thread."""
        if not self.worker.drain():
            with self._lock:
                while self.units:
                    self.units.popleft().count_all()

    def end_consuming(self) -> None:
        """Stop calling callbacks for good. A callback in progress runs to its end. From any thread."""
        self.worker.end()
