"""Who watches the shared memory of a process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from liteyuki_host.comm.protocol.messages import Change

if TYPE_CHECKING:
    import asyncio

__all__ = ["Watcher", "WatcherList"]


class Watcher(Protocol):
    """Receives every change of the shared memory. No method may wait or raise."""

    def changed(self, key: str, event: bytes, change: Change | None = None) -> None:
        """Take the next change, one at a time.

        Args:
            event: the change as an encoded ``Change``.
            change: the same decoded, if that has been done.
        """
        ...

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call functions on *loop* from now on."""
        ...

    def detach_loop(self) -> None:
        """Call no functions until there is another loop."""
        ...

    def detached(self) -> None:
        """End: the process leaves its host, and there will be no more changes."""
        ...


References = tuple["weakref.ref[Watcher]", ...]


class WatcherList:
    """The watchers of one process, oldest first. Callable from any thread, and from a finalizer at any point.

    A watcher is referred to weakly: one whose reader has been broken off (``async for ...: break``) is gone with its
    last reference, and is dropped from the list at the next look. One that calls functions is kept until it is
    removed, as nobody else may refer to it.
    """

    def __init__(self) -> None:
        # Re-entrant: a finalizer that runs while this thread holds it may begin or end a watch.
        self._lock = threading.RLock()
        self._references: References = ()  # replaced as a whole, under the lock; read without it
        self._kept: tuple[Watcher, ...] = ()  # likewise

    def __bool__(self) -> bool:
        """False when there is surely no watcher."""
        return bool(self._references)

    def __len__(self) -> int:
        return len(self.now())

    def __iter__(self) -> Iterator[Watcher]:
        return iter(self.now())

    def now(self) -> Sequence[Watcher]:
        """The watchers that there are now. Called for every change of the shared memory."""
        references = self._references
        if not references:
            return ()
        watchers = [watcher for reference in references if (watcher := reference()) is not None]
        if len(watchers) < len(references):
            self._replace(lambda living: living)
        return watchers

    def add(self, watcher: Watcher) -> None:
        """Add *watcher*, which is held weakly."""
        self._replace(lambda living: (*living, weakref.ref(watcher)))

    def keep(self, watcher: Watcher) -> None:
        """Hold *watcher*, which has been added, until it is removed."""
        with self._lock:
            self._kept = (*self._kept, watcher)

    def remove(self, watcher: Watcher) -> None:
        """Remove *watcher*; nothing happens when it is not there."""
        self._replace(lambda living: tuple(reference for reference in living if reference() is not watcher))
        with self._lock:
            self._kept = tuple(kept for kept in self._kept if kept is not watcher)

    def _replace(self, change: Callable[[References], References]) -> None:
        """Replace the references by what *change* makes of those that are alive."""
        with self._lock:
            while True:
                before = self._references
                after = change(tuple(reference for reference in before if reference() is not None))
                if self._references is before:  # else a finalizer has come in between, in this thread
                    self._references = after
                    return
