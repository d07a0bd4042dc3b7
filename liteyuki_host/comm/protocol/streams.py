"""The streams of one link and their numbers.

Either side gives a channel or topic a number of its own parity by ``Open``. When both do so at once, two numbers mean
one stream (:attr:`Stream.alias`); each side goes on using the number that it knew first. How a number becomes free
again is in ``closing.py``.
"""

from __future__ import annotations

from collections import deque

from liteyuki_host.comm.errors import LocalProtocolError, RemoteProtocolError
from liteyuki_host.comm.protocol.ledger import Owing
from liteyuki_host.comm.protocol.stream import Stream

__all__ = ["FIRST_NUMBER", "MAX_STREAMS", "StreamTable"]

MAX_STREAMS = 0x10000
"""Numbers that a frame's header has room for."""

FIRST_NUMBER = 2
"""The first number for channels and topics; those below it have a fixed meaning and are never closed."""


class StreamTable:
    """The streams that a link has now, by number and by what they are for.

    ``open`` and ``forget`` belong to whoever holds the link's lock, ``opened`` to the link's reader; each step that
    both could take at once is a single operation of a dict.

    Args:
        parity: 0 for the host, whose numbers are even; 1 for a child.
        fixed: the streams that there are from the beginning.
        owing: shared by all streams of the link; see ``ledger.py``.
    """

    def __init__(self, parity: int, fixed: list[Stream], owing: Owing) -> None:
        self._owing = owing
        self._parity = parity
        self.by_number: dict[int, Stream] = {stream.id: stream for stream in fixed}
        self._by_key: dict[tuple[str, str], Stream] = {}  # (kind, name)
        self._next = FIRST_NUMBER + parity  # the lowest of our numbers that was never used
        self._free: deque[int] = deque()  # ours that are closed, oldest first

    def find(self, kind: str, name: str) -> Stream | None:
        """The stream for (*kind*, *name*), if there is one."""
        return self._by_key.get((kind, name))

    def open(self, kind: str, name: str, window: int) -> tuple[Stream, bool]:
        """The stream for (*kind*, *name*), and whether it is new and has to be announced.

        Raises:
            LocalProtocolError: all of our numbers are in use (32,767 of each side).
        """
        stream = self._by_key.get((kind, name))
        if stream is not None:
            return stream, False
        number = self._free[0] if self._free else self._next
        if number >= MAX_STREAMS:
            raise LocalProtocolError(
                f"{kind} {name!r} cannot be opened: this link has used all its stream numbers "
                f"({MAX_STREAMS // 2 - 1:,}), so many channels and topics are in use at once. Drop Channel objects "
                "that are not needed, and unsubscribe"
            )
        fresh = Stream(number, (kind, name), window, owing=self._owing)
        # The peer may be opening the same name, and its Open is taken in by the reader, without the lock: setdefault is
        # one step, so both agree on one object.
        stream = self._by_key.setdefault((kind, name), fresh)
        if stream is not fresh:
            return stream, False
        if self._free:
            self._free.popleft()
        else:
            self._next += 2
        self.by_number[number] = stream
        return stream, True

    def opened(self, number: int, kind: str, name: str, window: int) -> Stream:
        """Note that the peer has given *number* to (*kind*, *name*).

        Raises:
            RemoteProtocolError: it may not have that number.
        """
        if not FIRST_NUMBER <= number < MAX_STREAMS or number % 2 == self._parity or number in self.by_number:
            raise RemoteProtocolError(f"stream number {number} cannot be opened by the other side")
        key = (kind, name)
        stream = self._by_key.setdefault(key, Stream(number, key, window, owing=self._owing))
        if stream.id != number:
            if stream.alias:
                raise RemoteProtocolError(f"{kind} {name!r} is opened twice by the other side")
            stream.alias = number
        self.by_number[number] = stream
        return stream

    def forget(self, stream: Stream) -> None:
        """Remove a stream that both sides have agreed to close; our number is free."""
        del self._by_key[stream.key]
        for number in (stream.id, stream.alias):
            if number:
                del self.by_number[number]
                if number % 2 == self._parity:
                    self._free.append(number)
