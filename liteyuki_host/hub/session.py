"""One connected child: its link, and what it says."""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

from liteyuki_host._version import __version__
from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import StreamSource, join
from liteyuki_host.comm.errors import LinkClosed, LinkError
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.transport import Transport
from liteyuki_host.hub.listener import SessionListener
from liteyuki_host.hub.standby import Standby

if TYPE_CHECKING:
    from liteyuki_host.hub.hub import Hub

__all__ = ["Session"]


class Session:
    """See the module's docstring. Made by ``Hub.connect``; implements the link's handler."""

    def __init__(
        self,
        hub: Hub,
        process: str,
        owner: str,
        transport: Transport,
        listener: SessionListener,
        *,
        standby: bool = False,
    ) -> None:
        self.process = process
        self.owner = owner  # this incarnation, as the holder of locks and ephemeral keys
        self.pid: int | None = None
        self.disconnecting = False  # the hub has given it up
        self._standby = Standby() if standby else None  # there until its turn comes
        self._snapshot_end = 0
        # Its latest writes, which it has yet to be told of: id and revision of the first, and how many. Guarded by the
        # authority's lock.
        self._first_ordered = self._first_revision = self._count_ordered = 0
        self._hub = hub
        self._listener = listener
        hello = messages.Hello(
            version=messages.PROTOCOL_VERSION,
            process=hub.process,
            pid=os.getpid(),
            software=f"nonebot-plugin-lycomm {__version__}",
            window=hub.window,
            message_limit=hub.message_limit,
        )
        connection = Connection(Role.HOST, hello)
        self.link = Link(transport, connection, self, name=process)
        self.link.settled = not standby
        self.store = connection.store
        """The stream of the shared memory."""
        self._send_shortly = self.link.shortcut(connection.store)
        join(_Requests(hub, self), self.link, connection.store)
        join(_Publications(hub), self.link, connection.publish)

    def start(self) -> None:
        """Begin to listen, and greet. Raises as ``Link.start`` does: nothing of the session is left then."""
        self.link.start()

    def stop(self, reason: str) -> None:
        """Ask the child to end, as if its user had pressed Ctrl+C. Returns at once."""
        self.link.send_control(messages.Stop(reason))

    def drain(self, timeout: float) -> None:
        """Have the child begin no new events and finish the running ones; ``on_drained`` tells. Returns at once."""
        self.link.send_control(messages.Drain(timeout))

    def watch(self, interval: float) -> None:
        """Have the bot's event loop send a beat every *interval* seconds; ``on_beat`` tells."""
        self.link.send_control(messages.WatchLoop(interval))

    def ping(self) -> None:
        """Ask the child's link for a sign of life; ``on_pong`` tells. Returns at once."""
        self.link.send_control(messages.Ping(0))

    def dump_stacks(self) -> None:
        """Have the child write the stack of every thread to its stderr."""
        self.link.send_control(messages.DumpStacks())

    def close(self, cause: str) -> None:
        """End the link from this side. More calls do nothing."""
        self.link.close(cause)

    def reply_control(self, request: int, *, value: object = None, error: str | None = None) -> None:
        """Answer a ControlRequest; one that wants no answer gets none."""
        if request:
            payload = b"\xc0" if error is not None else codec.encode(value)
            self.link.send_control(messages.ControlReply(request, error, payload))

    def ordered(self, request: int, revision: int) -> None:
        """Its write *request* is the step *revision*: told with those after it, at :meth:`tell_ordered` at the latest.
        The caller holds the authority's lock."""
        count = self._count_ordered
        if count and request == self._first_ordered + count and revision == self._first_revision + count:
            self._count_ordered = count + 1
        else:
            self.tell_ordered()
            self._first_ordered, self._first_revision, self._count_ordered = request, revision, 1

    def tell_ordered(self) -> None:
        """Tell it of its writes. The caller holds the authority's lock."""
        count, self._count_ordered = self._count_ordered, 0
        if count:
            ordered = (messages.ORDERED, self._first_ordered, count, self._first_revision)
            self.send_memory(messages.encode_tagged(ordered))

    def refused(self, request: int, why: str) -> None:
        """Its request *request* was not performed. The caller holds the authority's lock."""
        self.send_memory(messages.encode_message(messages.Done(request, why, None, self._hub.revision)))

    def send_memory(self, payload: bytes) -> None:
        """Send an encoded event of the shared memory. The caller holds the authority's lock, which keeps the order."""
        if self._count_ordered:
            self.tell_ordered()
        if self._send_shortly(payload):
            return
        try:
            self.link.send(self.store, payload)
        except LinkClosed:
            pass  # the next incarnation begins with a snapshot

    def snapshot_sent(self) -> None:
        """What has been sent so far is the state it begins with, however large: not yet a backlog."""
        self._snapshot_end = self.store.sent

    @property
    def memory_backlog(self) -> int:
        """Bytes of memory events, behind its snapshot, that the child's link has not read."""
        store = self.store
        return store.sent - max(store.acknowledged, self._snapshot_end)

    # --- the turn of a successor ------------------------------------------------------------------------------

    @property
    def standby(self) -> bool:
        """Whether it is connected and waits for the end of its predecessor."""
        return self._standby is not None

    def take_over(self) -> None:
        """Its turn has come: do what it has asked for meanwhile. From any thread; nothing happens the second time."""
        if self._standby is not None:
            self._standby.end(self)
            self._standby = None
            self.link.settled = True

    def open(self, stream: Stream) -> None:
        """Join the child's *stream* with the channel or topic that it is for."""
        kind, name = stream.key
        if kind == "topic":
            self._hub.subscribe_session(self, name, stream)
        else:
            refused = self._hub.open_channel(self, name)
            if refused is not None:
                self.link.send_control(messages.OpenRefused(stream.id, refused))

    def deliver(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Hand on what the child sent on *stream*."""
        if stream.receiver is not None:
            stream.receiver.deliver(payloads, flags, request_id, stream.source)
        elif stream.key[0] == "topic":  # nobody receives it, but its credit is not to be used up
            self.link.consumed(stream, sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))

    # --- LinkHandler ----------------------------------------------------------------------------------------

    def on_hello(self, hello: messages.Hello) -> None:
        if hello.process != self.process:
            self.link.close(f"this link belongs to process {self.process!r}, not {hello.process!r}")
            return
        self.pid = hello.pid
        self._hub.admit(self)
        self._listener.on_hello(hello.pid)

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        standby = self._standby
        if standby is not None and standby.keep_message(stream, payloads, flags, request_id):
            return
        if stream.receiver is not None:
            stream.receiver.deliver(payloads, flags, request_id, stream.source)
        else:
            self.deliver(stream, payloads, flags, request_id)

    def on_opened(self, stream: Stream) -> None:
        standby = self._standby
        if standby is None or not standby.keep_wish(stream, True):
            self.open(stream)

    def on_credit(self, stream: Stream) -> None:
        if stream.user is not None:
            stream.user.credit()
        elif stream is self.store:
            self._hub.memory_read()

    def on_control(self, message: messages.Control) -> None:
        if isinstance(message, messages.HooksDone):
            self._listener.on_hooks_done(message.adapters, message.failed_plugins)
        elif isinstance(message, messages.Beat):
            self._listener.on_beat(message.late)
        elif isinstance(message, messages.Pong):
            self._listener.on_pong()
        elif isinstance(message, messages.MoreTime):
            self._listener.on_more_time(message.seconds, message.reason)
        elif isinstance(message, messages.Drained):
            self._listener.on_drained(message.unfinished, message.refused, message.unfinished_events)
        elif isinstance(message, messages.ShutdownWork):
            self._listener.on_shutdown_work(message.running)
        elif isinstance(message, messages.OwnExit):
            self._listener.on_own_exit(message.place)
        elif isinstance(message, messages.CannotStart):
            self._listener.on_cannot_start(message.reason)
        elif isinstance(message, messages.Ready):
            self._listener.on_ready(message.address, message.details)
        elif isinstance(message, messages.ControlRequest):
            self._hub.control_requested(self, message)
        elif isinstance(message, (messages.Unsubscribe, messages.Subscribe)):
            stream = self.link.connection.streams.get(message.stream)
            if stream is not None and stream.key[0] == "topic":
                self._want(stream, isinstance(message, messages.Subscribe))

    def on_end(self, cause: LinkError) -> None:
        # The supervisor first: whoever fails because of this end and asks it, is not to hear of a ready child.
        said_goodbye = self.link.connection.goodbye is not None and not self.disconnecting
        self._listener.on_closed(None if said_goodbye else str(cause))
        self._hub.dismiss(self, str(cause))
        if self._standby is not None:
            for channel, count in self._standby.given_up().items():
                self._hub.losses.add(channel, count, f"the new {self.process} that sent it ended before it took over")

    def _want(self, topic: Stream, wanted: bool) -> None:
        standby = self._standby
        if standby is not None and standby.keep_wish(topic, wanted):
            return
        if wanted:
            self._hub.subscribe_session(self, topic.key[1], topic)
        else:
            self._hub.unsubscribe_session(self, topic.key[1])


class _Requests:
    """Receives a child's shared-memory requests."""

    def __init__(self, hub: Hub, session: Session) -> None:
        self._hub = hub
        self._session = session

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        hub, session = self._hub, self._session
        authority = hub.authority
        position = 0
        while True:
            with authority.lock:  # once for all that write plainly, one after the other: nearly always all
                position, other = self._write(payloads, position)
            if other is None:
                break
            if isinstance(other, messages.Declare):
                hub.declare(other.channel)
                with authority.lock:
                    session.send_memory(messages.encode_message(messages.Done(other.id)))
            else:
                authority.perform(session.owner, other, _Reply(session, other))
        cost = sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads)
        laggards = hub.laggards()
        if laggards:
            hub.withhold(source, cost, laggards)
        else:
            source.used(cost)  # first: the answer carries it
        with authority.lock:
            session.tell_ordered()
        if not laggards:
            source.grant()

    def _write(self, payloads: list[bytes], position: int) -> tuple[int, messages.Request | None]:
        """Do what the payloads from *position* on ask for, as long as they are plain writes. Returns the first request
        that is none, and the position behind it. The caller holds the authority's lock."""
        session, put, decode = self._session, self._hub.authority.put, messages.decode_request
        owner = session.owner
        for payload in islice(payloads, position, None):
            position += 1
            request = decode(payload)
            if type(request) is not messages.Put:
                return position, request
            revision = put(owner, request.key, request.value, request.ttl, request.ephemeral)
            if revision:
                session.ordered(request.id, revision)
            else:
                session.refused(request.id, Refusal.FULL)
        return position, None


class _Reply:
    """Sends the outcome of one request to the child that made it."""

    __slots__ = ("_request", "_session")

    def __init__(self, session: Session, request: messages.Request) -> None:
        self._session = session
        self._request = request

    def __call__(self, outcome: Outcome) -> None:
        request = self._request
        if type(request) is messages.Remove and outcome.error is None and outcome.value is not None:
            self._session.ordered(request.id, outcome.revision)
            return
        done = messages.Done(request.id, outcome.error, outcome.value, outcome.revision)
        self._session.send_memory(messages.encode_message(done))


class _Publications:
    """Receives what a child publishes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: StreamSource) -> None:
        for payload in payloads:
            publication = messages.decode_publication(payload)
            self._hub.publish(publication.topic, publication.payload, publication.flags, may_wait=False)
        source.consumed(sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))
