"""One direction of a channel as its sender sees it: across links, until each message is consumed.

Theory of operation
-------------------

An outbox outlives the links that it sends on. It is in one of three states:

- **Bound.** A link is up. Messages go straight to it, and the link's stream holds those that are not acknowledged.
- **Unbound.** No link is up. Messages wait in the backlog, up to a window of bytes.
- **Closed.** No link is expected to come up, or the last one is just ending. The backlog accepts nothing.

When a link ends (:meth:`Outbox.unbind`), the messages that nobody consumed come back from the stream to the front of
the backlog, marked as redelivered. The next link sends the backlog first (:meth:`Outbox.bind`). Requests do not come
back: whoever asked gets an error.

Two rules hold at all times:

- *Order.* A message goes to the link directly only while the backlog is empty.
- *No silent loss.* An accepted message is consumed by a receiver, or counted and reported as lost. The exceptions are
  requests and answers, and :meth:`Outbox.forget`.

A message that was first in line each time its receiver died may be what kills it. After :data:`MAX_ATTEMPTS` deaths it
is given up, so that it cannot keep a bot in a crash loop.

Threads and locks
-----------------

Any thread may call any method. The lock is that of the exchange (``waiting/monitor.py``) and is reentrant. Most
messages take no lock here: :attr:`Outbox.shortcut` is the link's own function, and the link protects its own state.
Whoever waits for room does so in :attr:`Outbox.room` and never under the lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from liteyuki_host.comm.errors import LinkClosed
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW, MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.monitor import MOST_DEFERRED, Monitor
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters

__all__ = ["MAX_ATTEMPTS", "Item", "Outbox"]

MAX_ATTEMPTS = 3
"""How often a message may be first in line when its receiver dies before it is set aside: often enough to survive
two coincidences, rarely enough that one poisonous message cannot keep a bot in a crash loop."""


def _refuse(payload: bytes, alone: bool = True) -> bool:
    """Stands in for the shortcut of a link: sends nothing, so that the caller takes :meth:`Outbox.offer`."""
    return False


class Item(NamedTuple):
    """A message that is on no link."""

    payload: bytes
    flags: int
    request_id: int
    """The number of a request; 0 for any other message."""
    attempts: int
    """How often it was first in line when its receiver died."""


class Outbox:
    """See the module's docstring. Callable from any thread; only what may wait does.

    Args:
        window: bytes that may wait while there is no link, each message charged as on the link.
        backlog: bytes that may wait here although a link is up but has no credit.
        on_lost: called with (count, why) when messages are given up; the lock may be held.
        monitor: guards the outbox, with everything else of its exchange; None: one of its own.

    Attributes:
        shortcut: sends a plain message over the bound link without looking at anything here; returns False when that is
            not possible, and always while messages wait. Changed under the lock, called without it.
        backlog: messages on no link, oldest first. Changed under the lock; looked at without it, to see if it is empty.
        room: the threads and tasks that wait for room; woken when something was consumed or the link changed. Has no
            lock of its own; see ``Waiters``.
        on_room: called when a link came up or granted credit, for a relay, which never waits. Set once.
        sent, redelivered, lost: counts of messages since the process began. *sent* and *lost* are also counted without
            the lock, so two threads at once may count one too few.
        _bound: the link and the stream that messages go to, or None. Changed under the lock; read without it by
            senders, for whom the link raises LinkClosed if it has ended meanwhile.
        _of_link: the value of *shortcut* when nothing waits. Changed with ``_bound``.
        _closed: nothing more is accepted. Changed under the lock.
        _backlog_cost: bytes that the backlog is charged with. Changed with it.
    """

    def __init__(
        self,
        *,
        window: int = DEFAULT_WINDOW,
        backlog: int = 0,
        on_lost: Callable[[int, str], None],
        monitor: Monitor | None = None,
    ) -> None:
        self._window = window
        self._backlog_limit = backlog
        self._on_lost = on_lost
        self._monitor = monitor or Monitor()
        self._lock = self._monitor.lock
        self._bound: tuple[Link, Stream] | None = None
        self._of_link: Callable[..., bool] = _refuse
        self._closed = False
        self.shortcut: Callable[..., bool] = _refuse
        self.backlog: deque[Item] = deque()
        self._backlog_cost = 0
        self.room = Waiters()
        self.on_room: Callable[[], None] | None = None
        self.sent = 0
        self.redelivered = 0
        self.lost = 0

    # --- sending --------------------------------------------------------------------------------------------

    def offer(
        self,
        payload: bytes,
        flags: int = 0,
        request_id: int = 0,
        *,
        one_of_many: bool = False,
        may_wait: bool = False,
        patient: bool = True,
    ) -> bool:
        """Accept a message, or return False when there is no room or the outbox is closed. From any thread.

        Tries the link first and without the lock here. Only when that refuses, or messages wait already, is the lock
        taken and the backlog considered.

        Args:
            one_of_many, may_wait, patient: see ``Link.send``.

        Raises:
            Held: not *patient*, and the lock was not to be had in time; nothing was accepted.
        """
        if one_of_many and not flags and self.shortcut(payload, False):
            self.sent += 1
            return True
        bound = self._bound
        # What was put off goes first. It may end in the backlog, so the list of it is looked at before the backlog.
        if bound is not None and (patient or not self._monitor.due) and not self.backlog:
            try:
                accepted = bound[0].send(
                    bound[1], payload, flags, request_id, one_of_many=one_of_many, may_wait=may_wait, patient=patient
                )
            except LinkClosed:
                pass  # about to be unbound, which puts what was not consumed in front of this message
            else:
                if accepted:
                    self.sent += 1
                    return True
                # Out of credit. Most outboxes have no backlog beside a link, so there is nothing more to try. A stream
                # that is being closed is different: the message waits until it is open again.
                if not self._backlog_limit and bound[1].held is None:
                    return False
        monitor = self._monitor
        try:
            if patient:
                monitor.acquire()
            else:
                monitor.enter()
            return self._queue(Item(payload, flags, request_id, 0))
        finally:
            monitor.leave()

    def accept(self, payload: bytes, flags: int = 0) -> None:
        """Take a message that was put off (see ``waiting/monitor.py``): its sender has been told that it is accepted.

        Without room it waits here all the same, beyond the usual limit. It is reported as lost if the backlog already
        costs more than the window or has :data:`MOST_DEFERRED` messages, and if the outbox is closed: nothing would
        send it then.
        """
        with self._lock:
            if self.offer(payload, flags):
                return
            if self._closed:
                self.lose(1, "it was put off, and the link had ended when it could be sent")
            elif len(self.backlog) >= MOST_DEFERRED or self._backlog_cost > self._window:
                self.lose(1, "it was sent by a finalizer, a signal handler or the like, and there was no room")
            else:
                self._append(Item(payload, flags, 0, 0))

    def has_room(self, size: int) -> bool:
        """Whether a message of *size* bytes would be accepted at this moment. Others may take the room before the
        caller does."""
        bound = self._bound
        if bound is not None and not self.backlog and not bound[0].ended and bound[1].held is None:
            return bound[1].has_room(size) or self._backlog_limit > 0
        with self._lock:
            return self._fits(size)

    def try_offer(self, payload: bytes, flags: int, request_id: int) -> bool | Nothing:
        """Offer a message, as an attempt for :class:`Waiters`: True, or NOTHING if it was not accepted."""
        return self.offer(payload, flags, request_id) or NOTHING

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Send the answer to a request. Without a link it is dropped: the process that asked is gone."""
        bound = self._bound
        if bound is not None:
            try:
                bound[0].send(bound[1], payload, flags, request_id)
            except LinkClosed:
                pass

    def _queue(self, item: Item) -> bool:
        """Send a message or let it wait here; False without room. The caller holds the lock, so the order is final."""
        bound = self._bound
        if bound is not None and not self.backlog and not bound[0].ended:
            # The caller looked without the lock. The link may have come up or gained credit since.
            try:
                if bound[0].send(bound[1], item.payload, item.flags, item.request_id):
                    self.sent += 1
                    return True
            except LinkClosed:
                pass
        if not self._fits(len(item.payload)):
            return False
        self._append(item)
        return True

    def _append(self, item: Item) -> None:
        """Let a message wait here. The caller holds the lock."""
        self.shortcut = _refuse  # or a later message would overtake this one; `_drain` sets it back
        self.backlog.append(item)
        self._backlog_cost += len(item.payload) + MESSAGE_CHARGE
        self.sent += 1

    def _fits(self, size: int) -> bool:
        """Whether the backlog has room for a message of *size* bytes. The caller holds the lock.

        A message that is larger than the whole limit is accepted while nothing else waits: otherwise it could never be
        sent.
        """
        if self._closed:
            return False
        bound = self._bound
        if bound is None or bound[0].ended:
            limit = self._window
        elif bound[1].held is not None:  # the stream is being closed; soon it is open again or replaced by a new one
            limit = max(self._window, self._backlog_limit)
        else:
            limit = self._backlog_limit
        return self._backlog_cost + size + MESSAGE_CHARGE <= limit or (self._backlog_cost == 0 and limit > 0)

    # --- the link comes and goes ----------------------------------------------------------------------------

    def bind(self, link: Link, stream: Stream) -> None:
        """Send on *stream* of *link* from now on, what waits first. Does nothing when this is closed: the link has
        ended already."""
        with self._lock:
            if self._closed:
                return
            stream.user = self
            self.room.link = link
            self._bound = (link, stream)
            self._of_link = link.shortcut(stream)
            self._drain()
        self.credit()

    def credit(self) -> None:
        """Send what waits, and wake those who wait for room: the other side has consumed something, or a link is up.
        Called by :meth:`bind` and by the link for each grant. The caller need not hold the lock."""
        if self.backlog:
            with self._lock:
                self._drain()
        if self.room.callbacks:
            self.room.wake()
        if self.on_room is not None:
            self.on_room()

    def unbind(self, link: Link) -> list[int]:
        """Take back what was not consumed from *link*, which has ended. Does nothing if another link is bound.

        The backlog is then in the order in which the messages were sent: those of the link, then those that waited. The
        first of the link's messages is charged with one more attempt: if its handling killed the receiver, it is the
        one that was in progress.

        Returns:
            the numbers of the requests that nobody will answer. They are dropped; the caller fails them.
        """
        unanswered: list[int] = []
        lost = 0
        with self._lock:
            bound = self._bound
            if bound is None or bound[0] is not link:
                return unanswered
            self._bound = None
            self.shortcut = self._of_link = _refuse
            self.room.link = None
            link.settle()
            returned: list[Item] = []
            stream = bound[1]
            for run in list(stream.unacknowledged):  # a copy: the link's reader may still take acknowledged runs off
                attempts = run.attempts
                for payload in run.unconsumed(stream.acknowledged):
                    if run.flags & Flag.REQUEST:
                        unanswered.append(run.request_id)
                        continue
                    returned.append(Item(payload, run.flags | Flag.REDELIVERED, 0, attempts))
            stream.unacknowledged.clear()
            unanswered += [item.request_id for item in self.backlog if item.flags & Flag.REQUEST]
            waiting = [item for item in self.backlog if not item.flags & Flag.REQUEST]
            if returned:
                first = returned[0]._replace(attempts=returned[0].attempts + 1)
                if first.attempts >= MAX_ATTEMPTS:
                    lost = 1
                    del returned[0]
                else:
                    returned[0] = first
            self.backlog = deque((*returned, *waiting))
            self._backlog_cost = sum(len(item.payload) + MESSAGE_CHARGE for item in self.backlog)
        if lost:
            self.lose(
                lost, f"it was first in line {MAX_ATTEMPTS} times when its receiver died; it may be what kills it"
            )
        self.room.wake()
        return unanswered

    def release(self, stream: Stream) -> None:
        """Let go of *stream*, which both sides have closed. What was sent on it has been consumed; what waits here
        stays for the next stream."""
        with self._lock:
            bound = self._bound
            if bound is not None and bound[1] is stream:
                self._bound = None
                self.shortcut = self._of_link = _refuse
                self.room.link = None
        self.room.wake()

    def _drain(self) -> None:
        """Send what waits, as far as the link takes it. The caller holds the lock. The shortcut is open again once
        nothing waits."""
        bound = self._bound
        if bound is None:
            return
        link, stream = bound
        while self.backlog:
            item = self.backlog[0]
            try:
                if not link.send(stream, item.payload, item.flags, item.request_id, item.attempts):
                    return
            except LinkClosed:
                return
            self.backlog.popleft()
            self._backlog_cost -= len(item.payload) + MESSAGE_CHARGE
            if item.flags & Flag.REDELIVERED:
                self.redelivered += 1
        self.shortcut = self._of_link

    # --- giving up, looking ---------------------------------------------------------------------------------

    def cancel_request(self, request_id: int) -> None:
        """Drop a request that still waits here, because nobody waits for its answer any more. One that is on the link
        cannot be taken back."""
        with self._lock:
            for index, item in enumerate(self.backlog):
                if item.flags & Flag.REQUEST and item.request_id == request_id:
                    del self.backlog[index]
                    self._backlog_cost -= len(item.payload) + MESSAGE_CHARGE
                    break
            else:
                return
        self.room.wake()

    def close(self, why: str) -> None:
        """Accept nothing more until :meth:`reopen`. Messages on a link stay there. Messages that wait here are reported
        as lost with the reason *why*; requests stay, since :meth:`unbind` returns them to be failed.

        A sender may have looked at the link before it ended, and queue its message only after the backlog has been
        dealt with. Nothing would ever send that message, so it must not be accepted.
        """
        with self._lock:
            self._closed = True
            requests = [item for item in self.backlog if item.flags & Flag.REQUEST]
            lost = len(self.backlog) - len(requests)
            self.backlog = deque(requests)
            self._backlog_cost = sum(len(item.payload) + MESSAGE_CHARGE for item in requests)
        if lost:
            self.lose(lost, why)

    def reopen(self) -> None:
        """Accept messages again after :meth:`close` or :meth:`give_up`, because a link may come up again."""
        with self._lock:
            self._closed = False

    def give_up(self, why: str) -> int:
        """Close, and report everything that was not consumed as lost, also what is on the link. Returns how many
        messages that were.

        Requests are dropped, but not counted: whoever asked gets an error.
        """
        with self._lock:
            self._closed = True
            count = sum(1 for item in self.backlog if not item.flags & Flag.REQUEST)
            self.backlog.clear()
            self._backlog_cost = 0
            if self._bound is not None:
                link, stream = self._bound
                link.settle()
                for run in list(stream.unacknowledged):
                    if not run.flags & Flag.REQUEST:
                        count += len(run.unconsumed(stream.acknowledged))
                stream.unacknowledged.clear()
        if count:
            self.lose(count, why)
        self.room.wake()
        return count

    def forget(self) -> None:
        """Drop what waits without a report, and reopen, as there is no receiver that could miss it."""
        with self._lock:
            self._closed = False
            self.backlog.clear()
            self._backlog_cost = 0

    def lose(self, count: int, why: str) -> None:
        """Count *count* messages as lost and report them with the reason *why*. Also called from outside, for messages
        that were never accepted here and that nobody else reports (a topic's)."""
        self.lost += count
        self._on_lost(count, why)

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted: the link has ended, or the channel was refused."""
        return self._closed

    @property
    def bound(self) -> bool:
        """Whether a link is bound. It may have ended a moment ago."""
        return self._bound is not None

    @property
    def stream(self) -> Stream | None:
        """The stream that it sends on, while there is one."""
        bound = self._bound
        return None if bound is None else bound[1]

    def bound_to(self, link: Link) -> bool:
        """Whether it is *link* that messages go to."""
        bound = self._bound
        return bound is not None and bound[0] is link

    def waiting(self) -> int:
        """Count the messages accepted and not yet consumed.

        Called while this thread holds the lock (see ``waiting/monitor.py``), it leaves out messages that the link has
        staged but not queued yet: the link is not settled in the middle of its own work.
        """
        if self._monitor.owned():
            bound = self._bound
            batches = () if bound is None else list(bound[1].unacknowledged)
            return len(self.backlog) + sum(len(batch.unconsumed(batch.stream.acknowledged)) for batch in batches)
        with self._lock:
            count = len(self.backlog)
            if self._bound is not None:
                link, stream = self._bound
                link.settle()
                for run in list(stream.unacknowledged):
                    count += len(run.unconsumed(stream.acknowledged))
            return count

    def mark(self) -> Callable[[], bool | Nothing]:
        """Return an attempt for :class:`Waiters` that succeeds once everything accepted so far is consumed.

        While nothing waits here, the stream's count of acknowledged messages tells. Otherwise the attempt succeeds when
        nothing at all is left, which later messages may delay.
        """
        with self._lock:
            bound, backlog = self._bound, len(self.backlog)
            if not backlog and bound is not None:
                link, stream = bound
                link.settle()
                target = stream.sent

                def consumed() -> bool | Nothing:
                    # After the link's end, what was not consumed waits in the backlog, or was reported lost.
                    return stream.acknowledged >= target or self.waiting() == 0 or NOTHING

                return consumed
        return lambda: self.waiting() == 0 or NOTHING
