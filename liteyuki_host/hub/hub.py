"""The hub: the host's own exchange, and the meeting point of all children.

How the hub works
-----------------

*Children come and go.* For each spawned child, the supervisor has the hub make a session (:meth:`Hub.connect`). It
counts from the child's greeting (:meth:`Hub.admit`) to the end of its link (:meth:`Hub.dismiss`). One session per
process *serves*: it has the process's channels and topics. A second one may stand by until that one ends.

*Channels.* Each has two ends, and each end is a process; a :class:`Route` joins them (``routes.py``). A route outlives
the sessions of its ends. When a session comes, its routes are bound to its link; when it goes, what it has not consumed
waits in the route's outbox for the next one.

*Topics.* A publication goes to every subscriber under one lock, so that all see the same order. A subscriber that
cannot take it loses it, and that is reported.

*The shared memory.* The authority orders the writes. Each one is sent to every session under the same lock, so
every child sees the same order, behind a snapshot that was sent under the same lock. What a child has not read of this
is not bounded by credit, as it has asked for nothing. Instead, writers wait for it (:meth:`Hub.laggards`), and a child
that reads nothing for ``LAG_SECONDS`` is disconnected.

The lock
--------

One lock guards all of it, with the host's ends of channels and every session's link: that of the exchange's monitor
(``comm/waiting/monitor.py``). So nothing has to be taken in an order, and a child comes or goes in one step. Nobody who
holds it waits for a peer. Nothing of the user's runs under it. That includes log lines: whoever takes those may call
the hub, so they are written when the lock has been left (``Monitor.say``).
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
    """See the module's docstring. Every method may be called from any thread.

    Args:
        window: bytes on their way per channel and direction.
        message_limit: bytes of one encoded value.
        memory_limit: bytes of the whole shared memory.
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
        self._laggards = Laggards(
            self.roster, self.monitor, window=window, message_limit=message_limit, loop=lambda: self.loop
        )
        self._incarnations = itertools.count(1)
        self._barriers = Barriers(self.monitor)
        self._requests = itertools.count(1)
        self._closed = False

    # --- children come and go ---------------------------------------------------------------------------------

    def declare_process(self, name: str) -> None:
        """Make the two channels of a process known, before it starts."""
        for channel in (f"{name}-passive", f"{name}-active"):
            with self._lock:
                route = self.switchboard.declare(channel)
                route.kept = True
                self.switchboard.claim(route, HOST)
                self.switchboard.claim(route, name)

    def connect(
        self, process: str, transport: Transport, listener: SessionListener, *, standby: bool = False
    ) -> Session:
        """Take a link to a new incarnation of *process*; it counts once it has greeted.

        Args:
            standby: its predecessor goes on until it ends by itself. Until then the new one has the shared memory,
                publishes and asks, but channels and topics are not its own: what it opens and sends there is kept.
        """
        owner = f"{process}#{next(self._incarnations)}"
        session = Session(self, process, owner, transport, listener, standby=standby)
        session.start()
        return session

    def admit(self, session: Session) -> None:
        """The child has greeted: give it the shared memory, then everything that waits for it, or its place in line."""
        process = session.process
        with self._lock:
            roster = self.roster
            waiting, previous = roster.standbys.get(process), roster.serving.get(process)
            if waiting is not None:  # the first to go: it must not take over now
                cause = f"another new incarnation of {process} has come before this one took over"
                self.dismiss(waiting, cause)
                waiting.close_soon(cause)
            if previous is not None and not session.standby:
                # Its end has not been noticed yet, and must not look like that of the new one.
                cause = f"a new incarnation of {process} has come"
                self.dismiss(previous, cause)
                previous.close_soon(cause)
            waits = session.standby and previous is not None
            roster.join(session, standby=waits)  # first: the child may be seen at once
            send_snapshot(session, self.authority.store, self.switchboard.routes)
            roster.update()
            if not waits:
                self._begin(session)
        self._read_by_loop(session.link)

    def _begin(self, session: Session) -> None:
        """Let it be the session of its process from now on: what waits for it goes first. The caller holds the lock."""
        no_room = self.switchboard.begin(session)
        if no_room is not None:
            line = f"child {session.process}: some of its channels cannot be reached: {no_room}"
            self.monitor.say(lambda: logger.error(line))
        session.take_over()

    def dismiss(self, session: Session, cause: str) -> None:
        """The child is gone. In one step: its locks free, its ephemeral keys go, who waits for it fails, and what it
        had not consumed waits for its next incarnation; if that is connected already, it takes over."""
        with self._lock:
            session.link.refuse_data()  # it lives as long as nobody has noticed its end, but another one is here
            successor = self.roster.leave(session)
            self.authority.owner_died(session.owner)
            self.subscribers.drop(session)
            self.switchboard.release(session, cause)
            if successor is not None:
                self._begin(successor)
        self._barriers.gone(session)
        self.memory_read()

    def session(self, process: str) -> Session | None:
        """The connected incarnation of *process* that has its channels and topics."""
        return self.roster.serving.get(process)

    def _links(self) -> Sequence[Link]:
        return [session.link for session in self.roster.everybody]

    def control_requested(self, session: Session, request: messages.ControlRequest) -> None:
        """A child asks for something of the supervisor."""
        if self.on_control is None:
            session.reply_control(request.id, error="this host supervises no processes")
        else:
            self.on_control(session, request)

    def close(self, reason: str) -> None:
        """The host ends: report what nobody will consume, and wake everybody who waits."""
        for session in self.roster.everybody:  # nobody takes over from what ends with the host
            session.close(reason)
            session.link.join(1.0)  # what it acknowledged before its end is not lost
        self._closed = True
        self._laggards.close()
        for end in list(self._ends.values()):
            end.close(reason)  # whoever waits for room is not to be let in by what is given up now
            end.outbox.give_up(reason)
        self.switchboard.give_up(reason)
        self._close_all(reason)

    # --- channels -------------------------------------------------------------------------------------------

    def channel_names(self) -> set[str]:
        return set(self.switchboard.routes)

    def declare(self, name: str, *, keep: bool = True) -> None:
        with self._lock:
            self.switchboard.declare(name)
            if keep:
                self._kept_names.add(name)
        self._sweep_if_due()

    def declare_for(self, session: Session, name: str) -> None:
        """A child makes a channel known."""
        self.switchboard.declare_for(session, name)
        self._sweep_if_due()

    def withdraw_for(self, session: Session, name: str) -> None:
        """A child does not use a channel any more that it has made known."""
        self.switchboard.withdraw_for(session, name)

    def open_channel(self, session: Session, name: str) -> str | None:
        """A child uses a channel; returns why it may not."""
        refused = self.switchboard.open_channel(session, name)
        self._sweep_if_due()
        return refused

    def close_channel(self, session: Session, stream: Stream) -> None:
        """A child does not use a channel any more."""
        self.switchboard.close_channel(session, stream)

    def _route_made(self) -> None:
        """Count a new name for the next sweep. The caller holds the lock."""
        self._since_sweep += 1

    def _sweep(self) -> int:
        with self._lock:
            self.switchboard.sweep()
            for end in self._unused_ends():
                if end.name not in self.switchboard.routes:
                    self._drop_end(end)
            return max(len(self.switchboard.routes), len(self._ends))

    def _use_end(self, end: ChannelEnd) -> None:
        if self._closed:
            raise ChannelClosed(f"channel {end.name!r} is closed: the host has ended")
        switchboard = self.switchboard
        route = switchboard.routes.get(end.name)
        if route is not None and HOST in route.ends:
            return
        with self._lock:
            switchboard.claim(switchboard.declare(end.name), HOST)

    # --- topics ---------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        monitor = self.monitor
        try:
            monitor.enter()  # one order for all topics and all subscribers
            self.subscribers.deliver(topic, payload, flags)
            own = self._subscriptions.get(topic)
            limit = (TOPIC_BACKLOG_WINDOWS + 1) * self.window
            if own is not None and not own.deliver_here(payload, flags, limit):
                self.losses.add(f"topic {topic}", 1, "the host's own subscribers are too slow for it")
        finally:
            monitor.leave()
        return True

    def subscribe_session(self, session: Session, topic: str, stream: Stream) -> None:
        """A child wants *topic*, over *stream*."""
        self.subscribers.subscribe(session, topic, stream)

    def unsubscribe_session(self, session: Session, topic: str) -> None:
        """A child no longer wants *topic*."""
        self.subscribers.unsubscribe(session, topic)

    def topic_closed(self, session: Session, stream: Stream) -> None:
        """A child has agreed to close a topic's stream."""
        self.subscribers.closed(session, stream)

    def _subscribed(self, subscription: Subscription) -> None:
        pass  # publish looks the host's own subscriptions up

    def _unsubscribed(self, subscription: Subscription) -> None:
        pass

    # --- shared memory --------------------------------------------------------------------------------------

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
            if not (monitor.acquire(False) or monitor.take()):
                raise Held
            if monitor.due and not late:  # the writes of one thread keep their order
                monitor.perform()
            revision = authority.put(HOST, key, payload, ttl, ephemeral)
        finally:
            try:
                monitor.release()
            except RuntimeError:  # we have not got it
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
        """A child asks for everything that any process has written."""

        def done() -> None:
            with self._lock:  # behind every change that has been ordered
                reply(Outcome(None, None, self.revision))

        self._at_barrier(session, done)

    def barrier_reached(self, session: Session, number: int) -> None:
        """A child has handed over what it had written before barrier *number*."""
        if number != messages.LOADED:
            self._barriers.reached(session, number)
            return
        with self._lock:
            session.loaded = True
            session.send_memory(messages.encode_message(messages.Barrier(number)))

    def _at_barrier(self, asker: Session | None, done: Callable[[], None]) -> None:
        """Call *done* when all children have handed over what they have written until now. The asker's own writes have
        come before its question."""
        with self._lock:
            # One that has not loaded its snapshot has not written anything yet.
            others = [session for session in self.roster.everybody if session is not asker and session.loaded]
            number = self._barriers.open(others, done)
            if number is not None:
                payload = messages.encode_message(messages.Barrier(number))
                for session in others:
                    session.send_memory(payload)
        if number is None:
            done()

    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        await self._laggards.wait_to_write(write)

    async def wait_to_publish(self, publish: Callable[[], bool]) -> None:
        publish()  # there is always room: what does not fit for one subscriber is dropped for that one

    def withhold(self, source: StreamSource, cost: int) -> bool:
        """Keep back the credit for a child's requests of *cost* bytes while somebody lags. Returns whether it is."""
        return self._laggards.withhold(source, cost)

    def memory_read(self) -> None:
        """A child has read memory events, or is gone."""
        self._laggards.memory_read()

    @property
    def withholding(self) -> bool:
        """Whether credit of some child is kept back."""
        return self._laggards.withholding

    def laggards(self) -> list[Session]:
        """Who has not read a window of memory events: writers wait for them."""
        return self._laggards.now()

    def _broadcast_change(
        self, revision: int, key: str, value: bytes | None, ttl: float | None, writer: str | None
    ) -> None:
        """Tell everybody but the *writer*, which is told in its own way. The caller holds the lock."""
        payload = None
        for session in self.roster.everybody:
            if session.owner != writer:
                if payload is None:
                    payload = messages.encode_change(revision, key, value, ttl)
                session.send_memory(payload)
        if self._watchers:
            self._changed(key, payload or messages.encode_change(revision, key, value, ttl))

    # --- the clock ------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Delete keys when their ttl ends, until cancelled. Runs on the host's loop; sleeps while there are none."""
        await self._expiry.serve(self.authority)

    def on_deadline(self, wake: Callable[[], None], *, remove: bool = False) -> None:
        """Call *wake* whenever a key with a ttl is written; or no longer, to *remove* it. It is called under the
        authority's lock, and must not wait."""
        with self._lock:
            self._expiry.on_deadline(wake, remove=remove)

    # --- looking --------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        return {name: end.statistics() for name, end in list(self._ends.items())}
