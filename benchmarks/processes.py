"""Ending what was started, with all that it has started itself."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Any

import psutil

POLITE_SECONDS = 15.0
"""What a program gets to end by itself; a host needs up to 10 s for bots that do not listen."""


def end_tree(process: subprocess.Popen[Any], *, politely: bool = False) -> None:
    """End a process and its descendants, also those that it leaves behind.

    Args:
        politely: ask first, by SIGTERM.
    """
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    if politely:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLITE_SECONDS)
    process.kill()
    process.wait()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
