"""Code that runs in the middle of lycomm's own, at a chosen line, as a finalizer or a signal handler may.

A trace function is called before each line, on the same thread and with everything as it is there: locks held, queues
half changed. What it calls is what Python would call of a finalizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import liteyuki_host

__all__ = ["Interruption", "failing_at_call"]

ROOT = str(Path(str(liteyuki_host.__file__)).parent)
ROOMS = (f"{ROOT}/comm/", f"{ROOT}/hub/")


def _ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(ROOMS)


class Interruption:
    """Calls *function* before line number *at* of lycomm that this thread comes to; or before every so many lines.

    Args:
        every: call it again after as many lines.

    Attributes:
        lines: that have been passed.
        calls: of *function*.
        failures: what it has raised.
    """

    def __init__(self, function: Callable[[], object], at: int, *, every: int = 0) -> None:
        self._function = function
        self._next = at
        self._every = every
        self.lines = 0
        self.calls = 0
        self.failures: list[BaseException] = []

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if _ours(frame) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            if self.lines == self._next:
                self._next += self._every or sys.maxsize
                self.calls += 1
                try:
                    self._function()
                except BaseException as error:
                    self.failures.append(error)
            self.lines += 1
        return self._line

    @contextmanager
    def here(self) -> Iterator[Interruption]:
        """Interrupt this thread in the block."""
        sys.settrace(self.trace)
        try:
            yield self
        finally:
            sys.settrace(None)


@contextmanager
def failing_at_call(error: type[BaseException], at: int, *, without: frozenset[str]) -> Iterator[list[str]]:
    """Let call number *at* of a function of lycomm's, in this thread, raise *error* instead of beginning.

    Args:
        without: names of functions that are not counted, nor is what they call.

    Yields a list of the one function that has failed; empty as long as none has.
    """
    failed: list[str] = []
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        caller = frame.f_back
        names = {frame.f_code.co_name, "" if caller is None else caller.f_code.co_name}
        if event == "call" and not failed and _ours(frame) and not names & without:
            if count == at:
                failed.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)
                raise error("injected")
            count += 1

    sys.settrace(trace)
    try:
        yield failed
    finally:
        sys.settrace(None)
