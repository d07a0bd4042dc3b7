"""Output as text: bytes cut into lines, lines made harmless, lines marked with their process.

A flood is cheap as long as nobody looks at it: what is read stays bytes, many lines in one block, and becomes
text where it is shown or asked for.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

HOST = "host"
"""The name of the host in its own lines."""

LINE_LIMIT = 64 * 1024
"""Bytes of one line, and of one block. A longer line becomes several, each marked as unfinished."""

CUT_MARK = b" [...]"

HALF_LINE_SECONDS = 0.2
"""A line without an end is shown after this silence: a prompt, a text that a crash has cut off."""

REDRAW_SECONDS = 2.0
"""A line that goes on growing, or a progress bar that draws itself anew, is shown once in this time."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring lines of one process, read at the same moment."""

    process: str
    first: int
    """The number of its first line."""
    lines: int
    at: float
    """``time.time()`` of the reading."""
    data: bytes
    """As the process wrote it, without the last line's end."""

    @classmethod
    def of(cls, process: str, data: bytes, *, first: int = 0) -> Block:
        return cls(process, first, data.count(b"\n") + 1, time.time(), data)

    def text(self) -> str:
        """Its lines, harmless and with their colours; exactly ``lines`` of them."""
        return clean(self.data.decode("utf-8", "replace"))

    def for_console(self) -> str:
        """With line end; each line says by itself which process it is from, and leaves no colour behind."""
        text = _closed_colours(self.text())
        return _unmarked(self.process).sub(f"{self.process} | ", text) + "\n"

    def for_file(self) -> str:
        """With line end; without colours, each line with a time."""
        text = _SGR.sub("", self.text())
        return _UNDATED.sub(f"{date_and_time(self.at)} | ", text) + "\n"


def date_and_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


class LineCutter:
    """Cuts a stream of bytes into pieces of whole lines. Times are ``time.monotonic()`` in seconds."""

    def __init__(self) -> None:
        self._rest = b""  # the line that has not ended yet; at most LINE_LIMIT
        self._began = 0.0
        self._latest = 0.0
        self._half_taken = False  # the next line end belongs to what has been taken already

    def feed(self, chunk: bytes, now: float) -> list[bytes]:
        """The pieces that are complete by now: lines joined by line ends, without the last one's."""
        if self._half_taken:
            self._half_taken = False
            chunk = re.sub(rb"\A\r?\n", b"", chunk)
        data = self._rest + chunk
        pieces: list[bytes] = []
        start, last = 0, data.rfind(b"\n")
        while start <= last:
            end = last if last - start <= LINE_LIMIT else data.rfind(b"\n", start, start + LINE_LIMIT + 1)
            if end >= 0:
                pieces.append(data[start:end])
                start = end + 1
            else:
                start = self._cut(data, start, pieces)
        while len(data) - start > LINE_LIMIT:
            redrawn = data.rfind(b"\r", start, -1) + 1
            start = redrawn or self._cut(data, start, pieces)
        if start or not self._rest:
            self._began = now
        self._latest = now
        self._rest = data[start:]
        return pieces

    def half_due(self) -> float | None:
        """When :meth:`take_half` should be called if nothing else comes. None: there is nothing to wait for."""
        if not _whole_characters(self._rest):
            return None
        redraws = self._began + REDRAW_SECONDS
        return redraws if b"\r" in self._rest else min(self._latest + HALF_LINE_SECONDS, redraws)

    def take_half(self) -> list[bytes]:
        """The unfinished line as a line of its own. Half a character stays: its other half is still to come."""
        length = _whole_characters(self._rest)
        half, self._rest = self._rest[:length], self._rest[length:]
        self._half_taken = not self._rest
        return [half] if half else []

    def finish(self) -> list[bytes]:
        """What is left when nothing more will come."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    @staticmethod
    def _cut(data: bytes, start: int, pieces: list[bytes]) -> int:
        end = start + _whole_characters(data[start : start + LINE_LIMIT])
        pieces.append(data[start:end] + CUT_MARK)
        return end


def _whole_characters(data: bytes) -> int:
    """How many bytes there are before an unfinished UTF-8 character at the end."""
    for back in range(1, min(len(data), 3) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(data) - back if needed > back else len(data)
    return len(data)


# Making it harmless. What a chat user writes ends up in the log, and must not move the operator's cursor, rename
# the window or hide other lines. Colours stay.

_SGR = re.compile(r"\x1b\[[0-9;:]*m")

_SEQUENCE = re.compile(
    r"\x1b(?!\[[0-9;:]*m)"  # everything but a colour
    r"(?:\[[0-?]*[ -/]*[@-~]"  # CSI: cursor, erasing, modes
    r"|[\]PX^_][^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # OSC and other strings, if they end on this line
    r"|[ -/]*[0-OQ-WYZ\\`-~])?"  # the others: reset, character sets; or a lone ESC
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI in one character
)

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f"
    "\u2028\u2029"  # line ends for some readers
    "\u202a-\u202e\u2066-\u2069"  # let the rest of the line run backwards
    "\ufffd]+"  # what was no UTF-8 is already this
)

_REDRAWN = re.compile(r"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)


def clean(text: str) -> str:
    """*text* without anything that acts on a terminal, but with its colours and as many lines.

    Escape sequences go, other control characters become U+FFFD (a run of them becomes one), and of what was drawn
    over with ``\\r`` the last drawing stays.
    """
    if "\r" in text:
        text = _REDRAWN.sub("", text).replace("\r", "")
    return _CONTROL.sub("\ufffd", _SEQUENCE.sub("", text))


_COLOUR_LEFT_ON = re.compile(r"^(.*\x1b\[(?!0?m)[0-9;:]*m[^\x1b\n]*)$", re.MULTILINE)


def _closed_colours(text: str) -> str:
    return _COLOUR_LEFT_ON.sub("\\1\x1b[0m", text) if "\x1b" in text else text


_UNDATED = re.compile(r"^(?!\d{4}-\d\d-\d\d[ T]\d\d:\d\d)", re.MULTILINE)


@lru_cache(maxsize=256)
def _unmarked(process: str) -> re.Pattern[str]:
    """The beginning of each line that is not in our format (log.line_format) with this very process.

    The name counts: a line that pretends to come from the host, or from another bot, is marked with its writer.
    """
    colour = r"(?:\x1b\[[0-9;:]*m)*"
    stamp = rf"{colour}\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d{colour}"
    level = rf"\[{colour}[^\]\x1b\n]{{1,32}}{colour}\]"
    return re.compile(rf"^(?!{stamp} {level} {colour}{re.escape(process)}{colour} \| )", re.MULTILINE)
