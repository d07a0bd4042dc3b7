"""The state of one peer relationship: bytes in, calls out; messages in, bytes out.

Two halves: the *inbound* half (``decoder``, ``receive``, ``receive_eof``) belongs to one reader; the *outbound* half
(everything else) to whoever holds the link's lock. What both touch of a stream is said in ``stream.py``.
"""

from __future__ import annotations

import enum
import io
from collections import deque
from typing import Any, Protocol

import msgspec

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.batch import PAYLOAD_HEADER, Batch
from liteyuki_host.comm.protocol.closing import Closing
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGE_CREDIT
from liteyuki_host.comm.protocol.frames import CHUNK_SIZE, HEADER, Flag, FrameDecoder, Kind, encode_frame
from liteyuki_host.comm.protocol.ledger import Ledger, Owing
from liteyuki_host.comm.protocol.messages import (
    PROTOCOL_VERSION,
    PUBLISH_STREAM,
    STORE_STREAM,
    Control,
    Goodbye,
    Hello,
    Open,
)
from liteyuki_host.comm.protocol.states import Input, State, next_state
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.protocol.streams import StreamTable

__all__ = ["Connection", "EventHandler", "Role"]

LARGE = 16 * 1024
"""Bytes from which a payload gets a frame of its own: below, joining batches costs less than a second buffer."""

WRITE_SIZE = 60_000
"""Bytes that one write aims at: measured best of 16, 60 and 200 KB, by a little."""

ENVELOPE = 256 * 1024
"""Bytes that a message may have beyond the limit of one value: its key or topic, and the small values that share a
part of a snapshot with it."""

_HARMLESS = Flag.RAW | Flag.REDELIVERED
FLAGS_OF = {
    "channel": _HARMLESS | Flag.REQUEST | Flag.REPLY | Flag.ERROR,
    "topic": _HARMLESS,
    "store": _HARMLESS | Flag.UNCREDITED,
    "publish": _HARMLESS,
}
"""The flags that a message may have, by the kind of its stream. Flags are handed on with the message to other
processes: one that means something else there (no credit needed, a piece of a larger one) would break their links."""

_REQUEST_OR_REPLY = Flag.REQUEST | Flag.REPLY
_REQUEST_PREFIX = 8  # bytes of the request id before the payload of a request or reply


class Role(enum.IntEnum):
    """Which side numbers streams even, which odd. Nothing else depends on it."""

    HOST = 0
    CHILD = 1


