"""The shared memory's authority, callable from any thread: the store and the locks, in one order.

The hub has one for all processes; a bot without a host has one for itself.

Theory of operation
-------------------

Two plain data structures decide: the :class:`Store` (keys and values) and the :class:`LockTable` (who holds which lock,
who waits). The authority adds what these leave out: a lock, the clock, and telling others.

- *One order.* Every request is decided, told and answered under one lock. So everybody who is told under that lock
  (``on_change``) sees the changes in the order of their revisions, and an answer follows the changes that precede it.
- *Owners.* Whoever asks has a name: the host, ``local`` in a process without one, or one incarnation of a child
  (``echo#3``). Ephemeral keys and locks belong to the owner and go with it (:meth:`Authority.owner_died`).
- *Time.* A key with a ttl is deleted at its time by whoever calls :meth:`Authority.expire`: a clock, which
  ``on_deadline`` tells of new due times, and each request that finds something due. Readers compare the time
  themselves, so nobody sees an expired value meanwhile.
- *Locks.* A request for a lock that is not free is answered when the lock is granted. Until then its reply waits here
  (``_waiting``).

Replies and ``on_change`` are called under the lock. They put messages on links or wake waiters; they must not wait and
must not raise.
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
"""Is told the outcome of one request. Called once, under the lock."""


class Authority:
    """Decides all requests to one shared memory. Every method may be called from any thread.

    Args:
        limit: bytes of the whole shared memory.
        view: the dict that reads go to; changed in place by the store.
        on_change: called under the lock, in order, with the fields of each ``Change``: revision, key, value, ttl.
            Behind them the owner that has asked for a plain write, and so knows the value; None for every other change.
        on_deadline: called under the lock when a key with a ttl was written, so that somebody calls :meth:`expire` in
            time.
        monitor: guards the store and the locks, with everything else of its exchange; None: one of its own.

    Attributes:
        lock: that of *monitor*.
        store: the keys and values. Changed by this class alone, under the lock; its revision may be read without it.
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
        self._locks = LockTable()  # under the lock
        # By owner and request, the replies of those who wait for a lock; under the lock.
        self._waiting: dict[tuple[str, int], Reply] = {}
        self._on_change = on_change
        self._on_deadline = on_deadline
        # When the next key is due, by time.monotonic; None: no key has a ttl. Written under the lock. It may be too
        # early, after such a key was deleted or written again, and then costs one needless call of expire().
        self._next_deadline: float | None = None

    @property
    def may_expire(self) -> bool:
        """Whether some key may have a ttl. False is certain, True may be out of date. Takes no lock."""
        return self._next_deadline is not None

    def put(self, owner: str, key: str, value: bytes, ttl: float | None, ephemeral: bool) -> int:
        """Write for *owner*. Returns the revision, or 0 when there is no room and nothing was written.

        The caller holds the lock. Plain writes come here without an object for the request, as nearly all requests are
        plain writes.

        Args:
            ttl: seconds from now until the key is deleted; None: it stays.
            ephemeral: the key is deleted with its owner.
        """
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
        """Decide what *request* of *owner* asks, tell of its changes, and answer.

        Args:
            reply: called with the outcome, before this returns; for a lock that is not free, when it is granted.

        Where there is nothing to decide (``Sync`` in a process without a host) the outcome is empty.
        """
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
                # Noted even if it is granted at once, so that there is one way to grant.
                self._waiting[owner, request.id] = reply
                if self._locks.acquire(request.key, owner, request.id):
                    self._grant((owner, request.id))
                return
            elif isinstance(request, messages.Release):  # also by one that still waits
                held, following = self._locks.release(request.key, owner, request.holder)
                self._waiting.pop((owner, request.holder), None)
                if following is not None:
                    self._grant(following)
                outcome = Outcome(None if held else Refusal.NOT_HELD, None, store.revision)
            elif isinstance(request, messages.Withdraw):
                holding = self._locks.withdraw(request.key, owner, request.holder)
                if holding is None:  # it has been granted meanwhile, and that reply came first
                    outcome = Outcome(None, None, store.revision)
                else:
                    self._waiting.pop((owner, request.holder), None)
                    name = holding.partition("#")[0]  # without its incarnation
                    outcome = Outcome(Refusal.HELD, name.encode(), store.revision)
            else:
                outcome = Outcome(None, None, store.revision)
            self._tell(changes, writer)  # before the answer: who gets that finds the change made
            reply(outcome)

    def expire(self) -> float | None:
        """Delete every key that has outlived its ttl. Returns the seconds until the next one is due; None: no key has a
        ttl."""
        with self.lock:
            now = time.monotonic()
            changes = self.store.expire(now)
            self._next_deadline = self.store.next_deadline()
            self._tell(changes, None)
            return None if self._next_deadline is None else max(self._next_deadline - now, 0.0)

    def owner_died(self, owner: str) -> None:
        """Free the locks of *owner*, delete its ephemeral keys and forget what it waits for, in one step. The next in
        line are granted their locks after the keys are gone."""
        with self.lock:
            # First, so that no lock is granted to the dead owner.
            for key in [key for key in self._waiting if key[0] == owner]:
                del self._waiting[key]
            changes = self.store.owner_died(owner)
            self._tell(changes, None)
            for _, holder in self._locks.owner_died(owner):
                self._grant(holder)

    def held_locks(self) -> dict[str, str]:
        """Return, by key, the owner that holds each lock."""
        with self.lock:
            return self._locks.held()

    def waiting_for_locks(self) -> dict[str, int]:
        """Return, by key, how many wait for each lock that is held."""
        with self.lock:
            return self._locks.waiting()

    def _tell(self, changes: list[Change], writer: str | None) -> None:
        """Tell of *changes*, in order. The caller holds the lock."""
        for change in changes:
            self._on_change(change.revision, change.key, change.value, change.ttl, writer)

    def _grant(self, holder: tuple[str, int]) -> None:
        """Answer *holder*, whom the lock table has given a lock; the revision in the outcome is the fencing number. The
        caller holds the lock."""
        reply = self._waiting.pop(holder, None)
        if reply is not None:
            reply(Outcome(None, None, self._locks.granted))
