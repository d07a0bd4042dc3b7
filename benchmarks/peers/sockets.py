"""A socket pair, with nothing on it, with msgspec on it, and with msgspec and batches: the limit."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

from benchmarks.peers.base import DuplexPeer, End, Readable

_LENGTH = struct.Struct("<I")
_BUFFER = 256 * 1024  # bytes read at most at once
BATCH = 64 * 1024
"""Bytes that a write of the batching peer has at most, unless one message has more."""


class RawEnd(End):
    """Moves the encoded bytes and makes no objects. Both sides know the size."""

    def __init__(self, sock: socket.socket, payload: Any) -> None:
        self._socket = sock
        self._wire = payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
        self._buffer = memoryview(bytearray(max(len(self._wire), 1)))
        self._readable = Readable(sock.fileno())

    def wire(self, value: Any) -> Any:
        return self._wire

    def send(self, value: Any) -> None:
        self._socket.sendall(value)

    def receive(self) -> Any:
        left = self._buffer
        while left:
            left = left[_some(self._socket.recv_into(left)) :]
        return self._buffer

    async def areceive(self) -> Any:
        await self._readable.wait()
        return self.receive()


class MsgspecEnd(End):
    """One write per message: its length, and the message."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0  # of what has been read and not been taken
        self._readable = Readable(sock.fileno())

    def send(self, value: Any) -> None:
        data = self._encode(value)
        if len(data) < BATCH:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)
        else:  # a copy would cost more than a second call
            self._socket.sendall(_LENGTH.pack(len(data)))
            self._socket.sendall(data)

    def receive(self) -> Any:
        (size,) = _LENGTH.unpack_from(self._buffer, self._have(4))
        self._start += 4
        at = self._have(size)
        self._start += size
        return self._decode(self._view[at : at + size])

    async def areceive(self) -> Any:
        if self._stop - self._start < 4:
            await self._readable.wait()
        return self.receive()

    def _have(self, size: int) -> int:
        """Read until there are so many bytes; returns where they begin."""
        if self._stop - self._start < size:
            left = self._stop - self._start
            if self._start + size > len(self._buffer) or not left:
                old, self._view = self._view, self._room(size)
                self._view[:left] = old[self._start : self._stop]
                self._start, self._stop = 0, left
            while self._stop - self._start < size:
                self._stop += _some(self._socket.recv_into(self._view[self._stop :]))
        return self._start

    def _room(self, size: int) -> memoryview:
        if size > len(self._buffer):
            self._buffer = bytearray(size)
            return memoryview(self._buffer)
        return self._view


class BatchedEnd(MsgspecEnd):
    """As many messages in one array and one write as fit into 64 KiB: what moving objects costs at least."""

    def burst(self, value: Any, count: int) -> None:
        send = super().send
        limit = max(1, BATCH // len(self._encode(value)))
        pending: list[Any] = []
        for _ in range(count):
            pending.append(value)
            if len(pending) >= limit:
                send(pending)
                pending = []
        if pending:
            send(pending)

    def drain(self, count: int) -> None:
        receive = super().receive
        taken = 0
        while taken < count:
            for _ in receive():
                taken += 1


class RawSocketPair(DuplexPeer):
    name = "raw socketpair"

    def seats(self) -> tuple[Any, Any]:
        return socket.socketpair()

    def end(self, seat: Any, payload: Any) -> End:
        return RawEnd(seat, payload)


class MsgspecSocketPair(RawSocketPair):
    name = "socketpair + msgspec"

    def end(self, seat: Any, payload: Any) -> End:
        return MsgspecEnd(seat)


class BatchedSocketPair(RawSocketPair):
    name = "socketpair + msgspec batched"

    def end(self, seat: Any, payload: Any) -> End:
        return BatchedEnd(seat)


def _some(size: int) -> int:
    if not size:
        raise EOFError("the other process is gone")
    return size
