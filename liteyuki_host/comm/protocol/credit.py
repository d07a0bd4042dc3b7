"""Credit: how much of a stream may be on its way, counted in bytes.

Each message is charged its size plus :data:`MESSAGE_CHARGE`, so one number bounds memory *and* count. The receiver
grants cumulatively as it consumes, and a grant is the acknowledgement: what the sender still holds in
:attr:`Stream.unacknowledged` is exactly what nobody has consumed.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import repeat, starmap
from typing import Any

import msgspec

from ..errors import RemoteProtocolError

__all__ = ["DEFAULT_WINDOW", "MESSAGE_CHARGE", "STAGED_SIZE", "STAGE_CREDIT", "STAGE_PLACES", "Run", "Stage", "Stream"]

DEFAULT_WINDOW = 4 * 1024 * 1024
"""Bytes of one stream, one direction. Measured: 1 MiB stalls on 64 KiB messages, 16 MiB gains nothing."""

MESSAGE_CHARGE = 256
"""Bytes charged on top of each payload: about what a queued short message costs in Python objects."""

GRANT_SHIFT = 1
"""What is granted at once is a window shifted right by so much: half of it. With a quarter, measured beside it, 7 %
fewer 64 KiB messages arrive: each grant wakes the sender's process."""

PAYLOAD_HEADER = 5
"""Bytes in front of each payload of a batch, at most (MessagePack bin 32)."""

ACK_MASK = 0xFFFFFFFF  # acknowledgements travel modulo 2**32

STAGE_PLACES = 64
"""Messages on a stage at most. What the lock and the look at the stage cost is shared by so many."""

STAGED_SIZE = 2048
"""Bytes of a payload up to which it may be staged: a full stage fits into one frame with what waits already."""

STAGE_CREDIT = STAGE_PLACES * (STAGED_SIZE + MESSAGE_CHARGE)
"""Bytes of credit that a full stage may need."""


class Run(msgspec.Struct, eq=False):
    """Consecutive messages of one stream, in the order sent. Kept until acknowledged as a whole.

    Messages with flags are alone in theirs. A Struct: there is one for each lone message, and it is made faster.

    Attributes:
        size: bytes in a batch.
        start: the stream's cumulative cost before the first message.
        end: and after the last.
        attempts: how often it was first in line when its receiver died.
    """

    stream: Stream
    payloads: list[bytes]
    size: int
    start: int
    end: int
    flags: int = 0
    request_id: int = 0
    attempts: int = 0

    @staticmethod
    def of(stream: Stream, payload: bytes, start: int, flags: int = 0, request_id: int = 0, attempts: int = 0) -> Run:
        """One message."""
        size = len(payload)
        return Run(
            stream, [payload], size + PAYLOAD_HEADER, start, start + size + MESSAGE_CHARGE, flags, request_id, attempts
        )

    def unconsumed(self, acknowledged: int) -> list[bytes]:
        """The payloads that *acknowledged* does not cover."""
        position = self.start
        for index, payload in enumerate(self.payloads):
            position += len(payload) + MESSAGE_CHARGE
            if position > acknowledged:
                return self.payloads[index:]
        return []


class Stage:
    """Where the messages of a burst wait for a place in the queue: put there without the link's lock, taken from there
    with it.

    While it is open, its stream has credit for all its places, and somebody is going to look at it. Who has put
    something there looks once more whether it is open; only what was put there while it was being closed may be left
    behind, and who sees that takes it back (:meth:`take_back`) and sends it in another way.

    Attributes:
        open: changed by the holder of the link's lock.
        places: the free ones; whoever puts something there takes one first, so that there never are too few. Ctrl+C
            in the main thread between the two costs a place; without any, no message is staged any more.
        payloads: in the order sent.
    """

    __slots__ = ("open", "payloads", "places")

    def __init__(self) -> None:
        self.open = False
        self.places: deque[None] = deque(repeat(None, STAGE_PLACES))
        self.payloads: deque[bytes] = deque()

    def take(self, room: int) -> tuple[list[bytes], int]:
        """What has been staged, as far as *room* bytes of credit go, and the bytes of it. The caller holds the link's
        lock."""
        payloads = self.payloads
        taken = list(starmap(payloads.popleft, repeat((), len(payloads))))
        size = sum(map(len, taken))
        while taken and size + MESSAGE_CHARGE * len(taken) > room:  # came too late, and does not count on it
            payloads.appendleft(taken.pop())
            size -= len(payloads[0])
        self.places.extend(repeat(None, len(taken)))
        return taken, size

    def take_back(self, payload: bytes) -> bool:
        """Take a payload from the stage; False: it has been sent. The caller holds the link's lock."""
        try:
            self.payloads.remove(payload)
        except ValueError:
            return False
        self.places.append(None)
        return True


