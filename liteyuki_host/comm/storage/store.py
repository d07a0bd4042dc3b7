"""The keys and values of the shared memory where they are decided, as a plain data structure: no link, lock or clock.

The :class:`Store` gives every change the next *revision*, beginning with 1. Its mirrors in other processes
(``mirror.py``) follow revision by revision. Both keep a *view*, the dict that reads go to: scalars as they are,
containers still encoded (:class:`Packed`), so that every reader gets a value of its own.

- *Size.* Each key counts with its characters, the bytes of its encoded value and ``ENTRY_CHARGE``. A write that would
  exceed the limit is refused and changes nothing, unless it replaces a value that is as large or larger.
- *Time.* A deadline is an absolute time of the caller's monotonic clock, as every method that needs the time is given
  it. The deadlines are in a heap. A key that is written again or deleted leaves its old deadline there; such entries
  are dropped when they reach the top, and all at once when they have become the majority.
- *Expired keys.* One that is due but not deleted yet counts as missing for operations that read it (``_live``). It
  still takes up room.

Used by :class:`~liteyuki_host.comm.storage.authority.Authority` alone, under its lock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from liteyuki_host.comm.protocol.messages import Change
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.storage.values import Expiring, pack

__all__ = ["DEFAULT_MEMORY_LIMIT", "MAX_KEY_SIZE", "Store"]

MAX_KEY_SIZE = 512
"""Bytes of a key in UTF-8; far above any name, so that keys cannot become a second place for values."""

DEFAULT_MEMORY_LIMIT = 256 * 1024 * 1024
"""Bytes of all values and keys together, each entry charged :data:`ENTRY_CHARGE` more; every process holds a copy."""

NIL = b"\xc0"
"""An encoded None."""

ENTRY_CHARGE = 200
"""Bytes of the dict entries and objects around a value, measured on CPython 3.11."""


class _Entry:
    """A key's value and what belongs to it. Changed in place when the key is written again.

    Attributes:
        payload: the encoded value.
        revision: of the change that made the value.
        owner: of an ephemeral key, which is deleted with its owner; else None.
        deadline: monotonic time at which the key is deleted; None: it stays.
        writer: who wrote it, for messages to people; empty when it was counted up.
    """

    __slots__ = ("deadline", "owner", "payload", "revision", "writer")

    def __init__(self, payload: bytes, revision: int, owner: str | None, deadline: float | None, writer: str) -> None:
        self.payload = payload
        self.revision = revision
        self.owner = owner
        self.deadline = deadline
        self.writer = writer


class Store:
    """All keys and values, and the one order of their changes.

    Methods that write return the outcome and the changes they made, in order; *now* is the time of the caller's
    monotonic clock in seconds.

    Attributes:
        view: key to value as readers get it; always the same dict. A key is in it exactly when it has an entry.
        revision: of the latest change; 0 before the first.
        size: bytes of all entries, counted as described above.
        limit: bytes of all keys and values, at most. May be changed; a store that is over it can still shrink.
    """

    def __init__(self, limit: int = DEFAULT_MEMORY_LIMIT, view: dict[str, object] | None = None) -> None:
        self.view: dict[str, object] = {} if view is None else view
        self.revision = 0
        self.size = 0
        self.limit = limit
        self._entries: dict[str, _Entry] = {}
        self._deadlines: list[tuple[float, str]] = []  # a heap, with deadlines that hold no more among them

    def put(
        self,
        key: str,
        payload: bytes,
        now: float,
        *,
        ttl: float | None = None,
        owner: str | None = None,
        writer: str = "",
    ) -> tuple[Outcome, list[Change]]:
        """Write; refused (``FULL``) when there is no room.

        Args:
            ttl: seconds from *now* until the key is deleted; None: it stays.
            owner: with whom the key is deleted; None: with nobody.
            writer: for messages to people.
        """
        revision = self.write(key, payload, now, ttl, owner, writer)
        return self.outcome(revision), [Change(revision, key, payload, ttl)] if revision else []

    def outcome(self, revision: int) -> Outcome:
        """Return the outcome of a :meth:`write` that has returned *revision*."""
        return Outcome(None, None, revision) if revision else Outcome(Refusal.FULL, None, self.revision)

    def write(
        self, key: str, payload: bytes, now: float, ttl: float | None, owner: str | None, writer: str = ""
    ) -> int:
        """Write, without making an outcome and a change. Returns the revision, or 0 when there is no room.

        A write replaces everything of the key: a ttl and an owner that are not given again end.
        """
        old = self._entries.get(key)
        size = self.size + len(payload)
        if old is None:
            size += ENTRY_CHARGE + len(key)
            if size > self.limit:
                return 0
        else:
            size -= len(old.payload)
            # Over the limit, which may have been lowered, a key may still get a value that is no larger.
            if size > self.limit and len(payload) > len(old.payload):
                return 0
        value = pack(payload)  # first, as it may fail for want of memory: nothing has changed then
        self.size = size
        self.revision = revision = self.revision + 1
        deadline = None if ttl is None else now + ttl
        if old is None:
            self._entries[key] = _Entry(payload, revision, owner, deadline, writer)
        else:
            old.payload, old.revision, old.owner, old.deadline = payload, revision, owner, deadline
            old.writer = writer
        self.view[key] = value if deadline is None else Expiring(value, deadline)
        if deadline is not None:
            heapq.heappush(self._deadlines, (deadline, key))
            # More than half of these hold no more. Rebuilding costs a constant for each write since the last time; the
            # 64 keep a small store from doing it all the time.
            if len(self._deadlines) > 2 * len(self._entries) + 64:
                self._deadlines = [(e.deadline, k) for k, e in self._entries.items() if e.deadline is not None]
                heapq.heapify(self._deadlines)
        return revision

    def remove(self, key: str) -> tuple[Outcome, list[Change]]:
        """Delete; the outcome's value tells whether it was there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return Outcome(None, None, self.revision), []
        self.size -= len(entry.payload) + ENTRY_CHARGE + len(key)
        self.view.pop(key, None)
        self.revision += 1
        return Outcome(None, b"\xc3", self.revision), [Change(self.revision, key, None)]

    def increment(self, key: str, by: float, now: float) -> tuple[Outcome, list[Change]]:
        """Add *by*; a missing key counts as 0. The key keeps its ttl and its owner. The outcome's value is the new
        number. Refused (``NOT_A_NUMBER``) when the key holds something else, or the sum is an integer that MessagePack
        cannot hold: below -2**63, or 2**64 and more."""
        entry = self._live(key, now)
        old = 0 if entry is None else pack(entry.payload)
        if isinstance(old, bool) or not isinstance(old, (int, float)):
            return Outcome(Refusal.NOT_A_NUMBER, None, self.revision), []
        new = old + by
        if isinstance(new, int) and not -(2**63) <= new < 2**64:
            return Outcome(Refusal.NOT_A_NUMBER, None, self.revision), []
        payload = _encoder.encode(new)
        ttl = None if entry is None or entry.deadline is None else max(entry.deadline - now, 0.0)
        owner = None if entry is None else entry.owner
        outcome, changes = self.put(key, payload, now, ttl=ttl, owner=owner)
        return Outcome(None, payload, outcome.revision) if outcome.error is None else outcome, changes

    def compare(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | None,
        revision: int | None,
        now: float,
        *,
        writer: str = "",
    ) -> tuple[Outcome, list[Change]]:
        """Write *value* (None: delete) if the key is as expected. It keeps its owner and loses its ttl. Otherwise
        refused (``CHANGED``); the outcome then has the value and the revision that there are, None and 0 for a missing
        key.

        Args:
            expected: the encoded value that the key is to hold; None: it is to be missing.
            revision: what the key's revision is to be, 0 for a missing key. Compared instead of *expected*, unless it
                is None.
        """
        entry = self._live(key, now)
        if revision is not None:
            same = (0 if entry is None else entry.revision) == revision
        elif entry is None:
            same = expected is None or expected == NIL  # what `get` returns for a missing key, too
        elif expected is None:
            same = False
        else:
            same = entry.payload == expected or _equal(entry.payload, expected)  # decodes only what differs
        if not same:
            if entry is None:
                return Outcome(Refusal.CHANGED, None, 0), []
            return Outcome(Refusal.CHANGED, entry.payload, entry.revision), []
        if value is None:
            return self.remove(key)
        return self.put(key, value, now, owner=None if entry is None else entry.owner, writer=writer)

    def expire(self, now: float) -> list[Change]:
        """Delete every key that is due at *now*."""
        changes: list[Change] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, key = heapq.heappop(self._deadlines)
            changes += self.remove(key)[1]
        return changes

    def next_deadline(self) -> float | None:
        """Return when the next key is due; None: no key has a ttl. Drops the entries above it that hold no more."""
        deadlines = self._deadlines
        while deadlines:
            deadline, key = deadlines[0]
            entry = self._entries.get(key)
            if entry is not None and entry.deadline == deadline:
                return deadline
            heapq.heappop(deadlines)  # the key was written again or deleted since
        return None

    def owner_died(self, owner: str) -> list[Change]:
        """Delete the ephemeral keys of *owner*. Costs a look at every key."""
        keys = [key for key, entry in self._entries.items() if entry.owner == owner]
        return [change for key in keys for change in self.remove(key)[1]]

    def revision_of(self, key: str) -> int:
        """Return the revision of the key's last change; 0 when it is missing."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.revision

    def writer_of(self, key: str) -> str:
        """Return who wrote the key's value; an empty text when it is missing, or was counted up."""
        entry = self._entries.get(key)
        return "" if entry is None else entry.writer

    def snapshot(self, now: float) -> Iterator[tuple[str, bytes, int, float | None]]:
        """Go through everything as key, payload, revision and remaining ttl in seconds. Clocks of two processes differ,
        so a deadline would mean nothing to another one. The caller keeps the store from changing meanwhile."""
        for key, entry in self._entries.items():
            ttl = None if entry.deadline is None else max(entry.deadline - now, 0.0)
            yield key, entry.payload, entry.revision, ttl

    def _live(self, key: str, now: float) -> _Entry | None:
        """Return the key's entry; None when it is missing or due."""
        entry = self._entries.get(key)
        if entry is not None and entry.deadline is not None and entry.deadline <= now:
            return None
        return entry


def _equal(one: bytes, other: bytes) -> bool:
    """Whether two different payloads are the same value: containers by their items, dicts in whatever order, numbers by
    their amount (3 is 3.0); True and False are no numbers. One that cannot be decoded is like nothing else."""
    try:
        first, second = _decoder.decode(one), _decoder.decode(other)
        return bool(first == second) and _same_booleans(first, second)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _same_booleans(one: object, other: object) -> bool:
    """Whether two values that are equal for Python, for which 1 is True, have their booleans at the same places."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {key: key for key in other}  # finds the other's key that is equal, which may be 1 where this one is True
        return all(_same_booleans(key, keys[key]) and _same_booleans(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return all(map(_same_booleans, one, other))
    return True


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
