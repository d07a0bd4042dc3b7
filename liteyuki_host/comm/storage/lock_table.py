"""The locks of the shared memory, as a plain data structure: who holds which, and who waits."""

from __future__ import annotations

from collections import deque

__all__ = ["LockTable"]


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

    def withdraw(self, key: str, owner: str, request: int) -> str | None:
        """Stop waiting, unless the lock has been granted. Returns the owner that holds it; None: it was granted, or not
        asked for."""
        queue = self._queues.get(key)
        if queue is None or queue[0] == (owner, request) or (owner, request) not in queue:
            return None
        queue.remove((owner, request))
        return queue[0][0]

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

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each lock that is held."""
        return {key: len(queue) - 1 for key, queue in self._queues.items()}

    def held(self) -> dict[str, str]:
        """Key to owner of every lock that is held, for status."""
        return {key: queue[0][0] for key, queue in self._queues.items()}