class EventHandler(Protocol):
    """Who is told what arrived, in its order. Nothing of it may raise: that would end the link like a fault of the
    peer."""

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Messages of one stream, in order. More than one only when they have no other flag than RAW."""
        ...

    def on_credit(self, stream: Stream) -> None:
        """The peer has consumed more of what was sent on *stream*."""
        ...

    def on_opened(self, stream: Stream) -> None:
        """The peer gave a stream a number; ``stream.key`` says what it is for."""
        ...

    def on_control(self, message: Control) -> None:
        """A control message that is no :class:`Open`."""
        ...


class _Large:
    """A payload on its way in chunks."""

    __slots__ = ("batch", "position", "view")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.view = memoryview(batch.payloads[0])
        self.position = 0


class Connection:
    """One end of a link's protocol.

    Args:
        role: HOST or CHILD.
        hello: our greeting; its window and limit are what we grant the peer.
    """

    def __init__(self, role: Role, hello: Hello) -> None:
        self.role = role
        self.hello = hello
        self.peer: Hello | None = None
        self.state = State.GREETING
        self.goodbye: str | None = None  # the peer's reason, once it said goodbye
        self.window = hello.window  # the smaller of both sides' wishes, once both are known; no data flows before
        self.message_limit = hello.message_limit
        # The store's events are bounded by the hub, which slows the writers down instead of the sequencer.
        self.owing = Owing()  # streams with consumed bytes that the peer was not told of
        self.store = Stream(
            STORE_STREAM, ("store", ""), hello.window, owing=self.owing, limited=role is Role.CHILD, trusted=True
        )
        self.publish = Stream(PUBLISH_STREAM, ("publish", ""), hello.window, owing=self.owing)
        self.table = StreamTable(int(role), [self.store, self.publish], self.owing)
        self.streams = self.table.by_number
        self.closing = Closing(self)
        # outbound
        self.pending = 0  # bytes of payload waiting to be written
        self.controls: list[bytes] = []
        self.queue: deque[Batch] = deque()
        self.open_batch: Batch | None = None  # the queue's last run, while short messages of its stream may join it
        self.staging: Stream | None = None  # the one whose stage is open; what is on it comes behind the queue
        self.large: _Large | None = None
        self._acknowledged: list[Ledger] = []  # by the header of a message in the write that is being put together
        # inbound
        self.heard = False  # a message has arrived since the sender looked last: who answers does not go on sending
        self.decoder = FrameDecoder()
        # A BytesIO hands out what was written to it without copying it once more.
        self._partial = io.BytesIO()
        self._partial_total = 0
        self._partial_head: tuple[Stream, int, int] | None = None
        self.send_control(hello)

    # --- outbound -------------------------------------------------------------------------------------------

    def open_stream(self, kind: str, name: str) -> Stream:
        """The stream for (*kind*, *name*), numbered and announced if it is new.

        Raises:
            LocalProtocolError: all numbers are taken (32,767 of each side).
        """
        stream, fresh = self.table.open(kind, name, self.window)
        if fresh:
            self.send_control(Open(stream.id, kind, name))
        return stream

    def send_control(self, message: Control) -> None:
        """Queue a control message; it is written before all data."""
        self.controls.append(encode_frame(Kind.CONTROL, messages.encode_control(message)))

    def send(self, stream: Stream, payload: bytes, flags: int = 0, request_id: int = 0, attempts: int = 0) -> bool:
        """Queue a payload; False when the stream has no credit for it. Replies need none.

        What most messages need of this is written out once more in ``link/sender.py``.
        """
        if self.staging is not None:
            self.unstage()
        size = len(payload)
        if not flags and size < LARGE:
            if not stream.has_room(size):
                return False
            batch = self.open_batch
            if batch is not None and batch.stream is stream and batch.size < WRITE_SIZE:
                batch.payloads.append(payload)
                batch.size += size + PAYLOAD_HEADER
                batch.end = stream.charge(size + MESSAGE_CHARGE)
            else:
                batch = Batch.of(stream, payload)
                stream.unacknowledged.append(batch)
                self.queue.append(batch)
                self.open_batch = batch
            self.pending += size + PAYLOAD_HEADER
            return True
        if flags & Flag.REPLY:
            batch = Batch.reply(stream, payload, flags, request_id)
            if stream.held is not None:  # sent if it stays open; else nobody waits for it any more
                stream.held.append(batch)
                return True
        else:
            if not flags & Flag.UNCREDITED and not stream.has_room(size):
                return False
            batch = Batch.of(stream, payload, flags, request_id, attempts)
            stream.unacknowledged.append(batch)
        self.queue.append(batch)
        self.open_batch = None
        self.pending += batch.size
        return True

    def open_stage(self, stream: Stream) -> None:
        """Let messages of *stream* be staged, if there is credit for that. No other stage is open, the queue is not
        empty, and the caller sees to it that somebody writes that soon: with it goes what is staged meanwhile."""
        if stream.limit - stream.sent >= STAGE_CREDIT:
            self.staging = stream
            stream.stage.open = True

    def unstage(self) -> None:
        """Close the stage and put what is on it into the queue. Credit is taken by nobody else before that."""
        stream, self.staging = self.staging, None
        if stream is None:
            return
        stream.stage.open = False
        payloads, size = stream.stage.take(stream.limit - stream.sent)
        if not payloads:
            return
        start = stream.sent
        end = stream.charge(size + MESSAGE_CHARGE * len(payloads))
        size += PAYLOAD_HEADER * len(payloads)
        batch = self.open_batch
        if batch is not None and batch.stream is stream and batch.size + size <= WRITE_SIZE:
            batch.payloads += payloads
            batch.size += size
            batch.end = end
        else:
            batch = Batch(stream, payloads, size, start, end)
            stream.unacknowledged.append(batch)
            self.queue.append(batch)
            self.open_batch = batch
        self.pending += size

    @property
    def wants_to_send(self) -> bool:
        """Whether :meth:`data_to_send` has something."""
        return bool(self.queue or self.owing or self.controls or self.large)

    @property
    def has_output(self) -> bool:
        """Whether :meth:`data_to_send` has something that should not wait (owed grants may)."""
        return bool(self.controls or self.queue or self.large)

    @property
    def owes_much(self) -> bool:
        """Whether a grant is owed that is worth a frame. Others may go on consuming meanwhile."""
        return any(stream.owes_much for stream in list(self.owing))

    def data_to_send(self, *, grants: bool = True) -> list[bytes | memoryview]:
        """The buffers of the next write, about :data:`WRITE_SIZE` bytes, or an empty list."""
        if self.staging is not None:
            self.unstage()
        out: list[bytes | memoryview] = []
        if self.controls:
            out.append(b"".join(self.controls))
            self.controls.clear()
        behind_controls = len(out)  # a grant may be of a stream that one of them opens, or refuses
        if self.large is not None:
            self._next_chunk(out)
        elif self.queue:
            self._next_data(out)
        elif not (grants or out):
            return out
        if self.owing and (grant_frame := self._grant_frame()) is not None:
            out.insert(behind_controls, grant_frame)
        self._acknowledged.clear()
        return out

    def _next_data(self, out: list[bytes | memoryview]) -> None:
        queue = self.queue
        batch = queue[0]
        if self._goes_alone(batch):
            # The first one whatever its size, and as many as are no longer to write than a piece of a larger one.
            size = 0
            while not size or (queue and self._goes_alone(queue[0]) and size + queue[0].size <= CHUNK_SIZE):
                batch = queue.popleft()
                size += batch.size
                self.pending -= batch.size
                self._message(batch, out)
            return
        parts: list[Any] = []
        size = 0
        before: Batch | None = None
        # A little that would be left over comes along: in a write of its own it would cost as much as all of this.
        while queue and (size < WRITE_SIZE or self.pending - size < LARGE) and not self._goes_alone(queue[0]):
            batch = queue.popleft()
            if before is not None and before.stream is batch.stream:  # of one stream: one unit at the receiver
                parts[-1] = [*parts[-1], *batch.payloads]
            else:
                parts.append(batch.stream.id)
                parts.append(batch.payloads)
            before = batch
            size += batch.size
        if batch is self.open_batch:
            self.open_batch = None
        self.pending -= size
        if len(parts) == 2 and len(parts[1]) == 1:
            self._message(batch, out)
        else:
            out.append(encode_frame(Kind.BATCH, _encoder.encode(parts)))

    @staticmethod
    def _goes_alone(batch: Batch) -> bool:
        """Whether the run's one message needs a frame of its own."""
        return bool(batch.flags) or (batch.size >= LARGE and len(batch.payloads) == 1)

    def _message(self, batch: Batch, out: list[bytes | memoryview]) -> None:
        if batch is self.open_batch:
            self.open_batch = None
        size = len(batch.payloads[0])
        if size > CHUNK_SIZE:
            self.large = _Large(batch)
            self._next_chunk(out)
            return
        stream = batch.stream
        ack = stream.grant()
        self._acknowledged.append(stream)
        flags = batch.flags
        prefix = batch.request_id.to_bytes(_REQUEST_PREFIX, "big") if flags & _REQUEST_OR_REPLY else b""
        header = HEADER.pack(len(prefix) + size, Kind.MESSAGE, flags, stream.id, ack)
        if size < LARGE:
            out.append(header + prefix + batch.payloads[0])
        else:
            out.append(header + prefix)
            out.append(batch.payloads[0])

    def _next_chunk(self, out: list[bytes | memoryview]) -> None:
        large = self.large
        assert large is not None
        batch = large.batch
        flags = batch.flags
        prefix = b""
        if large.position == 0:
            flags |= Flag.FIRST
            prefix = len(large.view).to_bytes(8, "big") + batch.request_id.to_bytes(_REQUEST_PREFIX, "big")
        piece = large.view[large.position : large.position + CHUNK_SIZE]
        large.position += len(piece)
        if large.position == len(large.view):
            flags |= Flag.LAST
            self.large = None
        out.append(HEADER.pack(len(prefix) + len(piece), Kind.CHUNK, flags, batch.stream.id, 0) + prefix)
        out.append(piece)

    def _grant_frame(self) -> bytes | None:
        """The grants that go ahead of the data, if there are any.

        Consumers do not stop while a write is put together. So a stream may be owed something again that the header of
        one of its messages in this write does not say. That waits for the next write: said ahead, it would be
        followed by the header, and an acknowledgement that goes back is a breach of the protocol.
        """
        grants: list[int] = []
        for stream in list(self.owing):
            if stream.is_shut and stream.granted == stream.consumed:
                # A consumer counts first and notes the debt afterwards, and a message may have told of it in between.
                # By now the stream may be closed, and its number that of another one.
                self.owing.pop(stream, None)
            elif stream not in self._acknowledged:
                grants += (stream.id, stream.grant())
        return encode_frame(Kind.GRANT, _encoder.encode(grants)) if grants else None

    # --- inbound --------------------------------------------------------------------------------------------

    # `decoder.free` is where the transport reads the next bytes into.

    def receive(self, count: int, inbound: EventHandler) -> None:
        """Take *count* bytes that were read into the buffer and tell *inbound* everything that they complete.

        Raises:
            RemoteProtocolError: the peer broke the rules; the connection is of no further use. What came before
                the bad frame has been told.
        """
        # Messages of one stream that were written one by one, and read at once: told together.
        row: list[bytes] = []
        row_flags = 0
        of: Stream | None = None
        try:
            for kind, flags, number, ack, payload in self.decoder.buffer_updated(count):
                if of is not None:
                    if kind == Kind.MESSAGE and flags == row_flags and number == of.id:
                        self._one_of_a_row(of, ack, payload, inbound)
                        row.append(payload.tobytes())
                        continue
                    told, of = of, None
                    inbound.on_message(told, row, row_flags, 0)
                    row = []
                if kind == Kind.CONTROL:
                    self._control_frame(payload, inbound)
                    continue
                if self.state is not State.OPEN:
                    self.state = next_state(self.state, Input.TRAFFIC)
                if kind == Kind.MESSAGE:
                    stream = self._stream(number)
                    if flags & ~Flag.RAW:
                        self._message_frame(flags, number, ack, payload, inbound)
                    else:
                        self._one_of_a_row(stream, ack, payload, inbound)
                        row.append(payload.tobytes())
                        of, row_flags = stream, flags
                elif kind == Kind.BATCH:
                    self._batch_frame(payload, inbound)
                elif kind == Kind.CHUNK:
                    self._chunk_frame(flags, number, payload, inbound)
                else:
                    for number, ack in self._grants(payload):
                        stream = self._stream(number)
                        if stream.take_in(ack):
                            inbound.on_credit(stream)
        finally:
            if of is not None:  # also when the next frame broke the rules
                inbound.on_message(of, row, row_flags, 0)
        self.decoder.compact()

    def receive_data(self, data: bytes, inbound: EventHandler) -> None:
        """The same with bytes that were read elsewhere; for tests."""
        view = memoryview(data)
        while view:
            buffer = self.decoder.free
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            view = view[count:]
            self.receive(count, inbound)

    def receive_eof(self) -> None:
        """The stream ended."""
        if self.state is not State.CLOSED:
            self.state = next_state(self.state, Input.EOF)

    def _one_of_a_row(self, stream: Stream, ack: int, payload: memoryview, inbound: EventHandler) -> None:
        """A message with no other flag than RAW: its frame, all but telling of it."""
        self.heard = True
        if stream.take_in(ack, len(payload) + MESSAGE_CHARGE):
            inbound.on_credit(stream)

    def _message_frame(self, flags: int, number: int, ack: int, payload: memoryview, inbound: EventHandler) -> None:
        stream = self._stream(number)
        if flags & _REQUEST_OR_REPLY and len(payload) < _REQUEST_PREFIX:
            raise RemoteProtocolError("a request without its number")
        self._check_flags(stream, flags)
        self.heard = True
        request_id = 0
        if flags & _REQUEST_OR_REPLY:
            request_id = int.from_bytes(payload[:_REQUEST_PREFIX], "big")
            payload = payload[_REQUEST_PREFIX:]
        if stream.take_in(ack, 0 if flags & Flag.REPLY else len(payload) + MESSAGE_CHARGE):  # answers have no credit
            inbound.on_credit(stream)
        inbound.on_message(stream, [bytes(payload)], flags, request_id)

    @staticmethod
    def _check_flags(stream: Stream, flags: int) -> None:
        """Check the flags of a message that has arrived on *stream*.

        Raises:
            RemoteProtocolError: such a message does not have these.
        """
        both = flags & _REQUEST_OR_REPLY == _REQUEST_OR_REPLY
        if flags & ~FLAGS_OF[stream.key[0]] or both:
            raise RemoteProtocolError(f"stream {stream.id} ({stream.key[0]}): a message with the flags {flags:#x}")

    def _batch_frame(self, payload: memoryview, inbound: EventHandler) -> None:
        for number, payloads in self._batch(payload):
            stream = self._stream(number)
            stream.arrived_together(payloads)
            inbound.on_message(stream, payloads, 0, 0)

    def _chunk_frame(self, flags: int, number: int, payload: memoryview, inbound: EventHandler) -> None:
        if flags & Flag.FIRST:
            if self._partial_head is not None or len(payload) < 16:
                raise RemoteProtocolError("a large message begins inside another, or without its size")
            total = int.from_bytes(payload[:8], "big")
            if total > self.message_limit + ENVELOPE:
                raise RemoteProtocolError(
                    f"a message of {total:,} bytes is announced, the limit is {self.message_limit:,} bytes"
                )
            stream = self._stream(number)
            self._check_flags(stream, flags & ~(Flag.FIRST | Flag.LAST))
            if not flags & Flag.REPLY:
                stream.arrived(total)
            self._partial_head = (stream, flags & ~(Flag.FIRST | Flag.LAST), int.from_bytes(payload[8:16], "big"))
            self._partial_total = total
            # Grown by and by, it would take an eighth more than the message has.
            self._partial.seek(max(total - 1, 0))
            self._partial.write(b"\0")
            self._partial.seek(0)
            payload = payload[16:]
        if self._partial_head is None or self._partial_head[0].id != self._stream(number).id:
            raise RemoteProtocolError("a piece of a large message that did not begin")
        if not payload:
            raise RemoteProtocolError("an empty piece of a large message")
        self._partial.write(payload)
        size = self._partial.tell()
        if size > self._partial_total:
            raise RemoteProtocolError(f"a large message is longer than the {self._partial_total:,} bytes announced")
        if flags & Flag.LAST:
            if size != self._partial_total:
                raise RemoteProtocolError(f"a large message ended after {size:,} of {self._partial_total:,} bytes")
            stream, message_flags, request_id = self._partial_head
            whole = self._partial.getvalue()
            self._partial = io.BytesIO()
            self._partial_head = None
            inbound.on_message(stream, [whole], message_flags, request_id)

    def _control_frame(self, payload: memoryview, inbound: EventHandler) -> None:
        message = messages.decode_control(payload)
        if isinstance(message, Hello):
            self.state = next_state(self.state, Input.HELLO)
            self.peer = message
            if message.version != PROTOCOL_VERSION:
                raise RemoteProtocolError(
                    f"the other side speaks version {message.version} of the link, this side version "
                    f"{PROTOCOL_VERSION}; install the same nonebot-plugin-lycomm in both environments "
                    f"(there: {message.software or 'unknown'}, here: {self.hello.software or 'unknown'})"
                )
            self.window = min(self.window, message.window)
            self.message_limit = min(self.message_limit, message.message_limit)
            for stream in list(self.streams.values()):
                stream.set_window(self.window)
        elif isinstance(message, Goodbye):
            self.state = next_state(self.state, Input.GOODBYE)
            self.goodbye = message.reason
        else:
            self.state = next_state(self.state, Input.TRAFFIC)
            if isinstance(message, Open):
                inbound.on_opened(self._opened(message))
                return
        inbound.on_control(message)

    def _opened(self, message: Open) -> Stream:
        if message.kind not in ("channel", "topic"):
            what = message.kind[:40]
            raise RemoteProtocolError(f"stream number {message.stream} is opened for an unknown kind {what!r}")
        return self.table.opened(message.stream, message.kind, message.name, self.window)

    def _stream(self, number: int) -> Stream:
        try:
            return self.streams[number]
        except KeyError:
            raise RemoteProtocolError(f"data on stream {number}, which was not opened") from None

    @staticmethod
    def _batch(payload: memoryview) -> list[tuple[int, list[bytes]]]:
        try:
            flat = _batch_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"a batch that cannot be read ({error})") from error
        if len(flat) % 2 or any(type(flat[i]) is not int for i in range(0, len(flat), 2)):
            raise RemoteProtocolError("a batch that is not pairs of stream and payloads")
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if not all(type(payloads) is list for _, payloads in pairs):
            raise RemoteProtocolError("a batch that is not pairs of stream and payloads")
        return pairs  # type: ignore[return-value]

    @staticmethod
    def _grants(payload: memoryview) -> list[tuple[int, int]]:
        try:
            flat = _grant_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"a grant that cannot be read ({error})") from error
        if len(flat) % 2:
            raise RemoteProtocolError("a grant without its amount")
        return list(zip(flat[::2], flat[1::2], strict=True))


_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(list[int | list[bytes]])
_grant_decoder = msgspec.msgpack.Decoder(list[int])
