"""Asking an interpreter something by ``python -c``, whatever the program in its place does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from liteyuki_host.comm.threads import DaemonThread

OUTPUT_BYTES = 64 * 1024
"""Of an answer. One that prints more is no interpreter, or one whose packages print without end."""

LAST_WORDS_SECONDS = 1.0
"""For what it has printed to be read once it has ended. Only what has left its group holds the pipe for longer."""

HELLO = "lycomm?"
"""What the code prints first that is asked: who does not print it does not run Python."""


@dataclass(frozen=True)
class Answer:
    """How the process has ended, and what it has printed to both of its streams."""

    returncode: int
    lines: Sequence[str]
    complete: bool
    """Whether this is all of it."""

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "").strip()

    @property
    def of_python(self) -> bool:
        """Whether Python has answered, to code that begins with :data:`HELLO`."""
        return HELLO in self.lines

    def after(self, mark: str) -> list[str]:
        """The lines below the last one that is *mark*; empty if there is none."""
        return list(self.lines[self._last(mark) + 1 :]) if mark in self.lines else []

    def _last(self, mark: str) -> int:
        return max(at for at, line in enumerate(self.lines) if line == mark)


def ask(
    python: Path,
    code: str,
    *,
    folder: Path,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Answer:
    """Run *code* in *folder*. The process and its group are gone afterwards. Blocks; not for the event loop.

    Args:
        environment: None: our own.
        arguments: become its ``sys.argv[1:]``.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it has not ended within *seconds*.
        RuntimeError, MemoryError: no thread can be started that reads the answer.
    """
    process = subprocess.Popen(
        [str(python), "-c", f"print({HELLO!r}, flush=True)\n{code}", *arguments],
        cwd=folder,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=sys.platform != "win32",
    )
    assert process.stdout is not None
    output = bytearray()
    reader = DaemonThread(_read, name="lycomm-interpreter", args=(process, process.stdout, output))
    try:
        reader.start()
        process.wait(seconds)
    finally:
        _kill(process)
        process.wait()
        if reader.ident is None:
            process.stdout.close()
    reader.join(LAST_WORDS_SECONDS)
    text = bytes(output[:OUTPUT_BYTES]).decode("utf-8", "replace")
    return Answer(process.returncode, text.splitlines(), len(output) <= OUTPUT_BYTES)


def no_interpreter(python: Path) -> str:
    """What an operator is told of a program that does not answer as Python does."""
    return f"{python} is no Python interpreter that answers: correct python in [tool.lycomm.processes]"


def _read(process: subprocess.Popen[bytes], stream: IO[bytes], output: bytearray) -> None:
    with stream:
        while len(output) <= OUTPUT_BYTES and (block := os.read(stream.fileno(), OUTPUT_BYTES)):
            output += block
    if len(output) > OUTPUT_BYTES:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # also what a wrapper has started
