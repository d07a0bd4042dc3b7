"""The outbound half of a connection: what waits to be written, and the frames that it becomes.

Theory of operation
-------------------

**Two steps.** A message is first *queued*: its stream is charged for it, and its payload is put into a ``Batch``
(``batch.py``). Later the writer calls :meth:`Outbound.data_to_send`, which turns what is queued into the frames of one
write. Nothing here writes, wakes or waits; that is the work of ``link/writer.py``.

**Who calls.** Only the holder of the link's lock. Others may look at :attr:`Outbound.queue`,
:attr:`Outbound.open_batch` and :attr:`Outbound.pending` without it, to find out whether a call is worth the lock; they
must be right whatever they see.

**Batches.** Short messages of one stream without flags share a batch, as long as it is the last of the queue and
shorter than :data:`WRITE_SIZE`. A message with flags, or of :data:`LARGE` bytes or more, has a batch of its own.
Batches are written in the order in which they were queued, whatever their streams.

**The stage.** At most one stream has its stage open (``stage.py``). What is on it was sent later than everything in the
queue, and is not charged yet. So each method that queues or frames messages empties the stage first
(:meth:`Outbound.unstage`), and nobody charges a stream in between.

**Kept until acknowledged.** A batch also goes into its stream's ``unacknowledged`` when it is queued, and stays there
after it has been written, until the peer has consumed all of it. Answers do not: they have no credit.

**Bounds.** What may wait in the queue is bounded by the streams' credit. Answers and requests with
``Flag.UNCREDITED`` need none: ``Writer.replies_written`` bounds the former, and the latter are small and bounded by
those who wait for their answers.

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
"""Bytes of a payload from which it gets a frame of its own, and is given to the transport as a second buffer beside its
header. Copying a smaller one into a shared frame costs less than another buffer."""

WRITE_SIZE = 60_000
"""Bytes that one write aims at: measured best of 16, 60 and 200 KB, by a little."""


class _Large:
    """A payload larger than ``CHUNK_SIZE`` that is being written in chunks. Used under the link's lock.

    Attributes:
        batch: of the one message; has its stream, flags and request id.
        view: its payload; the chunks are slices of it, so that nothing is copied.
        position: bytes of it that have been put into frames.
    """

    __slots__ = ("batch", "position", "view")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.view = memoryview(batch.payloads[0])
        self.position = 0


class Outbound:
    """What one end of a link has to write. The caller of every method holds the link's lock.

    Args:
        window: bytes that may be on their way on a stream in one direction, as far as is known yet.
        table: the streams of the link.
        owing: the streams that owe a grant; shared by all streams of the link. See ``ledger.py``.

    Attributes:
        window: as given, for streams that are opened from now on. Lowered once by the link's reader, when the peer's
            greeting arrives.
        table: as given; never replaced.
        owing: as given. Consumers add to it without the lock; streams are taken out with it.
        pending: bytes of payload in the queue, with the header of each payload. Without the message that is being
            written in chunks, and without what is on the stage. Changed under the lock; ``Writer.replies_written``
            reads it without.
        controls: encoded control frames that wait to be written. Under the lock.
        queue: batches that wait to be written, oldest first. Changed under the lock.
        open_batch: the last batch of the queue, while short messages of its stream may still join it; else None.
            Changed under the lock. Never a batch that has been written, as the reader may drop such a one at any time.
        staging: the stream whose stage is open; None: there is none. Under the lock.
        large: the message that is being written in chunks; None: there is none. Under the lock.
    """

    def __init__(self, window: int, table: StreamTable, owing: Owing) -> None:
        self.window = window
        self.table = table
        self.owing = owing
        self.pending = 0
        self.controls: list[bytes] = []
        self.queue: deque[Batch] = deque()
        self.open_batch: Batch | None = None
        self.staging: Stream | None = None
        self.large: _Large | None = None
        # Streams whose grant is in the header of a message of the write that is being put together. Under the lock;
        # empty outside of `data_to_send`.
        self._acknowledged: list[Ledger] = []

    # --- queueing -----------------------------------------------------------------------------------------------

    def open_stream(self, kind: str, name: str) -> Stream:
        """Return the stream for (*kind*, *name*). If it is new, give it a number and queue its announcement.

        Raises:
            LocalProtocolError: all numbers are taken (32,767 of each side).
        """
        stream, fresh = self.table.open(kind, name, self.window)
        if fresh:
            self.send_control(Open(stream.id, kind, name))
        return stream

    def send_control(self, message: Control) -> None:
        """Queue a control message. It is written after those queued before it, and before all data."""
        self.controls.append(encode_frame(Kind.CONTROL, messages.encode_control(message)))

    def send(self, stream: Stream, payload: bytes, flags: int = 0, request_id: int = 0, attempts: int = 0) -> bool:
        """Queue a payload. False: the stream has no credit for it, and nothing was queued.

        Answers need no credit, nor does a message with ``Flag.UNCREDITED``. ``link/sender.py`` has what most
        messages need of this once more, in one piece; a change here has to be made there as well.

        Args:
            request_id: of a request or an answer; else 0.
            attempts: how often the message was first in line when its receiver died; kept with its batch.
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
            if stream.held is not None:
                # The stream is being closed. If the peer refuses, it stays open and the answer is queued then
                # (`Closing.answered`); if the peer agrees, nobody waits for the answer any more.
                stream.held.append(batch)
                return True
        else:
            if not flags & Flag.UNCREDITED and not stream.has_room(size):
                return False
            batch = Batch.of(stream, payload, flags, request_id, attempts)
            stream.unacknowledged.append(batch)
        self.queue.append(batch)
        self.open_batch = None  # later short messages go behind this one
        self.pending += batch.size
        return True

    # --- the stage ----------------------------------------------------------------------------------------------

    def open_stage(self, stream: Stream) -> None:
        """Let messages of *stream* be staged from now on, if it has credit for a full stage.

        No other stage may be open. The queue must not be empty, and the caller knows that somebody will write it soon:
        that write takes what has been staged until then.
        """
        if stream.limit - stream.sent >= STAGE_CREDIT:
            self.staging = stream
            stream.stage.open = True

    def unstage(self) -> None:
        """Close the stage, if one is open, and queue what is on it.

        The credit for it is charged here. Until then nobody else may charge the stream, or there might not be enough.
        """
        stream, self.staging = self.staging, None
        if stream is None:
            return
        # First: a sender looks at it again after it has put a payload down, and takes the payload back if it came late.
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

    # --- writing ------------------------------------------------------------------------------------------------

    @property
    def wants_to_send(self) -> bool:
        """Whether something waits to be written, be it only a grant. The stage does not count by itself, as it is open
        only while the queue is not empty."""
        return bool(self.queue or self.owing or self.controls or self.large)

    @property
    def has_output(self) -> bool:
        """Whether something waits to be written that should not wait. Owed grants do not count, as they may wait for a
        message that carries them."""
        return bool(self.controls or self.queue or self.large)

    @property
    def owes_much(self) -> bool:
        """Whether a stream owes a grant that is worth a frame of its own."""
        return any(stream.owes_much for stream in list(self.owing))  # a copy: consumers may add to it meanwhile

    def data_to_send(self, *, grants: bool = True) -> list[bytes | memoryview]:
        """Take the next write off the queue and return its buffers; an empty list when nothing waits.

        Its data are about :data:`WRITE_SIZE` bytes, or one chunk, or messages with frames of their own of up to
        ``CHUNK_SIZE`` bytes together. What is returned must be written as a whole, in this order: it is queued no more.

        Args:
            grants: False: return nothing if there is nothing to write but grants.
        """
        if self.staging is not None:
            self.unstage()
        out: list[bytes | memoryview] = []
        if self.controls:
            out.append(b"".join(self.controls))
            self.controls.clear()
        # Grants go between control frames and data: one of the control frames may open the stream that a grant is of.
        behind_controls = len(out)
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
        """Add the frames of the first batches of the queue, which is not empty."""
        queue = self.queue
        batch = queue[0]
        if self._goes_alone(batch):
            # Take the first whatever its size, and more up to the size of a chunk: a control frame that is queued now
            # then waits no longer than behind a chunk.
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
        # Up to WRITE_SIZE, or everything when less than LARGE would be left over: the remainder would cost a write of
        # its own.
        while queue and (size < WRITE_SIZE or self.pending - size < LARGE) and not self._goes_alone(queue[0]):
            batch = queue.popleft()
            if before is not None and before.stream is batch.stream:  # the receiver gets it in one call
                parts[-1] = [*parts[-1], *batch.payloads]
            else:
                parts.append(batch.stream.id)
                parts.append(batch.payloads)
            before = batch
            size += batch.size
        if batch is self.open_batch:
            self.open_batch = None
        self.pending -= size
        if len(parts) == 2 and len(parts[1]) == 1:  # one message: its frame has room for a grant, a batch has none
            self._message(batch, out)
        else:
            out.append(encode_frame(Kind.BATCH, _encoder.encode(parts)))

    @staticmethod
    def _goes_alone(batch: Batch) -> bool:
        """Whether *batch* is one message that needs a frame of its own."""
        return bool(batch.flags) or (batch.size >= LARGE and len(batch.payloads) == 1)

    def _message(self, batch: Batch, out: list[bytes | memoryview]) -> None:
        """Add the MESSAGE frame of a batch of one message, or the first chunk if it is too large for a frame. The frame
        carries the grant of its stream."""
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
        """Add the next chunk of the large message. The first has the size of the whole and the request id in front."""
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
        """Return the GRANT frame of this write, which goes ahead of its data; None when there is nothing to grant.

        Consumers do not stop while a write is put together. So a stream may owe more again than the header of one of
        its messages in this write grants. Such a stream is left out until the next write. The GRANT frame is ahead
        of the header and would grant more than it, and an acknowledgement that goes back breaks the protocol.
        """
        grants: list[int] = []
        for stream in list(self.owing):
            if stream.is_shut and stream.granted == stream.consumed:
                # Nothing new to grant: a consumer raised *consumed*, a message granted it, and only then the consumer
                # joined *owing*. The stream is being closed, or is closed and its number belongs to another one.
                self.owing.pop(stream, None)
            elif stream not in self._acknowledged:
                grants += (stream.id, stream.grant())
        return encode_frame(Kind.GRANT, _encoder.encode(grants)) if grants else None


_encoder = msgspec.msgpack.Encoder()
