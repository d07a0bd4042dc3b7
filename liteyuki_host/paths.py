"""Looking at files that settings name: every refusal of the operating system becomes one line that names the place.

``Path.is_file`` and its kin answer "no" for some errors of the system and raise others, and which ones depends on the
Python version. Here a file is there, or is not there, or cannot be looked at, which is a `FileProblem`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
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


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
"""What may be where a file is expected, in words. Reading a FIFO would wait for a writer, some devices have no end."""


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


def is_null_device(status: os.stat_result) -> bool:
    """Whether it is ``/dev/null``, which stands for a file on purpose: empty to readers, without end to writers."""
    with contextlib.suppress(OSError):
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev
    return False


def kind_in_words(status: os.stat_result) -> str | None:
    """``a FIFO (named pipe)``, for a place in a line; None: it is a file."""
    return next((words for is_kind, words in _KINDS if is_kind(status.st_mode)), None)


def may_be_read(path: Path) -> bool:
    """Whether there is something at *path* to be read: a file, not nothing, and not ``/dev/null``.

    Raises FileProblem: something stands there that is no file, or the system does not say.
    """
    status = _status(path)
    if status is None or is_null_device(status):
        return False
    _must_be_a_file(path, status)
    return True


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
    """The whole file, up to ``FILE_LIMIT``; nothing of ``/dev/null``. Never waits for a writer. Raises FileProblem."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if is_null_device(status):
                return b""
            _must_be_a_file(path, status)
            data = file.read(FILE_LIMIT + 1)
    except FileProblem:
        raise
    except (OSError, ValueError) as error:
        raise FileProblem(f"{shown(path)} cannot be read: {why(error)}") from error
    if len(data) > FILE_LIMIT:
        raise FileProblem(f"{shown(path)} is larger than {FILE_LIMIT // 1024**2} MiB: it cannot be what its name says")
    return data


def read_text(path: Path) -> str:
    """A file in UTF-8, up to ``FILE_LIMIT``. Raises FileProblem."""
    data = read_bytes(path)
    # English text in UTF-16 without a byte order mark is valid UTF-8, with a null byte beside each letter.
    # python-dotenv would read it, and find none of the names.
    null = data.find(b"\0")
    if null >= 0:
        line = data.count(b"\n", 0, null) + 1
        raise FileProblem(
            f"{shown(path)} line {line} has a null byte, as text in UTF-16 has: save it as UTF-8 and remove what is "
            "left"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"byte {error.start}, line {line}"
        raise FileProblem(f"{shown(path)} is not UTF-8 ({where}): save it as UTF-8") from None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # of a file nothing changes by that


def _must_be_a_file(path: Path, status: os.stat_result) -> None:
    kind = kind_in_words(status)
    if kind is not None:
        raise FileProblem(f"{shown(path)} cannot be read: it is {kind}, not a file; put a file in its place")


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
