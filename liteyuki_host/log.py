"""The lines that people read: date, time, level, process, message; alike in the host and in its children."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from liteyuki_host.output.text import HOST

if TYPE_CHECKING:
    from liteyuki_host.output.console import Console
    from liteyuki_host.output.files import LogFiles

CLOSE_SECONDS = 1.0
"""What the last lines get. A console that is stuck must not keep a stopped host."""


def line_format(process: str) -> str:
    """A loguru format for the lines of *process*.

    A child's lines also name the plugin or module they come from
    (``2026-11-23 05:19:06 [INFO] nonebot | examples.child_half | Passive receive: ...``); the host's do not.
    """
    where = "" if process == HOST else " | <c><u>{name}</u></c>"
    return f"<g>{{time:YYYY-MM-DD HH:mm:ss}}</g> [<lvl>{{level}}</lvl>] <c>{process}</c>{where} | {{message}}"


def configure(level: str, files: LogFiles | None = None) -> int:
    """Send the host's lines of *level* and above to standard output, and to *files* if there are any.

    Called when a host runs, never on import. loguru's own default sink is replaced; sinks that main-process
    modules have added stay. Nobody who logs waits for the console or the disk.

    Returns:
        the sink's id, for ``logger.remove`` when the host has ended. That waits up to ``CLOSE_SECONDS`` for the
        last lines, and ends the console and *files*.
    """
    # Here, because children import this module for the format.
    from liteyuki_host.output import console

    use_utf8(sys.stdout)
    with contextlib.suppress(ValueError):  # already gone
        logger.remove(0)  # loguru's default, on stderr: every line would appear twice
    sink = _HostLines(console.shared(keep=True), files)
    return logger.add(sink, level=level.upper(), format=line_format(HOST), diagnose=False)


class _HostLines:
    """A sink in the shape of a stream, which loguru asks for colours and stops."""

    def __init__(self, console: Console, files: LogFiles | None) -> None:
        self._console = console
        self._files = files

    def write(self, message: str) -> None:
        self._console.write(message)
        if self._files is not None:
            self._files.write(message)

    def isatty(self) -> bool:
        return wants_colours(sys.stdout)

    def stop(self) -> None:
        self._console.close(CLOSE_SECONDS)
        if self._files is not None:
            self._files.close(CLOSE_SECONDS)


def wants_colours(stream: TextIO | None) -> bool:
    """Whether lines on *stream* are to be coloured. ``NO_COLOR`` and ``FORCE_COLOR`` have the say, in this order."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # something that only has a write method; or closed
        return False


def use_utf8(stream: TextIO | None) -> None:
    """Let *stream* take any text. In another encoding (Windows pipes) each Chinese line would be an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="replace")
