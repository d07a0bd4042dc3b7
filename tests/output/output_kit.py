"""Children that print, and consoles that can be stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from liteyuki_host.output.text import Block
from liteyuki_host.supervisor.process_output import Output

DEADLINE = 15.0  # seconds, for anything that takes milliseconds on an idle machine
UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}

FLOOD = """
import os, sys, time
lines = (b"y" * 99 + b"\\n") * 655
seconds, written, longest = float(sys.argv[1]), 0, 0.0
begin = before = time.monotonic()
while before - begin < seconds:
    written += os.write(1, lines)
    now = time.monotonic()
    longest, before = max(longest, now - before), now
print(f"{written / seconds / 1e6:.0f} MB/s, longest write {longest:.3f} s")
"""


@contextmanager
def printing(output: Output, program: str, *arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A running Python child whose output is read; left when it has ended and all is read."""
    options.setdefault("env", UNBUFFERED)
    pipe = output.open_pipe()
    command = [sys.executable, "-c", program, *arguments]
    child = subprocess.Popen(  # type: ignore[call-overload]
        command, stdin=subprocess.PIPE, stdout=pipe.fileno, stderr=subprocess.STDOUT, **options
    )
    pipe.start()
    try:
        with child:
            yield child
            child.stdin.close()
            child.wait(DEADLINE)
    finally:
        child.kill()
        child.wait()
        pipe.finish()


def quiet(process: str = "bot", **options: int) -> Output:
    """An output that is only kept."""
    return Output(process, show=(), **options)


def texts(output: Output) -> list[str]:
    return [line.text for line in output.lines()[0]]


class Newest:
    """Waits for lines of an output, told by ``on_line``."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told = threading.Condition()
        output.on_line = self._tell

    def _tell(self, number: int) -> None:
        with self._told:
            self._told.notify_all()

    def wait_for(self, wanted: Callable[[list[str]], bool]) -> None:
        with self._told:
            assert self._told.wait_for(lambda: wanted(texts(self._output)), DEADLINE), texts(self._output)


def block(process: str, *lines: str) -> Block:
    return Block.of(process, "\n".join(lines).encode())


class StoppableReader:
    """A pipe as a host's stdout; nobody reads it until :meth:`read`."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w", encoding="utf-8")
        self._thread: threading.Thread | None = None
        self._read = b""

    def read(self) -> None:
        self._thread = threading.Thread(target=self._read_all)
        self._thread.start()

    def _read_all(self) -> None:
        while chunk := os.read(self._reader, 65536):
            self._read += chunk

    def lines(self) -> list[str]:
        """All that was written; ends the pipe."""
        if self._thread is None:
            self.read()
        self.stream.close()
        assert self._thread
        self._thread.join(DEADLINE)
        return self._read.decode().splitlines()

    def hang_up(self) -> None:
        os.close(self._reader)

    def close(self) -> None:
        self.stream.close()
        if self._thread is not None:
            self._thread.join(DEADLINE)
        try:
            os.close(self._reader)
        except OSError:
            pass
