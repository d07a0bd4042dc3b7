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

ANYWHERE = "*/"
"""Begins a path whose folder is not known: it is relative to a descriptor that the event does not tell."""

OVERFLOW = "?"
"""Stands in the last line where a path would: there were more than ``MAX_LINES``."""

MAX_LINES = 10_000
"""About 1 MB with paths of 100 characters."""

REPEAT_SECONDS = 0.2
"""A file that is written all the time gets a line so often. Less than the quiet time after which the host looks at a
changed file (``file_watch.QUIET_SECONDS``)."""

_LEFT_BY_EDITORS = ("~", ".swp", ".swo", ".swx", ".tmp", ".bak", ".orig")  # of `.env` for instance
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_Place = tuple[Any, int]
"""A path, and the descriptor of the folder that it is relative to: none, or one that the event does not tell."""

_CURRENT, _UNTOLD = -1, -2

_PLACES: dict[str, Callable[[tuple[Any, ...]], tuple[_Place, ...]]] = {
    "open": lambda args: ((args[0], _UNTOLD if args[1] is None else _CURRENT),) if (args[2] or 0) & _WRITING else (),
    "os.rename": lambda args: ((args[0], args[2]), (args[1], args[3])),
    "os.remove": lambda args: ((args[0], args[1]),),
    "os.truncate": lambda args: ((args[0], _CURRENT),),
    "os.link": lambda args: ((args[1], args[3]),),
    "os.symlink": lambda args: ((args[1], args[2]),),
    "sqlite3.connect": lambda args: ((args[0], _CURRENT),),  # the library opens the file itself
    "shutil.copyfile": lambda args: ((args[1], _CURRENT),),  # Windows copies without opening the file
    # What it removes is relative to descriptors of folders; its own one is told from Python 3.11 on.
    "shutil.rmtree": lambda args: ((args[0], _CURRENT if args[1:] in ((), (None,)) else args[1]),),
}
"""Audit events that change a file, and where. ``os.open`` has no mode, and does not tell its ``dir_fd``."""

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
        places = _PLACES.get(event)
        if places is None:
            if event in _PROGRAMS:
                self._note(PROGRAM)
            return
        # What is raised here would be raised in the bot's own call.
        with contextlib.suppress(Exception):
            # A descriptor is no path, and its opening has been seen.
            paths = [_absolute(os.fsdecode(path), at) for path, at in places(args) if not isinstance(path, int)]
            is_folder = event in _FOLDERS and not os.path.isfile(paths[0])
            for path in paths:
                if is_folder or is_code(os.path.basename(path)):
                    self._note(path)

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


def _absolute(path: str, folder: int) -> str:
    """*path* below the folder with that descriptor; after ``ANYWHERE`` where that folder is not known."""
    if folder == _CURRENT or os.path.isabs(path) or os.open not in os.supports_dir_fd:
        return os.path.abspath(path)
    above = None if folder == _UNTOLD else _path_of(folder)
    return os.path.normpath(os.path.join(above, path)) if above else ANYWHERE + os.path.normpath(path)


def _path_of(folder: int) -> str | None:
    """Where the open folder is; None: the system does not say."""
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(folder, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    except OSError:
        return None
