"""One end of a link's protocol without I/O: bytes in, calls out; messages in, bytes out.

Theory of operation
-------------------

A :class:`Connection` has no socket, thread, clock or lock of its own. ``link/link.py`` joins it with a transport. It
has two halves, which two threads may use at the same time:

- **Inbound** (this module): ``decoder``, :meth:`Connection.receive` and :meth:`Connection.receive_eof`. Used by the
  link's reader: whichever thread reads just now, and only one at a time (see ``link/reader.py``). The link's lock is
  not taken. ``link/receiver.py`` handles the commonest frame, one plain message that arrives alone, without calling
  ``receive``; it changes ``heard`` and the stream's ledger in the same way.
- **Outbound** (:class:`Outbound` in ``outbound.py``): everything that queues or frames what is to be sent. Used by
  whoever holds the link's lock. ``closing`` belongs to this half as well.

What both halves share are the streams. Which of their totals which half may change is in ``ledger.py``; numbers and
names are given by single steps of a dict (``streams.py``).

**What arrives.** The decoder cuts the bytes of one read into frames. A frame is checked against the course of the link
(``states.py``), the flags that its stream allows, and the stream's credit. Then an :class:`EventHandler` is told of it,
in the order of arrival. The peer is not trusted: whatever breaks a rule raises RemoteProtocolError, and the link ends.

**Bounds.** A read is at most the decoder's buffer (512 KiB), and so is what one call of ``on_message`` hands on, except
a large message. That one is put together from its chunks, one at a time per link, and no longer than
``message_limit`` plus :data:`ENVELOPE`, which is checked before memory is taken for it.
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
"""Bytes that a large message may have beyond ``message_limit``, which is the limit of one value. Room for the key or
topic of the value, and for the small values that share a part of a snapshot with it."""

_HARMLESS = Flag.RAW | Flag.REDELIVERED
FLAGS_OF = {
    "channel": _HARMLESS | Flag.REQUEST | Flag.REPLY | Flag.ERROR,
    "topic": _HARMLESS,
    "store": _HARMLESS | Flag.UNCREDITED,
    "publish": _HARMLESS,
}
"""The flags that an arriving message may have, by the kind of its stream.

The host hands a message on to other processes together with its flags. A flag that means something else there (no
credit needed, a piece of a larger message) would break their links, so it is refused where it arrives."""


class Role(enum.IntEnum):
    """The side of a link that a connection is on.

    It decides three things: the parity of the stream numbers that this side gives out (even for the host), whether the
    window limits what is sent on the store's stream (only in a child), and which streams this side may ask to close
    (``closing.py``).
    """

    HOST = 0
    CHILD = 1


class EventHandler(Protocol):
    """Receives what has arrived, in the order of arrival. Implemented by ``Link``.

    Every method is called by the link's reader, from inside :meth:`Connection.receive` and without the link's lock. An
    exception of a method passes through ``receive`` and ends the link: nothing may raise but RemoteProtocolError, for a
    rule of the protocol that the handler checks itself.
    """

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Take messages of one stream, in order. More than one come together only if they have no flag but RAW.

        Args:
            payloads: the messages, each a copy that the handler may keep.
            request_id: of a request or an answer; else 0.
        """
        ...

    def on_credit(self, stream: Stream) -> None:
        """Note that the peer has consumed more of what was sent on *stream*, so that there is new credit."""
        ...

    def on_opened(self, stream: Stream) -> None:
        """Note that the peer has given a stream a number. ``stream.key`` says what it is for. This side may have opened
        the same stream at the same time."""
        ...

    def on_control(self, message: Control) -> None:
        """Take a control message other than :class:`Open`. Hello and Goodbye have taken effect on the connection
        already."""
        ...


