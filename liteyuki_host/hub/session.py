"""The host's end of one connected child: its link, the messages that come over it, and those that go back.

How a session works
-------------------

The hub makes one session for each incarnation of a process, that is, for each spawned child. The session owns the link
to that child and is the link's handler: whichever thread reads the link calls the ``on_...`` methods, one at a time and
never two at once. The streams of the link lead to four places:

- *Store*: requests for the shared memory. ``_Requests`` performs them in the authority, and the answers go back on the
  same stream, in the order of the writes.
- *Publish*: what the child publishes. ``_Publications`` hands it to the hub.
- *Channels and topics*: joined by the hub when the child opens them.
- *Control messages*: a table of handlers by message type (``_HANDLERS``). Most only tell the ``SessionListener``, which
  is the supervisor's view of the child.

States
------

A session is *started* (its link is read, its greeting sent), *admitted* when the child has greeted (``on_hello``), and
*over* when the link has ended (``on_end``, which is the last call of the link). It is in the hub's roster from its
admission to its dismissal. Between the two it is *loaded* once the child has taken in the snapshot.

A *standby* session belongs to a child that is to replace one that still serves. Until its turn comes, what it does on
channels and topics is kept by ``Standby`` (``standby.py``) and not performed.

How a child hears of its own writes
-----------------------------------

A child that writes is told the revision only, as it has the value. Writes come in rows, and so do their revisions, so
:meth:`Session.ordered` counts a run of them and sends one message ``Ordered`` for the whole run: before the next other
event on the store stream, which has to follow it, or when the batch of requests is done. So no answer is held back
longer than the requests that were read together with its own.

What a child may do wrong
-------------------------

Names and sizes of what is relayed are checked here, before others get it. A violation raises ``RemoteProtocolError``
in the thread that reads this link, and ends this link alone.

Locks
-----

A session has no lock of its own. What it sends of the shared memory is sent under the hub's lock, which thereby
keeps the order of writes, answers and the snapshot. Everything else is written by the thread that reads the link, or
only ever changes once; each attribute says which.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from liteyuki_host._version import __version__
from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import StreamSource, join
from liteyuki_host.comm.errors import LinkClosed, LinkError, RemoteProtocolError
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport import Transport
from liteyuki_host.hub.listener import SessionListener
from liteyuki_host.hub.session_hub import SessionHub
from liteyuki_host.hub.standby import Standby

__all__ = ["Session"]

M = TypeVar("M", bound=messages.Message)

_HANDLERS: dict[type[messages.Message], Callable[[Session, Any], None]] = {}
"""By type, what a session does with a control message; filled by ``_handles``. The types that are missing are those
that the link answers itself and those that only a host sends."""


def _handles(kind: type[M]) -> Callable[[Callable[[Session, M], None]], Callable[[Session, M], None]]:
    """Make the decorated method the handler of the control messages of type *kind*."""

    def register(handler: Callable[[Session, M], None]) -> Callable[[Session, M], None]:
        _HANDLERS[kind] = handler
        return handler

    return register


class Session:
    """One connected child. Made by ``Hub.connect``; implements ``LinkHandler``.

    Methods without a note may be called from any thread. Each session is compared and hashed by identity: the hub keys
    its subscriptions and barriers by it.
    """

    def __init__(
        self,
        hub: SessionHub[Session],
        process: str,
        owner: str,
        transport: Transport,
        listener: SessionListener,
        *,
        standby: bool = False,
    ) -> None:
        """
        Args:
            process: name of the process.
            owner: name of this incarnation, under which it holds locks and ephemeral keys.
            transport: belongs to the session from now on.
            listener: is told how the child fares.
            standby: whether the child has to wait for the end of its predecessor.
        """
        # Fixed from here on.
        self.process = process
        self.owner = owner
        self._hub = hub
        self._listener = listener
        # Written by the thread that reads the link; read by any.
        self.pid: int | None = None
        """Process id of the child; None before its greeting."""
        # Written by the hub, from any thread; only ever changes from False to True.
        self.disconnecting = False
        """The hub is closing the link. A goodbye that still arrives then does not count as the child's own wish."""
        # Written once after __init__, by :meth:`take_over`, under the hub's lock.
        self._standby = Standby(hub.monitor) if standby else None
        """Keeps what the child does before its turn; None when the turn has come, or was never waited for."""
        # Guarded by the hub's lock; only ever changes from False to True.
        self.loaded = False
        """The child has its snapshot, and may write from now on."""
        self.dismissed = False
        """The hub has taken back what the child had (``Hub.dismiss``)."""
        # Guarded by the hub's lock.
        self._snapshot_end = 0
        """Position in the store stream behind the snapshot."""
        # Guarded by the hub's lock: the run of the child's latest writes that it has not been told of yet. Write
        # `first_ordered + n` became revision `first_revision + n`, for every n below `count_ordered`.
        self._first_ordered = self._first_revision = self._count_ordered = 0
        hello = messages.Hello(
            version=messages.PROTOCOL_VERSION,
            process=hub.process,
            pid=os.getpid(),
            software=f"nonebot-plugin-lycomm {__version__}",
            window=hub.window,
            message_limit=hub.message_limit,
            closes=True,
        )
        connection = Connection(Role.HOST, hello)
        # Fixed from here on. The link's own state is guarded by the hub's lock.
        self.link = Link(transport, connection, self, name=process, monitor=hub.monitor)
        # A standby's messages all have to pass :meth:`on_message`; otherwise the link may deliver a lone one directly.
        self.link.settled = not standby
        self.store = connection.store
        """The stream of the shared memory."""
        # The link's short way for a lone message on the store stream; where it returns False, `Link.send` is used. Not
        # "outermost", as it is called with the lock held: it leaves what was put off to the frame that took the lock.
        self._send_shortly = self.link.shortcut(connection.store, outermost=False)
        join(_Requests(hub, self), self.link, connection.store)
        join(_Publications(hub), self.link, connection.publish)

    def start(self) -> None:
        """Begin to read the link, and send the greeting.

        Raises:
            OSError, RuntimeError, MemoryError: there is a shortage; nothing of the session is left then.
        """
        self.link.start()

    # --- to the child: for the supervisor -----------------------------------------------------------------------
    # Each sends one control message and returns at once. On a link that is over, nothing happens.

    def stop(self, reason: str) -> None:
        """Ask the child to end, as if its user had pressed Ctrl+C."""
        self.link.send_control(messages.Stop(reason))

    def drain(self, timeout: float) -> None:
        """Have the child begin no new events and finish the running ones, within *timeout* seconds. The listener's
        ``on_drained`` tells the outcome."""
        self.link.send_control(messages.Drain(timeout))

    def watch(self, interval: float) -> None:
        """Have the bot's event loop send a beat every *interval* seconds; ``on_beat`` tells of each."""
        self.link.send_control(messages.WatchLoop(interval))

    def ping(self) -> None:
        """Ask the child's link for a sign of life; ``on_pong`` tells of the answer."""
        self.link.send_control(messages.Ping(0))

    def dump_stacks(self) -> None:
        """Have the child write the stack of every thread to its stderr."""
        self.link.send_control(messages.DumpStacks())

    def close(self, cause: str) -> None:
        """End the link from this side: say goodbye and wait, for one second at most, until what is queued is sent. More
        calls do nothing."""
        self.link.close(cause)

    def close_soon(self, cause: str) -> None:
        """Close the link on a thread of its own, which ends within a second: the goodbye may have to wait. Without a
        goodbye when no thread can be started: the caller may be whoever reads another link."""
        self.disconnecting = True
        try:
            DaemonThread(self.close, args=(cause,), name="lycomm-disconnect").start()
        except (RuntimeError, MemoryError):
            self.link.transport.close()

    def reply_control(self, request: int, *, value: object = None, error: str | None = None) -> None:
        """Answer the ControlRequest of this number; 0 stands for one that needs no answer."""
        if request:
            # A reply always carries a value: None (0xC0) beside an error.
            payload = b"\xc0" if error is not None else codec.encode(value)
            self.link.send_control(messages.ControlReply(request, error, payload))

    # --- to the child: the shared memory --------------------------------------------------------------------------
    # The caller of each of these holds the hub's lock. So everything on the store stream is in the order of the writes.

    def ordered(self, request: int, revision: int) -> None:
        """Note that the child's write *request* became the revision *revision*. The child is told of a whole run of
        writes by one message: before anything else is sent on the store stream, or by :meth:`tell_ordered`."""
        count = self._count_ordered
        # A run goes on only if neither number skips. A skipped request was refused or of another kind; a skipped
        # revision is a write of somebody else.
        if count and request == self._first_ordered + count and revision == self._first_revision + count:
            self._count_ordered = count + 1
        else:
            self.tell_ordered()
            self._first_ordered, self._first_revision, self._count_ordered = request, revision, 1

    def tell_ordered(self) -> None:
        """Send what :meth:`ordered` has noted."""
        count, self._count_ordered = self._count_ordered, 0
        if count:
            ordered = (messages.ORDERED, self._first_ordered, count, self._first_revision)
            self.send_memory(messages.encode_tagged(ordered))

    def refused(self, request: int, why: str) -> None:
        """Tell the child that its write *request* was not performed."""
        self.send_memory(messages.encode_message(messages.Done(request, why, None, self._hub.revision)))

    def send_memory(self, payload: bytes) -> None:
        """Send an encoded event of the shared memory. It never waits: these events need no credit (``laggards.py``
        bounds them). Does nothing when the link is over: the next incarnation begins with a snapshot."""
        if self._count_ordered:  # these revisions precede what is sent now
            self.tell_ordered()
        if self._send_shortly(payload):
            return
        try:
            self.link.send(self.store, payload)
        except LinkClosed:
            pass

    def snapshot_sent(self) -> None:
        """Note that what has been sent so far is the state that the child begins with. It is not a backlog, however
        large it is."""
        self._snapshot_end = self.store.sent

    @property
    def memory_backlog(self) -> int:
        """Bytes of memory events, behind the snapshot, that the child's link has not read. Needs no lock."""
        store = self.store
        # Totals since the link began. Read without the lock, the difference may be off by what is moving just now.
        return store.sent - max(store.acknowledged, self._snapshot_end)

    # --- the turn of a standby session ----------------------------------------------------------------------------

    @property
    def standby(self) -> bool:
        """Whether it is connected and waits for the end of its predecessor."""
        return self._standby is not None

    def take_over(self) -> None:
        """Let its turn come: perform what was kept, and everything at once from now on. A second call does nothing. The
        caller holds the hub's lock."""
        if self._standby is not None:
            self._standby.end(self)
            self._standby = None
            self.link.settled = True  # nothing is kept any more, so messages may take the short ways

    def open(self, stream: Stream) -> None:
        """Join the child's *stream* with the channel or topic that it is for; refuse it where that cannot be."""
        kind, name = stream.key
        if kind == "topic":
            _check_relayed(name, "topic")
            self._hub.subscribe_session(self, name, stream)
        else:
            refused = self._hub.open_channel(self, name)
            if refused is not None:
                stream.refused = True
                self.link.send_control(messages.OpenRefused(stream.id, refused))

    def deliver(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Hand what the child sent on *stream* to the stream's receiver."""
        if stream.receiver is not None:
            stream.receiver.deliver(payloads, flags, request_id, stream.source)
        elif stream.key[0] == "topic":
            # Nobody receives it; its credit is given back all the same, so that the child does not wait for room for
            # ever. What is sent on a refused channel is not granted: the child reports it as lost.
            self.link.consumed(stream, sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))

    # --- from the child: LinkHandler --------------------------------------------------------------------------------
    # Called by the thread that reads the link. A RemoteProtocolError that one of these raises ends the link.

    def on_hello(self, hello: messages.Hello) -> None:
        if hello.process != self.process:
            self.link.close(f"this link belongs to process {self.process!r}, not {hello.process!r}")
            return
        self.pid = hello.pid
        self._hub.admit(self)  # before the listener, so that whoever that tells can reach the child
        self._listener.on_hello(hello.pid)

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        standby = self._standby
        if standby is not None and standby.keep_message(stream, payloads, flags, request_id):
            return
        if stream.receiver is not None:  # what :meth:`deliver` does; saves one call for nearly every message
            stream.receiver.deliver(payloads, flags, request_id, stream.source)
        else:
            self.deliver(stream, payloads, flags, request_id)

    def on_opened(self, stream: Stream) -> None:
        standby = self._standby  # read once: another thread may let the turn come in between
        if standby is None or not standby.keep_wish(stream, True):
            self.open(stream)

    def on_close(self, stream: Stream) -> None:
        if self._standby is not None:  # its turn has not come: it may ask again
            self.link.closer.answer(stream, willing=False)
        else:
            self._hub.close_channel(self, stream)

    def on_close_answered(self, stream: Stream, closed: bool) -> None:
        if closed:
            self._hub.topic_closed(self, stream)
        elif stream.user is not None:
            stream.user.credit()  # the topic is wanted again: send what has waited for the answer

    def on_credit(self, stream: Stream) -> None:
        if stream.user is not None:
            stream.user.credit()  # an outbox: it sends what has waited for room
        elif stream is self.store:
            self._hub.memory_read()  # the child has read events: writers that wait for it may go on

    def on_control(self, message: messages.Control) -> None:
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message)

    def on_end(self, cause: LinkError) -> None:
        # The listener first. Whoever fails because of this end may at once ask the supervisor for the process; it must
        # not be told of a child that is ready.
        said_goodbye = self.link.connection.goodbye is not None and not self.disconnecting
        self._listener.on_closed(None if said_goodbye else str(cause))
        self._hub.dismiss(self, str(cause))
        # A standby whose turn never came: what it sent on channels is lost, and reported.
        if self._standby is not None:
            for channel, count in self._standby.given_up().items():
                self._hub.losses.add(channel, count, f"the new {self.process} that sent it ended before it took over")

    # --- from the child: control messages ---------------------------------------------------------------------------

    @_handles(messages.HooksDone)
    def _hooks_done(self, message: messages.HooksDone) -> None:
        self._listener.on_hooks_done(message.adapters, message.failed_plugins)

    @_handles(messages.Ready)
    def _ready(self, message: messages.Ready) -> None:
        self._listener.on_ready(message.address, message.details)

    @_handles(messages.Beat)
    def _beat(self, message: messages.Beat) -> None:
        self._listener.on_beat(message.late)

    @_handles(messages.Pong)
    def _pong(self, message: messages.Pong) -> None:
        self._listener.on_pong()

    @_handles(messages.MoreTime)
    def _more_time(self, message: messages.MoreTime) -> None:
        self._listener.on_more_time(message.seconds, message.reason)

    @_handles(messages.Drained)
    def _drained(self, message: messages.Drained) -> None:
        self._listener.on_drained(message.unfinished, message.refused, message.unfinished_events)

    @_handles(messages.ShutdownWork)
    def _shutdown_work(self, message: messages.ShutdownWork) -> None:
        self._listener.on_shutdown_work(message.running)

    @_handles(messages.OwnExit)
    def _own_exit(self, message: messages.OwnExit) -> None:
        self._listener.on_own_exit(message.place)

    @_handles(messages.CannotStart)
    def _cannot_start(self, message: messages.CannotStart) -> None:
        self._listener.on_cannot_start(message.reason)

    @_handles(messages.ControlRequest)
    def _control_request(self, message: messages.ControlRequest) -> None:
        self._hub.control_requested(self, message)

    @_handles(messages.Subscribe)
    def _subscribe(self, message: messages.Subscribe) -> None:
        self._want(message.stream, True)

    @_handles(messages.Unsubscribe)
    def _unsubscribe(self, message: messages.Unsubscribe) -> None:
        self._want(message.stream, False)

    def _want(self, number: int, wanted: bool) -> None:
        """Begin, or end, the deliveries of the topic that stream *number* carries. Other numbers are ignored."""
        topic = self.link.connection.streams.get(number)
        if topic is None or topic.key[0] != "topic":
            return
        standby = self._standby
        if standby is not None and standby.keep_wish(topic, wanted):
            return
        if wanted:
            self._hub.subscribe_session(self, topic.key[1], topic)
        else:
            self._hub.unsubscribe_session(self, topic.key[1])


