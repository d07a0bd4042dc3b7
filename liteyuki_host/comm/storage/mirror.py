"""The replica of the shared memory in a process, as a plain data structure: no link, no lock, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from liteyuki_host.comm.protocol.messages import Change
from liteyuki_host.comm.storage.values import MISSING, Expiring, pack, shown

__all__ = ["Mirror", "OwnWrite"]

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
            self._held[key] = self.view.get(key, MISSING)
        self._pending[key] = request
        value = pack(payload)
        self.view[key] = value if deadline is None else Expiring(value, deadline)

    def own_remove(self, request: int, key: str) -> None:
        if key not in self._pending:
            self._held[key] = self.view.get(key, MISSING)
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
                        self.view[key] = shown(value, now + ttl)
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
            held = MISSING if held.payload is None else shown(held.payload, held.deadline)
        if held is MISSING:
            self.view.pop(key, None)
        else:
            self.view[key] = held

    def load(self, items: Iterable[tuple[str, bytes, int, float | None]], revision: int, now: float) -> None:
        """Replace everything by a snapshot. Own writes under way stay shown."""
        own_values = {key: self.view.get(key, MISSING) for key in self._pending}
        fresh: dict[str, object] = {}
        self._revisions = {}
        held: dict[str, object] = dict.fromkeys(self._pending, MISSING)
        for key, payload, key_revision, ttl in items:
            fresh[key] = shown(payload, None if ttl is None else now + ttl)
            self._revisions[key] = key_revision
            if key in held:
                held[key] = fresh[key]
        for key, own in own_values.items():
            if own is MISSING:
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


class _Unseen(msgspec.Struct, frozen=True):
    """A value, or None for a missing one, that the view does not show yet."""

    payload: bytes | None
    deadline: float | None
