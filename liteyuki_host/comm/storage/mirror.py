"""The copy of the shared memory in a process under a host, as a plain data structure: no link, lock or clock.

Theory of operation
-------------------

The mirror follows the host's order, one revision after the other, and shows it in the *view*, the dict that readers
look into without a lock. There is one exception: a key that this process has written itself shows that write at once,
before the host has ordered it. Such a key is *pending*.

While a key is pending, what the host says about it is *held back*. When its newest own write is done, the host's state
is shown. So a reader never sees its own write, then an older value, then its write again. Per key::

    not pending:  view = the host's state
    pending:      view = the newest own write;  _held = the host's state;  _pending = number of that write

An own write ends in one of two ways. *Ordered*: it has become a revision, and if no newer own write is under way, the
view shows it already. *Done*: it was refused, or there was nothing to delete; the held state is shown again.

A snapshot replaces everything but the pending keys. It may contain own writes that are reported as ordered afterwards:
their revisions are not newer than the snapshot's, so they are only taken from the pending ones.

Used by :class:`~liteyuki_host.comm.storage.replica.Replica` alone, under its lock. Readers use the view without it, so
the view is never empty in between, and always the same dict.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from liteyuki_host.comm.protocol.messages import Change
from liteyuki_host.comm.storage.values import MISSING, Expiring, pack, shown

__all__ = ["Mirror", "OwnWrite"]

OwnWrite = tuple[str, bytes | None, float | None, Any]
"""A write that this process has asked for, as key, value, ttl, and whatever the asker keeps with it."""


class Mirror:
    """A copy that shows own writes at once and the host's order in the end. See the module's docstring.

    Times (*now*, deadlines) are seconds of the caller's monotonic clock; a ttl is seconds from now.

    Attributes:
        view: key to value as readers get it (``values.py``).
        revision: the last step of the host's order that was taken.
    """

    def __init__(self, view: dict[str, object] | None = None) -> None:
        self.view: dict[str, object] = {} if view is None else view
        self.revision = 0
        self._revisions: dict[str, int] = {}  # of the last change of each key in the host's state
        # The host's state of each pending key: a value as the view has it, MISSING, or an _Unseen one, which has come
        # since and is unpacked only if it is ever shown.
        self._held: dict[str, object] = {}
        self._pending: dict[str, int] = {}  # request number of each pending key's newest own write

    def own_put(self, request: int, key: str, payload: bytes, deadline: float | None) -> None:
        """Show an own write, sent as *request*; *deadline*: when it expires, or None."""
        if key not in self._pending:
            self._held[key] = self.view.get(key, MISSING)
        self._pending[key] = request
        value = pack(payload)
        self.view[key] = value if deadline is None else Expiring(value, deadline)

    def own_remove(self, request: int, key: str) -> None:
        """Show an own deletion, sent as *request*."""
        if key not in self._pending:
            self._held[key] = self.view.get(key, MISSING)
        self._pending[key] = request
        self.view.pop(key, None)

    def apply(self, change: Change, now: float) -> bool:
        """Take the host's next step. Returns False when one before it is missing; nothing has changed then.

        A step that was taken already, as part of a snapshot, is skipped.
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
        """Take own writes as the host's next steps: those from *request* on are the steps from *revision* on. Returns
        False when a step before them is missing; nothing has changed then."""
        if revision > self.revision + 1:
            return False
        pending, held, revisions = self._pending, self._held, self._revisions
        for key, value, ttl, _ in writes:
            if revision <= self.revision:  # a snapshot has brought it, and has put the host's state into _held
                self.done(request, key)
            else:
                self.revision = revision
                if value is None:
                    revisions.pop(key, None)
                else:
                    revisions[key] = revision
                if pending.get(key) == request:  # it is the newest, and what the view shows
                    del pending[key]
                    del held[key]
                    if value is not None and ttl is not None:  # the time counts from the host's decision
                        self.view[key] = shown(value, now + ttl)
                else:  # a newer own write is shown; this one is the host's state now
                    held[key] = _Unseen(value, None if ttl is None else now + ttl)
            request += 1
            revision += 1
        return True

    def done(self, request: int, key: str) -> None:
        """End own write *request*, which has changed nothing, or is part of the host's state already. If it was the
        key's newest, show the host's state; else the newer one stays shown."""
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
        """Replace everything by a snapshot of the given *revision*: key, payload, revision and remaining ttl of each
        item. Own writes under way stay shown."""
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
        # The view stays the same object, as readers hold it. New and changed keys first, then the vanished ones, so
        # that a reader in between misses no key that is in both states.
        self.view.update(fresh)
        for key in [key for key in self.view if key not in fresh]:
            del self.view[key]

    def revision_of(self, key: str) -> int:
        """Return the revision of the key's last change in the host's state; 0 when it is missing there."""
        return self._revisions.get(key, 0)

    def is_pending(self, key: str) -> bool:
        """Whether the view shows an own write that is not done yet."""
        return key in self._pending


class _Unseen(msgspec.Struct, frozen=True):
    """A held-back state that is still encoded. *payload* None: the key is missing; *deadline* None: it stays."""

    payload: bytes | None
    deadline: float | None
