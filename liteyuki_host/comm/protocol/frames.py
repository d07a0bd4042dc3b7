"""Frames: the length-delimited pieces of the byte stream.

::

    0        4      5       6        8          12
    +--------+------+-------+--------+----------+----------------+
    | length | kind | flags | stream |   ack    | payload ...    |
    +--------+------+-------+--------+----------+----------------+
      u32      u8     u8      u16      u32        `length` bytes

All numbers are big-endian. `ack` is how much of the *opposite* direction of the same stream has been consumed,
modulo 2**32; only MESSAGE frames carry a meaningful one, so that a lone answer needs no frame of its own to
acknowledge what it answers.
"""

from __future__ import annotations

import struct
from typing import Final

from liteyuki_host.comm.errors import RemoteProtocolError

__all__ = [
    "HEADER",
    "KINDS",
    "MAX_FRAME_PAYLOAD",
    "REQUEST_OR_REPLY",
    "REQUEST_PREFIX",
    "Flag",
    "Frame",
    "FrameDecoder",
    "Kind",
    "encode_frame",
]

HEADER = struct.Struct("!IBBHI")

CHUNK_SIZE = 256 * 1024
"""Bytes of a large message in one frame. Control goes out between two of them: measured, whole 4 MiB messages
delay a ping five times as much as 256 KiB pieces do."""

MAX_FRAME_PAYLOAD = CHUNK_SIZE + 64
"""Bytes; nothing legal is larger, as larger messages travel in chunks. The 64 are the first chunk's prefix."""

BUFFER_SIZE = 2 * CHUNK_SIZE
"""Bytes read at once: holds any frame whole. 128 KiB measured slower, 1 MiB no faster."""


SPARE = 2 * BUFFER_SIZE
"""Bytes of a block that is asked for and given back once, untouched. glibc returns what is free at the end of a heap to
the system from 128 KiB on; when there was such a block, from twice its size on. A few 64 KiB messages that are freed
together are more than the former, and the next ones then cost page faults. Measured: one for two messages, or none; 3
to 10 % of the messages. With 4 MiB it would be 1.7 times as many 1 MB messages as well, but each thread has a heap of
its own: a host that is flooded by threads then kept 50 MB."""


# Plain numbers: an operation on an enum's member costs half a microsecond, and every message needs some.


class Kind:
    """What a frame is."""

    CONTROL: Final = 1  # one control message; written ahead of all data
    MESSAGE: Final = 2  # one payload of one stream
    BATCH: Final = 3  # array: stream, [payload, ...], stream, [payload, ...] ...; in the order they were sent
    CHUNK: Final = 4  # part of one payload that is too large for a frame
    GRANT: Final = 5  # array: stream, ack, stream, ack ...


class Flag:
    """What is said beside a payload."""

    RAW: Final = 1  # the payload is the bytes value itself, not an encoding of it
    REDELIVERED: Final = 2  # an earlier incarnation of the receiver may have seen it
    WAITS: Final = 2  # with REPLY: no answer, but what the callback that will answer awaits itself
    REQUEST: Final = 4  # wants a reply with the same request id
    REPLY: Final = 8  # answers a request
    ERROR: Final = 16  # with REPLY: the handler failed; the payload describes how
    BY_CALLBACK: Final = 16  # with REQUEST: a callback asks, and its channel's callbacks handle nothing else meanwhile
    FIRST: Final = 32  # CHUNK only: begins a message
    LAST: Final = 64  # CHUNK only: completes it
    UNCREDITED: Final = 128  # sent without credit: small, and bounded by whoever waits for its answer


REQUEST_OR_REPLY: Final = Flag.REQUEST | Flag.REPLY
"""A payload with one of these flags begins with the number of the request; no payload has both."""

REQUEST_PREFIX: Final = 8
"""Bytes of that number."""

KINDS = frozenset((Kind.CONTROL, Kind.MESSAGE, Kind.BATCH, Kind.CHUNK, Kind.GRANT))


Frame = tuple[int, int, int, int, memoryview]
"""Kind, flags, stream, ack, payload. The payload is a view into the decoder's buffer, valid until the decoder is fed
again."""


def encode_frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, ack: int = 0) -> bytes:
    """Header and payload in one piece; the sender of large payloads packs only the header."""
    return HEADER.pack(len(payload), kind, flags, stream, ack & 0xFFFFFFFF) + payload


class FrameDecoder:
    """Cut a byte stream into frames, however the bytes happen to arrive.

    Reading goes straight into the decoder's own buffer (:attr:`free`, then :meth:`buffer_updated`), so
    that a byte is copied once between the transport and its message.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(BUFFER_SIZE))
        self.free = self.buffer  # where to read the next bytes into; never empty
        bytes(SPARE)
        self.filled = 0  # bytes in the buffer that belong to no complete frame yet, at its front
        self._rest = (0, 0)  # where they begin and end until the next `compact`
        self._fault: RemoteProtocolError | None = None

    def release(self) -> None:
        """Give the buffer's memory back; nothing more is read. The objects of a link refer to each other, so half a
        megabyte would otherwise stay until the next garbage collection."""
        self.free = memoryview(b"")
        self.buffer.release()

    def buffer_updated(self, count: int) -> list[Frame]:
        """Take note of *count* new bytes and return every frame they complete.

        The frames must be used up before the next call: an unfinished one is moved to the buffer's front then.

        Raises:
            RemoteProtocolError: a frame is announced that cannot be legal. It is raised on the header alone,
                before its payload is waited for; by :meth:`compact` when good frames came before it.
        """
        end = self.filled + count
        buffer = self.buffer
        position = 0
        frames: list[Frame] = []
        while end - position >= HEADER.size:
            length, kind, flags, stream, ack = HEADER.unpack_from(buffer, position)
            if length > MAX_FRAME_PAYLOAD or kind not in KINDS:
                self._fault = _fault(length, kind)
                break
            start = position + HEADER.size
            if end - start < length:
                break
            position = start + length
            frames.append((kind, flags, stream, ack, buffer[start:position]))
        self._rest = (position, end)
        if self._fault is not None and not frames:
            raise self._fault
        return frames

    def compact(self) -> None:
        """Move what is left of an unfinished frame to the front. Call it when the frames have been used.

        Raises:
            RemoteProtocolError: what follows them cannot be legal.
        """
        if self._fault is not None:
            raise self._fault
        position, end = self._rest
        left = end - position
        if left and position:
            self.buffer[:left] = self.buffer[position:end]  # overlapping views copy safely
        self.filled = left
        self.free = self.buffer[left:] if left else self.buffer


def _fault(length: int, kind: int) -> RemoteProtocolError:
    if length > MAX_FRAME_PAYLOAD:
        return RemoteProtocolError(f"a frame of {length:,} bytes, the limit is {MAX_FRAME_PAYLOAD:,} bytes")
    return RemoteProtocolError(f"a frame of unknown kind {kind}; the other side speaks another protocol")
