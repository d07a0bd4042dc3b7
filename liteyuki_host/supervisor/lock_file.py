"""What is locked so that no project runs under two hosts: a file in the project's folder, ``.lycomm/host.lock``.

This module knows files and the system's locks on them; who may hold one and what its record means is in :mod:`.lock`.
The lock is one of the operating system on an open file: it lasts until all processes that have inherited the
descriptor are gone, and is given back by the system when they are.

The file stays after use: deleting it would let two hosts lock two files. Earlier versions locked one file for each
process, ``.lycomm/NAME.lock``; a lock that one of them holds is respected, see :func:`held_by_earlier_version`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from liteyuki_host import descriptors
from liteyuki_host.comm.shortage import is_shortage

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FOLDER = ".lycomm"

NAME = "host.lock"
"""``host`` is the one name that no process may have, so no file of an earlier version is called so."""

RECORD_LIMIT = 64 * 1024
"""Bytes; a record has 100, and 100 for each child."""

EARLIER_LIMIT = 1000
"""Files of earlier versions that are looked at; there is one for each name that a process ever had."""

_LOCKED_BYTE = 1 << 30  # Windows: nobody may read a locked byte, so it is one far behind the record


class LockFile:
    """An open lock file. Made by :func:`open_for`; ends by :meth:`close`. Forks of this process do not have it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self.path = path
        descriptors.close_in_forks(descriptor)

    def try_lock(self) -> bool:
        """Lock it if nobody else has. Raises OSError: this disk knows no locks."""
        return _lock(self.descriptor)

    def unlock(self) -> None:
        """Give the lock back at once, also for processes that have inherited it."""
        with contextlib.suppress(OSError):
            _unlock(self.descriptor)

    def read(self) -> bytes:
        """The record. Empty when there is none, or when it cannot be read."""
        try:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            return os.read(self.descriptor, RECORD_LIMIT)
        except OSError:
            return b""

    def write(self, record: bytes) -> None:
        """Replace the record. A full disk, or a file of another user: nothing happens, since it is for words only."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, record)

    def close(self) -> None:
        """Close our descriptor; a lock is given back only if nobody has inherited it. In a fork it does nothing."""
        descriptors.close(self.descriptor)


def open_for(project: Path) -> tuple[LockFile, OSError | None]:
    """The lock file of the project in *project*, made where it is not there.

    Returns:
        the file, and why it is not in the project's folder but in one of this user for temporary files; None: it is.

    Raises:
        OSError: there is no place for it at all, or there is a shortage, which passes.
    """
    try:
        return _open(_made_folder(project) / NAME, os.O_CREAT), None
    except OSError as exc:
        if is_shortage(exc) and exc.errno != errno.EROFS:
            raise  # another lock than that of hosts that are not short of anything
        return _open(_made_user_folder() / f"{_key(project)}.lock", os.O_CREAT), exc


def held_by_earlier_version(project: Path) -> bytes | None:
    """The record of a lock that a host of an earlier version holds for one of its names; None: there is none.

    Raises:
        OSError: for a shortage it cannot be told.
    """
    for path in itertools.islice(_files_of_earlier_versions(project), EARLIER_LIMIT):
        record = _record_if_held(path)
        if record is not None:
            return record
    return None


def look(project: Path) -> bytes | None:
    """The record of whoever holds the project's lock; None: nobody does, as far as one can see. Writes nothing.

    For a moment it takes a lock that is free; whoever wants it just then tries again.

    Raises:
        OSError: for a shortage it cannot be told.
    """
    for path in (project / FOLDER / NAME, _user_folder() / f"{_key(project)}.lock"):
        record = _record_if_held(path)
        if record is not None:
            return record
    return held_by_earlier_version(project)


def _record_if_held(path: Path) -> bytes | None:
    try:
        file = _open(path)
    except OSError as exc:  # mostly: it is not there
        if is_shortage(exc):
            raise
        return None
    try:
        if file.try_lock():
            file.unlock()
            return None
        return file.read()
    except OSError:  # a disk without locks
        return None
    finally:
        file.close()


def _files_of_earlier_versions(project: Path) -> Iterator[Path]:
    for folder, pattern in ((project / FOLDER, "*.lock"), (_user_folder(), f"{_key(project)}-*.lock")):
        try:
            names = sorted(os.listdir(folder))
        except OSError as exc:  # mostly: it is not there
            if is_shortage(exc):
                raise
            continue
        yield from (folder / name for name in names if fnmatch(name, pattern) and name != NAME)


def _made_folder(project: Path) -> Path:
    folder = project / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        with contextlib.suppress(OSError):  # a full disk; nothing depends on it
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def _user_folder() -> Path:
    """For projects that cannot be written. Raises OSError: there is no folder for temporary files, and why."""
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:  # also when all of them are full, or no file can be opened; it does not say which
        _write_to(Path(os.environ.get("TMPDIR") or os.curdir))
        raise
    if sys.platform == "win32":  # its folder for temporary files is the user's own
        return temporary / "lycomm"
    return temporary / f"lycomm-{os.getuid()}"


def _write_to(folder: Path) -> None:
    """Raises OSError: no file can be made there, or nothing be written to it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        os.write(file.fileno(), b"x")


def _made_user_folder() -> Path:
    """Raises PermissionError when somebody else has made it."""
    folder = _user_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if sys.platform != "win32":
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EACCES, f"{folder} is not this user's alone")
    return folder


def _key(project: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(project))).hexdigest()[:16]


def _open(path: Path, flags: int = 0) -> LockFile:
    try:
        return LockFile(os.open(path, os.O_RDWR | flags, 0o644), path)
    except PermissionError:
        if not path.exists():
            raise
        return LockFile(os.open(path, os.O_RDONLY), path)  # made by another user; it can be locked all the same


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            if exc.errno not in (errno.EACCES, 0):  # Wine gives no reason
                raise
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> bool:
        """Whether it is ours now. The lock is the open file's: it lasts until all who inherit that have gone."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