class Stream:
    """Both directions of one numbered stream on one link.

    Nothing here locks. Each attribute has one writer at a time, and the others may read it: ``sent`` belongs to whoever
    holds the link's lock; ``acknowledged``, ``limit`` and ``received`` to the link's reader; ``consumed`` to whoever
    consumes. In ``unacknowledged`` senders append and the reader takes off: only what has been written is ever
    acknowledged, and no message joins a run that has been written.
    """

    __slots__ = (
        "acknowledged",
        "consumed",
        "granted",
        "id",
        "key",
        "limit",
        "owed",
        "reach",
        "received",
        "receiver",
        "sent",
        "source",
        "stage",
        "taker",
        "trusted",
        "unacknowledged",
        "user",
        "window",
        "worth_a_frame",
    )

    def __init__(
        self,
        number: int,
        key: tuple[str, str],
        window: int = DEFAULT_WINDOW,
        *,
        limited: bool = True,
        trusted: bool = False,
    ) -> None:
        self.id = number
        self.key = key  # (kind, name)
        self.window = window
        self.worth_a_frame = window >> GRANT_SHIFT  # bytes that are granted at once; fewer wait for company
        self.trusted = trusted  # True: what arrives is used up at once, so it is not held to its credit
        # outgoing
        self.sent = 0
        self.acknowledged = 0
        # From what is acknowledged to the limit: without end, when the sender keeps its own bound.
        self.reach = window if limited else sys.maxsize
        self.limit = self.reach  # of `sent`, without looking closer
        self.unacknowledged: deque[Run] = deque()
        self.stage = Stage()
        # incoming
        self.received = 0
        self.consumed = 0
        self.granted = 0
        self.owed = False  # something is consumed that the peer has not been told
        # What the link's user hangs on it: who gets arriving messages, as coming from whom, and who sends on it.
        self.receiver: Any = None
        self.source: Any = None
        self.user: Any = None
        self.taker: Any = None  # a task that waits for nothing else than the next message, while it does

    def set_window(self, window: int) -> None:
        """Both sides have agreed on the window."""
        self.window = window
        self.worth_a_frame = window >> GRANT_SHIFT
        if self.reach != sys.maxsize:
            self.reach = window
            self.limit = self.acknowledged + window

    def has_room(self, size: int) -> bool:
        """Whether a payload of *size* bytes may go now. A larger one than the window goes alone."""
        return self.sent + size + MESSAGE_CHARGE <= self.limit or self.sent == self.acknowledged

    def acknowledge(self, ack: int) -> bool:
        """Take a peer's cumulative acknowledgement; True when it covers something new.

        Raises:
            RemoteProtocolError: it covers more than was sent.
        """
        fresh = (ack - self.acknowledged) & ACK_MASK
        if fresh == 0:
            return False
        if fresh > self.sent - self.acknowledged:
            raise RemoteProtocolError(
                f"stream {self.id}: {fresh:,} bytes acknowledged, {self.sent - self.acknowledged:,} outstanding"
            )
        self.acknowledged += fresh
        self.limit = self.acknowledged + self.reach
        unacknowledged = self.unacknowledged
        try:
            while unacknowledged and unacknowledged[0].end <= self.acknowledged:
                unacknowledged.popleft()
        except IndexError:  # somebody has just given it up
            pass
        return True

    def arrived(self, size: int) -> None:
        """Count an arriving payload against the window we granted.

        Raises:
            RemoteProtocolError: the peer sent more than its credit.
        """
        outstanding = self.received - self.consumed
        self.received += size + MESSAGE_CHARGE
        if not self.trusted and outstanding and outstanding + size + MESSAGE_CHARGE > self.window:
            raise RemoteProtocolError(f"stream {self.id}: more than its credit of {self.window:,} bytes was sent")

    def arrived_together(self, payloads: list[bytes]) -> None:
        """The same for several at once."""
        cost = sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads)
        if self.received - self.consumed + cost <= self.window:
            self.received += cost
        else:
            for payload in payloads:
                self.arrived(len(payload))
