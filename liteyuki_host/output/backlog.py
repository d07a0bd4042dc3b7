"""Output on its way to something that may be slow or stuck: a terminal, a pipe, a disk.

Who adds never waits. One thread writes; it comes with the first block and goes when there has been nothing to do
for a while, so a backlog needs no owner to end it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from liteyuki_host.log import HOST

from .text import Block

KiB = 1024
MiB = 1024 * KiB

LIMIT = 4 * MiB
"""Bytes that wait at most, of all processes together: half a second at full speed."""

RATE = 8 * MiB
"""Bytes per second. More than anybody reads or a disk should get from a log; making the text of a flood of
100 MB/s readable would cost the host a whole core."""

PIECE = 16 * KiB
"""Bytes that are taken and written at a time."""

BAND = 64 * KiB
"""Lines are written in the order of their arrival, unless one process is so far ahead of the others."""

LINGER_SECONDS = 1.0
BLOCK_OVERHEAD = 200  # bytes of objects around each block's data; else a million empty lines would weigh nothing

Taken = tuple[int, Block]
"""A block, and how many lines of its process before it have been left out."""


class Backlog:
    """Bounded, fair between processes, newest first to keep.

    When it is full, the process that has most in it loses its oldest block; the host itself comes last, after
    all others have nothing left.

    Args:
        thread_name: of the writing thread.
        write: called on that thread, may block.
        idle: called on that thread before it goes.
    """

    def __init__(
        self,
        thread_name: str,
        write: Callable[[list[Taken]], None],
        *,
        idle: Callable[[], None] = lambda: None,
        limit: int = LIMIT,
        rate: int = RATE,
    ) -> None:
        self._thread_name = thread_name
        self._write = write
        self._idle = idle
        self._limit = limit
        self._rate = rate
        self._closed = False
        self._empty()
        _backlogs.add(self)

    def _empty(self) -> None:
        # Reentrant: a signal handler or a finalizer may log while its own thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._sources: dict[str, _Source] = {}
        self._size = 0
        self._arrivals = 0
        self._served = 0  # what each process has had at least, or could have had
        self._writing = False
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def add(self, block: Block) -> None:
        """From any thread; never waits. Nothing happens after :meth:`close`."""
        with self._changed:
            if self._closed:
                return
            source = self._sources.setdefault(block.process, _Source())
            if not source.waiting:
                source.served = max(source.served, self._served)  # no credit for having been silent
            self._arrivals += 1
            source.waiting.append((self._arrivals, block))
            source.size += _weight(block)
            self._size += _weight(block)
            while self._size > self._limit:
                self._leave_out_oldest()
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is written, for at most ``timeout`` seconds. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._size or self._writing), timeout)

    def close(self, timeout: float) -> bool:
        """Flush, then accept nothing more. What is not written by then is lost. Returns whether all was."""
        written = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._sources.clear()
            self._size = 0
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LINGER_SECONDS)  # stays only when the system keeps it inside a write
        return written

    def _leave_out_oldest(self) -> None:
        children = [source for name, source in self._sources.items() if name != HOST and source.waiting]
        loser = max(children, key=lambda source: source.size) if children else self._sources[HOST]
        block = self._pop(loser)
        loser.missing += block.lines

    def _pop(self, source: _Source) -> Block:
        _, block = source.waiting.popleft()
        source.size -= _weight(block)
        self._size -= _weight(block)
        return block

    # The writing thread.

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads, or the interpreter is ending: the next block tries again
            return
        self._thread = thread

    def _run(self) -> None:
        try:
            while self._work():
                pass
        finally:  # also by an error, which threading reports; the next block starts a new thread
            with self._changed:
                if self._thread is threading.current_thread():  # else the next one is at work already
                    self._thread = None
                    self._writing = False
                    self._changed.notify_all()

    def _work(self) -> bool:
        """One round. False: there is nothing more to do."""
        with self._changed:
            rested = self._changed.wait_for(lambda: self._size or self._closed, LINGER_SECONDS)
            taken = [] if self._closed else self._take()
            self._writing = bool(taken)
        if taken:
            began, worked = time.monotonic(), time.thread_time()
            self._write(taken)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
            weight = sum(_weight(block) for _, block in taken)
            # At most half of one core: empty lines and escape sequences cost more than their bytes.
            time.sleep(max(began + weight / self._rate - time.monotonic(), time.thread_time() - worked))
            return True
        self._idle()
        with self._changed:
            if self._closed or not (rested or self._size):
                self._thread = None
                return False
        return True

    def _take(self) -> list[Taken]:
        taken: list[Taken] = []
        weight = 0
        while self._size and weight < PIECE:
            waiting = [source for source in self._sources.values() if source.waiting]
            self._served = min(source.served for source in waiting)
            level = [source for source in waiting if source.served < self._served + BAND]
            source = min(level, key=lambda source: source.waiting[0][0])
            block = self._pop(source)
            source.served += _weight(block)
            weight += _weight(block)
            taken.append((source.missing, block))
            source.missing = 0
        if not self._size:  # nobody is ahead any more
            self._served = max(source.served for source in self._sources.values())
        return taken


_backlogs: weakref.WeakSet[Backlog] = weakref.WeakSet()


def _begin_anew_in_fork() -> None:
    """A forked process has neither the thread nor, perhaps, the lock; what waits is its parent's to write."""
    for backlog in _backlogs:
        backlog._empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_fork)


class _Source:
    """What waits of one process."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Block]] = deque()
        self.size = 0
        self.missing = 0
        self.served = 0  # bytes it has had, and those it could have had while it was silent


def _weight(block: Block) -> int:
    return len(block.data) + BLOCK_OVERHEAD
