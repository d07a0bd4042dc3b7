"""Shows where every thread of this process is, also while its event loop is blocked.

The writing is done in C: by a signal on POSIX, which works even while an extension holds the interpreter's lock and
when a stopped process is continued; over the link on Windows, which needs that lock. A crash of the interpreter
shows its threads in the same way.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys

STDERR = 2


class Stacks:
    """One per process: what the handlers in C write to stays open for as long as the process lives."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._output = _copy_of_stderr()

    def arm(self) -> None:
        """Call once, first thing, on the main thread. An operator's PYTHONFAULTHANDLER asked for the same."""
        faulthandler.enable(self._output, all_threads=True)
        if sys.platform != "win32":
            # A project that installs a handler of its own for this signal gets it.
            faulthandler.register(signal.SIGUSR2, self._output, all_threads=True, chain=False)

    def write(self) -> None:
        """Write them now. From any thread; waits for whoever reads stderr, for some 100 kB at most."""
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(self._output, f"{self._process}: stacks of all threads:\n".encode())
        faulthandler.dump_traceback(self._output, all_threads=True)


def _copy_of_stderr() -> int:
    """A descriptor that a project which closes its stderr leaves alone, and that no other program inherits."""
    try:
        return os.dup(STDERR)
    except OSError:  # there is none (pythonw). The signal must have a handler all the same: it would end the process
        return os.open(os.devnull, os.O_WRONLY)
