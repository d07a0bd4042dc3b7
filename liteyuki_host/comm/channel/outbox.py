"""One direction of a channel as its sender sees it: across links, until it is consumed.

While a link is up, messages go straight to it and the link's stream holds what is not acknowledged. While there is
none, they wait here. When a link dies, what nobody consumed comes back here and goes to the next one, marked as
redelivered.
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
    return False


class Item(NamedTuple):
    """A message that is on no link."""

    payload: bytes
    flags: int
    request_id: int
    attempts: int


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
        room: the threads and tasks that wait for room; woken when something was consumed or the link changed.
        on_room: called then, too, for a relay, which never waits. Set once.
        sent, redelivered, lost: counts of messages since the process began. *sent* is also counted without the lock.
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
        self._of_link: Callable[..., bool] = _refuse  # while there is one
        self._closed = False
        self.shortcut: Callable[..., bool] = _refuse
        """As ``Link.shortcut``; False: :meth:`offer` is the way."""
        self.backlog: deque[Item] = deque()
        self._backlog_cost = 0
        self.room = Waiters()  # woken when something was consumed, or the link changed
        self.on_room: Callable[[], None] | None = None  # the same for one that never waits: a relay
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
        """Accept a message, or return False when there is no room or it is closed. Accepted means: consumed once, or
        reported.

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
                pass  # about to be unbound; what waits behind it is put in front of this message then
            else:
                if accepted:
                    self.sent += 1
                    return True
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

        Without room it waits here all the same. It is reported as lost if that is too much, and if the outbox is
        closed: nobody would look at it again.
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
        """Whether a message of *size* bytes would be accepted just now."""
        bound = self._bound
        if bound is not None and not self.backlog and not bound[0].ended and bound[1].held is None:
            return bound[1].has_room(size) or self._backlog_limit > 0
        with self._lock:
            return self._fits(size)

    def try_offer(self, payload: bytes, flags: int, request_id: int) -> bool | Nothing:
        """The same as an attempt for :class:`Waiters`."""
        return self.offer(payload, flags, request_id) or NOTHING

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Send the answer to a request. Without a link there is nobody left who waits for it."""
        bound = self._bound
        if bound is not None:
            try:
                bound[0].send(bound[1], payload, flags, request_id)
            except LinkClosed:
                pass

    def _queue(self, item: Item) -> bool:
        bound = self._bound
        if bound is not None and not self.backlog and not bound[0].ended:
            # Bound, or out of credit, since the caller looked.
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
        self.shortcut = _refuse  # until all that waits has gone
        self.backlog.append(item)
        self._backlog_cost += len(item.payload) + MESSAGE_CHARGE
        self.sent += 1

    def _fits(self, size: int) -> bool:
        """Whether the backlog has room. The caller holds the lock."""
        if self._closed:
            return False
        bound = self._bound
        if bound is None or bound[0].ended:
            limit = self._window
        elif bound[1].held is not None:  # as without a link: it is opened anew, or stays, within a moment
            limit = max(self._window, self._backlog_limit)
        else:
            limit = self._backlog_limit
        return self._backlog_cost + size + MESSAGE_CHARGE <= limit or (self._backlog_cost == 0 and limit > 0)

    # --- the link comes and goes ----------------------------------------------------------------------------

    def bind(self, link: Link, stream: Stream) -> None:
        """A link is up: what waits goes first. Nothing happens when this is closed: the link is over already."""
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
        """The other side consumed something, or came."""
        if self.backlog:
            with self._lock:
                self._drain()
        if self.room.callbacks:
            self.room.wake()
        if self.on_room is not None:
            self.on_room()

    def unbind(self, link: Link) -> list[int]:
        """The link is over: take back what was not consumed. Returns the requests nobody will answer."""
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
            for run in list(stream.unacknowledged):  # its reader may not have come to its end yet
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
        """Both sides have closed *stream*. What was sent has been consumed, and what waits here stays."""
        with self._lock:
            bound = self._bound
            if bound is not None and bound[1] is stream:
                self._bound = None
                self.shortcut = self._of_link = _refuse
                self.room.link = None
        self.room.wake()

    def _drain(self) -> None:
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
        """Drop a request that still waits here; one on the link runs its course."""
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
        """Accept nothing more until :meth:`reopen`. What is on a link stays, and goes the way of that; what waits here
        is on none, and is reported as lost: *why*. Requests are not, since whoever has asked gets an error.

        A sender may have looked at the link before it ended, and queue its message only after everything that was left
        has been dealt with. Nobody would look at the queue again, so that message must not be accepted.
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
        """There may be a link again."""
        with self._lock:
            self._closed = False

    def give_up(self, why: str) -> int:
        """Nobody will consume what is left: close, report it as lost and return its count.

        Requests are not counted: whoever has asked gets an error, so nothing is lost without a word.
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
        """Drop what waits without a word, and reopen: there is no receiver that could miss it."""
        with self._lock:
            self._closed = False
            self.backlog.clear()
            self._backlog_cost = 0

    def lose(self, count: int, why: str) -> None:
        """Count and report messages as lost; also those never accepted that nobody else reports (a topic's)."""
        self.lost += count
        self._on_lost(count, why)

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted: the link has ended, or the channel was refused."""
        return self._closed

    @property
    def bound(self) -> bool:
        return self._bound is not None

    @property
    def stream(self) -> Stream | None:
        """The stream that it sends on, while there is one."""
        bound = self._bound
        return None if bound is None else bound[1]

    def bound_to(self, link: Link) -> bool:
        bound = self._bound
        return bound is not None and bound[0] is link

    def waiting(self) -> int:
        """Count the messages accepted and not yet consumed. From inside (see ``waiting/monitor.py``) without those of
        the last moment."""
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
        """An attempt that succeeds once everything accepted so far is consumed."""
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
