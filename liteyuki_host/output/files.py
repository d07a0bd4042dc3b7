"""Log files: one for each process and one for the host."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from liteyuki_host.output.backlog import Backlog, Omitted, Taken
from liteyuki_host.output.log_file import LogFile
from liteyuki_host.output.text import HOST, Block, date_and_time

RETRY_SECONDS = 1.0
"""After an error, until the file is tried again. It is told once, so the tries need not be rare."""


QUIET_SECONDS = 60.0
"""In which the log tells of an error only once, also when the files could be written in between."""

MOST_KINDS = 20
"""Of errors that are remembered for that."""


@dataclass
class _WriteFailure:
    """Of one file, from the first write that failed to the next that succeeds."""

    why: str
    retry_at: float
    told: bool
    """In the log."""
    missing: int = 0
    """Lines."""


class LogFiles:
    """Writes ``NAME.log`` for each process and ``host.log`` into *folder*, on a thread of its own.

    Nobody waits for the disk: lines that there is no room for (``backlog.LIMIT``) are left out. So are those of a file
    that cannot be written, because the disk is full for instance, as long as that lasts. A line in the file says how
    many, where they would stand; the log says when it begins and when it is over.

    Args:
        folder: made when the first line is written.
        rotation: bytes; a file that has reached them is put aside as ``NAME.DATE_TIME.log``.
        retention: how many such files of each process are kept.
    """

    def __init__(self, folder: Path, *, rotation: int, retention: int) -> None:
        self._folder = folder
        self._rotation = rotation
        self._retention = retention
        self._files: dict[str, LogFile] = {}
        self._failures: dict[str, _WriteFailure] = {}
        self._quiet_until: dict[str, float] = {}  # by the error's words
        self._backlog = Backlog("lycomm-log-files", self._write, idle=self._rest)

    def write(self, text: str) -> None:
        """Lines of the host itself. From any thread; never waits."""
        self.show(Block.of(HOST, text.rstrip("\n").encode("utf-8", "replace")))

    def show(self, block: Block) -> None:
        """Lines of a child. From any thread; never waits."""
        self._backlog.add(block)

    def flush(self, timeout: float) -> bool:
        """Wait until all is in the files, or counted as missing, for at most ``timeout`` seconds. Returns whether it
        is."""
        return self._backlog.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Flush, then write nothing more. Returns whether all was written."""
        return self._backlog.close(timeout)

    # The writing thread.

    def _write(self, taken: list[Taken]) -> None:
        texts: dict[str, str] = {}
        lines: dict[str, int] = {}
        for omitted, block in taken:
            name = block.process
            texts[name] = texts.get(name, "") + _written(omitted, block)
            lines[name] = lines.get(name, 0) + (omitted.lines if omitted else 0) + block.lines
        for name, text in texts.items():
            self._append(name, text, lines[name])

    def _append(self, name: str, text: str, lines: int) -> None:
        """Write *text* to the file of that process; or count its *lines* as missing."""
        failure = self._failures.get(name)
        if failure is not None:
            if time.monotonic() < failure.retry_at:
                failure.missing += lines
                return
            missing = f"{failure.missing:,} lines are missing here"
            text = _note(f"{missing}: they could not be written ({failure.why})") + text
        try:
            self._file_of(name).write(text)
        except Exception as error:  # for MemoryError and bugs the same holds as for a full disk
            self._note_failure(name, error, lines)
        else:
            self._note_success(name)

    def _note_failure(self, name: str, error: Exception, lines: int) -> None:
        why = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
        now = time.monotonic()
        # One line for all files of a full disk, and for one that is now and then not quite full.
        shared = any(failure.why == why and failure.told for failure in self._failures.values())
        news = not shared and now >= self._quiet_until.get(why, 0.0)
        failure = self._failures.setdefault(name, _WriteFailure(why, 0.0, told=False))
        failure.why = why
        failure.missing += lines
        failure.retry_at = now + RETRY_SECONDS
        failure.told |= shared or news
        if news:
            if len(self._quiet_until) >= MOST_KINDS:
                self._quiet_until.clear()
            self._quiet_until[why] = now + QUIET_SECONDS
            logger.error(
                f"log file {self._folder / name}.log cannot be written: {why}; the host goes on without it and "
                f"tries again every {RETRY_SECONDS:g} s"
            )

    def _note_success(self, name: str) -> None:
        failure = self._failures.pop(name, None)
        if failure is not None and failure.told:
            logger.info(
                f"log file {self._folder / name}.log is written again: {failure.missing:,} lines are missing in it"
            )

    def _file_of(self, name: str) -> LogFile:
        if name not in self._files:
            self._files[name] = LogFile(self._folder, name, rotation=self._rotation, retention=self._retention)
        return self._files[name]

    def _rest(self) -> None:
        """There is nothing to write for now: say what is missing, if that can be written, and close the files."""
        for name in list(self._failures):
            self._append(name, "", 0)
        files, self._files = self._files, {}
        for file in files.values():
            file.close()


def _written(omitted: Omitted | None, block: Block) -> str:
    text = block.for_file() if block.lines else ""
    if omitted is None:
        return text
    return _note(omitted.words("lines are missing here", "they came faster than log files are written")) + text


def _note(words: str) -> str:
    return f"{date_and_time(time.time())} [WARNING] {HOST} | {words}\n"
