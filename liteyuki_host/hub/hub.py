"""The hub: the host's own exchange, and the meeting point of all children.

How the hub works
-----------------

*Children come and go.* For each spawned child, the supervisor has the hub make a session (:meth:`Hub.connect`). The
session takes part from the child's greeting (:meth:`Hub.admit`) to the end of its link (:meth:`Hub.dismiss`). One
session per process *serves*: it has the process's channels and topics. A second one may stand by until that one ends.

*Channels.* Each has two ends, and each end is a process; a :class:`Route` joins them (``routes.py``). A route outlives
the sessions of its ends. When a session comes, its routes are bound to its link; when it goes, what it has not consumed
waits in the route's outbox for the next one.

*Topics.* A publication goes to every subscriber under one lock, so that all see the same order. A subscriber that has
no room loses the publication, and the loss is reported.

*The shared memory.* The authority orders the writes. Each one is sent to every session under the same lock, so
every child sees the same order, behind a snapshot that was sent under the same lock. Credit does not bound what a child
has not read of this, as the child has asked for nothing. Instead, writers wait for it (``laggards.py``), and a child
that reads nothing for ``LAG_SECONDS`` is disconnected.

*Calls of the host's own code.* The public objects (channels, topics, ``shared_memory``) call the methods that
``Exchange`` declares. What the host itself writes or locks belongs to the owner ``HOST``. The authority is here, so
outcomes are known before the call returns, except those of a lock that is held and of ``sync()``.

Who calls the hub, and from which thread
----------------------------------------

- The supervisor: ``connect``, on the event loop of the supervision.
- A session: the methods with a *session* parameter, in the thread that reads that child's link.
- The host's own code, and ``Host`` itself: everything else, from any thread; ``serve`` runs on the
  event loop of the supervision.

The lock
--------

One lock, that of the exchange's monitor (``comm/waiting/monitor.py``), guards all of it, with the host's ends of
channels and every session's link. So there is no order in which several locks would have to be taken, and a child comes
or goes in one step. Nobody who holds the lock waits for a peer, and no user code runs under it. Log lines count as user
code, because a log sink may call the hub; they are written when the lock has been left (``Monitor.say``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from loguru import logger

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import ChannelEnd, StreamSource
from liteyuki_host.comm.errors import ChannelClosed
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.exchange import Exchange, report_refusal
from liteyuki_host.comm.process.subscription import Subscription
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.storage.store import DEFAULT_MEMORY_LIMIT
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.monitor import Held
from liteyuki_host.comm.waiting.waiting import NOTHING
from liteyuki_host.hub.barriers import Barriers
from liteyuki_host.hub.expiry import Expiry
from liteyuki_host.hub.laggards import Laggards
from liteyuki_host.hub.listener import SessionListener
from liteyuki_host.hub.roster import Roster
from liteyuki_host.hub.session import Session
from liteyuki_host.hub.snapshot import send_snapshot
from liteyuki_host.hub.subscribers import TOPIC_BACKLOG_WINDOWS, Subscribers
from liteyuki_host.hub.switchboard import Switchboard

__all__ = ["Hub"]

HOST = "host"
"""The host's own name: as an end of channels, and in the log."""


