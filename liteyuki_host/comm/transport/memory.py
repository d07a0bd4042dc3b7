"""A byte stream inside one process, for tests and for the in-memory pair. Bounded like a socket buffer."""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["MemoryTransport", "memory_link"]

# The default send buffer of a Linux socket pair, so that tests meet the same partial writes.
DEFAULT_CAPACITY = 208 * 1024


class _Pipe:
    """One direction: a bounded byte buffer with an end. The condition's lock guards every attribute that changes."""

    def __init__(self, capacity: int) -> None:
        self._data = bytearray()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._ended = False
        self._reader_waits = False  # inside read_into, for bytes; under the condition's lock

    def read_into(self, buffer: memoryview) -> int:
        with self._changed:
            # No deadline: the reader's owner ends it by closing the transport.
            self._reader_waits = True
            while not self._data and not self._ended:
                self._changed.wait()
            self._reader_waits = False
            count = min(len(buffer), len(self._data))
            buffer[:count] = self._data[:count]
            del self._data[:count]
            self._changed.notify_all()
            return count

    @property
    def busy(self) -> bool:
        """Whether bytes wait to be read, or the reader has taken some and has not come back for more."""
        with self._changed:
            return not self._ended and (bool(self._data) or not self._reader_waits)

    def write(self, data: bytes | bytearray | memoryview, *, wait: bool) -> int:
        """Append *data* as far as there is room, with *wait* all of it; returns the number of bytes appended.

        Waits without a deadline; :meth:`end` ends the wait.

        Raises:
            BrokenPipeError: the pipe has ended, before or during the call.
        """
        view = memoryview(data)
        done = 0
        with self._changed:
            while True:
                if self._ended:
                    raise BrokenPipeError("the other end of the memory link is closed")
                room = self._capacity - len(self._data)
                if room > 0:
                    part = view[done : done + room]
                    self._data += part
                    done += len(part)
                    self._changed.notify_all()
                if done == len(view) or not wait:
                    return done
                self._changed.wait()

    def end(self) -> None:
        """End the pipe and wake both sides. What is already in it can still be read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class MemoryTransport:
    """One end of :func:`memory_link`."""

    at_once = 0

    def __init__(self, inbox: _Pipe, outbox: _Pipe) -> None:
        self._incoming = inbox
        self._outgoing = outbox

    def read_into(self, buffer: memoryview) -> int:
        return self._incoming.read_into(buffer)

    def has_arrived(self) -> bool:
        """Whether the other end has written something that the reader has not handed on yet."""
        return self._incoming.busy

    def send(self, data: bytes, at_once: int) -> int:
        return self.try_write([data])

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        total = 0
        for buffer in buffers:
            written = self._outgoing.write(buffer, wait=False)
            total += written
            if written < len(buffer):
                break
        return total

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        for buffer in buffers:
            self._outgoing.write(buffer, wait=True)

    def close(self) -> None:
        self._incoming.end()
        self._outgoing.end()

    def release(self) -> None:
        """Nothing to give back; the socket transport has a descriptor here."""


def memory_link(capacity: int = DEFAULT_CAPACITY) -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected ends, each direction holding at most *capacity* bytes that are not read yet."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryTransport(there, back), MemoryTransport(back, there)
