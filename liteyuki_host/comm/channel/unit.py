"""What arrives, on its way from the link's reader to whoever consumes it."""

from __future__ import annotations

from collections.abc import Iterator
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
    """What arrived at once. A Struct: there is one for each lone message, and it is made faster.

    Attributes:
        position: how many have been taken.
        handled: how many callbacks are done with.
        counted: how many their sender has been told of as consumed, or will be soon.
        suspended: a callback has waited for something, so each message is counted when it is handled; before, as
            many as were handled without a pause.
        walk: while somebody goes through the payloads one by one, what is left. It says how far that has come, so that
            nobody has to note it at every step.
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
        """How many have been taken, also in the middle of a walk."""
        return self.position if self.walk is None else len(self.payloads) - length_hint(self.walk)

    def reached(self) -> None:
        """Note that all that were taken have been handled."""
        self.position = self.handled = self.taken

    def count(self) -> None:
        """Let the sender know what has been handled. By one thread at a time."""
        if self.walk is not None:
            self.handled = max(self.handled, self.taken - 1)  # the last one is perhaps in the middle of it
        handled, counted, payloads = self.handled, self.counted, self.payloads
        if handled > counted and payloads:  # which are gone when there is a new link
            self.counted = handled
            if handled - counted == 1:
                cost = len(payloads[counted]) + MESSAGE_CHARGE
            else:
                cost = sum(map(len, payloads[counted:handled])) + MESSAGE_CHARGE * (handled - counted)
            self.source.count(cost)
