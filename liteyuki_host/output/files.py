"""Log files: one for each process and one for the host, rotated by loguru."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from loguru import logger

from liteyuki_host.log import HOST

from .backlog import Backlog, Taken
from .text import Block, date_and_time


class RotatingFile(Protocol):
    """What we use of loguru's file sink. It opens the file at the first write."""

    def write(self, message: str) -> None: ...
    def stop(self) -> None: ...


class LogFiles:
    """Writes ``NAME.log`` for each process and ``host.log`` into *folder*, on a thread of its own.

    Nobody waits for the disk: lines that there is no room for (``backlog.LIMIT``) are left out, and a line says
    how many. After an error, of which one line in the log tells, nothing is written any more.

    Args:
        folder: made when the first line is written.
        rotation: bytes; a file that has reached them is put aside as ``NAME.DATE_TIME.log``.
        retention: how many such files of each process are kept.
    """

    def __init__(self, folder: Path, *, rotation: int, retention: int) -> None:
        self._folder = folder
        self._rotation = rotation
        self._retention = retention
        self._files: dict[str, RotatingFile] = {}
        self._failed = False
        self._backlog = Backlog("lycomm-log-files", self._write, idle=self._close_files)

    def write(self, text: str) -> None:
        """Lines of the host itself. From any thread; never waits."""
        self.show(Block.of(HOST, text.rstrip("\n").encode("utf-8", "replace")))

    def show(self, block: Block) -> None:
        """Lines of a child. From any thread; never waits."""
        if not self._failed:
            self._backlog.add(block)

    def flush(self, timeout: float) -> bool:
        """Wait until all is in the files, for at most ``timeout`` seconds. Returns whether it is."""
        return self._backlog.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Flush, then write nothing more. Returns whether all was written."""
        return self._backlog.close(timeout)

    def _write(self, taken: list[Taken]) -> None:
        if self._failed:
            return
        texts: dict[str, str] = {}
        for missing, block in taken:
            texts[block.process] = texts.get(block.process, "") + _written(missing, block)
        try:
            for process, text in texts.items():
                self._file_of(process).write(text)
        except OSError as error:
            self._failed = True
            self._close_files()
            why = error.strerror or error
            logger.error(f"log files cannot be written in {self._folder}: {why}; the host goes on without them")

    def _file_of(self, process: str) -> RotatingFile:
        if process not in self._files:
            self._files[process] = _rotating_file(self._folder, process, self._rotation, self._retention)
        return self._files[process]

    def _close_files(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            try:
                file.stop()
            except OSError:  # a full disk, of which a line has told; loguru then leaves the file open
                with contextlib.suppress(OSError):
                    cast(Any, file)._file.close()


def _written(missing: int, block: Block) -> str:
    if not missing:
        return block.for_file()
    why = "they came faster than log files are written"
    return f"{date_and_time(time.time())} [WARNING] {HOST} | {missing:,} lines are missing here: {why}\n" + (
        block.for_file()
    )


def _rotating_file(folder: Path, process: str, rotation: int, retention: int) -> RotatingFile:
    # loguru's file sink by itself, not through logger.add: an operator's `logger.remove()` would end the files, and
    # his sinks would get the children's output too. The class is not public; the tests tell when it changes.
    from loguru._file_sink import FileSink

    return cast(
        RotatingFile,
        FileSink(  # type: ignore[no-untyped-call]
            folder / f"{process}.log",
            rotation=rotation,
            retention=functools.partial(_keep_newest, process, retention),
            delay=True,
            errors="replace",
        ),
    )


def _keep_newest(process: str, count: int, found: Sequence[str]) -> None:
    """loguru's own retention by count also takes the files of a process ``bot.cn`` for old ones of ``bot``."""
    old = re.compile(rf"{re.escape(process)}\.\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{{6}}(\.\d+)?\.log")
    files = [path for path in map(Path, found) if old.fullmatch(path.name)]
    files.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    for path in files[count:]:
        os.remove(path)
