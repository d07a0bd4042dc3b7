"""Which files of a project are its code, and what they hold at one moment.

Content decides whether a file has changed. It is known by a digest, which is computed only when the file's stamp (its
times, size and number on the disk) is another one than before: touching a file, or checking out another branch and
the first one again, changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from liteyuki_host._child.writes import is_code
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor.spec import ProcessSpec

MAX_WATCHED = 20_000
"""Files and folders that are looked at: about 9 MB for us, 0.8 s for the first look and 0.4 s for each comparison
(measured with 19,500 files of 4 KB)."""

MAX_HASHED = 1024 * 1024
"""Bytes. Of a larger file nothing is read: another size or time of change means another content."""

UNSURE_SECONDS = 2.0
"""A file that was changed so short a time before it was read may have been changed once more since then without its
time of change showing it: FAT keeps times in steps of 2 s, Linux in steps of 1 to 10 ms. It is read again."""

_NEVER = {
    *("__pycache__", "site-packages", "node_modules", ".lycomm"),
    *(".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", ".idea", ".vscode"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
}
_NEVER_AT_THE_TOP = {"build", "dist"}  # further down they may be packages of the bot

Stamp = tuple[int, int, int, int]
"""When a file's content and its entry were last changed (ns), its size in bytes, its number on the disk."""

Content = bytes | tuple[int, int]
"""A digest; for a file that is not read, its time of change (ns) and its size."""


@dataclass(frozen=True)
class Folder:
    """A folder that is watched."""

    path: str
    """Absolute, as it was declared."""
    named: bool
    """Whether ``reload_dirs`` names it. Then each ``.toml`` in it counts; in the project's folder that is watched
    without being named only its ``pyproject.toml`` does, because bots keep settings and state in such files."""

    def counts(self, name: str, *, at_the_top: bool) -> bool:
        return is_code(name) and (self.named or not name.endswith(".toml") or (at_the_top and name == "pyproject.toml"))


@dataclass(frozen=True)
class FileState:
    """One file at one moment."""

    stamp: Stamp
    content: Content
    sure: bool
    """Whether a later change must show in the stamp."""

    def holds_the_same(self, other: FileState) -> bool:
        """Whether the content is the same, as far as both could be read."""
        if self.content == other.content:
            return True
        one_was_not_read = isinstance(self.content, bytes) is not isinstance(other.content, bytes)
        return one_was_not_read and self.unread == other.unread

    @property
    def unread(self) -> Content:
        """What stands for the content of a file that is not read."""
        modified, _, size, _ = self.stamp
        return modified, size


@dataclass
class Snapshot:
    """All code files at one moment."""

    files: dict[str, dict[str, FileState]] = field(default_factory=dict)
    """By watched folder, then by path below the folder as it was declared. A folder that is not there has no entry."""
    folders: set[str] = field(default_factory=set)
    """Every folder that was looked into, without symbolic links: the way the system reports them."""
    complete: bool = True
    began: float = 0.0
    ended: float = 0.0
    """``time.monotonic()`` before and after everything was looked at."""

    def states(self) -> dict[str, FileState]:
        """Each file by its path."""
        return {path: state for files in self.files.values() for path, state in files.items()}


def watched_folders(spec: ProcessSpec) -> list[Folder]:
    """What ``reload_dirs`` names; otherwise the project's folder."""
    if spec.reload_dirs:
        # Each once: the second time a folder is met its files are left out.
        return [Folder(path, named=True) for path in dict.fromkeys(map(os.path.abspath, spec.reload_dirs))]
    return [Folder(os.path.abspath(spec.project), named=False)]


def look_into(
    folder: Folder, snapshot: Snapshot, seen: set[tuple[int, int]], known: Mapping[str, FileState]
) -> dict[str, FileState] | None:
    """The code files in and below *folder*; None: there is no such folder.

    Args:
        snapshot: takes the folders that were looked into.
        seen: identities of folders that were looked into before; this one's are added.
        known: the files as they were before. What has the same stamp is not read again.

    Raises:
        OSError: there is a shortage, and the system cannot tell (``comm.shortage``).
    """
    files: dict[str, FileState] = {}
    top = os.path.realpath(folder.path)
    if not os.path.isdir(top):
        return None
    ahead = [(top, folder.path)]
    while ahead:
        real, shown = ahead.pop()
        with _gone_or_not_ours(), os.scandir(real) as entries:
            info = os.stat(real)
            identity = (info.st_dev, info.st_ino)
            if identity in seen or (real != top and os.path.exists(os.path.join(real, "pyvenv.cfg"))):
                continue
            seen.add(identity)
            snapshot.folders.add(real)
            for entry in entries:
                name = entry.name
                with _gone_or_not_ours():
                    path = os.path.join(shown, name)
                    if entry.is_dir():
                        if not (is_no_code(name) or (real == top and name in _NEVER_AT_THE_TOP)):
                            ahead.append((entry.path, path))
                    elif folder.counts(name, at_the_top=real == top):
                        files[path] = _state(entry, known.get(path))
        if len(snapshot.folders) + len(files) >= MAX_WATCHED:
            snapshot.complete = False
            break
    return files


@contextlib.contextmanager
def _gone_or_not_ours() -> Iterator[None]:
    """Leave out what vanishes while it is looked at, what may not be read, and links to nothing. A shortage says
    nothing of that: it is raised, so that files do not count as deleted."""
    try:
        yield
    except OSError as error:
        if is_shortage(error):
            raise


def is_no_code(folder: str) -> bool:
    """Whether folders of that name hold none of the project's code: caches, virtual environments, version control."""
    return folder in _NEVER or folder.endswith(".egg-info")


def differences(before: Snapshot, now: Snapshot) -> Iterator[tuple[str, Content | None, Content | None]]:
    """Path, content before, content now, of each file whose content is another one; None: there is no such file."""
    old, new = before.states(), now.states()
    for path in sorted(old.keys() | new.keys()):
        was, is_now = old.get(path), new.get(path)
        if was is None or is_now is None or not was.holds_the_same(is_now):
            yield path, None if was is None else was.content, None if is_now is None else is_now.content


def _state(entry: os.DirEntry[str], known: FileState | None) -> FileState:
    """Raises OSError: it is gone."""
    info = entry.stat()
    state = FileState(_stamp(info), b"", sure=True)
    if known is not None and known.sure and known.stamp == state.stamp:
        return known
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_HASHED:
        return replace(state, content=state.unread)
    try:
        with open(entry.path, "rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))  # before it is read: a change from here on shows in the next one
            content = hashlib.blake2b(file.read(MAX_HASHED + 1), digest_size=16).digest()
    except FileNotFoundError:
        raise
    except OSError as error:  # not ours to read: that is no change of the file
        if is_shortage(error):
            raise
        return replace(known or replace(state, content=state.unread), sure=False)
    return FileState(stamp, content, sure=time.time_ns() - stamp[0] > UNSURE_SECONDS * 1e9)


def _stamp(info: os.stat_result) -> Stamp:
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
