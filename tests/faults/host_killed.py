"""A host that is killed takes everything with it, also what cannot act, and the next one starts at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from bare_kit import bots_of
from faults_kit import Report
from kit import CHILDREN, HostProcess, write
from live_kit import DEADLINE, Traces, percentile

TITLE = "killed hosts"
SHORT = {"kills": 4, "gone": 4.0}
LONG = {"kills": 200, "gone": 2.0}

LOOK = 0.02
"""Seconds between two looks at what is left."""

BOTS = {"plain": "", "deaf": "deaf", "other": ""}
"""Name to ``DOOM``. Each has a child of its own that ignores all polite signals."""


async def run(report: Report, folder: Path, *, kills: int, gone: float, seed: int = 1) -> None:
    """Every fourth host is killed while it starts; before the others' end bots are frozen or hold the lock.

    Args:
        gone: seconds from the host's kill until nothing of it may be left. What has left its bot's process group for a
            session of its own is not counted.
    """
    traces = Traces(folder)
    await asyncio.to_thread(_run, report, folder, traces, kills, gone, seed)
    await traces.report(report)


def _run(report: Report, folder: Path, traces: Traces, kills: int, limit: float, seed: int) -> None:
    declare(folder, traces)
    dice = random.Random(seed)
    damage: Counter[str] = Counter()
    gone: dict[bool, list[float]] = {True: [], False: []}
    doubles: list[str] = []
    host = HostProcess(folder)
    try:
        for number in range(kills):
            if number % 4 == 3:
                host.wait_for("host up", timeout=DEADLINE)
                time.sleep(dice.uniform(0, 1.5))
                damage["while it starts"] += 1
            else:
                all_ready(host)
                damage.update(harm(host, folder, dice))
            unhelped = number % 2 == 0
            following, seconds, twice = kill(host, folder, limit, unhelped=unhelped)
            gone[unhelped].append(seconds)
            doubles += twice
            host.close()
            host = following
        all_ready(host)
        report.none("processes that are not the last host's", strangers(host, traces))
        code = host.stop()
    finally:
        host.close()
    report.hold(f"hosts killed (seed {seed})", f"{sum(map(len, gone.values()))}: {dict(damage)}", str(kills), True)
    for unhelped, who in ((True, "by itself"), (False, "while the next host starts")):
        report.below(f"until all of it is gone, {who}, at most", max(gone[unhelped]), limit, "s")
        report.below(f"until all of it is gone, {who}, p50", percentile(gone[unhelped], 0.5), limit, "s")
    report.none("bots of the next host beside one of the same name", doubles)
    report.hold("the last host's exit code", code, "0", code == 0)


def declare(folder: Path, traces: Traces) -> None:
    lines = []
    for name, doom in BOTS.items():
        project = {
            "pyproject.toml": '[tool.nonebot]\nadapters = []\nplugins = ["doomed"]\nplugin_dirs = []\n',
            ".env": "DRIVER=~none\n",
        }
        shutil.copy(CHILDREN / "doomed.py", write(folder / name, project))
        env = {**traces.environment(name), "DOOM": doom, "HELD": str(held(folder, name))}
        table = ", ".join(f'{key} = "{value}"' for key, value in env.items())
        lines += [f"[tool.lycomm.processes.{name}]", f'project = "{name}"', f"env = {{ {table} }}"]
    write(folder, {"pyproject.toml": "\n".join(lines)})


def held(folder: Path, name: str) -> Path:
    return folder / f"{name}.held"


def all_ready(host: HostProcess) -> None:
    for name in BOTS:
        host.wait_for(f"child {name} ready in", timeout=DEADLINE)


def harm(host: HostProcess, folder: Path, dice: random.Random) -> Counter[str]:
    """Bring some bots into a state in which they cannot end themselves."""
    done: Counter[str] = Counter()
    bots = {name: found[0].pid for name, found in bots_of(host.pid).items()}
    frozen, locked = dice.sample(sorted(bots), 2)
    if dice.random() < 0.7:
        os.kill(bots[frozen], signal.SIGSTOP)
        done["with a frozen bot"] += 1
    if dice.random() < 0.7:
        held(folder, locked).unlink(missing_ok=True)
        os.kill(bots[locked], signal.SIGUSR1)
        wait_until(held(folder, locked).exists)
        done["with a held lock"] += 1
    return done


def kill(host: HostProcess, folder: Path, limit: float, *, unhelped: bool) -> tuple[HostProcess, float, list[str]]:
    """Kill a host and start the next one. Returns that one, the seconds until nothing of the first was left, and the
    names of bots that were there twice.

    Args:
        unhelped: only start the next one when that is so; it would end what it finds.
    """
    host.send(signal.SIGSTOP)  # it starts nothing any more while we look at what there is
    bots = bots_of(host.pid)
    groups = {bot.pid for found in bots.values() for bot in found}
    groups |= {os.getpgid(process.pid) for process in host.tree() if process.is_running()} - {host.pid}
    host.send(signal.SIGKILL)
    killed = time.monotonic()
    host.wait()
    following = None if unhelped else HostProcess(folder)
    doubles: set[str] = set()
    while (left := alive_in(groups)) and time.monotonic() - killed < 3 * limit:
        new = {} if following is None else bots_of(following.pid)
        doubles |= {name for name in new if any(bot.is_running() and _lives(bot) for bot in bots.get(name, []))}
        time.sleep(LOOK)
    seconds = time.monotonic() - killed
    for pid in left:  # the row has failed; it is not to leave anything
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive_in(groups))
    return following or HostProcess(folder), seconds, sorted(doubles)


def alive_in(groups: set[int]) -> list[int]:
    """The living processes of these process groups, guards and the bots' own children among them."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(pid) in groups and _lives(psutil.Process(pid)):
                found.append(pid)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def strangers(host: HostProcess, traces: Traces) -> list[psutil.Process]:
    marked = traces.alive()
    own = {process.pid for process in psutil.Process(host.pid).children(recursive=True)}
    return [process for process in marked if process.pid not in own and process.is_running()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.005)
