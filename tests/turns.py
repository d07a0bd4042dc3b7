"""Tests that need the machine for themselves, in a run by several processes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class Turns:
    """Two locks in the file system that all processes of a run share, and that end with a process that dies.

    A test that runs with others has the second one shared, a test that runs alone has it exclusively. Each takes the
    first one for as long as it waits for the second. So nobody begins while somebody waits to be alone: otherwise that
    might wait for ever, as others always run. On Windows, which has no such locks, no test is alone.
    """

    def __init__(self, folder: Path) -> None:
        self._next = (folder / "next.lock").open("w")
        self._running = (folder / "running.lock").open("w")

    @contextlib.contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait until the test may run, and let others go on when it has."""
        if sys.platform == "win32":
            yield
            return
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._running, fcntl.LOCK_UN)
