"""Barriers: finding out when every child has handed over what it had written to the shared memory.

A child's write returns when it has been queued; it may still lie in that child, or in its socket, when another process
asks for ``sync()``. So the host sends every other child a ``Barrier`` on the stream of the shared memory. The child's
link answers it on the same stream, behind every write that it has queued before, without needing the child's event
loop. When all have answered, all those writes have been ordered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["Barriers"]


class _Open:
    """A barrier that somebody waits for.

    Attributes:
        missing: the children that have neither answered nor gone. Changed under the lock of :class:`Barriers`.
        done: called once nobody is missing.
    """

    __slots__ = ("done", "missing")

    def __init__(self, missing: set[Session], done: Callable[[], None]) -> None:
        self.missing = missing
        self.done = done


class Barriers:
    """The barriers of a hub. Callable from any thread; what is told of them is called without a lock.

    A barrier ends with the last answer, or with the end of the last child that has not answered. A child that falls
    silent is ended by its supervisor, which bounds how many barriers there are.

    Args:
        monitor: that of the hub; None: one of its own.
    """

    def __init__(self, monitor: Monitor | None = None) -> None:
        self._lock = (monitor or Monitor()).lock
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}

    def open(self, sessions: Iterable[Session], done: Callable[[], None]) -> int | None:
        """Begin a barrier that *sessions* have to reach; each has to be told its number.

        Returns None if there are no sessions: then *done* is not called.
        """
        missing = set(sessions)
        if not missing:
            return None
        with self._lock:
            number = next(self._numbers)
            self._open[number] = _Open(missing, done)
        return number

    def reached(self, session: Session, number: int) -> None:
        """*session* has handed over everything that it had written when it was told of barrier *number*."""
        with self._lock:
            barrier = self._open.get(number)
            finished = barrier is not None and self._remove(number, barrier, session)
        if barrier is not None and finished:
            barrier.done()

    def gone(self, session: Session) -> None:
        """*session* has ended: everything that it had handed over has been taken in."""
        with self._lock:
            finished = [
                barrier for number, barrier in list(self._open.items()) if self._remove(number, barrier, session)
            ]
        for barrier in finished:
            barrier.done()

    def _remove(self, number: int, barrier: _Open, session: Session) -> bool:
        """Wait no longer for *session*; returns whether it was the last one. The caller holds the lock."""
        if session not in barrier.missing:
            return False
        barrier.missing.remove(session)
        if not barrier.missing:
            del self._open[number]
        return not barrier.missing
