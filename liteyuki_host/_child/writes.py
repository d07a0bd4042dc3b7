"""Records which code files this process writes, so that the host can tell the bot's own writes from a developer's.

A host that reloads bots gives each of them, and each trial, an empty file (:mod:`liteyuki_host.supervisor.own_writes`).
An audit hook of the interpreter (PEP 578) sees every opening, renaming and deleting of a file by Python code, and adds
a line to it *before* the write happens: whoever sees the write finds the line. Programs that the bot starts are not
seen; that one was started is a line too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

VARIABLE = "LYCOMM_WRITES"
"""Environment variable: the path of the file that takes the record."""

PROGRAM = ""
"""Stands in a line where a path would: another program was started."""

OVERFLOW = "?"
"""Stands in the last line where a path would: there were more than ``MAX_LINES``."""

MAX_LINES = 10_000
"""About 1 MB with paths of 100 characters."""

REPEAT_SECONDS = 0.2
"""A file that is written all the time gets a line so often. Less than the quiet time after which the host looks at a
changed file (``file_watch.QUIET_SECONDS``)."""

_LEFT_BY_EDITORS = ("~", ".swp", ".swo", ".swx", ".tmp", ".bak", ".orig")  # of `.env` for instance
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_PATHS: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
    "open": lambda args: (args[0],) if (args[2] or 0) & _WRITING else (),
    "os.rename": lambda args: (args[0], args[1]),
    "os.remove": lambda args: (args[0],),
    "os.truncate": lambda args: (args[0],),
    "os.link": lambda args: (args[1],),
    "os.symlink": lambda args: (args[1],),
    "sqlite3.connect": lambda args: (args[0],),  # the library opens the file itself
    "shutil.copyfile": lambda args: (args[1],),  # Windows copies without opening the file
    "shutil.rmtree": lambda args: (args[0],),  # what it removes is relative to descriptors of folders
}
"""Audit events that change a file, and which of their arguments are its paths."""

_FOLDERS = {"os.rename", "shutil.rmtree"}
"""Of these, the events that may change a whole folder: its files are then others, or none."""

_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}


def is_code(name: str) -> bool:
    """Whether a file of that name can be part of a project's code: ``.py``, ``.toml``, ``.env*``."""
    if name.startswith(".#") or name.endswith(_LEFT_BY_EDITORS):
        return False
    return name.endswith((".py", ".toml")) or name.startswith(".env")


def clock() -> float:
    """Seconds on a clock that host and child share. ``time.monotonic()`` is another one on Windows up to 3.12."""
    return time.perf_counter()


def record_writes(environ: MutableMapping[str, str]) -> None:
    """Begin the record that the host asks for, if it does. Call once, before any code of the project runs.

    The hook cannot be taken back. It costs about a microsecond for each audited operation; once a bot runs there
    are few of them.
    """
    path = environ.pop(VARIABLE, None)
    if path is None:
        return
    try:
        record = os.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return  # the host has ended, and its temporary files with it
    with contextlib.suppress(OSError):  # Windows deletes no open file; the host does it later
        os.unlink(path)
    sys.addaudithook(_Recorder(record))


class _Recorder:
    """The hook. Called on any thread, also within itself (by a signal handler or a finalizer), so it takes no lock."""

    def __init__(self, record: int) -> None:
        self._record = record
        self._lines = 0
        self._written: dict[str, float] = {}

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        paths = _PATHS.get(event)
        if paths is None:
            if event in _PROGRAMS:
                self._note(PROGRAM)
            return
        # What is raised here would be raised in the bot's own call.
        with contextlib.suppress(Exception):
            for path in paths(args):
                if isinstance(path, int):  # a descriptor, whose opening has been seen
                    continue
                text = os.fsdecode(path)
                name = os.path.basename(text)
                if is_code(name) or (event in _FOLDERS and not os.path.isfile(os.fsdecode(args[0]))):
                    self._note(os.path.abspath(text))

    def _note(self, path: str) -> None:
        now = clock()
        if now - self._written.get(path, -REPEAT_SECONDS) < REPEAT_SECONDS or self._lines > MAX_LINES:
            return
        self._lines += 1
        if self._lines > MAX_LINES:
            path = OVERFLOW
        self._written[path] = now
        with contextlib.suppress(OSError):  # a full disk; the host then holds the write to be a developer's
            os.write(self._record, f"{now:.6f} {path}\n".encode("utf-8", "surrogateescape"))
