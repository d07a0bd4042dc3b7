"""A NoneBot plugin that does damage to its own process: one function per request on the passive channel, and what
``DAMAGE`` says (words separated by spaces) while it is imported."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from nonebot import get_driver

from liteyuki_host.comm.process.current import current_node
from nonebot_plugin_lycomm import passive_channel

driver = get_driver()
WORDS = os.environ.get("DAMAGE", "").split()
LINE = b"flood " * 20 + b"\n"


def claim(path: Path) -> Any:
    """Hold *path* for the life of this process. Whoever finds it held leaves a mark: two of one name at once."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        path.with_suffix(".double").touch()
    return file


tried = "--trial" in psutil.Process().cmdline()  # new code, beside the bot that runs
claimed = claim(Path(os.environ["CLAIM"])) if "CLAIM" in os.environ and not tried else None
for word in WORDS:
    what, _, argument = word.partition("=")
    if what == "import":  # as one that compiles or computes for so long
        until = time.monotonic() + float(argument)
        while time.monotonic() < until:
            pass


@driver.on_shutdown
def never_return() -> None:
    while "deaf" in WORDS:
        time.sleep(3600)


@passive_channel.on_receive(filter_func=lambda data: isinstance(data, dict) and "damage" in data)
async def suffer(data: dict[str, Any]) -> Any:
    result = globals()["damage_" + data.pop("damage")](**data)
    return await result if asyncio.iscoroutine(result) else result


def damage_sleep(seconds: float) -> None:
    time.sleep(seconds)


def damage_sum() -> None:
    sum(range(10**12))  # a loop in C: hours, and no other thread gets to run meanwhile


def damage_regex() -> None:
    re.match("(a+)+b", "a" * 60)  # the same, of a kind that people write by mistake


async def damage_control(verb: str, target: str | None = None) -> Any:
    return await current_node().control(verb, target)


def damage_say(text: str) -> None:
    print(text, flush=True)


async def damage_flood(seconds: float) -> int:
    """Write lines to stderr as fast as they are taken; returns how many bytes."""

    def flood() -> int:
        written, until, lines = 0, time.monotonic() + seconds, LINE * 500
        while time.monotonic() < until:
            written += os.write(2, lines)
        return written

    return await asyncio.to_thread(flood)


def damage_half_line() -> None:
    """Write to stdout and never end the line."""

    def write() -> None:
        while True:
            os.write(1, b"half ")
            time.sleep(0.001)

    threading.Thread(target=write, daemon=True).start()


def damage_close_all() -> None:
    os.closerange(0, 65536)


def damage_fork_and_exit() -> None:
    if os.fork():
        os._exit(0)
    time.sleep(3600)


def damage_deafen() -> None:
    """From now on no signal that can be ignored has an effect."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:  # used by the C library
            continue
