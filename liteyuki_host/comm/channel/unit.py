"""What arrives, on its way from the link's reader to whoever consumes it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import length_hint
from typing import NamedTuple, Protocol

import msgspec

from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE

__all__ = ["Here", "Received", "Source", "Taken", "Unit"]


class Source(Protocol):
    """Where messages came from, and where their consumption is reported."""

    def count(self, cost: int) -> None:
        """*cost* bytes have been consumed. By one consumer at a time."""
        ...

    def consumed(self, cost: int) -> None:
        """*cost* bytes have been consumed, also when others consume at the same time."""
        ...

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        """Answer a request. Replies have no credit: who sends them awaits :meth:`replied` before the next."""
        ...

    async def replied(self) -> None:
        """Wait until the replies that have not left this process are few."""
        ...


class Here:
    """A sender in this very process: nobody waits to be told."""

    def count(self, cost: int) -> None:
        pass

    def consumed(self, cost: int) -> None:
        pass

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        pass

    async def replied(self) -> None:
        pass


class Received(NamedTuple):
    """One message, still encoded."""

    payload: bytes
    flags: int
    request_id: int
    source: Source


Taken = tuple[bytes, int, int, Source]
"""The same as a plain tuple, which is made in a fifth of the time."""


class Unit(msgspec.Struct, eq=False):
    """Messages of one sender that arrived at once and have the same flags.

    A Struct, because there is one for each lone message, and a Struct is made faster than an object. All attributes are
    changed by the one consumer; what counts as consumed is changed under the inbox's lock.

    Attributes:
        position: how many have been taken. During a *walk*, :attr:`taken` says it.
        handled: how many of those have been handled to their end.
        counted: how many of those have been counted as consumed at *source*.
        suspended: whether each message is counted when it is handled, because a callback has suspended. Before that,
            all that were handled without a pause are counted together.
        walk: the iterator over the payloads, while the consumer iterates. How far it has come need not be noted at
            every step, as its length says it.
    """

    payloads: list[bytes]
    flags: int
    request_id: int
    source: Source
    position: int = 0
    handled: int = 0
    counted: int = 0
    suspended: bool = False
    walk: Iterator[bytes] | None = None

    @property
    def taken(self) -> int:
        """How many messages have been taken, also in the middle of a walk."""
        return self.position if self.walk is None else len(self.payloads) - length_hint(self.walk)

    @property
    def cost(self) -> int:
        """Bytes that its messages cost which have not been taken. Not during a walk."""
        left = self.payloads[self.position :]
        return sum(map(len, left)) + MESSAGE_CHARGE * len(left)

    def drop(self, excess: int, *, keep: bool) -> tuple[int, int]:
        """Remove the oldest messages that have not been taken, until they make up *excess* bytes or none is left; they
        are not counted as consumed. Not during a walk. The caller holds the inbox's lock.

        Args:
            keep: the newest message stays.

        Returns:
            how many were removed, and the bytes that they cost.
        """
        count = cost = 0
        for payload in islice(self.payloads, self.position, len(self.payloads) - keep):
            if cost >= excess:
                break
            cost += len(payload) + MESSAGE_CHARGE
            count += 1
        del self.payloads[self.position : self.position + count]
        return count, cost

    def reached(self) -> None:
        """Note that all messages that were taken have been handled."""
        self.position = self.handled = self.taken

    def give_back(self) -> bytes | None:
        """Remove the message that was taken last, and was not handled; returns its payload, or None when there is a
        new link, whose sender has it. The caller holds the inbox's lock."""
        index = self.taken - 1
        self.walk = None
        if not self.payloads:
            return None
        self.position = self.handled = index
        return self.payloads.pop(index)

    def count_all(self) -> None:
        """Let the sender know of all of it as consumed, without anybody having handled it."""
        payloads = self.payloads[self.counted :]
        self.counted = len(self.payloads)
        if payloads:
            self.source.count(sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))

    def count(self) -> None:
        """Count the handled messages as consumed at their source. The caller holds the inbox's lock."""
        if self.walk is not None:
            self.handled = max(self.handled, self.taken - 1)  # the callback of the last one may be in progress
        handled, counted, payloads = self.handled, self.counted, self.payloads
        if handled > counted and payloads:  # a new link clears them
            self.counted = handled
            if handled - counted == 1:
                cost = len(payloads[counted]) + MESSAGE_CHARGE
            else:
                cost = sum(map(len, payloads[counted:handled])) + MESSAGE_CHARGE * (handled - counted)
            self.source.count(cost)
