"""The outbound half of a connection: what waits to be written, and the frames that it becomes.

Everything here belongs to whoever holds the link's lock. What an attribute is for is said in :class:`Outbound`.

**Order of one write** (:meth:`Outbound.data_to_send`). All queued control frames; then at most one frame of grants;
then one of: the next chunk of a large payload that has been begun, messages that need a frame of their own, or one
batch frame of short messages. No other message is written between two chunks of a payload; control frames and
grants may be.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.batch import PAYLOAD_HEADER, Batch
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGE_CREDIT
from liteyuki_host.comm.protocol.frames import (
    CHUNK_SIZE,
    HEADER,
    REQUEST_OR_REPLY,
    REQUEST_PREFIX,
    Flag,
    Kind,
    encode_frame,
)
from liteyuki_host.comm.protocol.ledger import Ledger, Owing
from liteyuki_host.comm.protocol.messages import Control, Open
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.protocol.streams import StreamTable

__all__ = ["LARGE", "WRITE_SIZE", "Outbound"]

LARGE = 16 * 1024
"""Bytes from which a payload gets a frame of its own: below, joining batches costs less than a second buffer."""

WRITE_SIZE = 60_000
"""Bytes that one write aims at: measured best of 16, 60 and 200 KB, by a little."""


class _Large:
    """A payload on its way in chunks. *position* counts the bytes of it that have been put into frames."""

    __slots__ = ("batch", "position", "view")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.view = memoryview(batch.payloads[0])
        self.position = 0


class Outbound:
    """What one end of a link has to write.

    Args:
        window: bytes that may be on their way on a stream, as far as is known yet.
        table: the streams of the link.
        owing: the streams that owe a grant; shared by all streams of the link. See ``ledger.py``.
    """

    def __init__(self, window: int, table: StreamTable, owing: Owing) -> None:
        self.window = window
        self.table = table
        self.owing = owing
        self.pending = 0  # bytes of payload waiting to be written
        self.controls: list[bytes] = []
        self.queue: deque[Batch] = deque()
        self.open_batch: Batch | None = None  # the queue's last run, while short messages of its stream may join it
        self.staging: Stream | None = None  # the one whose stage is open; what is on it comes behind the queue
        self.large: _Large | None = None
        self._acknowledged: list[Ledger] = []  # by the header of a message in the write that is being put together

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
        prefix = batch.request_id.to_bytes(REQUEST_PREFIX, "big") if flags & REQUEST_OR_REPLY else b""
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
            prefix = len(large.view).to_bytes(8, "big") + batch.request_id.to_bytes(REQUEST_PREFIX, "big")
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


_encoder = msgspec.msgpack.Encoder()
