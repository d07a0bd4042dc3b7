"""The line of the project that has made a call, also when a thread or a pool carries it out."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

from liteyuki_host._child.trouble import place_inside

_STANDARD_LIBRARY = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})


def place_of_call(
    frame: FrameType, folder: Path, called: Iterable[object], loop: asyncio.AbstractEventLoop | None
) -> str:
    """``plugins/weather.py line 12``: the innermost line of the project that leads to *frame*, on this thread or where
    it was asked for the call. Otherwise *frame* itself, or the thread's name when that is Python's own code.

    Args:
        folder: the project's.
        called: the functions that a task may have given to a thread (``asyncio.to_thread``).
        loop: the bot's, if it is known.
    """
    for frames in (outwards(frame), *_asking(called, loop)):
        for at in frames:
            place = place_inside(at.f_code.co_filename, at.f_lineno, folder)
            if place is not None:
                return place
    file = frame.f_code.co_filename
    if "site-packages" in Path(file).parts or not file.startswith((*_STANDARD_LIBRARY, "<")):
        return f"{file} line {frame.f_lineno}"
    return f"thread {threading.current_thread().name}"


def _asking(called: Iterable[object], loop: asyncio.AbstractEventLoop | None) -> Iterator[list[FrameType]]:
    """The frames of each task or thread that holds what was called, or this thread itself; innermost first."""
    this = threading.current_thread()
    if this is threading.main_thread():
        return
    # A task that has not begun to wait yet is what the loop's thread runs.
    chains = [list(_up_to_the_loop(each)) for ident, each in sys._current_frames().items() if ident != this.ident]
    if loop is not None:
        chains += [list(_inwards(task.get_coro()))[::-1] for task in asyncio.all_tasks(loop)]
    wanted = {id(this), *map(id, called)}  # comparing values could run code of theirs
    for frames in chains:
        if any(id(value) in wanted for at in frames for value in at.f_locals.values()):
            yield frames


def _up_to_the_loop(frame: FrameType) -> Iterator[FrameType]:
    """The frames of what an event loop runs, without those that run the loop, such as ``nonebot.run()``."""
    return takewhile(lambda at: at.f_code is not asyncio.Handle._run.__code__, outwards(frame))


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a stack, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _inwards(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of those that it awaits, outermost first."""
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield frame
        awaited = awaited.cr_await
