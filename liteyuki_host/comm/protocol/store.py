"""The shared memory's authority and its replica, as plain data structures: no link, no lock, no clock.

The :class:`Store` orders all writes and decides; a :class:`Mirror` follows. Both keep a *view*, the dict that reads
go to: scalars as they are, containers still encoded (:class:`Packed`) so that every reader gets a value of its own.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from .messages import Change

__all__ = [
    "MAX_KEY_SIZE",
    "Expiring",
    "LockTable",
    "Mirror",
    "Outcome",
    "OwnWrite",
    "Packed",
    "Refusal",
    "Store",
    "pack",
]

MAX_KEY_SIZE = 512
"""Bytes of a key in UTF-8; far above any name, so that keys cannot become a second place for values."""

DEFAULT_MEMORY_LIMIT = 256 * 1024 * 1024
"""Bytes of all values and keys together, each entry charged :data:`ENTRY_CHARGE` more; every process holds a copy."""

ENTRY_CHARGE = 200  # bytes of dict entry and objects around a value, measured on CPython 3.11


class Packed(bytes):
    """A container in the view, still encoded. A type of its own, so that one comparison tells it from a value."""

    __slots__ = ()


class Expiring:
    """A value with an end in the view; reads compare the clock and then treat it like ``value``."""

    __slots__ = ("deadline", "value")

    def __init__(self, value: object, deadline: float) -> None:
        self.value = value
        self.deadline = deadline


class Refusal:
    """Codes of a refused request, in Done.error."""

    FULL: Final = "full"
    NOT_A_NUMBER: Final = "not a number"
    CHANGED: Final = "changed"  # compare: the key does not hold what was expected; value and revision say what
    NOT_HELD: Final = "not held"
    HOST_GONE: Final = "the host went away before it answered; whether it was done is unknown"


_decoder = msgspec.msgpack.Decoder()
_MISSING: Final = object()  # None is a value


# What makes an encoded value one of the view, by its first byte. Nil, a boolean, a small or sized number and a text are
# immutable, so that the object itself may be handed out. 0xC1 begins no value.
_PACK: list[Callable[[bytes], object]] = [
    _decoder.decode
    if first < 0x80 or first >= 0xE0 or 0xA0 <= first <= 0xC3 or 0xCA <= first <= 0xD3 or 0xD9 <= first <= 0xDB
    else Packed
    for first in range(256)
]


def pack(payload: bytes) -> object:
    """An encoded value as the view keeps it.

    What cannot be decoded stays encoded: it is an error for whoever reads it, and for nobody else.
    """
    try:
        return _PACK[payload[0]](payload)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        return Packed(payload)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a request."""

    error: str | None
    value: bytes | None
    revision: int


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
    """

    def __init__(self, limit: int = DEFAULT_MEMORY_LIMIT, view: dict[str, object] | None = None) -> None:
        self.view: dict[str, object] = {} if view is None else view
        self.revision = 0
        self.size = 0
        self._limit = limit
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
            if size > self._limit:
                return 0
        else:
            size -= len(old.payload)
            if size > self._limit and len(payload) > len(old.payload):
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
        elif entry is None or expected is None:
            same = entry is None and expected is None
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


OwnWrite = tuple[str, bytes | None, float | None, Any]
"""A write that this process has asked for, as key, value, ttl, and what its asker wants to keep with it."""


class Mirror:
    """A replica that shows its own writes at once and the host's order in the end.

    A key with own writes under way shows the newest of them; what the host says about it meanwhile is held back and
    shown when the last of them is done. So a reader never sees its own write, then an older value, then its write.
    """

    def __init__(self, view: dict[str, object] | None = None) -> None:
        self.view: dict[str, object] = {} if view is None else view
        self.revision = 0
        self._revisions: dict[str, int] = {}
        # Held back: what the view shows of the key without its own writes; an _Unseen one is not unpacked before.
        self._held: dict[str, object] = {}
        self._pending: dict[str, int] = {}  # key -> id of its newest own write

    def own_put(self, request: int, key: str, payload: bytes, deadline: float | None) -> None:
        """Show an own write that has been sent as *request*."""
        if key not in self._pending:
            self._held[key] = self.view.get(key, _MISSING)
        self._pending[key] = request
        value = pack(payload)
        self.view[key] = value if deadline is None else Expiring(value, deadline)

    def own_remove(self, request: int, key: str) -> None:
        if key not in self._pending:
            self._held[key] = self.view.get(key, _MISSING)
        self._pending[key] = request
        self.view.pop(key, None)

    def apply(self, change: Change, now: float) -> bool:
        """Follow the host's next step; False when one is missing, and then nothing has changed.

        A step already taken is skipped.
        """
        if change.revision <= self.revision:
            return True
        if change.revision != self.revision + 1:
            return False
        self.revision = change.revision
        key = change.key
        deadline = None if change.ttl is None else now + change.ttl
        if change.value is None:
            self._revisions.pop(key, None)
        else:
            self._revisions[key] = change.revision
        if key in self._pending:
            self._held[key] = _Unseen(change.value, deadline)
        elif change.value is None:
            self.view.pop(key, None)
        else:
            value = pack(change.value)
            self.view[key] = value if deadline is None else Expiring(value, deadline)
        return True

    def own_ordered(self, request: int, writes: Iterable[OwnWrite], revision: int, now: float) -> bool:
        """The own writes from *request* on are the host's steps from *revision* on; False when a step before them is
        missing, and then nothing has changed."""
        if revision > self.revision + 1:
            return False
        pending, held, revisions = self._pending, self._held, self._revisions
        for key, value, ttl, _ in writes:
            if revision <= self.revision:  # a snapshot has brought it
                self.done(request, key)
            else:
                self.revision = revision
                if value is None:
                    revisions.pop(key, None)
                else:
                    revisions[key] = revision
                if pending.get(key) == request:  # it is what is shown
                    del pending[key]
                    del held[key]
                    if value is not None and ttl is not None:  # which counts anew
                        self.view[key] = _shown(value, now + ttl)
                else:
                    held[key] = _Unseen(value, None if ttl is None else now + ttl)
            request += 1
            revision += 1
        return True

    def done(self, request: int, key: str) -> None:
        """Own write *request* is finished, and known or undone: when it was the key's newest, show the host's state."""
        if self._pending.get(key) != request:
            return
        del self._pending[key]
        held = self._held.pop(key)
        if isinstance(held, _Unseen):
            held = _MISSING if held.payload is None else _shown(held.payload, held.deadline)
        if held is _MISSING:
            self.view.pop(key, None)
        else:
            self.view[key] = held

    def load(self, items: Iterable[tuple[str, bytes, int, float | None]], revision: int, now: float) -> None:
        """Replace everything by a snapshot. Own writes under way stay shown."""
        shown = {key: self.view.get(key, _MISSING) for key in self._pending}
        fresh: dict[str, object] = {}
        self._revisions = {}
        held: dict[str, object] = dict.fromkeys(self._pending, _MISSING)
        for key, payload, key_revision, ttl in items:
            fresh[key] = _shown(payload, None if ttl is None else now + ttl)
            self._revisions[key] = key_revision
            if key in held:
                held[key] = fresh[key]
        for key, own in shown.items():
            if own is _MISSING:
                fresh.pop(key, None)
            else:
                fresh[key] = own
        self._held = held
        self.revision = revision
        # The view stays the same object, as readers hold it: new and changed keys first, then the vanished ones,
        # so that a reader in between misses no key that is in both.
        self.view.update(fresh)
        for key in [key for key in self.view if key not in fresh]:
            del self.view[key]

    def revision_of(self, key: str) -> int:
        return self._revisions.get(key, 0)

    def is_pending(self, key: str) -> bool:
        return key in self._pending


def _equal(one: bytes, other: bytes) -> bool:
    """Whether two different payloads are the same value. One that cannot be decoded is like nothing else."""
    try:
        return bool(_decoder.decode(one) == _decoder.decode(other))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Unseen(msgspec.Struct, frozen=True):
    """A value, or None for a missing one, that the view does not show yet."""

    payload: bytes | None
    deadline: float | None


def _shown(payload: bytes, deadline: float | None) -> object:
    value = pack(payload)
    return value if deadline is None else Expiring(value, deadline)


class LockTable:
    """Named locks, each held by one holder; the others wait in the order they asked.

    A holder is (owner, request): the process that asks, and its number for the asking.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[tuple[str, int]]] = {}
        self.granted = 0  # also the fencing number of the latest grant

    def acquire(self, key: str, owner: str, request: int) -> bool:
        """Ask; True when the lock is ours at once."""
        queue = self._queues.setdefault(key, deque())
        queue.append((owner, request))
        if len(queue) == 1:
            self.granted += 1
            return True
        return False

    def release(self, key: str, owner: str, request: int) -> tuple[bool, tuple[str, int] | None]:
        """Give back, or stop waiting. Returns whether it was held or waited for, and who holds it next."""
        queue = self._queues.get(key)
        if queue is None or (owner, request) not in queue:
            return False, None
        held = queue[0] == (owner, request)
        queue.remove((owner, request))
        if not queue:
            del self._queues[key]
            return True, None
        if not held:
            return True, None
        self.granted += 1
        return True, queue[0]

    def owner_died(self, owner: str) -> list[tuple[str, tuple[str, int]]]:
        """Drop all of *owner*; returns the keys that have a new holder, and whom."""
        moved: list[tuple[str, tuple[str, int]]] = []
        for key, queue in list(self._queues.items()):
            held = queue[0][0] == owner
            kept = deque(entry for entry in queue if entry[0] != owner)
            if not kept:
                del self._queues[key]
                continue
            self._queues[key] = kept
            if held:
                self.granted += 1
                moved.append((key, kept[0]))
        return moved

    def held(self) -> dict[str, str]:
        """Key to owner of every lock that is held, for status."""
        return {key: queue[0][0] for key, queue in self._queues.items()}


_encoder = msgspec.msgpack.Encoder()