class _Requests:
    """Receiver of the store stream: performs a child's requests for the shared memory.

    Called by the thread that reads the link, one batch of requests after the other. Plain writes in a row, nearly all
    requests, take the lock once for the row; any other request is performed between two rows, with or without the lock
    as it needs, so that the order of the requests is kept.
    """

    def __init__(self, hub: SessionHub[Session], session: Session) -> None:
        self._hub = hub
        self._session = session

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        """Perform the requests in *payloads*, answer them, and give their credit back, or keep it back while another
        child has not read what these writes add to its link."""
        hub, session = self._hub, self._session
        authority = hub.authority
        position = 0
        while True:
            with authority.lock:  # taken once for all plain writes in a row, which nearly always is all there is
                position, other = self._write(payloads, position)
            if other is None:
                break
            if isinstance(other, (messages.Declare, messages.Undeclare)):
                _check_relayed(other.channel, "channel")
                if isinstance(other, messages.Declare):
                    hub.declare_for(session, other.channel)
                else:
                    hub.withdraw_for(session, other.channel)
                with authority.lock:
                    session.send_memory(messages.encode_message(messages.Done(other.id)))
            elif isinstance(other, messages.Sync):
                hub.sync_session(session, _Reply(session, other))
            elif isinstance(other, messages.Reached):
                hub.barrier_reached(session, other.barrier)
            else:
                if isinstance(other, messages.Compare) and other.value is not None:
                    _check_size(other.value, hub.message_limit)
                authority.perform(session.owner, other, _Reply(session, other))
        cost = sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads)
        withheld = hub.withhold(source, cost)
        if not withheld:
            source.used(cost)  # before the answer, whose frame then carries the grant
        with authority.lock:
            session.tell_ordered()
        if not withheld:
            source.grant()  # does nothing if the answer has carried it; outside the lock, as it may write

    def _write(self, payloads: list[bytes], position: int) -> tuple[int, messages.Request | None]:
        """Perform the requests in *payloads* from *position* on, up to the first that is no plain write. The caller
        holds the hub's lock.

        Returns:
            that request, or None when there is none; and the position behind it.
        """
        session, put, decode = self._session, self._hub.authority.put, messages.decode_request
        owner, limit = session.owner, self._hub.message_limit
        for payload in islice(payloads, position, None):
            position += 1
            request = decode(payload)
            if type(request) is not messages.Put:
                return position, request
            if len(request.value) > limit:
                _check_size(request.value, limit)
            revision = put(owner, request.key, request.value, request.ttl, request.ephemeral)
            if revision:
                session.ordered(request.id, revision)
            else:  # the shared memory is full
                session.refused(request.id, Refusal.FULL)
        return position, None


