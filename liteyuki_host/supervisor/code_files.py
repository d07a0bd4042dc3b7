"""Which files of a project are its code, and what is known of them at one moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from liteyuki_host.comm.shortage import is_shortage

MAX_WATCHED = 20_000
"""Files and folders that are looked at: about 6 MB for us, and 0.2 s for each comparison."""

_NEVER = {
    *("__pycache__", "site-packages", "node_modules", ".lycomm"),
    *(".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", ".idea", ".vscode"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
}
_NEVER_AT_THE_TOP = {"build", "dist"}  # further down they may be packages of the bot
_LEFT_BY_EDITORS = ("~", ".swp", ".swo", ".swx", ".tmp", ".bak", ".orig")  # of `.env` for instance

Stamp = tuple[int, int, int]
"""When a file was last changed in ns, its size in bytes, its number on the disk."""


@dataclass
class Snapshot:
    files: dict[str, dict[str, Stamp]] = field(default_factory=dict)
    """By watched folder, as it was declared; a folder that is not there has no entry."""
    folders: set[str] = field(default_factory=set)
    """Every folder that was looked into, without symbolic links: the way the system reports them."""
    complete: bool = True


def look_into(folder: str, snapshot: Snapshot, seen: set[tuple[int, int]]) -> dict[str, Stamp] | None:
    """The watched files in and below *folder*; None: there is no such folder."""
    files: dict[str, Stamp] = {}
    top = os.path.realpath(folder)
    if not os.path.isdir(top):
        return None
    ahead = [(top, folder)]
    while ahead:
        real, shown = ahead.pop()
        with _suppress_missing(), os.scandir(real) as entries:
            info = os.stat(real)
            identity = (info.st_dev, info.st_ino)
            if identity in seen or (real != top and os.path.exists(os.path.join(real, "pyvenv.cfg"))):
                continue
            seen.add(identity)
            snapshot.folders.add(real)
            for entry in entries:
                name = entry.name
                with _suppress_missing():  # a link to nothing, too
                    if entry.is_dir():
                        if not (is_no_code(name) or (real == top and name in _NEVER_AT_THE_TOP)):
                            ahead.append((entry.path, os.path.join(shown, name)))
                    elif is_watched(name):
                        stat = entry.stat()
                        files[os.path.join(shown, name)] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if len(snapshot.folders) + len(files) >= MAX_WATCHED:
            snapshot.complete = False
            break
    return files


@contextlib.contextmanager
def _suppress_missing() -> Iterator[None]:
    """Around a look at what may be gone meanwhile, or not be ours to read. A shortage says nothing of that: it is
    raised, lest files count as deleted."""
    try:
        yield
    except OSError as error:
        if is_shortage(error):
            raise


def is_watched(name: str) -> bool:
    if name.startswith(".#") or name.endswith(_LEFT_BY_EDITORS):
        return False
    return name.endswith((".py", ".toml")) or name.startswith(".env")


def is_no_code(folder: str) -> bool:
    return folder in _NEVER or folder.endswith(".egg-info")
