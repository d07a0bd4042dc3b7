"""Looking at files that settings name: every refusal of the operating system becomes one line that names the place.

``Path.is_file`` and its kin answer "no" for some errors of the system and raise others, and which ones depends on the
Python version. Here a file is there, or is not there, or cannot be looked at, which is a `FileProblem`.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from liteyuki_host.wording import one_line, shown, why

FILE_LIMIT = 16 * 1024 * 1024
"""Bytes of a file that is read as a whole. A pyproject.toml has a few KiB, the largest scripts have a few hundred."""


class FileProblem(ValueError):
    """A file cannot be used as it is. The text is one line that names the file and the remedy.

    The cause is the system's error where there is one: a shortage passes, everything else has to be corrected.
    """

    def __init__(self, words: str) -> None:
        super().__init__(one_line(words))


def is_file(path: Path) -> bool:
    """Whether *path* is a file. Raises FileProblem: the system does not say."""
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_dir(path: Path) -> bool:
    """Whether *path* is a folder. Raises FileProblem: the system does not say."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def exists(path: Path) -> bool:
    """Whether there is anything at *path*. Raises FileProblem: the system does not say."""
    return _status(path) is not None


def may_enter(folder: Path) -> bool:
    """Whether this user may look into *folder*, by the rights that it acts with."""
    try:
        os.stat(os.path.join(folder, os.curdir))
    except OSError:
        return False
    return True


def absolute(path: Path) -> Path:
    """*path*, absolute. Raises FileProblem: it is relative, and the current folder has been deleted."""
    try:
        return path.absolute()
    except OSError as error:
        raise FileProblem(f"the current folder cannot be used: {why(error)}; change to another one") from error


def read_bytes(path: Path) -> bytes:
    """The whole file, up to ``FILE_LIMIT``. Raises FileProblem."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise FileProblem(f"{shown(path)} cannot be read: {why(error)}") from error
    if len(data) > FILE_LIMIT:
        raise FileProblem(f"{shown(path)} is larger than {FILE_LIMIT // 1024**2} MiB: it cannot be what its name says")
    return data


def read_text(path: Path) -> str:
    """A file in UTF-8, up to ``FILE_LIMIT``. Raises FileProblem."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start}, line {line}"
        raise FileProblem(f"{shown(path)} is not UTF-8 ({where}): save it as UTF-8") from None


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileProblem(f"{shown(path)} cannot be used: its symbolic links lead in a circle") from error
        raise FileProblem(f"{shown(path)} cannot be used: {why(error)}") from error
    except ValueError as error:  # a null byte, or half of a surrogate pair
        raise FileProblem(f"{shown(path)} cannot be used: {why(error)}") from None