def _check_relayed(name: str, what: str, payload: bytes = b"", limit: int = 0) -> None:
    """Check what a child sends before others get it.

    Args:
        what: *name* is that of a ``channel`` or ``topic``.
        limit: of *payload*, in bytes.

    Raises:
        RemoteProtocolError: it may not be sent. That ends this child's link, and nobody else's.
    """
    try:
        check_name(name, what)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from error
    _check_size(payload, limit)


def _check_size(value: bytes, limit: int) -> None:
    """Check the size of a value that others get: one beyond the limit would break their links.

    Raises:
        RemoteProtocolError: it has more than *limit* bytes.
    """
    if len(value) > limit:
        raise RemoteProtocolError(f"a value of {len(value):,} bytes, the limit is {limit:,} bytes")


class _Reply:
    """Sends the outcome of one request to the child that made it. Called under the hub's lock."""

    __slots__ = ("_request", "_session")

    def __init__(self, session: Session, request: messages.Request) -> None:
        self._session = session
        self._request = request

    def __call__(self, outcome: Outcome) -> None:
        request = self._request
        # A deletion that has deleted something is one of the child's writes, and may be told within a run. All others
        # have an answer of their own: a value, an error, or nothing that was changed.
        if type(request) is messages.Remove and outcome.error is None and outcome.value is not None:
            self._session.ordered(request.id, outcome.revision)
            return
        done = messages.Done(request.id, outcome.error, outcome.value, outcome.revision)
        self._session.send_memory(messages.encode_message(done))


class _Publications:
    """Receiver of the publish stream: hands what a child publishes to the hub.

    All publications of a batch are checked before the first is delivered. They count as consumed as soon as every
    subscriber's outbox has taken or lost them, so a publisher never waits for a slow subscriber.
    """

    def __init__(self, hub: SessionHub[Session]) -> None:
        self._hub = hub

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        hub = self._hub
        publications = list(map(messages.decode_publication, payloads))
        for publication in publications:
            _check_relayed(publication.topic, "topic", publication.payload, hub.message_limit)
        with hub.monitor.lock:  # once for the batch
            for publication in publications:
                hub.publish(publication.topic, publication.payload, publication.flags, may_wait=False)
        source.consumed(sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))
