"""Both directions of one numbered stream."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.batch import Batch
from liteyuki_host.comm.protocol.credit import ACK_MASK, DEFAULT_WINDOW, GRANT_SHIFT, MESSAGE_CHARGE
from liteyuki_host.comm.protocol.stage import Stage

__all__ = ["Stream"]


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
        self.unacknowledged: deque[Batch] = deque()
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
