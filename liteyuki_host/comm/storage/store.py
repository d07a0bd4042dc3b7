"""The shared memory's authority and its replica, as plain data structures: no link, no lock, no clock.

The :class:`Store` orders all writes and decides; a :class:`Mirror` follows. Both keep a *view*, the dict that reads
go to: scalars as they are, containers still encoded (:class:`Packed`) so that every reader gets a value of its own.
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

ENTRY_CHARGE = 200  # bytes of dict entry and objects around a value, measured on CPython 3.11


class _Entry:
    __slots__ = ("deadline", "owner", "payload", "revision", "writer")

    def __init__(self, payload: bytes, revision: int, owner: str | None, deadline: float | None, writer: str) -> None:
        self.payload = payload
        self.revision = revision
        self.owner = owner  # of an ephemeral key: the key goes with it
        self.deadline = deadline
        self.writer = writer  # for messages to people


class Store:
    """The authority: every write gets the next revision.

    Methods that write return the outcome and the changes they made, in order; *now* is the caller's monotonic clock.

    Attributes:
        limit: bytes of all keys and values. May be changed; a store that is over it can still shrink.
    """

    def __init__(self, limit: int = DEFAULT_MEMORY_LIMIT, view: dict[str, object] | None = None) -> None:
        self.view: dict[str, object] = {} if view is None else view
        self.revision = 0
        self.size = 0
        self.limit = limit
        self._entries: dict[str, _Entry] = {}
        self._deadlines: list[tuple[float, str]] = []  # a heap; entries that no longer hold are skipped when met

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
        revision = self.write(key, payload, now, ttl, owner, writer)
        return self.outcome(revision), [Change(revision, key, payload, ttl)] if revision else []

    def outcome(self, revision: int) -> Outcome:
        """Of what :meth:`write` has returned."""
        return Outcome(None, None, revision) if revision else Outcome(Refusal.FULL, None, self.revision)

    def write(
        self, key: str, payload: bytes, now: float, ttl: float | None, owner: str | None, writer: str = ""
    ) -> int:
        """As :meth:`put`, in fewer words: returns the revision of the change, or 0 when there is no room for it."""
        old = self._entries.get(key)
        size = self.size + len(payload)
        if old is None:
            size += ENTRY_CHARGE + len(key)
            if size > self.limit:
                return 0
        else:
            size -= len(old.payload)
            if size > self.limit and len(payload) > len(old.payload):
                return 0
        value = pack(payload)
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
            if len(self._deadlines) > 2 * len(self._entries) + 64:  # mostly what was written again since
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
        entry = self._live(key, now)
        if revision is not None:
            same = (0 if entry is None else entry.revision) == revision
        elif entry is None:
            same = expected is None or expected == NIL  # what `get` returns for a missing key, too
        elif expected is None:
            same = False
        else:
            same = entry.payload == expected or _equal(entry.payload, expected)
        if not same:
            if entry is None:
                return Outcome(Refusal.CHANGED, None, 0), []
            return Outcome(Refusal.CHANGED, entry.payload, entry.revision), []
        if value is None:
            return self.remove(key)
        return self.put(key, value, now, owner=None if entry is None else entry.owner, writer=writer)

    def expire(self, now: float) -> list[Change]:
        """Delete what has outlived its ttl."""
        changes: list[Change] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, key = heapq.heappop(self._deadlines)
            changes += self.remove(key)[1]
        return changes

    def next_deadline(self) -> float | None:
        """When :meth:`expire` is to be called next."""
        deadlines = self._deadlines
        while deadlines:
            deadline, key = deadlines[0]
            entry = self._entries.get(key)
            if entry is not None and entry.deadline == deadline:
                return deadline
            heapq.heappop(deadlines)  # written again or deleted since
        return None

    def owner_died(self, owner: str) -> list[Change]:
        """Delete the ephemeral keys of *owner*."""
        keys = [key for key, entry in self._entries.items() if entry.owner == owner]
        return [change for key in keys for change in self.remove(key)[1]]

    def revision_of(self, key: str) -> int:
        """The revision of the key's last change, 0 when it is missing."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.revision

    def writer_of(self, key: str) -> str:
        """Who wrote the key's value; nothing when it is missing, or was counted up."""
        entry = self._entries.get(key)
        return "" if entry is None else entry.writer

    def snapshot(self, now: float) -> Iterator[tuple[str, bytes, int, float | None]]:
        """Everything: key, payload, revision, remaining ttl."""
        for key, entry in self._entries.items():
            ttl = None if entry.deadline is None else max(entry.deadline - now, 0.0)
            yield key, entry.payload, entry.revision, ttl

    def _live(self, key: str, now: float) -> _Entry | None:
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
        keys = {key: key for key in other}
        return all(_same_booleans(key, keys[key]) and _same_booleans(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return all(map(_same_booleans, one, other))
    return True


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
