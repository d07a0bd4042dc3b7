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
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import UNREAD_TOO_LONG, ChannelEnd, StreamSource, join
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.errors import ChannelClosed, ChannelTaken, LocalProtocolError, LycommError
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.link.tuning import INLINE_BURST
from liteyuki_host.comm.process.exchange import Exchange, report_refusal
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.process.subscription import Subscription
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.storage.store import DEFAULT_MEMORY_LIMIT
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.loops import call_on
from liteyuki_host.comm.waiting.monitor import Held, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters
from liteyuki_host.hub.barriers import Barriers
from liteyuki_host.hub.listener import SessionListener
from liteyuki_host.hub.routes import Route
from liteyuki_host.hub.session import Session

__all__ = ["Hub"]

HOST = "host"
"""The host's own name: as an end of channels, and in the log."""

PUBLICATION_GAP = 1e-3
"""Seconds after which a publication is not one of a row."""

TOPIC_BACKLOG_WINDOWS = 4
"""Windows of one topic that may wait in the host for one slow process, beside the one on its link."""

LAG_SECONDS = 5.0
"""Seconds that writers of the shared memory wait for a process that does not read its link. Its reader is a thread of
its own, so only a stopped process is silent that long; it is disconnected then, and its supervisor takes over."""

LAG_WINDOWS = 16
LAG_MESSAGES = 4
"""Windows, and largest values beside them, of memory events after which such a process is disconnected at once. Both,
because a process that reads all the time is behind by as much as a few writers can hand over in one moment."""

SNAPSHOT_PART = 64 * 1024
"""Bytes of values in one part of a snapshot."""

