"""The shared memory's authority, callable from any thread: the store and the locks, in one order.

The hub has one for all processes; a bot without a host has one for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.protocol.messages import Change
from liteyuki_host.comm.storage.lock_table import LockTable
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.storage.store import DEFAULT_MEMORY_LIMIT, Store
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["Authority"]

Reply = Callable[[Outcome], None]


class Authority:
    """See the module's docstring.

    Args:
        limit: bytes of the whole shared memory.
        view: the dict that reads go to.
        on_change: called with the fields of each ``Change``, in order, under the lock; must not wait. Behind them, the
            owner that has asked for a plain write, and so knows what it is; else None.
        on_deadline: called when a key with a ttl was written, so that somebody calls :meth:`expire` in time; under the
            lock, too.
        monitor: guards the store and the locks, with everything else of its exchange; None: one of its own.
    """

    def __init__(
        self,
        *,
        limit: int = DEFAULT_MEMORY_LIMIT,
        view: dict[str, object],
        on_change: Callable[[int, str, bytes | None, float | None, str | None], None],
        on_deadline: Callable[[], None] = lambda: None,
        monitor: Monitor | None = None,
    ) -> None:
        self.lock = (monitor or Monitor()).lock
        self.store = Store(limit, view)
        self._locks = LockTable()
        self._waiting: dict[tuple[str, int], Reply] = {}
        self._on_change = on_change
        self._on_deadline = on_deadline
        self._next_deadline: float | None = None

    @property
    def may_expire(self) -> bool:
        """Whether some key may have a ttl. False is certain; takes no lock."""
        return self._next_deadline is not None

    def put(self, owner: str, key: str, value: bytes, ttl: float | None, ephemeral: bool) -> int:
        """Write for *owner*; returns the revision, or 0 when there is no room. The caller holds the lock."""
        now = time.monotonic()
        if self._next_deadline is not None and self._next_deadline <= now:
            self.expire()
        revision = self.store.write(key, value, now, ttl, owner if ephemeral else None, owner)
        if revision:
            self._on_change(revision, key, value, ttl, owner)
            if ttl is not None:
                self._next_deadline = self.store.next_deadline()
                self._on_deadline()
        return revision

    def perform(self, owner: str, request: messages.Request, reply: Reply) -> None:
        """Do what *request* of *owner* asks; *reply* is called with the outcome, for a lock when it is granted."""
        with self.lock:
            if isinstance(request, messages.Put):
                revision = self.put(owner, request.key, request.value, request.ttl, request.ephemeral)
                reply(self.store.outcome(revision))
                return
            now = time.monotonic()
            if self._next_deadline is not None and self._next_deadline <= now:
                self.expire()
            store = self.store
            changes: list[Change] = []
            writer: str | None = None
            if isinstance(request, messages.Remove):
                outcome, changes = store.remove(request.key)
                writer = owner
            elif isinstance(request, messages.Increment):
                outcome, changes = store.increment(request.key, request.by, now)
            elif isinstance(request, messages.Compare):
                outcome, changes = store.compare(
                    request.key, request.expected, request.value, request.revision, now, writer=owner
                )
            elif isinstance(request, messages.Acquire):
                self._waiting[owner, request.id] = reply
                if self._locks.acquire(request.key, owner, request.id):
                    self._grant((owner, request.id))
                return
            elif isinstance(request, messages.Release):
                held, following = self._locks.release(request.key, owner, request.holder)
                self._waiting.pop((owner, request.holder), None)
                if following is not None:
                    self._grant(following)
                outcome = Outcome(None if held else Refusal.NOT_HELD, None, store.revision)
            elif isinstance(request, messages.Withdraw):
                holding = self._locks.withdraw(request.key, owner, request.holder)
                if holding is None:
                    outcome = Outcome(None, None, store.revision)
                else:
                    self._waiting.pop((owner, request.holder), None)
                    name = holding.partition("#")[0]  # without its incarnation
                    outcome = Outcome(Refusal.HELD, name.encode(), store.revision)
            else:
                outcome = Outcome(None, None, store.revision)
            self._tell(changes, writer)
            reply(outcome)

    def expire(self) -> float | None:
        """Delete what has outlived its ttl; returns the seconds until the next does."""
        with self.lock:
            now = time.monotonic()
            changes = self.store.expire(now)
            self._next_deadline = self.store.next_deadline()
            self._tell(changes, None)
            return None if self._next_deadline is None else max(self._next_deadline - now, 0.0)

    def owner_died(self, owner: str) -> None:
        """Free the locks and delete the ephemeral keys of *owner*, in one step."""
        with self.lock:
            for key in [key for key in self._waiting if key[0] == owner]:
                del self._waiting[key]
            changes = self.store.owner_died(owner)
            self._tell(changes, None)
            for _, holder in self._locks.owner_died(owner):
                self._grant(holder)

    def held_locks(self) -> dict[str, str]:
        """Key to holder of every lock that is held."""
        with self.lock:
            return self._locks.held()

    def waiting_for_locks(self) -> dict[str, int]:
        """Key to the number of those who wait for it, of every lock that is held."""
        with self.lock:
            return self._locks.waiting()

    def _tell(self, changes: list[Change], writer: str | None) -> None:
        for change in changes:
            self._on_change(change.revision, change.key, change.value, change.ttl, writer)

    def _grant(self, holder: tuple[str, int]) -> None:
        reply = self._waiting.pop(holder, None)
        if reply is not None:
            reply(Outcome(None, None, self._locks.granted))
