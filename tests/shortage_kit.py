"""Makes this process short of something for a moment."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Iterator

if sys.platform != "win32":
    import resource


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """The system's own limit: *count* more of them, and not one beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in itertools.count() if not _is_open(number))
    # Numbers below it are given. None at all: also not those that somebody else gives back just now.
    limit = next(itertools.islice(free, count, None)) if count else 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def threads_left(count: int) -> Iterator[None]:
    """Refused at the exact call: the system's limit is the user's, and needs another user than root."""
    start = threading.Thread.start
    left = count

    def start_if_there_is_room(thread: threading.Thread) -> None:
        nonlocal left
        if left == 0:
            raise RuntimeError("can't start new thread")
        left -= 1
        start(thread)

    threading.Thread.start = start_if_there_is_room  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
