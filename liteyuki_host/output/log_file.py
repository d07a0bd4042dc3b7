"""One log file: loguru rotates it; this sees to it that it is there, and that what it holds is whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from liteyuki_host.paths import kind_in_words

__all__ = ["LogFile"]


class RotatingFile(Protocol):
    """What we use of loguru's file sink. It opens the file at the first write."""

    def write(self, message: str) -> None: ...
    def stop(self) -> None: ...


class LogFile:
    """``NAME.log`` in *folder*, for one thread at a time.

    Before each write it is looked whether the file still stands there. One that was moved away or deleted, by logrotate
    for instance, is begun anew; so is the folder. (On Windows nobody can do that to a file as long as it is open.)

    Args:
        folder: made with the first line.
        rotation: bytes; a file that has reached them is put aside as ``NAME.DATE_TIME.log``.
        retention: how many such files are kept.
    """

    def __init__(self, folder: Path, name: str, *, rotation: int, retention: int) -> None:
        self._path = folder / f"{name}.log"
        self._rotation = rotation
        self._keep = functools.partial(_keep_newest, name, retention)
        self._sink: RotatingFile | None = None
        self._descriptor: int | None = None  # of the open file, which is the sink's
        self._opened = 0  # times
        self._begins_at = 0  # bytes that it held when it was opened last

    def write(self, text: str) -> None:
        """Append *text*, all of it or nothing.

        Raises:
            OSError: nothing of it is in the file. The next call tries again with a file that is opened anew.
        """
        if self._sink is None:
            self._sink = self._rotating()
        opened = self._opened
        try:
            before = self._size()
            self._sink.write(text)
        except BaseException:
            self._give_up(before if self._opened == opened else self._begins_at)
            raise

    def close(self) -> None:
        """It is opened again by the next write."""
        sink, self._sink, self._descriptor = self._sink, None, None
        if sink is not None:
            with contextlib.suppress(OSError):  # all has been written and flushed by then
                sink.stop()

    def _size(self) -> int:
        return 0 if self._descriptor is None else os.fstat(self._descriptor).st_size

    def _give_up(self, size: int) -> None:
        """Cut off what has been written in part, and let go of the file together with what is in its buffers."""
        sink, self._sink = self._sink, None
        descriptor, self._descriptor = self._descriptor, None
        # Not public; the tests tell when it changes. Closing the sink would write the buffers, perhaps with success.
        file = cast(Any, sink)._file
        if file is None or file.closed or descriptor is None:
            return
        with contextlib.suppress(OSError):
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, size)
        with contextlib.suppress(OSError):
            file.buffer.raw.close()

    def _open(self, path: str, flags: int) -> int:
        """For :func:`open`: the descriptor is wanted by nobody else."""
        with contextlib.suppress(FileNotFoundError):
            must_take_lines(os.stat(path))
        # Less the umask, as open() does. O_NONBLOCK for a FIFO that was put there just now: opening it would wait until
        # somebody reads it.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
        try:
            must_take_lines(os.fstat(descriptor))
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._opened += 1
        self._begins_at = self._size()
        return descriptor

    def _rotating(self) -> RotatingFile:
        # loguru's file sink by itself, not through logger.add: an operator's `logger.remove()` would end the files, and
        # his sinks would get the children's output too. The class is not public; the tests tell when it changes.
        from loguru._file_sink import FileSink

        return cast(
            RotatingFile,
            FileSink(  # type: ignore[no-untyped-call]
                self._path,
                rotation=self._rotation,
                retention=self._keep,
                delay=True,
                watch=True,
                errors="replace",
                opener=self._open,
            ),
        )


def must_take_lines(status: os.stat_result) -> None:
    """Raise OSError for what takes no lines, or only as long as somebody reads them: a folder, a socket, a FIFO. A
    device may stand there, such as ``/dev/null`` or a terminal."""
    kind = kind_in_words(status)
    if kind is not None and not stat.S_ISCHR(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")


def _keep_newest(process: str, count: int, found: Sequence[str]) -> None:
    """loguru's own retention by count also takes the files of a process ``bot.cn`` for old ones of ``bot``.

    A file that cannot be removed stays: that is no reason to write nothing more.
    """
    old = re.compile(rf"{re.escape(process)}\.\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{{6}}(\.\d+)?\.log")
    ages = []
    for path in map(Path, found):
        if old.fullmatch(path.name):
            with contextlib.suppress(OSError):  # somebody else has just removed it
                ages.append((path.stat().st_mtime, path.name, path))
    for _, _, path in sorted(ages, reverse=True)[count:]:
        with contextlib.suppress(OSError):
            os.remove(path)
