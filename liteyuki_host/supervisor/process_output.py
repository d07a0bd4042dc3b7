"""All output of one process, over all its starts."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.output import console
from liteyuki_host.output.backlog import BLOCK_OVERHEAD, MiB
from liteyuki_host.output.pipe import make_pipe
from liteyuki_host.output.text import Block, LineCutter

CAPACITY = 1 * MiB
"""Bytes of output that are kept of each process."""

FINISH_SECONDS = 2.0
"""To read what a child has left in its pipe. It takes milliseconds, unless something it started goes on writing."""

Sink = Callable[[Block], None]
"""Takes output on the reading thread. Must return quickly."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    number: int
    """1, 2, 3, ... over all starts of its process. What is missing has been dropped."""
    at: float
    """``time.time()`` when it was read."""
    text: str
    """With its colours; nothing else in it acts on a terminal."""


def to_the_console(block: Block) -> None:
    console.shared().show(block)


class Output:
    """The newest lines of one process, numbered; each is also passed on once.

    Its methods may be called from any thread.

    Args:
        capacity: bytes that are kept, together with what keeping costs. When it is full the oldest lines are
            dropped, up to 64 KiB of them at a time; what was read last is always there.
        show: where the lines also go to. A sink that raises is left out from then on.
    """

    def __init__(self, process: str, *, capacity: int = CAPACITY, show: Sequence[Sink] = (to_the_console,)) -> None:
        self.process = process
        self.on_line: Callable[[int], None] | None = None
        """Called on the reading thread with the number of the newest line, once for all that were read together."""
        self._capacity = capacity
        self._sinks = list(show)
        # Guards the three below. Re-entrant: a finalizer that reads lines may run on the thread that keeps them.
        self._lock = threading.RLock()
        self._blocks: deque[Block] = deque()
        self._size = 0
        self._last = 0

    @property
    def last(self) -> int:
        """The number of the newest line; 0: there was none yet."""
        return self._last

    def lines(self, after: int = 0, limit: int | None = None) -> tuple[list[OutputLine], int]:
        """The first ``limit`` lines after number ``after``, and how many after it have been dropped before them.

        The newest 100 are ``lines(output.last - 100)``. A full ring of 1 MiB takes some 50 ms: not for the event loop.
        """
        with self._lock:
            blocks = [block for block in self._blocks if block.first + block.lines > after + 1]
            oldest = self._blocks[0].first if self._blocks else self._last + 1
        found: list[OutputLine] = []
        for block in blocks:
            if limit is not None and len(found) >= limit:
                break
            for number, text in enumerate(block.text().split("\n"), block.first):
                if number > after:
                    found.append(OutputLine(number, block.at, text))
        return found[:limit], max(oldest - max(after, 0) - 1, 0)

    def open_pipe(self) -> OutputPipe:
        """A pipe for one start of the process.

        Raises:
            OSError: there are no descriptors left.
            RuntimeError, MemoryError: no thread can be started.
        """
        return OutputPipe(self.process, self._take)

    def _take(self, pieces: list[bytes]) -> None:
        if not pieces:
            return
        with self._lock:
            blocks = [self._keep(piece) for piece in pieces]
        for sink in tuple(self._sinks):
            try:
                for block in blocks:
                    sink(block)
            except Exception as error:  # the process that writes must not suffer
                if is_shortage(error):
                    continue  # these lines are not shown there; the next ones are
                self._sinks.remove(sink)
                logger.exception(f"output of {self.process} cannot be shown any more in one place")
        if self.on_line is not None:
            self._tell(self.on_line)

    def _keep(self, piece: bytes) -> Block:
        block = Block.of(self.process, piece, first=self._last + 1)
        self._last += block.lines
        self._blocks.append(block)
        self._size += len(piece) + BLOCK_OVERHEAD
        while self._size > self._capacity and len(self._blocks) > 1:
            self._size -= len(self._blocks.popleft().data) + BLOCK_OVERHEAD
        return block

    def _tell(self, on_line: Callable[[int], None]) -> None:
        try:
            on_line(self._last)
        except Exception:
            self.on_line = None
            logger.exception(f"who follows the output of {self.process} has failed, and is told nothing more")


class OutputPipe:
    """Stdout and stderr of one child, from its spawn to its end.

    ``Child.spawn(..., output=pipe.fileno)``, then :meth:`start`, or :meth:`abort` when the spawn has failed; at
    last :meth:`finish`. A thread reads as fast as the child writes, whatever becomes of the lines. It is there before
    the child, so that no child is without it when no thread can be started.

    Raises:
        OSError: there are no descriptors left.
        RuntimeError, MemoryError: no thread can be started.
    """

    def __init__(self, process: str, take: Callable[[list[bytes]], None]) -> None:
        self._take = take
        self._finish_by: float | None = None  # time.monotonic(); set when the child is gone
        self._boundary = Boundary(f"child {process}: reading its output")
        self._end, self.fileno = make_pipe()
        self._thread = DaemonThread(self._run, name=f"lycomm-output-{process}")
        try:
            self._thread.start()
        except BaseException:
            os.close(self.fileno)
            self._end.close()
            raise

    def start(self) -> None:
        """The child has its copy of the descriptor: close ours."""
        os.close(self.fileno)

    def abort(self) -> None:
        """There is no child."""
        os.close(self.fileno)
        self.finish(0.0)

    def finish(self, timeout: float = FINISH_SECONDS) -> None:
        """The child is gone: read what it has left in the pipe, for at most ``timeout`` seconds, and close it.

        Also when a process that it started still holds the other end: that one gets a broken pipe.
        """
        self._finish_by = time.monotonic() + timeout
        self._end.wake()
        self._thread.join()  # it never blocks, neither in a read nor in a sink
        self._end.close()

    def _run(self) -> None:
        while True:
            try:
                return self._read_all()
            except Exception as error:  # a child whose output is not read stops at its next line
                time.sleep(self._boundary.failed(error))

    def _read_all(self) -> None:
        cutter = LineCutter()
        while True:
            finish_by = self._finish_by  # before the read: what came before the child's end is then in the pipe
            chunk = self._end.read()
            now = time.monotonic()
            if chunk:
                self._take(cutter.feed(chunk, now))
            if chunk == b"" or (finish_by is not None and (chunk is None or now > finish_by)):
                break
            due = cutter.half_due()
            if due is not None and due <= now:
                self._take(cutter.take_half())
            elif not chunk:
                self._end.wait(None if due is None else due - now)
        self._take(cutter.finish())
