"""Output on its way to something that may be slow or stuck: a terminal, a pipe, a disk.

Who adds never waits. One thread writes; it comes with the first block and goes when there has been nothing to do
for a while, so a backlog needs no owner to end it.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.output.text import HOST, Block, date_and_time

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

NOTE_SECONDS = 5.0
"""Between two notes that lines of one process were left out. A flood would fill the log with them: one each 16 KiB."""


@dataclass(frozen=True, slots=True)
class Omitted:
    """Lines of one process that there was no room for."""

    lines: int
    """Since the note before this one; their sum over all notes is exact."""
    total: int
    """Since this flood began: as long as notes follow each other."""
    since: float
    """``time.time()`` of that beginning."""

    def words(self, what: str, why: str) -> str:
        """For a log line: ``1,204 lines of bot were not shown: they came faster than the console takes them``.

        Args:
            what: follows the number.
            why: follows a colon.
        """
        in_all = f" ({self.total:,} since {date_and_time(self.since)})" if self.total > self.lines else ""
        return f"{self.lines:,} {what}: {why}{in_all}"


Taken = tuple[Omitted | None, Block]
"""A block, and a note that is to stand before it. The block of a note that stands alone has no lines."""


class Backlog:
    """Bounded, fair between processes, newest first to keep.

    When it is full, the process that has most in it loses its oldest block; the host itself comes last, after
    all others have nothing left. What was left out is noted at the end of the flood and every ``NOTE_SECONDS`` of it.

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
        self._closing = False
        self._closed = False
        self._empty()
        _backlogs.add(self)

    def _empty(self) -> None:
        # Reentrant: a signal handler or a finalizer may log while its own thread is in here.
        self._changed = threading.Condition(threading.RLock())
        # Iterated as a copy: a finalizer may log in the middle, on this thread, under a name that is new here.
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
        with self._changed:
            self._closing = True
            if self._thread is None and self._owes_notes():
                self._start()
            self._changed.notify_all()
            written = self._changed.wait_for(lambda: not (self._size or self._writing or self._owes_notes()), timeout)
            self._closed = True
            self._sources.clear()
            self._size = 0
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LINGER_SECONDS)  # stays only when the system keeps it inside a write
        return written

    def _leave_out_oldest(self) -> None:
        children = [source for name, source in list(self._sources.items()) if name != HOST and source.waiting]
        loser = max(children, key=lambda source: source.size) if children else self._sources[HOST]
        block = self._pop(loser)
        loser.leave_out(block.lines)

    def _pop(self, source: _Source) -> Block:
        _, block = source.waiting.popleft()
        source.size -= _weight(block)
        self._size -= _weight(block)
        return block

    # The writing thread.

    def _start(self) -> None:
        thread = DaemonThread(self._run, name=self._thread_name)
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
            rested = self._changed.wait_for(self._has_work, LINGER_SECONDS)
            taken = [] if self._closed else [*self._take_notes(), *self._take()]
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
            if self._closed or not (rested or self._size or self._owes_notes()):
                self._thread = None
                return False
        return True

    def _take(self) -> list[Taken]:
        taken: list[Taken] = []
        weight = 0
        while self._size and weight < PIECE:
            waiting = [source for source in list(self._sources.values()) if source.waiting]
            self._served = min(source.served for source in waiting)
            level = [source for source in waiting if source.served < self._served + BAND]
            source = min(level, key=lambda source: source.waiting[0][0])
            block = self._pop(source)
            source.served += _weight(block)
            weight += _weight(block)
            taken.append((source.note(flood_is_over=not source.waiting, at_once=self._closing), block))
        if not self._size:  # nobody is ahead any more
            self._served = max(source.served for source in list(self._sources.values()))
        return taken

    def _has_work(self) -> bool:
        return bool(self._size or self._closed or (self._closing and self._owes_notes()))

    def _take_notes(self) -> list[Taken]:
        """Those that are due of processes with no block that they could stand before."""
        notes: list[Taken] = []
        for process, source in list(self._sources.items()):
            note = None if source.waiting else source.note(flood_is_over=True, at_once=self._closing)
            if note is not None:
                notes.append((note, Block(process, 0, 0, time.time(), b"")))
        return notes

    def _owes_notes(self) -> bool:
        return any(source.missing for source in list(self._sources.values()))


_backlogs: weakref.WeakSet[Backlog] = weakref.WeakSet()


def _begin_anew_in_fork() -> None:
    """A forked process has neither the thread nor, perhaps, the lock; what waits is its parent's to write."""
    for backlog in _backlogs:
        backlog._empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_fork)


class _Source:
    """What waits of one process, and what has been left out of it."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Block]] = deque()
        self.size = 0
        self.served = 0  # bytes it has had, and those it could have had while it was silent
        self.missing = 0  # lines left out since the last note
        self._missing_since = 0.0  # time.monotonic()
        self._noted_at = -math.inf  # time.monotonic()
        self._total = 0
        self._since = 0.0  # time.time()

    def leave_out(self, lines: int) -> None:
        if not self.missing:
            self._missing_since = time.monotonic()
            if self._missing_since - self._noted_at > 2 * NOTE_SECONDS:  # else the last flood goes on
                self._total, self._since = 0, time.time()
        self.missing += lines
        self._total += lines

    def note(self, *, flood_is_over: bool, at_once: bool) -> Omitted | None:
        """What is to be noted now, if anything."""
        now = time.monotonic()
        due = flood_is_over or now - self._missing_since >= NOTE_SECONDS
        if not self.missing or not (at_once or (due and now - self._noted_at >= NOTE_SECONDS)):
            return None
        lines, self.missing, self._noted_at = self.missing, 0, now
        return Omitted(lines, self._total, self._since)


def _weight(block: Block) -> int:
    return len(block.data) + BLOCK_OVERHEAD
