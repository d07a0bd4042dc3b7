"""The shared memory in a process under a host: what it has seen of the host's order, and what it has asked for.

Theory of operation
-------------------

The host's authority orders all writes. This process sends requests on the *store* stream of its link, and the host
sends events back on the same stream:

- ``SnapshotPart``, ``SnapshotEnd``: the state that the process begins with. The process answers with the barrier
  ``LOADED``, and the host repeats that number; then the greeting is complete (``loaded``) and the process may write.
- ``Change``: a step of the order that somebody else has made.
- ``Ordered``: own writes have become the next steps. The host does not send back what they were, so each own write is
  kept (``_own_writes``) until it is ordered or refused.
- ``Done``: the answer to one request: a refused write, or the outcome of a request that has one.
- ``Barrier``: the host asks, for somebody's ``sync()``, that everything written here so far be sent before the answer.
- ``Declared``, ``Undeclared``: names of channels, which use this stream for its order alone.

The :class:`Mirror` turns these into what readers see: own writes at once, and the host's order in the end.

There are two kinds of requests. Plain writes (:meth:`Replica.put`, :meth:`Replica.remove`) need credit: without it they
wait, or return False. That bounds what a process that writes all the time can queue at the host. Requests that somebody
waits for (:meth:`Replica.ask`) need none: each asker has one under way, and waits anyway.

Order. A request gets its number, its place on the link and its place in the mirror under one lock. So numbers on the
link only grow, and a barrier's answer follows every write that was made before it.

Threads and the lock
--------------------

``lock`` is that of the exchange's monitor; it guards everything here, unless an attribute says otherwise. Requests come
from any thread. Events are followed by whichever thread reads the link, one batch after the other
(:meth:`Replica.deliver`). Watchers and ``done`` functions are called there without the lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from liteyuki_host.comm.channel.end import StreamSource, join
from liteyuki_host.comm.errors import HostNotAttached, LinkClosed
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.exchange import report_refusal
from liteyuki_host.comm.process.watchers import Watcher
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.messages import PUT, encode_tagged
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.storage.mirror import Mirror
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.monitor import Held, Monitor, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters

__all__ = ["Replica"]

Done = Callable[[Outcome], None]
"""Is told what became of a request. Called by the thread that reads the link; must not wait."""


class Replica:
    """The shared memory of a node that has a host. There is one per node, for one link after the other.

    It is the receiver of the store stream (``deliver``). Methods may be called from any thread.

    Args:
        view: the dict that reads go to; changed in place.
        watchers: returns those that are told of every step, in order.
        loaded: called with the names of channels when a new link's snapshot is complete and the host knows that.
        declared: called with the name of each channel that is declared later, or had no room in the snapshot's end.
        withdrawn: called with the name of each channel that nobody uses any more.
        monitor: guards everything here, with everything else of its exchange; None: one of its own.

    Attributes:
        lock: that of *monitor*.
        room: the writers that wait for credit. Woken when the host has consumed requests, and at the link's end.
    """

    def __init__(
        self,
        view: dict[str, object],
        *,
        watchers: Callable[[], Sequence[Watcher]],
        loaded: Callable[[list[str]], None],
        declared: Callable[[str], None],
        withdrawn: Callable[[str], None] = lambda name: None,
        monitor: Monitor | None = None,
    ) -> None:
        self._monitor = monitor or Monitor()
        self.lock = self._monitor.lock
        self.room = Waiters()
        self._view = view
        self._watchers = watchers
        self._loaded = loaded
        self._declared = declared
        self._withdrawn = withdrawn
        self._mirror = Mirror(view)  # replaced by reset()
        self._link: Link | None = None  # set by begin(), before anything is sent
        # The link's short way for a lone message; set by begin(). False: the general way, `_send`, has to be used.
        self._shortcut: Callable[..., bool] = lambda payload: False
        # Number of the next request. Never reset: an answer, or a lock's holder, of an earlier link must match nothing.
        self._next_request = 1
        self._replies: dict[int, Done] = {}  # of requests made by ask(), until they are answered
        # Writes that the host has not ordered yet, by number: key, value (None: deleted), ttl, and whom to tell.
        self._own_writes: dict[int, tuple[str, bytes | None, float | None, Done | None]] = {}
        # What has come of a snapshot: key, value, revision, ttl. Filled by the thread that reads the link.
        self._snapshot: list[tuple[str, bytes, int, float | None]] = []
        # The names in the snapshot's end, until the greeting is complete. Of the thread that reads the link alone.
        self._channels_of_host: list[str] = []

    def begin(self, link: Link) -> None:
        """Follow the host behind *link*, which has not been started. What an earlier host has told is dropped; readers
        see the old values until the new snapshot has been loaded."""
        self.reset()
        self._link = link
        self._shortcut = link.shortcut(link.connection.store, outermost=False)
        self.room.link = link
        join(self, link, link.connection.store)

    def reset(self) -> None:
        """Drop everything that a host has told, for a link to another one. The view keeps its values."""
        with self.lock:
            self._mirror = Mirror(self._view)
            self._own_writes.clear()
            self._snapshot = []

    def end(self) -> None:
        """Tell everybody who waits for an answer that the host is gone; whether their requests were performed is
        unknown. Called by the thread that reads the link, at its end. The mirror keeps what it shows, own writes
        included."""
        self.room.wake()
        with self.lock:
            waiting = [*self._replies.values(), *(done for _, _, _, done in self._own_writes.values())]
            self._replies.clear()
            revision = self._mirror.revision
        for done in waiting:
            if done is not None:
                done(Outcome(Refusal.HOST_GONE, None, revision))

    @property
    def revision(self) -> int:
        return self._mirror.revision

    def revision_of(self, key: str) -> tuple[object, int]:
        """Return what the view has for the key, or NOTHING, and the revision of its last change, as one moment."""
        with self.lock:
            # An own write under way has no revision yet. -1 matches none, so a comparison with it is refused, and the
            # refusal brings the real one.
            revision = -1 if self._mirror.is_pending(key) else self._mirror.revision_of(key)
            return self._view.get(key, NOTHING), revision

    # --- requests -------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        payload: bytes,
        ttl: float | None,
        ephemeral: bool,
        done: Done | None,
        *,
        may_wait: bool,
        late: bool = False,
    ) -> bool:
        """Write; visible here at once. Arguments, result and errors are those of ``Exchange.put``."""
        monitor = self._monitor
        try:
            # `Monitor.enter`, written out: this is the path of every write. The lock is free nearly always.
            if not (monitor.acquire(False) or monitor.take()):
                raise Held
            # Calls that were put off go first, so that those of one thread keep their order. A late write is one of
            # them.
            if monitor.due and not late:
                monitor.perform()
            number = self._next_request
            request = encode_tagged((PUT, number, key, payload, ttl, ephemeral))
            # A late write needs no credit: nobody is left who could wait.
            if self._shortcut(request) or self._send(request, Flag.UNCREDITED if late else 0):
                # Noted behind the send, as that may raise or find no room. The answer cannot overtake this: whoever
                # reads it takes the lock.
                self._next_request = number + 1
                self._own_writes[number] = (key, payload, ttl, done)
                self._mirror.own_put(number, key, payload, None if ttl is None else time.monotonic() + ttl)
                return True
        finally:
            try:
                monitor.release()
            except RuntimeError:  # it was not acquired: Held, or Ctrl+C before
                pass
        # No room. `partial`, because a local variable that a nested function uses is slower everywhere in this one.
        return may_wait and self._wait_for_room(partial(self.put, key, payload, ttl, ephemeral, done, may_wait=False))

    def remove(self, key: str, done: Done | None, *, may_wait: bool, late: bool = False) -> bool:
        """Delete; visible here at once. Arguments, result and errors are those of ``Exchange.remove``."""
        monitor = self._monitor
        try:
            monitor.enter()
            number = self._next_request
            request = messages.encode_message(messages.Remove(number, key))
            if self._send(request, Flag.UNCREDITED if late else 0):
                self._next_request = number + 1
                self._own_writes[number] = (key, None, None, done)
                self._mirror.own_remove(number, key)
                return True
        finally:
            monitor.leave()
        return may_wait and self._wait_for_room(lambda: self.remove(key, done, may_wait=False))

    def ask(self, make: Callable[[int], messages.Request], done: Done | None) -> int:
        """Send a request whose answer somebody waits for, without credit. Returns its number.

        Args:
            make: makes the request with its number.
            done: called once with the outcome; None: the answer is dropped.

        Raises:
            HostNotAttached: the link is over; nothing was asked.
        """
        with self.lock:
            number = self._next_request
            self._send(messages.encode_message(make(number)), Flag.UNCREDITED)
            self._next_request = number + 1
            if done is not None:
                self._replies[number] = done
            return number

    def forget(self, number: int) -> None:
        """Drop the ``done`` of request *number*: there is no answer to a request for a lock that is no longer waited
        for, so the entry would stay for ever."""
        with self.lock:
            self._replies.pop(number, None)

    def _send(self, payload: bytes, flags: int = 0) -> bool:
        """Put a request on the link. Returns False when it needs credit and there is none. The caller holds the lock.

        Raises:
            HostNotAttached: the link is over.
        """
        link = self._link
        assert link is not None
        try:
            return link.send(link.connection.store, payload, flags)
        except LinkClosed as error:
            raise HostNotAttached(f"the shared memory cannot be written: {error}") from None

    def _wait_for_room(self, write: Callable[[], bool]) -> bool:
        """Repeat *write* in this thread whenever there is new credit, until it has succeeded; returns True then. There
        is no time limit, but the link's end makes *write* raise. The caller does not hold the lock.

        Raises:
            ReentrantCall: this thread must not wait.
        """

        def attempt() -> bool | Nothing:
            return write() or NOTHING

        refuse_to_wait("a write of the shared memory without room on the way to the host")
        self.room.wait(attempt, None)
        return True

    # --- events: called by the thread that reads the link ---------------------------------------------------

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        """Follow a batch of the host's events, then count it as consumed. The host bounds writers by that count."""
        cost = MESSAGE_CHARGE * len(payloads)
        for payload in payloads:
            cost += len(payload)
            event = messages.decode_event(payload)
            if type(event) is messages.Ordered:
                self._ordered(event)
            elif type(event) is messages.Change:
                with self.lock:
                    followed = self._mirror.apply(event, time.monotonic())
                if not followed:
                    self._gap(event.revision)
                else:
                    for watcher in self._watchers():
                        watcher.changed(event.key, payload, event)
            else:
                self._follow(event)
        source.count(cost)

    def _follow(self, event: messages.Event) -> None:
        """Follow an event of a rarer kind."""
        if isinstance(event, messages.Done):
            self._done(event)
        elif isinstance(event, messages.SnapshotPart):
            self._snapshot.extend(event.items)
        elif isinstance(event, messages.SnapshotEnd):
            with self.lock:
                self._mirror.load(self._snapshot, event.revision, time.monotonic())
                self._snapshot = []
            # Not attached yet: were this process to write now, the host's barriers would not cover those writes.
            self._channels_of_host = event.channels
            self._answer_barrier(messages.LOADED)
        elif isinstance(event, messages.Declared):
            self._declared(event.channel)
        elif isinstance(event, messages.Barrier):
            if event.number == messages.LOADED:
                self._loaded(self._channels_of_host)
            else:
                self._answer_barrier(event.number)
        elif isinstance(event, messages.Undeclared):
            self._withdrawn(event.channel)

    def _answer_barrier(self, number: int) -> None:
        """Tell the host that everything written until now has been sent."""
        try:
            with self.lock:  # writes take their place on the link under it, so all of them precede this
                self._send(messages.encode_message(messages.Reached(0, number)), Flag.UNCREDITED)
        except HostNotAttached:  # the end of the link counts as an answer
            pass

    def _ordered(self, event: messages.Ordered) -> None:
        """Follow steps of the order that are own writes: tell the mirror, the watchers and whoever waits."""
        first, revision = event.id, event.revision
        with self.lock:
            try:
                writes = list(map(self._own_writes.pop, range(first, first + event.count)))
            except KeyError:  # the host names a write that was never made
                followed = False
            else:
                followed = self._mirror.own_ordered(first, writes, revision, time.monotonic())
        if not followed:
            self._gap(revision)
            return
        watchers = self._watchers()
        for key, value, ttl, done in writes:
            if watchers:
                change = messages.encode_change(revision, key, value, ttl)
                for watcher in watchers:
                    watcher.changed(key, change)
            if done is not None:
                # True (0xC3) for a deletion says that the key was there: one that deletes nothing is not ordered.
                done(Outcome(None, b"\xc3" if value is None else None, revision))
            revision += 1

    def _done(self, event: messages.Done) -> None:
        """Take the answer to one request: of :meth:`ask`, or a write that has changed nothing. Such a write is undone
        in the mirror, and its refusal is logged if nobody waits for it."""
        outcome = Outcome(event.error, event.value, event.revision)
        with self.lock:
            write = self._own_writes.pop(event.id, None)
            if write is None:
                key, done = "", self._replies.pop(event.id, None)
            else:  # it was refused, or there was nothing to delete
                key, _, _, done = write
                self._mirror.done(event.id, key)
        if done is not None:
            done(outcome)
        elif write is not None:
            report_refusal(self._monitor, key, outcome)

    def _gap(self, revision: int) -> None:
        """Report a step that does not follow the one before. It is not shown. That cannot happen on one ordered link,
        so it is a bug of lycomm on either side; applying it would show a state that never was."""
        line = f"shared memory: revision {revision} came after {self._mirror.revision}"
        self._monitor.say(lambda: log().error(line))