class Hub(Exchange):
    """The exchange of the host's process, and the owner of everything that the sessions share.

    There is one per ``Host``. Every method may be called from any thread.

    Args:
        window: bytes that may be on their way per channel and direction.
        message_limit: bytes of one encoded value, at most.
        memory_limit: bytes of the whole shared memory, at most.

    Attributes:
        view: key to current value of the shared memory. Written by the store of *authority*, under the lock; read
            without it by ``shared_memory.get``.
        authority: the store and the locks. Its lock is the hub's.
        on_control: called with the session and the request when a child asks for something of the supervisor; set once
            by ``Host`` before any child runs. None: such requests are refused.
        roster: the connected sessions. Changed under the lock.
        subscribers: the topics of the children. Changed under the lock.
        switchboard: the routes of all channels. Changed under the lock.
    """

    def __init__(
        self,
        *,
        window: int = DEFAULT_WINDOW,
        message_limit: int = codec.DEFAULT_MESSAGE_LIMIT,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        super().__init__(HOST, window=window, message_limit=message_limit)
        self.view: dict[str, object] = {}
        self._expiry = Expiry(self.monitor)
        self.authority = Authority(
            limit=memory_limit,
            view=self.view,
            on_change=self._broadcast_change,
            on_deadline=self._expiry.note_deadline,
            monitor=self.monitor,
        )
        self.on_control: Callable[[Session, messages.ControlRequest], None] | None = None
        self.roster = Roster()
        self.subscribers = Subscribers(self.monitor, self.losses, window)
        self.switchboard = Switchboard(
            self,
            self.roster,
            is_kept=self._kept_names.__contains__,
            drop_end=self._drop_end,
            on_new=self._route_made,
        )
        # Flow control of the shared memory; guards its own list by the hub's lock.
        self._laggards = Laggards(
            self.roster, self.monitor, window=window, message_limit=message_limit, loop=lambda: self.loop
        )
        # Numbers the sessions, so that the locks and ephemeral keys of one incarnation are never taken for those of
        # the next. One call of next() is one step, so neither counter needs the lock.
        self._incarnations = itertools.count(1)
        self._barriers = Barriers(self.monitor)  # of sync(), by any process
        self._requests = itertools.count(1)  # of the host itself: the number of a lock's holder must be unique
        self._closed = False  # set once, by close(); read without the lock: no end of a channel is used from then on

    # --- children come and go ---------------------------------------------------------------------------------
    # A session goes through connect, admit (at the greeting) and dismiss. One whose child never greets is dismissed
    # without having been admitted. A process has one serving session and one standby at most, so `admit` may dismiss
    # others.

    def declare_process(self, name: str) -> None:
        """Make the two channels of a process known, before it starts. They join it with the host, and stay as long as
        the host does, so the host may send before the process runs."""
        for channel in (f"{name}-passive", f"{name}-active"):
            with self._lock:
                route = self.switchboard.declare(channel)
                route.kept = True
                self.switchboard.claim(route, HOST)
                self.switchboard.claim(route, name)

    def connect(
        self, process: str, transport: Transport, listener: SessionListener, *, standby: bool = False
    ) -> Session:
        """Make and start the session of a new incarnation of *process*. It takes part once the child has greeted.

        Args:
            transport: belongs to the session from now on.
            listener: is told how the child fares.
            standby: the predecessor keeps channels and topics until it ends. Until then the new one has the shared
                memory, may publish and reply; what it opens and sends on channels is kept (``standby.py``).

        Raises:
            OSError, RuntimeError, MemoryError: there is a shortage; nothing of the session is left then.
        """
        owner = f"{process}#{next(self._incarnations)}"
        session = Session(self, process, owner, transport, listener, standby=standby)
        session.start()
        return session

    def admit(self, session: Session) -> None:
        """Let a child that has greeted take part: send it the shared memory, then either everything that waits for its
        process, or nothing more, when it stands by. Called by the session, in the thread that reads its link.

        All under the lock in one step. So the snapshot is a state between two writes, every later write follows it, and
        no message can reach the predecessor's link in between.
        """
        process = session.process
        with self._lock:
            roster = self.roster
            waiting, previous = roster.standbys.get(process), roster.serving.get(process)
            if waiting is not None:  # before `previous`, whose end would make this standby serve
                cause = f"another new incarnation of {process} has come before this one took over"
                self.dismiss(waiting, cause)
                waiting.close_soon(cause)
            if previous is not None and not session.standby:
                # It has died, and the end of its link has not been noticed yet. Noticed later, that end would take
                # back what the new one has been given.
                cause = f"a new incarnation of {process} has come"
                self.dismiss(previous, cause)
                previous.close_soon(cause)
            waits = session.standby and previous is not None  # a standby without a predecessor serves at once
            # Found by name from here on, but in `everybody`, which gets every write, only behind its snapshot.
            roster.join(session, standby=waits)
            send_snapshot(session, self.authority.store, self.switchboard.routes)
            roster.update()
            if not waits:
                self._begin(session)
        self._read_by_loop(session.link)

    def _begin(self, session: Session) -> None:
        """Make *session* the one that serves its process: what waits for the process is sent first, then what a standby
        has kept is performed. The caller holds the lock."""
        no_room = self.switchboard.begin(session)
        if no_room is not None:
            line = f"child {session.process}: some of its channels cannot be reached: {no_room}"
            self.monitor.say(lambda: logger.error(line))
        session.take_over()

    def dismiss(self, session: Session, cause: str) -> None:
        """Take everything back that a child had; its link is over, or is to be closed, for this *cause*.

        In one step: its locks are granted to the next in line, its ephemeral keys are deleted, requests to it fail, and
        what it had not consumed waits for the next incarnation of its process. A standby that is connected takes over.
        Called again when the link ends, if :meth:`admit` has dismissed the session before.
        """
        with self._lock:
            again, session.dismissed = session.dismissed, True
            session.link.refuse_data()  # the link may still be open, and a message accepted now would be forgotten
            successor = self.roster.leave(session)
            self.authority.owner_died(session.owner)
            self.subscribers.drop(session)
            self.switchboard.release(session, cause, again=again)
            if successor is not None:
                self._begin(successor)
        # Behind that step: these grant credit, and answer whoever waits for a sync().
        self._barriers.gone(session)
        self.memory_read()

    def session(self, process: str) -> Session | None:
        """Return the session that serves *process*; None when it has none. Takes no lock."""
        return self.roster.serving.get(process)

    def _links(self) -> Sequence[Link]:
        return [session.link for session in self.roster.everybody]

    def control_requested(self, session: Session, request: messages.ControlRequest) -> None:
        """Pass a child's request to the supervisor on; the answer goes through ``Session.reply_control``."""
        if self.on_control is None:
            session.reply_control(request.id, error="this host supervises no processes")
        else:
            self.on_control(session, request)

    def close(self, reason: str) -> None:
        """End the exchange with the host: close every link, report what nobody will consume, and wake everybody who
        waits, with this *reason*. Takes up to about three seconds for each child that does not answer.

        The supervisor has ended the children before, so usually no session is left.
        """
        for session in self.roster.everybody:  # standbys first, so that none of them takes over
            session.close(reason)
            session.link.join(1.0)  # the child may have acknowledged messages just before its end: count these first
        self._closed = True
        self._laggards.close()
        for end in list(self._ends.values()):
            end.close(reason)  # first: giving up makes room, and a sender that waits for room must fail instead
            end.outbox.give_up(reason)
        self.switchboard.give_up(reason)
        self._close_all(reason)

    # --- channels -------------------------------------------------------------------------------------------
    # The switchboard does the work. What is added here is the sweep: each new name counts, and after enough of them
    # everything that nothing uses is dropped (`Exchange._sweep_if_due`), outside the lock of the call that was counted.

    def channel_names(self) -> set[str]:
        return set(self.switchboard.routes)

    def declare(self, name: str, *, keep: bool = True) -> None:
        with self._lock:
            self.switchboard.declare(name)
            if keep:
                self._kept_names.add(name)
        self._sweep_if_due()

    def declare_for(self, session: Session, name: str) -> None:
        """Make a channel known to every process, for a child."""
        self.switchboard.declare_for(session, name)
        self._sweep_if_due()

    def withdraw_for(self, session: Session, name: str) -> None:
        """Take back what the child has declared; the name goes when nothing else uses it."""
        self.switchboard.withdraw_for(session, name)

    def open_channel(self, session: Session, name: str) -> str | None:
        """Make the child an end of a channel. Returns why it cannot be one; None when it is."""
        refused = self.switchboard.open_channel(session, name)
        self._sweep_if_due()
        return refused

    def close_channel(self, session: Session, stream: Stream) -> None:
        """Answer a child that asks to close the stream of a channel."""
        self.switchboard.close_channel(session, stream)

    def _route_made(self) -> None:
        """Count a new name for the next sweep. The caller holds the lock."""
        self._since_sweep += 1

    def _sweep(self) -> int:
        with self._lock:
            self.switchboard.sweep()  # with each route the host's end of it
            for end in self._unused_ends():
                if end.name not in self.switchboard.routes:  # looked up, and never used
                    self._drop_end(end)
            return max(len(self.switchboard.routes), len(self._ends))

    def _use_end(self, end: ChannelEnd) -> None:
        if self._closed:
            raise ChannelClosed(f"channel {end.name!r} is closed: the host has ended")
        switchboard = self.switchboard
        route = switchboard.routes.get(end.name)
        if route is not None and HOST in route.ends:  # without the lock: a claim is never taken back
            return
        with self._lock:
            switchboard.claim(switchboard.declare(end.name), HOST)

    # --- topics ---------------------------------------------------------------------------------------------
    # A publication never waits: a subscriber that has no room loses it. So `may_wait` and `wait_to_publish` have
    # nothing to wait for in the host.

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        monitor = self.monitor
        try:
            monitor.enter()  # held for all of it: one order of all topics for all subscribers
            self.subscribers.deliver(topic, payload, flags)
            own = self._subscriptions.get(topic)
            # As much as a child's subscription may queue: its backlog here, and one window on its link.
            limit = (TOPIC_BACKLOG_WINDOWS + 1) * self.window
            if own is not None and not own.deliver_here(payload, flags, limit):
                self.losses.add(f"topic {topic}", 1, "the host's own subscribers are too slow for it")
        finally:
            monitor.leave()
        return True

    def subscribe_session(self, session: Session, topic: str, stream: Stream) -> None:
        """Deliver the publications of *topic* to the child over *stream*, from now on."""
        self.subscribers.subscribe(session, topic, stream)

    def unsubscribe_session(self, session: Session, topic: str) -> None:
        """End the deliveries of *topic* to the child."""
        self.subscribers.unsubscribe(session, topic)

    def topic_closed(self, session: Session, stream: Stream) -> None:
        """Forget the subscription that *stream* carried: the child has agreed to close it."""
        self.subscribers.closed(session, stream)

    def _subscribed(self, subscription: Subscription) -> None:
        pass  # nobody has to be told: `publish` looks up the host's own subscriptions

    def _unsubscribed(self, subscription: Subscription) -> None:
        pass

    # --- shared memory --------------------------------------------------------------------------------------
    # The host's own writes, as the owner HOST. `put` is the frequent one: it calls the authority without an object for
    # the request. The others make a request, which `Authority.perform` decides under the lock; `done` is called there.

    @property
    def revision(self) -> int:
        return self.authority.store.revision

    def revision_of(self, key: str) -> tuple[object, int]:
        with self._lock:
            return self.view.get(key, NOTHING), self.authority.store.revision_of(key)

    def writer_of(self, key: str) -> str:
        with self._lock:
            return self.authority.store.writer_of(key).partition("#")[0]  # without its incarnation

    def put(
        self,
        key: str,
        payload: bytes,
        ttl: float | None,
        ephemeral: bool,
        done: Callable[[Outcome], None] | None,
        *,
        may_wait: bool,
        late: bool = False,
    ) -> bool:
        if not (late or self._laggards.may_write(may_wait)):
            return False
        authority, monitor = self.authority, self.monitor
        try:
            # `Monitor.enter`, written out: this is the path of every write. The lock is free nearly always.
            if not (monitor.acquire(False) or monitor.take()):
                raise Held
            # Writes that were put off go first, so that the writes of one thread keep their order. A late write is one
            # of them itself.
            if monitor.due and not late:
                monitor.perform()
            revision = authority.put(HOST, key, payload, ttl, ephemeral)
        finally:
            try:
                monitor.release()
            except RuntimeError:  # it was not acquired: Held, or Ctrl+C before
                pass
        if done is not None or not revision:
            (done or partial(report_refusal, monitor, key))(authority.store.outcome(revision))
        return True

    def remove(self, key: str, done: Callable[[Outcome], None] | None, *, may_wait: bool, late: bool = False) -> bool:
        if not (late or self._laggards.may_write(may_wait)):
            return False
        monitor = self.monitor
        try:
            monitor.enter()
            self.authority.perform(HOST, messages.Remove(next(self._requests), key), done or (lambda outcome: None))
        finally:
            monitor.leave()
        return True

    def increment(self, key: str, by: float, done: Callable[[Outcome], None]) -> None:
        self.authority.perform(HOST, messages.Increment(next(self._requests), key, by), done)

    def compare(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | None,
        revision: int | None,
        done: Callable[[Outcome], None],
    ) -> None:
        self.authority.perform(HOST, messages.Compare(next(self._requests), key, expected, value, revision), done)

    def acquire(self, key: str, done: Callable[[Outcome], None]) -> int:
        number = next(self._requests)
        self.authority.perform(HOST, messages.Acquire(number, key), done)
        return number

    def release(self, key: str, holder: int) -> None:
        self.authority.perform(HOST, messages.Release(next(self._requests), key, holder), lambda outcome: None)

    def withdraw(self, key: str, holder: int, done: Callable[[Outcome], None]) -> None:
        self.authority.perform(HOST, messages.Withdraw(next(self._requests), key, holder), done)

    def sync(self, done: Callable[[Outcome], None]) -> None:
        self._at_barrier(None, lambda: done(Outcome(None, None, self.revision)))

    def sync_session(self, session: Session, reply: Callable[[Outcome], None]) -> None:
        """Call *reply* when everything that any process had written is ordered and sent to the child that asks."""

        def done() -> None:
            with self._lock:  # the changes were sent under it, so the reply follows them on the child's link
                reply(Outcome(None, None, self.revision))

        self._at_barrier(session, done)

    def barrier_reached(self, session: Session, number: int) -> None:
        """Note that a child has handed over what it had written before barrier *number*.

        The number ``LOADED`` says that it has taken in its snapshot. It may not write before, so barriers do not ask it
        until then. The answer lets it begin.
        """
        if number != messages.LOADED:
            self._barriers.reached(session, number)
            return
        with self._lock:
            session.loaded = True  # in one step with the answer: from then on it may write, and every barrier asks it
            session.send_memory(messages.encode_message(messages.Barrier(number)))

    def _at_barrier(self, asker: Session | None, done: Callable[[], None]) -> None:
        """Call *done*, without the lock, when all children have handed over what they have written until now.

        Args:
            asker: the child that asks; None: the host itself. It is not asked: its writes have come on the same stream
                before its question.
        """
        with self._lock:
            others = [session for session in self.roster.everybody if session is not asker and session.loaded]
            number = self._barriers.open(others, done)
            if number is not None:
                payload = messages.encode_message(messages.Barrier(number))
                for session in others:
                    session.send_memory(payload)
        if number is None:  # there is nobody to ask
            done()

    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        await self._laggards.wait_to_write(write)

    async def wait_to_publish(self, publish: Callable[[], bool]) -> None:
        publish()  # never refused for want of room: see above

    def withhold(self, source: StreamSource, cost: int) -> bool:
        """Keep back the credit for a child's requests of *cost* bytes while somebody lags. Returns whether it is kept
        back; if not, the caller grants it."""
        return self._laggards.withhold(source, cost)

    def memory_read(self) -> None:
        """Look again which writers have to wait: a child has read memory events, or is gone."""
        self._laggards.memory_read()

    @property
    def withholding(self) -> bool:
        """Whether credit of some child is kept back."""
        return self._laggards.withholding

    def laggards(self) -> list[Session]:
        """Return the children that have more than a window of memory events unread: writers wait for them."""
        return self._laggards.now()

    def _broadcast_change(
        self, revision: int, key: str, value: bytes | None, ttl: float | None, writer: str | None
    ) -> None:
        """Send a change to every child but the *writer*, and to the watchers of the host. The caller holds the lock.

        The writer has the value already: it gets the revision alone (``Session.ordered``), which is shorter. *writer*
        is None for changes whose outcome the asker cannot know, such as a sum or an expired key.
        """
        payload = None
        for session in self.roster.everybody:
            if session.owner != writer:
                if payload is None:  # encoded once for all, and not at all when the writer is the only child
                    payload = messages.encode_change(revision, key, value, ttl)
                session.send_memory(payload)
        if self._watchers:
            self._changed(key, payload or messages.encode_change(revision, key, value, ttl))

    # --- the clock ------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Delete keys when their ttl ends, until cancelled. Runs on the host's loop; sleeps while there are none."""
        await self._expiry.serve(self.authority)

    def on_deadline(self, wake: Callable[[], None], *, remove: bool = False) -> None:
        """Call *wake* whenever a key with a ttl is written; with *remove* True, stop doing so. It is called with the
        hub's lock held and must not wait."""
        with self._lock:
            self._expiry.on_deadline(wake, remove=remove)

    # --- looking --------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        return {name: end.statistics() for name, end in list(self._ends.items())}
