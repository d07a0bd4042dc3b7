"""A host as an operator starts it, and what its console says."""

from __future__ import annotations

import _winapi
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from liteyuki_host.supervisor.job_object import CREATE_SUSPENDED, JobObject

assert sys.platform == "win32"

DEADLINE = 30.0  # seconds, for one step of a host; on Wine a NoneBot child needs 3 to 6 to be ready

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

SYNCHRONIZE = 0x00100000


class Console(contextlib.AbstractContextManager["Console"]):
    """A running ``python bot.py``. Leaving the block ends it and all it started."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.port = free_port()
        self.lines: list[str] = []
        self._over = False
        self._news = threading.Condition()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._control: socket.socket | None = None
        self._job = JobObject.create()
        self.process = subprocess.Popen(
            [sys.executable, "bot.py"],
            cwd=folder,
            # Settings of a host, and what says how these tests are run, would be settings of this one.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("LYCOMM_")},
                "HOST": "127.0.0.1",
                "PORT": str(self.port),
                "TEST_CONTROL_PORT": str(self._server.getsockname()[1]),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED,
        )
        self._job.assign(self.process)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._job.terminate()
        self._job.close()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._server.close()
        if self._control is not None:
            self._control.close()
        print(self.text)  # pytest shows it when the test has failed

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as console:
            for line in console:
                self._add(COLOURS.sub("", line.decode("utf-8", "replace").rstrip()))
        self._add("(nobody writes here any more)", over=True)

    def _add(self, line: str, *, over: bool = False) -> None:
        with self._news:
            self.lines.append(line)
            self._over = over
            self._news.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, times: int = 1) -> list[re.Match[str]]:
        """The first *times* lines from number *after* on that contain *pattern*."""
        with self._news:
            deadline = time.monotonic() + DEADLINE
            while True:
                found = [m for line in self.lines[after:] if (m := re.search(pattern, line))]
                if len(found) >= times:
                    return found[:times]
                left = deadline - time.monotonic()
                if self._over or left <= 0:
                    raise AssertionError(f"{len(found)} of {times} lines with {pattern!r} in:\n{self.text}")
                self._news.wait(left)

    def wait_until_ready(self, after: int = 0) -> None:
        self.wait_for(r"child nonebot ready", after=after)

    def say(self, word: str) -> None:
        """Give the host's half of the test project an order."""
        if self._control is None:
            self._server.settimeout(DEADLINE)
            self._control, _ = self._server.accept()
        self._control.sendall(word.encode() + b"\n")

    def wait_for_end(self) -> int:
        """The exit code, when the host has ended and nobody writes to its console any more."""
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert not self._reader.is_alive(), "a process that the host has started is still there"
        return code


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int]:
    """A handle of a running process, for :func:`ended`; its number is not used again meanwhile."""
    handle = _winapi.OpenProcess(SYNCHRONIZE, False, pid)
    try:
        yield handle
    finally:
        _winapi.CloseHandle(handle)


def ended(handle: int, seconds: float) -> bool:
    """Whether the process ends within *seconds*."""
    return bool(_winapi.WaitForSingleObject(handle, int(seconds * 1000)) == _winapi.WAIT_OBJECT_0)
