"""What has been sent, acknowledged, received, consumed and granted on one stream, in bytes.

Theory of operation
-------------------

A message costs its size plus :data:`MESSAGE_CHARGE`. Both sides keep running totals since the stream began, and each
total only grows:

=============== ======================================================= ===================================
total           meaning                                                 changed by, and when
=============== ======================================================= ===================================
sent            cost of all messages that were accepted for sending     senders, under the link's lock
acknowledged    the part of it that the peer says it has consumed       the link's reader
limit           how far *sent* may go: *acknowledged* plus the window   the link's reader; shut and reopened
                under the link's lock, see :meth:`Ledger.shut`
received        cost of all messages that have arrived                  the link's reader
consumed        the part of it that this process has handled            whoever consumes
granted         the value of *consumed* that the peer was told last     the link's writer, under its lock
=============== ======================================================= ===================================

Telling the peer of *consumed* is a grant: it acknowledges messages and gives credit for new ones at once. Between a
consumption and its grant the stream is *owing*: it stands in :attr:`Ledger.owing`, which all streams of a link share
(:class:`Owing`). A grant is sent at once when it is worth a frame, and soon otherwise, so that a message can carry it.

No lock guards a ledger. Each total has one writer at a time (see the table), and other threads may read it. The one
thing that two threads change is membership in ``owing``: consumers add, the writer removes. It is a dict with the
streams as keys, so adding twice and removing what is not there are harmless, and each is one step for other threads.
A consumer raises *consumed* first and joins ``owing`` second; the writer leaves ``owing`` first and reads *consumed*
second. So a consumption that happens in between is at worst granted twice, and never forgotten.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.credit import ACK_MASK, DEFAULT_WINDOW, GRANT_SHIFT, MESSAGE_CHARGE

if TYPE_CHECKING:
    from liteyuki_host.comm.protocol.batch import Batch

__all__ = ["Ledger", "Owing"]


def _nobody(ledger: Ledger) -> None:
    """Stand in for the writer of a connection that has none."""


class Owing(dict["Ledger", None]):
    """The streams of one link that owe a grant, and how its writer hears of one. The keys are the streams.

    Attributes:
        armed: True: the flusher has been woken and has not looked yet, so that a further debt needs no wake-up.
            Written by the link's writer, under its lock; read without it by consumers.
        grant: has the grant of a stream sent, at once or soon. Set once, by the link's writer.
    """

    __slots__ = ("armed", "grant")

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.grant: Callable[[Ledger], None] = _nobody


class Ledger:
    """The totals of one stream, as the module describes them. Nothing else in the package changes them.

    Args:
        number: of the stream, for messages.
        window: bytes that may be on their way in each direction.
        owing: the streams of the same link that owe a grant; None: one of its own.
        limited: False: the sender keeps a bound of its own, and the window does not hold it back.
        trusted: True: what arrives is consumed at once, so that it is not held to its credit.

    Attributes:
        unacknowledged: what the peer has not consumed, in the order sent. Senders append under the link's lock; the
            link's reader takes off. Only what has been written is ever acknowledged, and no message joins a batch
            that has been written, so the two never touch the same batch.
        worth_a_frame: bytes consumed from which a grant is sent at once. A smaller one waits for more, or for a
            message that can carry it.
    """

    __slots__ = (
        "acknowledged",
        "consumed",
        "granted",
        "id",
        "limit",
        "owing",
        "reach",
        "received",
        "sent",
        "trusted",
        "unacknowledged",
        "window",
        "worth_a_frame",
    )

    def __init__(
        self,
        number: int,
        window: int = DEFAULT_WINDOW,
        *,
        owing: Owing | None = None,
        limited: bool = True,
        trusted: bool = False,
    ) -> None:
        self.id = number
        self.window = window
        self.worth_a_frame = window >> GRANT_SHIFT
        self.trusted = trusted
        self.owing = Owing() if owing is None else owing
        self.sent = 0
        self.acknowledged = 0
        self.reach = window if limited else sys.maxsize  # from *acknowledged* to *limit*
        self.limit = self.reach
        self.unacknowledged: deque[Batch] = deque()
        self.received = 0
        self.consumed = 0
        self.granted = 0

    def set_window(self, window: int) -> None:
        """Use the window that both sides have agreed on. Called once, by the link's reader, before data flows."""
        self.window = window
        self.worth_a_frame = window >> GRANT_SHIFT
        if self.reach != sys.maxsize:
            self.reach = window
            self.limit = self.acknowledged + window

    # --- sending --------------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Whether a payload of *size* bytes may go now. One that is larger than the window goes alone; none goes while
        the ledger is shut."""
        return self.sent + size + MESSAGE_CHARGE <= self.limit or (self.sent == self.acknowledged and self.limit >= 0)

    def shut(self) -> None:
        """Give no credit from now on. The caller holds the link's lock, and nothing is unacknowledged, so that the
        reader has nothing to change here."""
        self.limit = -1

    def reopen(self) -> None:
        """Give credit again. The caller holds the link's lock."""
        self.limit = self.acknowledged + self.reach

    @property
    def is_shut(self) -> bool:
        """Whether no credit is given."""
        return self.limit < 0

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent is acknowledged, and all that arrived is consumed."""
        return self.sent == self.acknowledged and self.received == self.consumed

    def charge(self, cost: int) -> int:
        """Count *cost* bytes as sent; returns the new total. The caller holds the link's lock."""
        self.sent = sent = self.sent + cost
        return sent

    def charge_and_grant(self, cost: int) -> int:
        """Do :meth:`charge` and :meth:`grant` in one call, for a message that is sent alone; returns the grant."""
        self.sent += cost
        self.owing.pop(self, None)
        self.granted = granted = self.consumed
        return granted & ACK_MASK

    def take_in(self, ack: int, cost: int = 0) -> bool:
        """Take what the peer has said in one header: how much it has consumed, and perhaps a message of *cost* bytes.
        Messages that *ack* covers are dropped from *unacknowledged*. By the link's reader.

        Args:
            ack: the peer's *consumed*, modulo 2**32.
            cost: of an arriving message, which is counted against the window that we granted; 0: there is none.

        Returns whether *ack* covers something new.

        Raises:
            RemoteProtocolError: the peer sent more than its credit, or acknowledges more than was sent to it.
        """
        if cost:
            outstanding = self.received - self.consumed
            self.received += cost
            if outstanding and not self.trusted and outstanding + cost > self.window:
                raise RemoteProtocolError(f"stream {self.id}: more than its credit of {self.window:,} bytes was sent")
        acknowledged = self.acknowledged
        fresh = (ack - acknowledged) & ACK_MASK
        if not fresh:
            return False
        if fresh > self.sent - acknowledged:
            raise RemoteProtocolError(
                f"stream {self.id}: {fresh:,} bytes acknowledged, {self.sent - acknowledged:,} outstanding"
            )
        self.acknowledged = acknowledged = acknowledged + fresh
        self.limit = acknowledged + self.reach
        unacknowledged = self.unacknowledged
        try:
            while unacknowledged and unacknowledged[0].end <= acknowledged:
                unacknowledged.popleft()
        except IndexError:  # an outbox has just given up or taken back what was left
            pass
        return True

    # --- receiving ------------------------------------------------------------------------------------------

    def arrived(self, size: int) -> None:
        """Count an arriving payload of *size* bytes whose header acknowledges nothing. By the link's reader.

        Raises:
            RemoteProtocolError: the peer sent more than its credit.
        """
        self.take_in(self.acknowledged & ACK_MASK, size + MESSAGE_CHARGE)

    def arrived_together(self, payloads: list[bytes]) -> None:
        """Count several arriving payloads, as :meth:`arrived` does for one."""
        cost = sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads)
        if self.received - self.consumed + cost <= self.window:
            self.received += cost
        else:
            for payload in payloads:
                self.arrived(len(payload))

    def consume(self, cost: int) -> None:
        """Count *cost* bytes as consumed, and have the peer told: at once when that is worth a frame, else soon. By one
        thread at a time, which may hold the link's lock."""
        self.consumed = consumed = self.consumed + cost
        owing = self.owing
        if self not in owing:
            owing[self] = None
            if not owing.armed:
                owing.grant(self)
                return
        if consumed - self.granted >= self.worth_a_frame:
            owing.grant(self)

    def consume_quietly(self, cost: int) -> None:
        """Count *cost* bytes as consumed. The next message on the stream, or the next grant, tells the peer. By one
        thread at a time."""
        self.consumed += cost
        self.owing[self] = None

    @property
    def owes(self) -> bool:
        """Whether the peer has not been told of all that was consumed."""
        return self in self.owing

    @property
    def owes_much(self) -> bool:
        """Whether the grant that is owed is worth a frame of its own."""
        return self.consumed - self.granted >= self.worth_a_frame

    def grant(self) -> int:
        """Return what the peer is to be told now: *consumed* modulo 2**32. The caller holds the link's lock and sends
        it with its next write."""
        self.owing.pop(self, None)  # before *consumed* is read: what is consumed from now on is owed anew
        self.granted = granted = self.consumed
        return granted & ACK_MASK
