"""The host watches its own event loop: a loop that does not turn supervises no bot, and nobody else would say so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import sysconfig
import threading
import time
import traceback
from enum import Enum, auto
from pathlib import Path
from types import CodeType, FrameType

from loguru import logger

from liteyuki_host.comm.threads import DaemonThread, call_soon

__all__ = ["SelfWatch", "Stall", "Step"]

STALL_SECONDS = 10.0
"""A loop that has not turned for so long is told of. Half of what a bot gets by default before it is replaced, and far
above what a loaded machine does to a healthy loop."""

LOOK_SECONDS = 1.0
"""Between two looks. Each wakes the loop once."""

BUSY_SHARE = 0.05
"""Of a time in which the watch itself did not run: with more processor time than this used by the process, native code
held Python's lock; with less, the process was stopped, or the machine suspended. So little, because on an overloaded
machine native code does not get more."""

CLOSE_SECONDS = 1.0
"""For the thread to end. It takes milliseconds, unless it is kept inside a log line."""

MOST_FRAMES = 40
MOST_THREADS = 100
"""Of what is written of a stall: frames of each stack, and threads. A host has about 3 threads for each bot."""


class Step(Enum):
    """What a look has found."""

    NOTHING = auto()
    STALLED = auto()
    """The loop has not turned for STALL_SECONDS. Found once in each stall."""
    OVER = auto()
    """It turns again, after a stall that was found."""


class Stall:
    """Counts for how long a loop has not turned. Pure: times go in.

    Time in which the whole process was stopped (SIGSTOP, Ctrl+Z, a suspended machine or container) does not count: the
    loop could not turn, and nothing blocks it. The watch did not run then either, so its next look comes late, and the
    process has used next to no processor time since the last one.
    """

    def __init__(self, limit: float = STALL_SECONDS, interval: float = LOOK_SECONDS) -> None:
        self.seconds = 0.0
        """For which it has not turned, as far as is known; once it turns again, those of the stall that is over."""
        self._limit = limit
        self._late = 2 * interval
        self._interval = interval
        self._told = False

    def look(self, elapsed: float, busy: float, turned_ago: float | None) -> Step:
        """
        Args:
            elapsed: seconds since the last look, on a clock that never goes back.
            busy: seconds of processor time that the process has used since.
            turned_ago: seconds since the loop has turned, if it has since the last look. It is asked at each look and
                answers at once, so it is as many as *elapsed* while all is well.
        """
        was_stopped = elapsed > self._late and busy < BUSY_SHARE * elapsed
        if turned_ago is None:
            self.seconds += self._interval if was_stopped else elapsed
        elif self._told:
            self._told = False
            return Step.OVER
        else:
            self.seconds = 0.0 if was_stopped else max(turned_ago - self._interval, 0.0)
        if self.seconds < self._limit or self._told:
            return Step.NOTHING
        self._told = True
        return Step.STALLED


class SelfWatch:
    """Watches the running loop of the calling thread from a thread of its own, from :meth:`start` to :meth:`close`.

    Of each stall it writes two lines: what stands on top of the loop's thread together with the stacks of all threads,
    and that the loop turns again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit: float = STALL_SECONDS) -> None:
        """
        Args:
            limit: seconds.
        """
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._interval = min(LOOK_SECONDS, limit / 4)
        self._stall = Stall(limit, self._interval)
        self._turned_at: float | None = None  # time.monotonic(); None: it has not answered yet
        self._over = threading.Event()
        self._thread = DaemonThread(self._run, name="lycomm-self-watch")

    def start(self) -> None:
        """Call once. Without a thread, for a shortage, the host goes on without its watch, which is logged."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            logger.warning(f"the host does not watch its own event loop: {error}")
        else:
            self._loop.call_soon(self._note_turn)

    def close(self) -> None:
        """More calls do nothing."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception:
            logger.exception("the host does not watch its own event loop any more; please report this")

    def _watch(self) -> None:
        looked_at, used = time.monotonic(), time.process_time()
        while not self._over.wait(self._interval):
            now, busy = time.monotonic(), time.process_time()
            turned_at = self._turned_at
            turned_ago = None if turned_at is None else now - turned_at
            step = self._stall.look(now - looked_at, busy - used, turned_ago)
            looked_at, used = now, busy
            if step is Step.STALLED:
                self._tell()
            elif step is Step.OVER:
                logger.warning(f"the host's event loop turns again, after {self._stall.seconds:.0f} s")
            if turned_at is not None:
                self._turned_at = None
                if not call_soon(self._loop, self._note_turn):
                    return  # the loop has ended

    def _tell(self) -> None:
        where, stacks = _look_at_threads(self._loop_thread)
        logger.error(
            f"the host's event loop has not turned for {self._stall.seconds:.0f} s: {where} keeps it. Until it "
            "turns again bots go on, but none is watched, started, stopped or reloaded. Work that takes time "
            f"belongs into a thread (await anyio.to_thread.run_sync(...)). The stacks of all threads: {stacks}"
        )

    def _note_turn(self) -> None:
        self._turned_at = time.monotonic()


def _look_at_threads(loop_thread: int) -> tuple[str, str]:
    """The place that keeps the loop, and the stacks of all threads, each with its innermost call last."""
    frames = sys._current_frames()
    try:
        where = _place(_culprit(frames[loop_thread])) if loop_thread in frames else "something"
        lines = []
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        others = [ident for ident in frames if ident not in (loop_thread, threading.get_ident())]
        for ident in [loop_thread, *others][:MOST_THREADS]:
            if ident in frames:
                stack = traceback.format_stack(frames[ident])
                left_out = [f"  ({len(stack) - MOST_FRAMES} more)\n"] if len(stack) > MOST_FRAMES else []
                title = " (the event loop)" if ident == loop_thread else ""
                lines.append(f"thread {names.get(ident, ident)}{title}:\n{''.join(left_out + stack[-MOST_FRAMES:])}")
        if len(others) >= MOST_THREADS:
            lines.append(f"({len(others) - MOST_THREADS + 1} more threads)")
        return where, "".join("\n" + line.rstrip("\n") for line in lines)
    finally:
        del frames  # which would keep alive all that they name


def _culprit(on_top: FrameType) -> FrameType:
    """The innermost frame of somebody's own code: what it has called of Python and of libraries is not to blame."""
    frame: FrameType | None = on_top
    while frame is not None:
        if not _is_library(frame.f_code):
            return frame
        frame = frame.f_back
    return on_top


def _is_library(code: CodeType) -> bool:
    file = code.co_filename
    return file.startswith("<") or file.startswith(_LIBRARIES) or "site-packages" in Path(file).parts


def _libraries() -> tuple[str, ...]:
    """Where Python's own modules and this package lie."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parent)}
    return tuple(os.path.join(folder, "") for folder in folders if folder)


_LIBRARIES = _libraries()


def _place(frame: FrameType) -> str:
    file = frame.f_code.co_filename
    with contextlib.suppress(ValueError):  # another drive of Windows
        relative = os.path.relpath(file)
        file = file if relative.startswith(os.pardir) else relative
    return f"{file} line {frame.f_lineno} (in {frame.f_code.co_name})"
