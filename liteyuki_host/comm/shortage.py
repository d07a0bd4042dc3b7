"""Whether an error is a shortage, which passes by itself, or final: nothing changes by trying again.

This is the one place that decides it, for host and bots. It looks at the type and the ``errno`` of an error and of the
errors that it was raised from. Pure: nothing of the system is asked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from enum import Enum

from liteyuki_host.comm.errors import LycommError

__all__ = ["Outlook", "describe", "is_shortage", "outlook", "remedy"]

FILES = "raise the limit of open files (ulimit -n; LimitNOFILE= of a systemd unit)"
TASKS = "raise the limit of processes and threads (ulimit -u; TasksMax= of a systemd unit; pids limit of a container)"
MEMORY = "free memory, or raise the limit (ulimit -v; MemoryMax= of a systemd unit; memory limit of a container)"
DISK = "free space on the disk, or raise the quota"
LATER = "wait, it may pass by itself"

_SHORT: dict[str, str] = {
    "EMFILE": FILES,
    "ENFILE": "raise the machine's limit of open files (fs.file-max)",
    "EAGAIN": TASKS,  # of fork, and of the start of a thread
    "ENOMEM": MEMORY,
    "ENOBUFS": MEMORY,
    "ENOSPC": DISK,  # also: no inotify watches left
    "EDQUOT": DISK,
    "EFBIG": "raise the limit of the size of a file (ulimit -f)",
    "EROFS": "mount the disk so that it can be written",
    "EIO": "look for a fault of the disk, or of the network to it",
    "ESTALE": LATER,  # a network disk
    "EBUSY": LATER,
    "ETXTBSY": LATER,  # the interpreter is just being replaced
    "EINTR": LATER,
}
SHORTAGES = {number: words for name, words in _SHORT.items() if (number := getattr(errno, name, None)) is not None}
"""By ``errno``: what ends the shortage, for the operator."""

WINDOWS_SHORTAGES = {
    4: FILES,  # ERROR_TOO_MANY_OPEN_FILES
    8: MEMORY,  # ERROR_NOT_ENOUGH_MEMORY
    14: MEMORY,  # ERROR_OUTOFMEMORY
    32: LATER,  # ERROR_SHARING_VIOLATION: a virus scanner, mostly
    33: LATER,  # ERROR_LOCK_VIOLATION
    39: DISK,  # ERROR_HANDLE_DISK_FULL
    112: DISK,  # ERROR_DISK_FULL
    1450: MEMORY,  # ERROR_NO_SYSTEM_RESOURCES
    1453: MEMORY,  # ERROR_WORKING_SET_QUOTA
    1455: MEMORY,  # ERROR_COMMITMENT_LIMIT
    1816: MEMORY,  # ERROR_NOT_ENOUGH_QUOTA
}
"""By ``winerror``. Python gives most of them the errno EINVAL."""

_FINAL_NAMES = ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ENOEXEC", "ELOOP", "ENAMETOOLONG", "E2BIG", "EXDEV")
FINAL = {number for name in _FINAL_NAMES if (number := getattr(errno, name, None)) is not None}

NO_THREAD = "can't start new thread"
"""How the RuntimeError begins that Python raises for it. There is no type of its own."""

_LOADER_WORDS = tuple(f": {os.strerror(number)}" for number in SHORTAGES)
"""How the ImportError of a shared library ends that the system's loader could not open or map."""


class Outlook(Enum):
    """What trying again is good for."""

    SHORTAGE = "shortage"
    """It passes by itself, or by what an operator does outside of lycomm. Trying again is right, however long."""
    FINAL = "final"
    """No try succeeds before somebody changes the bot, its settings or its files."""
    UNCLEAR = "unclear"
    """Nothing is known of it. Trying again may help, and has to come to an end."""


def outlook(error: BaseException) -> Outlook:
    """Decide by *error* and by what it was raised from.

    A shortage anywhere among them is one. Otherwise the first cause decides, since what was raised from it only puts
    it into words. An error of lycomm without a cause is final: it was raised by a check, and names what to change.
    """
    if _shortage_in(error) is not None:
        return Outlook.SHORTAGE
    root = error
    seen = {id(root)}
    while root.__cause__ is not None and id(root.__cause__) not in seen:
        root = root.__cause__
        seen.add(id(root))
    if isinstance(root, OSError):
        return Outlook.FINAL if root.errno in FINAL else Outlook.UNCLEAR
    if isinstance(root, (LycommError, SyntaxError, ImportError, UnicodeError)):
        return Outlook.FINAL
    return Outlook.UNCLEAR


def is_shortage(error: BaseException) -> bool:
    """Whether *error*, or what it was raised from, is a shortage."""
    return _shortage_in(error) is not None


def describe(error: BaseException) -> str:
    """In a few words for the operator: what is short, or else the error's type and text."""
    found = _shortage_in(error)
    if found is None:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    cause, _ = found
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return "no memory left" if isinstance(cause, MemoryError) else str(cause)


def remedy(error: BaseException) -> str | None:
    """For the operator: what ends this shortage; None for another error."""
    found = _shortage_in(error)
    return None if found is None else found[1]


def _shortage_in(error: BaseException) -> tuple[BaseException, str] | None:
    """The shortage among *error* and its causes, and what ends it."""
    for each in _with_causes(error):
        words = _remedy(each)
        if words is not None:
            return each, words
    return None


def _remedy(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        windows = WINDOWS_SHORTAGES.get(getattr(error, "winerror", None) or 0)
        return windows or SHORTAGES.get(error.errno or 0)
    if isinstance(error, RuntimeError) and str(error).startswith(NO_THREAD):
        return TASKS
    if isinstance(error, ImportError) and str(error).endswith(_LOADER_WORDS):
        return LATER
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """*error*, what is in it if it is a group, and what they were raised from or while handling, each once."""
    ahead: list[BaseException | None] = [error]
    seen: set[int] = set()
    while ahead:
        each = ahead.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        ahead.append(None if each.__suppress_context__ else each.__context__)
        ahead.append(each.__cause__)
        ahead.extend(reversed(getattr(each, "exceptions", ())))
