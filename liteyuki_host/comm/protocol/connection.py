"""The state of one peer relationship: bytes in, calls out; messages in, bytes out.

Two halves: the *inbound* half (``decoder``, ``receive``, ``receive_eof``) belongs to one reader; the *outbound* half
(everything else) to whoever holds the link's lock. What both touch of a stream is said in ``stream.py``.
"""

from __future__ import annotations

import enum
import io
from typing import Protocol

import msgspec

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.closing import Closing
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import REQUEST_OR_REPLY, REQUEST_PREFIX, Flag, FrameDecoder, Kind
from liteyuki_host.comm.protocol.ledger import Owing
from liteyuki_host.comm.protocol.messages import (
    PROTOCOL_VERSION,
    PUBLISH_STREAM,
    STORE_STREAM,
    Control,
    Goodbye,
    Hello,
    Open,
)
from liteyuki_host.comm.protocol.outbound import Outbound
from liteyuki_host.comm.protocol.states import Input, State, next_state
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.protocol.streams import StreamTable

__all__ = ["Connection", "EventHandler", "Role"]

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


class Connection(Outbound):
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
        self.message_limit = hello.message_limit
        owing = Owing()
        # The store's events are bounded by the hub, which slows the writers down instead of the sequencer.
        self.store = Stream(
            STORE_STREAM, ("store", ""), hello.window, owing=owing, limited=role is Role.CHILD, trusted=True
        )
        self.publish = Stream(PUBLISH_STREAM, ("publish", ""), hello.window, owing=owing)
        super().__init__(hello.window, StreamTable(int(role), [self.store, self.publish], owing), owing)
        self.streams = self.table.by_number
        self.closing = Closing(self)
        self.heard = False  # a message has arrived since the sender looked last: who answers does not go on sending
        self.decoder = FrameDecoder()
        # A BytesIO hands out what was written to it without copying it once more.
        self._partial = io.BytesIO()
        self._partial_total = 0
        self._partial_head: tuple[Stream, int, int] | None = None
        self.send_control(hello)

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
        if flags & REQUEST_OR_REPLY and len(payload) < REQUEST_PREFIX:
            raise RemoteProtocolError("a request without its number")
        self._check_flags(stream, flags)
        self.heard = True
        request_id = 0
        if flags & REQUEST_OR_REPLY:
            request_id = int.from_bytes(payload[:REQUEST_PREFIX], "big")
            payload = payload[REQUEST_PREFIX:]
        if stream.take_in(ack, 0 if flags & Flag.REPLY else len(payload) + MESSAGE_CHARGE):  # answers have no credit
            inbound.on_credit(stream)
        inbound.on_message(stream, [bytes(payload)], flags, request_id)

    @staticmethod
    def _check_flags(stream: Stream, flags: int) -> None:
        """Check the flags of a message that has arrived on *stream*.

        Raises:
            RemoteProtocolError: such a message does not have these.
        """
        both = flags & REQUEST_OR_REPLY == REQUEST_OR_REPLY
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


_batch_decoder = msgspec.msgpack.Decoder(list[int | list[bytes]])
_grant_decoder = msgspec.msgpack.Decoder(list[int])