class Connection(Outbound):
    """One end of a link's protocol, as the module describes it. The attributes of the outbound half are in
    :class:`Outbound`.

    Creating one queues the greeting, which is the first frame that ``data_to_send`` returns.

    Args:
        role: the side of the link that this end is on.
        hello: our greeting. Its window and message limit hold until the peer's greeting arrives; from then on the
            smaller value of both sides holds.

    Attributes:
        role, hello: as given; never change.
        peer: the peer's greeting; None until it has arrived. Set once, by the reader.
        state: where the link is in its course, see ``states.py``. Changed by the reader.
        goodbye: the reason of the peer's goodbye, perhaps ""; None before it. Set once, by the reader; read by any
            thread.
        message_limit: bytes of the largest value that this link carries. Lowered once by the reader, when the peer's
            greeting arrives.
        store: the stream of the shared memory. Always open.
        publish: the stream of publications to the host. Always open.
        streams: the open streams by number; a second name for ``table.by_number``.
        closing: closes streams by agreement with the peer; under the link's lock, see ``closing.py``.
        heard: whether a message has arrived since a sender looked last. Set by the reader without a lock, reset by
            senders under the link's lock. A side that answers what it hears is not in a burst, so its next message is
            written at once (``link/writer.py``). A set that is lost between the two costs one message that.
        decoder: cuts bytes into frames. Its ``free`` is the buffer for the next read. Used by the reader.
    """

    def __init__(self, role: Role, hello: Hello) -> None:
        self.role = role
        self.hello = hello
        self.peer: Hello | None = None
        self.state = State.GREETING
        self.goodbye: str | None = None
        self.message_limit = hello.message_limit
        owing = Owing()
        # The window does not limit the host's events of the store. The hub bounds them: when a child is behind, it
        # makes those wait who write to the store, not the one place that gives all writes their order.
        self.store = Stream(
            STORE_STREAM, ("store", ""), hello.window, owing=owing, limited=role is Role.CHILD, trusted=True
        )
        self.publish = Stream(PUBLISH_STREAM, ("publish", ""), hello.window, owing=owing)
        super().__init__(hello.window, StreamTable(int(role), [self.store, self.publish], owing), owing)
        self.streams = self.table.by_number
        self.closing = Closing(self)
        self.heard = False
        self.decoder = FrameDecoder()
        # The large message that is arriving in chunks; these three are used by the reader only.
        self._partial = io.BytesIO()  # its bytes so far; `getvalue` hands them out without a further copy
        self._partial_total = 0  # its announced size
        self._partial_head: tuple[Stream, int, int] | None = None  # stream, flags, request id; None: there is none
        self.send_control(hello)

    # --- inbound: for the link's reader -------------------------------------------------------------------------

    def receive(self, count: int, inbound: EventHandler) -> None:
        """Take *count* bytes that were read into ``decoder.free`` and tell *inbound* of everything that they complete.

        Raises:
            RemoteProtocolError: the peer has broken a rule; the connection is of no further use. *inbound* has been
                told of everything before the bad frame.
        """
        # Plain messages of one stream that follow each other in this read are handed on in one call. `of` is their
        # stream, None: no such row has begun.
        row: list[bytes] = []
        row_flags = 0  # 0 or RAW, the same for the whole row
        of: Stream | None = None
        try:
            for kind, flags, number, ack, payload in self.decoder.buffer_updated(count):
                if of is not None:
                    if kind == Kind.MESSAGE and flags == row_flags and number == of.id:
                        self._one_of_a_row(of, ack, payload, inbound)
                        row.append(payload.tobytes())
                        continue
                    # Another frame ends the row. Forget it first: if the handler raises, `finally` must not tell again.
                    told, of = of, None
                    inbound.on_message(told, row, row_flags, 0)
                    row = []
                if kind == Kind.CONTROL:
                    self._control_frame(payload, inbound)
                    continue
                if self.state is not State.OPEN:  # data before the greeting is an error, data after a goodbye is not
                    self.state = next_state(self.state, Input.TRAFFIC)
                if kind == Kind.MESSAGE:
                    stream = self._stream(number)
                    if flags & ~Flag.RAW:  # a request, an answer or the like: told by itself
                        self._message_frame(flags, number, ack, payload, inbound)
                    else:
                        self._one_of_a_row(stream, ack, payload, inbound)
                        row.append(payload.tobytes())
                        of, row_flags = stream, flags
                elif kind == Kind.BATCH:
                    self._batch_frame(payload, inbound)
                elif kind == Kind.CHUNK:
                    self._chunk_frame(flags, number, payload, inbound)
                else:  # GRANT: the decoder has refused every other kind
                    for number, ack in self._grants(payload):
                        stream = self._stream(number)
                        if stream.take_in(ack):
                            inbound.on_credit(stream)
        finally:
            if of is not None:  # also when the next frame broke the rules
                inbound.on_message(of, row, row_flags, 0)
        self.decoder.compact()

    def receive_data(self, data: bytes, inbound: EventHandler) -> None:
        """Copy *data* into the decoder's buffer, as often as it is full, and call :meth:`receive` each time. For tests,
        which have no transport."""
        view = memoryview(data)
        while view:
            buffer = self.decoder.free
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            view = view[count:]
            self.receive(count, inbound)

    def receive_eof(self) -> None:
        """Note the end of the byte stream. The caller decides by ``goodbye`` whether it was to be expected."""
        if self.state is not State.CLOSED:
            self.state = next_state(self.state, Input.EOF)

    # --- one method for each kind of frame; all of them raise RemoteProtocolError for what the peer may not send ---

    def _one_of_a_row(self, stream: Stream, ack: int, payload: memoryview, inbound: EventHandler) -> None:
        """Count a message that has no flag but RAW, and take its acknowledgement. The caller hands the payload on."""
        self.heard = True
        if stream.take_in(ack, len(payload) + MESSAGE_CHARGE):
            inbound.on_credit(stream)

    def _message_frame(self, flags: int, number: int, ack: int, payload: memoryview, inbound: EventHandler) -> None:
        """Take a message with flags: count it, take its acknowledgement, and hand it on by itself."""
        stream = self._stream(number)
        if flags & REQUEST_OR_REPLY and len(payload) < REQUEST_PREFIX:
            raise RemoteProtocolError("a request without its number")
        self._check_flags(stream, flags)
        self.heard = True
        request_id = 0
        if flags & REQUEST_OR_REPLY:
            request_id = int.from_bytes(payload[:REQUEST_PREFIX], "big")
            payload = payload[REQUEST_PREFIX:]
        # Answers are sent without credit, so they are not counted against it here either.
        if stream.take_in(ack, 0 if flags & Flag.REPLY else len(payload) + MESSAGE_CHARGE):
            inbound.on_credit(stream)
        inbound.on_message(stream, [bytes(payload)], flags, request_id)

    @staticmethod
    def _check_flags(stream: Stream, flags: int) -> None:
        """Check the flags of a message that has arrived on *stream*.

        Raises:
            RemoteProtocolError: the stream's kind does not allow one of them, or the message is both a request and an
                answer.
        """
        both = flags & REQUEST_OR_REPLY == REQUEST_OR_REPLY
        if flags & ~FLAGS_OF[stream.key[0]] or both:
            raise RemoteProtocolError(f"stream {stream.id} ({stream.key[0]}): a message with the flags {flags:#x}")

    def _batch_frame(self, payload: memoryview, inbound: EventHandler) -> None:
        """Take a batch of short messages without flags, of one or more streams. Does not set ``heard``, as a
        batch belongs to a burst."""
        for number, payloads in self._batch(payload):
            stream = self._stream(number)
            stream.arrived_together(payloads)
            inbound.on_message(stream, payloads, 0, 0)

    def _chunk_frame(self, flags: int, number: int, payload: memoryview, inbound: EventHandler) -> None:
        """Take one chunk of a large message; hand the message on after its last one.

        The first chunk begins with 16 bytes: the size of the whole message, and its request id. The
        whole cost is counted then (of an answer, none), so that a message that exceeds its credit or the limit is
        refused before memory is taken for it.
        """
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
            # Take the memory at once. A BytesIO that grows with each chunk takes an eighth more than it holds.
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
            whole = self._partial.getvalue()  # no copy: the new BytesIO below leaves that memory to the message
            self._partial = io.BytesIO()
            self._partial_head = None
            inbound.on_message(stream, [whole], message_flags, request_id)

    def _control_frame(self, payload: memoryview, inbound: EventHandler) -> None:
        """Take a control message: let it act on the connection's state, then tell the handler."""
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
            # The peer's data come behind its greeting, so nothing has been counted against a window yet.
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

    # --- reading payloads: each raises RemoteProtocolError for what does not belong there ------------------------

    def _opened(self, message: Open) -> Stream:
        """Enter a number that the peer has given to a channel or topic."""
        if message.kind not in ("channel", "topic"):
            what = message.kind[:40]
            raise RemoteProtocolError(f"stream number {message.stream} is opened for an unknown kind {what!r}")
        return self.table.opened(message.stream, message.kind, message.name, self.window)

    def _stream(self, number: int) -> Stream:
        """Return the open stream with *number*, which may be the number that either side has given it."""
        try:
            return self.streams[number]
        except KeyError:
            raise RemoteProtocolError(f"data on stream {number}, which was not opened") from None

    @staticmethod
    def _batch(payload: memoryview) -> list[tuple[int, list[bytes]]]:
        """Decode a BATCH frame: pairs of a stream's number and its messages, in the order sent."""
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
        """Decode a GRANT frame: pairs of a stream's number and what the peer has consumed of it, modulo 2**32."""
        try:
            flat = _grant_decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"a grant that cannot be read ({error})") from error
        if len(flat) % 2:
            raise RemoteProtocolError("a grant without its amount")
        return list(zip(flat[::2], flat[1::2], strict=True))


# Both decoders check the types of the elements. That numbers and lists alternate is checked above.
_batch_decoder = msgspec.msgpack.Decoder(list[int | list[bytes]])
_grant_decoder = msgspec.msgpack.Decoder(list[int])
