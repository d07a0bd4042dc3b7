"""A host on a real terminal: somebody types, and looks at the screen."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE = 40.0  # seconds; a host with a console of its own needs 5 of them on a busy machine

# A new session, whose controlling terminal is its standard input: what a terminal window starts its shell with.
ON_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    def __init__(self, folder: Path, command: Sequence[str], **environment: str) -> None:
        self._master, self.slave = os.openpty()
        self.resize(24, 80)
        self.modes = termios.tcgetattr(self.slave)
        env = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *command],
            cwd=folder,
            env={**env, "TERM": "xterm", "NO_COLOR": "1", **environment},
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def see(self, pattern: str, *, after: int = 0, timeout: float = DEADLINE) -> re.Match[str]:
        """The first text on the screen, past or coming, that matches."""
        deadline = time.monotonic() + timeout
        while (found := re.compile(pattern, re.MULTILINE).search(self.shown, after)) is None:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} is not on the screen:\n{self.shown}")
        return found

    def wait(self, timeout: float = DEADLINE) -> int:
        """The exit code; meanwhile the screen takes what is written."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self._read(0.1)
            assert time.monotonic() < deadline, f"it has not ended:\n{self.shown}"
        while self._read(0.1):
            pass
        return self.process.returncode

    @property
    def lines(self) -> list[str]:
        return [line.rstrip("\r") for line in self.shown.split("\n")]

    def modes_now(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], max(timeout, 0))[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # everybody has closed it
            return False
        self.shown += chunk.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(chunk)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.wait(20)
            except AssertionError:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        os.close(self._master)
        os.close(self.slave)


@contextmanager
def on_a_terminal(folder: Path, *arguments: str, **environment: str) -> Iterator[Terminal]:
    """``lycomm run`` in *folder*."""
    terminal = Terminal(folder, [sys.executable, "-m", "liteyuki_host", *(arguments or ("run",))], **environment)
    try:
        yield terminal
    finally:
        terminal.close()
