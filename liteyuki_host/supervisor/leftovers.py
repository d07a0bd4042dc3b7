"""Python programs that a child had started and has left behind at its end.

A bot that restarts itself without a host often starts itself as a new program and ends. Under a host the new one ends
with it, as all that it started, so somebody should say so.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

OURS = ("liteyuki_host.launch", "multiprocessing")
"""In the command line of a copy of the bot, of a worker of a process pool and of its helpers: none of these restarts
anything."""


def left_behind(pid: int) -> Sequence[str]:
    """Those in the group of *pid*, which has ended or is a zombie: ``python bot.py (pid 7)``.

    Blocks for 0.2 ms with 100 processes in the system, 1.7 ms with 1,100 (measured on Linux): no system tells the
    members of a group without listing all processes.

    On Windows its own children only. Of the arguments only the first is shown: others may be secret.
    """
    found: list[str] = []
    try:
        pids = psutil.pids()
    except (OSError, MemoryError):  # a shortage; nothing but words depends on it
        return found
    for other in pids:
        with contextlib.suppress(psutil.Error, OSError):
            if other != pid and _belongs(other, pid):
                command = psutil.Process(other).cmdline()
                program = Path(command[0]).name if command else ""
                if program.startswith(("python", "nb")) and not any(ours in " ".join(command) for ours in OURS):
                    found.append(f"{' '.join([program, *command[1:2]])} (pid {other})")
    return found


def _belongs(other: int, pid: int) -> bool:
    if sys.platform == "win32":
        return psutil.Process(other).ppid() == pid
    return os.getpgid(other) == pid
