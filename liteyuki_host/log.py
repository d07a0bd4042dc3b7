"""The lines that people read: date, time, level, process, message; alike in the host and in its children."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TextIO

from loguru import logger

HOST = "host"
"""The host's name in its own lines."""


def line_format(process: str) -> str:
    """A loguru format for the lines of *process*.

    A child's lines also name the plugin or module they come from
    (``2026-11-23 05:19:06 [INFO] nonebot | examples.child_half | Passive receive: ...``); the host's do not.
    """
    where = "" if process == HOST else " | <c><u>{name}</u></c>"
    return f"<g>{{time:YYYY-MM-DD HH:mm:ss}}</g> [<lvl>{{level}}</lvl>] <c>{process}</c>{where} | {{message}}"


def configure(level: str) -> int:
    """Send the host's lines of *level* and above to standard output.

    Called when a host runs, never on import. loguru's own default sink is replaced; sinks that main-process
    modules have added stay.

    Returns:
        the sink's id, for ``logger.remove`` when the host has ended.
    """
    use_utf8(sys.stdout)
    with contextlib.suppress(ValueError):  # already gone
        logger.remove(0)  # loguru's default, on stderr: every line would appear twice
    return logger.add(sys.stdout, level=level.upper(), format=line_format(HOST), diagnose=False)


def use_utf8(stream: TextIO) -> None:
    """Let *stream* take any text. In another encoding (Windows pipes) each Chinese line would be an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="replace")
