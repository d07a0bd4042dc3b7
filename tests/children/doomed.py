"""A NoneBot plugin for bots whose host is killed: it has a child of its own, and what ``DOOM`` says (words separated by
spaces). SIGUSR1 makes it hold the interpreter's lock for ever; it then makes the file ``HELD``."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from nonebot import get_driver

words = os.environ["DOOM"].split()
claimed = os.open(os.environ["CLAIM"], os.O_RDWR | os.O_CREAT)
try:
    fcntl.lockf(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    Path(os.environ["CLAIM"]).with_suffix(".double").touch()
child = subprocess.Popen(["sh", "-c", "trap '' HUP INT TERM; while :; do sleep 60; done"])


def hold_lock(*_: Any) -> None:
    Path(os.environ["HELD"]).touch()
    ctypes.PyDLL(None).sleep(3600)


@get_driver().on_startup
async def be_deaf() -> None:  # async: only the main thread sets handlers
    signal.signal(signal.SIGUSR1, hold_lock)
    if "deaf" in words:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