SNAPSHOT_NAMES = 256
"""Names of channels in the last message of a snapshot: of at most 200 characters each, so 200 KB. Further names go
before it, one by one."""


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
        self.authority = Authority(
            limit=memory_limit,
            view=self.view,
            on_change=self._broadcast_change,
            on_deadline=self._deadline_set,
            monitor=self.monitor,
        )
        self.on_control: Callable[[Session, messages.ControlRequest], None] | None = None
        self._sessions: dict[str, Session] = {}  # by process: the one that has its channels and topics
        self._standbys: dict[str, Session] = {}  # by process: the one that takes over when that one is gone
        self._incarnations = itertools.count(1)
        self._everybody: tuple[Session, ...] = ()  # who follows the shared memory; successors first
        self._routes: dict[str, Route] = {}
        self._topics: dict[str, dict[Session, Outbox]] = {}
        self._publications = 0  # in a row
        self._last_publication = 0.0
        self._withheld: list[tuple[StreamSource, int]] = []  # memory credit kept back while somebody lags
        self._watching_laggards = False  # a thread does; there is at most one
        self._laggards_boundary = Boundary("watching for processes that do not read the shared memory")
        self._barriers = Barriers(self.monitor)
        self._room = Waiters()
        self._requests = itertools.count(1)
        self._wake_expiry: tuple[Callable[[], None], ...] = ()  # replaced as a whole, under the authority's lock
        self._closed = False

    # --- children come and go ---------------------------------------------------------------------------------

    def declare_process(self, name: str) -> None:
        """Make the two channels of a process known, before it starts."""
        for channel in (f"{name}-passive", f"{name}-active"):
            with self._lock:
                route = self._declare(channel)
                route.kept = True
                self._claim(route, HOST)
                self._claim(route, name)

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
            waiting, previous = self._standbys.get(process), self._sessions.get(process)
            if waiting is not None:  # the first to go: it must not take over now
                cause = f"another new incarnation of {process} has come before this one took over"
                self.dismiss(waiting, cause)
                self._close_soon(waiting, cause)
            if previous is not None and not session.standby:
                # Its end has not been noticed yet, and must not look like that of the new one.
                cause = f"a new incarnation of {process} has come"
                self.dismiss(previous, cause)
                self._close_soon(previous, cause)
            waits = session.standby and previous is not None
            (self._standbys if waits else self._sessions)[process] = session  # first: the child may be seen at once
            self._send_snapshot(session)
            self._note_everybody()
            if not waits:
                self._begin(session)
        self._read_by_loop(session.link)

    def _send_snapshot(self, session: Session) -> None:
        """Send the whole shared memory. The caller holds the lock: every later change follows it."""
        now = time.monotonic()
        part: list[tuple[str, bytes, int, float | None]] = []
        size = 0
        for item in self.authority.store.snapshot(now):
            part.append(item)
            size += len(item[0]) + len(item[1])
            if size >= SNAPSHOT_PART:
                session.send_memory(messages.encode_message(messages.SnapshotPart(part)))
                part, size = [], 0
        if part:
            session.send_memory(messages.encode_message(messages.SnapshotPart(part)))
        names = sorted(self._routes)
        for name in names[SNAPSHOT_NAMES:]:
            session.send_memory(messages.encode_message(messages.Declared(name)))
        end = messages.SnapshotEnd(self.authority.store.revision, names[:SNAPSHOT_NAMES])
        session.send_memory(messages.encode_message(end))
        session.snapshot_sent()

    def _begin(self, session: Session) -> None:
        """Let it be the session of its process from now on: what waits for it goes first. The caller holds the lock."""
        no_room: LocalProtocolError | None = None
        for route in list(self._routes.values()):
            # An unused one is bound when its process opens it, if it does.
            if session.process in route.ends and not self._is_unused(route):
                try:
                    self._bind(route, session)
                except LocalProtocolError as error:
                    no_room = no_room or error
        if no_room is not None:
            line = f"child {session.process}: some of its channels cannot be reached: {no_room}"
            self.monitor.say(lambda: logger.error(line))
        session.take_over()

    def dismiss(self, session: Session, cause: str) -> None:
        """The child is gone. In one step: its locks free, its ephemeral keys go, who waits for it fails, and what it
        had not consumed waits for its next incarnation; if that is connected already, it takes over."""
        process = session.process
        successor: Session | None = None
        with self._lock:
            session.link.refuse_data()  # it lives as long as nobody has noticed its end, but another one is here
            if self._sessions.get(process) is session:
                del self._sessions[process]
                successor = self._standbys.pop(process, None)
                if successor is not None:
                    self._sessions[process] = successor
            elif self._standbys.get(process) is session:
                del self._standbys[process]
            self._note_everybody()
            self.authority.owner_died(session.owner)
            for topic in list(self._topics):
                self._pop_subscriber(session, topic)
            for route in list(self._routes.values()):
                if process not in route.ends:
                    continue
                relay = route.relays.get(process)
                if relay is not None and (dropped := relay.sender_died(self.window)):
                    self.losses.add(route.name, dropped, UNREAD_TOO_LONG)
                outbox = route.outbox.get(process)
                if outbox is not None:
                    route.fail_requests(process, outbox.unbind(session.link), cause)
                elif route.other(process) == HOST:
                    self.end(route.name).unbind(session.link, cause)
            if successor is not None:
                self._begin(successor)
        self._barriers.gone(session)
        self.memory_read()

    def session(self, process: str) -> Session | None:
        """The connected incarnation of *process* that has its channels and topics."""
        return self._sessions.get(process)

    def standby(self, process: str) -> Session | None:
        """Return the connected incarnation of *process* that takes over when the other one is gone."""
        return self._standbys.get(process)

    def subscribers(self) -> dict[str, int]:
        """Return how many processes are subscribed to each topic. The host's own subscriptions do not count."""
        with self._lock:
            return {topic: len(sessions) for topic, sessions in self._topics.items()}

    def _links(self) -> Sequence[Link]:
        return [session.link for session in self._everybody]

    def _note_everybody(self) -> None:
        """Somebody has come or gone. Kept, as every write of the shared memory asks for it."""
        self._everybody = (*self._standbys.values(), *self._sessions.values())

    def control_requested(self, session: Session, request: messages.ControlRequest) -> None:
        """A child asks for something of the supervisor."""
        if self.on_control is None:
            session.reply_control(request.id, error="this host supervises no processes")
        else:
            self.on_control(session, request)

    def close(self, reason: str) -> None:
        """The host ends: report what nobody will consume, and wake everybody who waits."""
        for session in self._everybody:  # nobody takes over from what ends with the host
            session.close(reason)
            session.link.join(1.0)  # what it acknowledged before its end is not lost
        self._closed = True
        for end in list(self._ends.values()):
            end.close(reason)  # whoever waits for room is not to be let in by what is given up now
            end.outbox.give_up(reason)
        for route in list(self._routes.values()):
            for outbox in route.outbox.values():
                outbox.give_up(reason)
            stranded = sum(len(relay) for relay in route.relays.values())
            if stranded:
                self.losses.add(route.name, stranded, reason)
        self._close_all(reason)

    # --- channels -------------------------------------------------------------------------------------------

    def channel_names(self) -> set[str]:
        return set(self._routes)

    def declare(self, name: str, *, keep: bool = True) -> None:
        with self._lock:
            self._declare(name)
            if keep:
                self._kept_names.add(name)
        self._sweep_if_due()

    def declare_for(self, session: Session, name: str) -> None:
        """A child makes a channel known."""
        with self._lock:
            self._declare(name).declared_by[session.process] = session.owner
        self._sweep_if_due()

    def withdraw_for(self, session: Session, name: str) -> None:
        """A child does not use a channel any more that it has made known."""
        with self._lock:
            route = self._routes.get(name)
            if route is not None and route.declared_by.get(session.process) == session.owner:
                del route.declared_by[session.process]
                self._forget_if_unused(route)

    def _declare(self, name: str) -> Route:
        """The route of that name, made known to everybody if it is new."""
        check_name(name, "channel")
        with self._lock:
            route = self._routes.get(name)
            if route is None:
                route = self._routes[name] = Route(name, self.monitor)
                self._since_sweep += 1
                # Under the lock, so that everybody hears of names in the order in which they come and go.
                self._broadcast(messages.encode_message(messages.Declared(name)))
            return route

    def open_channel(self, session: Session, name: str) -> str | None:
        """A child uses a channel; returns why it may not."""
        try:
            with self._lock:
                route = self._declare(name)
                self._claim(route, session.process)
                if self._sessions.get(session.process) is session:  # else another incarnation has its place already
                    self._bind(route, session)
        except (LycommError, ValueError) as error:
            return str(error)
        self._sweep_if_due()
        return None

    def close_channel(self, session: Session, stream: Stream) -> None:
        """A child does not use a channel any more: close its stream, unless something waits for it here."""
        name = stream.key[1]
        with self._lock:
            route = self._routes.get(name)
            willing = route is None or session.process not in route.ends or not self._waits_for(route, session.process)
            if session.link.closer.answer(stream, willing=willing) and route is not None:
                own = self._ends.get(name)
                if own is not None and own.outbox.stream is stream:
                    own.release(stream)
                for outbox in route.outbox.values():
                    outbox.release(stream)
                self._forget_if_unused(route)

    def _waits_for(self, route: Route, process: str) -> bool:
        """Whether messages of the route wait for *process*, or always may."""
        own = self._ends.get(route.name)
        outbox = route.outbox.get(process, None if own is None else own.outbox)
        return route.kept or (outbox is not None and bool(outbox.backlog))

    # A route is dropped when nothing uses the channel: no process has a stream for it, the host's own end is unused,
    # and nothing waits. Claims do not count: a process that is no end any more may become one again.

    def _is_unused(self, route: Route) -> bool:
        """The caller holds the lock."""
        if route.kept or route.waits or route.name in self._kept_names or self._is_declared(route):
            return False
        own = self._ends.get(route.name)
        if own is not None and own.in_use:
            return False
        return not any(session.link.connection.table.find("channel", route.name) for session in self._everybody)

    def _is_declared(self, route: Route) -> bool:
        """Whether a process that has made the name known may still use it: until its next incarnation has come, which
        makes its names known by itself."""
        for process, owner in route.declared_by.items():
            session = self._sessions.get(process)
            if session is None or session.owner == owner:
                return True
        return False

    def _forget_if_unused(self, route: Route) -> None:
        if self._is_unused(route):
            self._forget(route)

    def _forget(self, route: Route) -> None:
        """Drop an unused route, and tell everybody that its name is not known any more. The caller holds the
        lock."""
        own = self._ends.get(route.name)
        if own is not None and not self._drop_end(own):
            return  # somebody has just begun to use it
        del self._routes[route.name]
        with self._lock:
            for session in self._everybody:
                if session.link.closer.possible:
                    session.send_memory(messages.encode_message(messages.Undeclared(route.name)))

    def _sweep(self) -> int:
        with self._lock:
            for route in list(self._routes.values()):
                self._forget_if_unused(route)
            for end in self._unused_ends():
                if end.name not in self._routes:
                    self._drop_end(end)
            return max(len(self._routes), len(self._ends))

    def _use_end(self, end: ChannelEnd) -> None:
        if self._closed:
            raise ChannelClosed(f"channel {end.name!r} is closed: the host has ended")
        route = self._routes.get(end.name)
        if route is not None and HOST in route.ends:
            return
        with self._lock:
            self._claim(self._declare(end.name), HOST)

    def _claim(self, route: Route, process: str) -> None:
        """Make *process* an end of the route, and join both ends when it is the second."""
        if process in route.ends:
            return
        if len(route.ends) == 2:
            raise ChannelTaken(
                f"channel {route.name!r} already joins {route.ends[0]} and {route.ends[1]}; a channel has two ends. "
                "Use a channel of its own for each pair, or publish/subscribe for many"
            )
        route.ends.append(process)
        if len(route.ends) < 2:
            return
        first, second = route.ends
        if HOST in route.ends:
            child = second if first == HOST else first
            route.relay(child).set_target(self.end(route.name).inbox)
        else:
            for receiver, sender in ((first, second), (second, first)):
                outbox = route.outbox[receiver] = Outbox(
                    window=self.window,
                    on_lost=lambda count, why: self.losses.add(route.name, count, why),
                    monitor=self.monitor,
                )
                route.relay(sender).set_target(outbox)
        for end in route.ends:
            session = self._sessions.get(end)
            if session is not None:
                self._bind(route, session)

    def _bind(self, route: Route, session: Session) -> None:
        """Join the route with the link of one of its ends."""
        link = session.link
        own = self.end(route.name) if route.other(session.process) == HOST else None
        receiver = route.relay(session.process) if own is None else own.inbox
        stream = link.open_stream("channel", route.name, lambda stream: join(receiver, link, stream))
        outbox = route.outbox.get(session.process)
        if own is not None and stream.user is not own.outbox:
            own.bind(link, stream)
        elif own is None and outbox is not None and stream.user is not outbox:
            outbox.bind(link, stream)

    # --- topics ---------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        monitor = self.monitor
        try:
            monitor.enter()  # one order for all topics and all subscribers
            one_of_many = self._is_publishing_a_lot()
            for session, outbox in self._topics.get(topic, {}).items():
                if not outbox.offer(payload, flags, one_of_many=one_of_many) and not session.link.ended:
                    outbox.lose(1, f"process {session.process} is too slow for it")
            self._last_publication = time.perf_counter()
            own = self._subscriptions.get(topic)
            limit = (TOPIC_BACKLOG_WINDOWS + 1) * self.window
            if own is not None and not own.deliver_here(payload, flags, limit):
                self.losses.add(f"topic {topic}", 1, "the host's own subscribers are too slow for it")
        finally:
            monitor.leave()
        return True

    def _is_publishing_a_lot(self) -> bool:
        """Whether publications follow each other so fast that writing each one by itself would only wake everybody for
        everything. A link cannot see that: between two of its messages there are those to all the others."""
        if time.perf_counter() - self._last_publication > PUBLICATION_GAP:
            self._publications = 0
        self._publications += 1
        return self._publications > INLINE_BURST

    def subscribe_session(self, session: Session, topic: str, stream: Stream) -> None:
        """A child wants *topic*, over *stream*."""
        outbox = Outbox(
            window=0,
            backlog=TOPIC_BACKLOG_WINDOWS * self.window,
            on_lost=lambda count, why: self.losses.add(f"topic {topic}", count, why),
            monitor=self.monitor,
        )
        with self._lock:
            outbox.bind(session.link, stream)
            self._topics.setdefault(topic, {})[session] = outbox

    def unsubscribe_session(self, session: Session, topic: str) -> None:
        """A child no longer wants *topic*: drop what waits for it, and close the stream once the rest is consumed."""
        with self._lock:
            outbox = self._pop_subscriber(session, topic)
        stream = None if outbox is None else outbox.stream
        if outbox is None or stream is None:
            return
        closer = session.link.closer
        outbox.forget()
        outbox.on_room = lambda: closer.ask((stream,))  # again whenever something has been consumed
        closer.ask((stream,))

    def topic_closed(self, session: Session, stream: Stream) -> None:
        """A topic's stream is closed. The child may have subscribed, and unsubscribed again, while it was asked."""
        topic = stream.key[1]
        with self._lock:
            outbox = self._topics.get(topic, {}).get(session)
            if outbox is not None and outbox.stream is stream:
                self._pop_subscriber(session, topic)

    def _pop_subscriber(self, session: Session, topic: str) -> Outbox | None:
        """Take *session* from the subscribers. The caller holds the lock."""
        subscribers = self._topics.get(topic)
        if subscribers is None:
            return None
        outbox = subscribers.pop(session, None)
        if not subscribers:
            del self._topics[topic]
        return outbox

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
        if not (late or self._may_write(may_wait)):
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
        if not (late or self._may_write(may_wait)):
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
            others = [session for session in self._everybody if session is not asker and session.loaded]
            number = self._barriers.open(others, done)
            if number is not None:
                payload = messages.encode_message(messages.Barrier(number))
                for session in others:
                    session.send_memory(payload)
        if number is None:
            done()

    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        while not write():
            if await self._room.wait_async(self._nobody_lags, LAG_SECONDS) is NOTHING:
                self._disconnect_laggards()

    async def wait_to_publish(self, publish: Callable[[], bool]) -> None:
        publish()  # there is always room: what does not fit for one subscriber is dropped for that one

    def _may_write(self, may_wait: bool) -> bool:
        """Whether nobody lags, perhaps after a while."""
        if self.laggards():
            if not may_wait:
                return False
            refuse_to_wait("a write of the shared memory while a process lags behind")
            self._wait_for_laggards()
        return True

    def withhold(self, source: StreamSource, cost: int) -> bool:
        """Keep back the credit for a child's requests of *cost* bytes while somebody lags behind all these writes; it
        is granted to *source* when nobody does any more. Returns whether it is kept back."""
        laggards = self.laggards()
        if not laggards:
            return False
        with self._lock:
            self._withheld.append((source, cost))
        self.memory_read()  # the last of them may have caught up since we looked
        limit = LAG_WINDOWS * self.window + LAG_MESSAGES * self.message_limit
        for session in laggards:
            if session.memory_backlog > limit:
                self._disconnect(session)
        with self._lock:
            if not self._withheld or self._watching_laggards:
                return True
            self._watching_laggards = True
        self._start_watching_laggards()
        return True

    def _start_watching_laggards(self) -> None:
        try:
            DaemonThread(self._watch_laggards, name="lycomm-laggards", core=True).start()
        except (RuntimeError, MemoryError) as error:
            # The caller reads a link, of a child that is not to blame. Whoever lags may also catch up meanwhile.
            delay = self._laggards_boundary.failed(error)
            loop = self.loop
            if loop is not None:
                call_on(loop, lambda: loop.call_later(delay, self._start_watching_laggards))
            else:
                self._watching_laggards = False  # the next one who is withheld tries again

    def _watch_laggards(self) -> None:
        """Run by a thread while writes of children are held up: a frozen process is not to hold them up for ever."""
        while True:
            self._wait_for_laggards()
            self.memory_read()
            with self._lock:
                over = not self._withheld
                if over:
                    self._watching_laggards = False
            self._settle()
            if over:
                return

    def _wait_for_laggards(self) -> None:
        """Wait until nobody lags; who still does after LAG_SECONDS is disconnected."""
        if self._room.wait(self._nobody_lags, LAG_SECONDS) is NOTHING:
            self._disconnect_laggards()

    def _nobody_lags(self) -> bool | Nothing:
        return NOTHING if self.laggards() else True

    def _disconnect_laggards(self) -> None:
        for session in self.laggards():
            self._disconnect(session)

    def memory_read(self) -> None:
        """A child has read memory events, or is gone: let the writers go on when nobody lags."""
        if (self._withheld or self._room.callbacks) and not self.laggards():
            with self._lock:
                withheld, self._withheld = self._withheld, []
            for source, cost in withheld:
                source.consumed(cost)
            self._room.wake()

    def laggards(self) -> list[Session]:
        """Who has not read a window of memory events: writers are to wait for them."""
        window = self.window
        laggards: list[Session] = []
        for session in self._everybody:
            store = session.store
            if store.sent - store.acknowledged > window and session.memory_backlog > window:
                laggards.append(session)
        return laggards

    def _disconnect(self, session: Session) -> None:
        if session.disconnecting:
            return
        session.disconnecting = True  # before the line: what takes it may write
        line = (
            f"child {session.process} has not read its link for a long time ({session.memory_backlog:,} bytes of the "
            "shared memory wait for it); it is disconnected so that the others can go on"
        )
        self.monitor.say(lambda: logger.error(line))
        self._close_soon(session, "it does not read its link")

    @staticmethod
    def _close_soon(session: Session, cause: str) -> None:
        """Close its link on a thread of its own, which ends within a second: its goodbye may have to wait. Without a
        goodbye when no thread can be started: the caller may be whoever reads another link."""
        session.disconnecting = True
        try:
            DaemonThread(session.close, args=(cause,), name="lycomm-disconnect").start()
        except (RuntimeError, MemoryError):
            session.link.transport.close()

    def _broadcast_change(
        self, revision: int, key: str, value: bytes | None, ttl: float | None, writer: str | None
    ) -> None:
        """Tell everybody but the *writer*, which is told in its own way. The caller holds the lock."""
        payload = None
        for session in self._everybody:
            if session.owner != writer:
                if payload is None:
                    payload = messages.encode_change(revision, key, value, ttl)
                session.send_memory(payload)
        if self._watchers:
            self._changed(key, payload or messages.encode_change(revision, key, value, ttl))

    def _broadcast(self, payload: bytes) -> None:
        """Tell everybody who follows the shared memory. The caller holds the lock."""
        for session in self._everybody:
            session.send_memory(payload)

    # --- the clock ------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Delete keys when their ttl ends, until cancelled. Runs on the host's loop; sleeps while there are none."""
        import asyncio

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # the loop is closed
                pass

        self.on_deadline(wake)
        boundary = Boundary("deleting keys of the shared memory at their time")
        try:
            while True:
                woken.clear()
                try:
                    delay = self.authority.expire()
                    boundary.succeeded()
                except Exception as error:
                    delay = boundary.failed(error)
                # A timer, and no cancel scope with a deadline: before Python 3.11 such a scope also swallows a
                # cancellation of this task that arrives in the turn of the loop in which its deadline passes.
                timer = None if delay is None else loop.call_later(delay, woken.set)
                try:
                    await woken.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
        finally:
            self.on_deadline(wake, remove=True)

    def on_deadline(self, wake: Callable[[], None], *, remove: bool = False) -> None:
        """Call *wake* whenever a key with a ttl is written; or no longer, to *remove* it. It is called under the
        authority's lock, and must not wait."""
        with self._lock:
            others = tuple(each for each in self._wake_expiry if each != wake)
            self._wake_expiry = others if remove else (*others, wake)

    def _deadline_set(self) -> None:
        for wake in self._wake_expiry:
            wake()

    # --- looking --------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        return {name: end.statistics() for name, end in list(self._ends.items())}
