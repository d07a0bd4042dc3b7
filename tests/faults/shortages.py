"""A host that is short of descriptors, processes, threads, memory or disk for a while, at random moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults_kit import Report
from kit import eventually
from live_kit import DEADLINE, Traces, damage_project, percentile

TITLE = "shortages"
SHORT = {"rounds": 5, "seconds": 3.0}
LONG = {"rounds": 200, "seconds": 10.0}

KINDS = ("descriptors", "processes", "threads", "memory", "disk")
DAMAGES = ("kill", "kill", "save", "restart", "nothing")

BOTS = ("plain", "reloading", "chatty")
OTHER_USER = 64321
"""Of nobody: the limit of processes and threads counts all that a user has, and does not hold for root."""

REST = 5
"""Looks in a row, 0.2 s apart, that have to see the same before something is called at rest."""

THREADS_OF_A_BOT = 4
"""In the host; they end with the bot, and their successors must not find room by that."""

MEMORY = (-64, 2)
"""MiB that the host may still take. Below zero, as it lives on what it has: stacks of threads that have ended are used
again."""

ADDRESS_SPACE = (30, 80)
"""MiB in all, when a bot is to be started: next to nothing for the host, which has 500 already, and too little for any
bot, whose interpreter has 130 when it has loaded NoneBot."""

RECOVERY = 60.0
"""Seconds until all are ready again: the longest wait between two tries (12 s) and a start, on a busy machine."""

TOLD = r"What helps: |log file .* cannot be written: |(exited|killed) .* before it was ready"
"""What the host says of a shortage that it has met."""

CHATTY = """
import asyncio
import nonebot
nonebot.init(driver="~none")

async def chat():
    while True:
        print("still here " + "x" * 100, flush=True)
        await asyncio.sleep(0.02)

@nonebot.get_driver().on_startup
async def begin():
    nonebot.get_driver().task_group.start_soon(chat)

nonebot.run()
"""


async def run(report: Report, folder: Path, *, rounds: int, seconds: float, seed: int = 1) -> None:
    """
    Args:
        rounds: shortages, of each kind in turn.
        seconds: that each lasts. At a random moment in it something happens for which the host needs what is short.
        seed: of all that is random here.
    """
    dice = random.Random(seed)
    traces = Traces(folder)
    with small_disk(folder / "disk") as real_disk, ShortHost(folder, traces, real_disk=real_disk) as host:
        await host.all_ready()
        await host.restart("plain")  # what is made once is there from here on
        before = await host.settled()
        storm = Storm(host, dice, seconds)
        for number in range(rounds):
            await storm.round(KINDS[number % len(KINDS)])
            if host.ended:
                break
        after = {} if host.ended else await host.settled()
        report.hold(f"shortages of {seconds:g} s (seed {seed})", dict(storm.rounds), f"{rounds}", True)
        report.hold("in which the host was short of something it needed", dict(storm.met), "each kind", storm.met_all)
        report.hold("tasks refused", host.tasks, "by the system, or said", True)
        report.hold("disk full", "really" if real_disk else "by a limit of the size of files", "or said", True)
        report.hold("the host lives", not host.ended, "True", not host.ended)
        report.none("rounds after which a bot was not ready again", storm.not_ready)
        if storm.ready_after:
            report.below("until all are ready again, at most", max(storm.ready_after), RECOVERY, "s")
            report.below("until all are ready again, p50", percentile(storm.ready_after, 0.5), RECOVERY, "s")
        grown = after.get("descriptors", 0) - before["descriptors"]
        report.hold("the host's descriptors more than before", grown, "0 or fewer", grown <= 0)
        more = Counter(after.get("threads", [])) - Counter(before["threads"])
        report.none("the host's threads more than before", dict(more))
        if storm.rounds["disk"]:
            full, again = (
                len(host.lines("log file .* cannot be written")),
                len(host.lines("log file .* is written again")),
            )
            report.hold(
                "log files written again, after a full disk", f"{again}, {full} times", "each time", again >= full
            )
        report.none("errors inside lycomm", host.lines("[Pp]lease report this", "^Traceback"))
        if not host.ended:
            report.hold("its exit code", await host.stop(), "0", host.exit_code == 0)
    await traces.report(report)


class Storm:
    """One shortage after another, and what became of the bots."""

    def __init__(self, host: ShortHost, dice: random.Random, seconds: float) -> None:
        self.rounds: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.not_ready: list[str] = []
        self.ready_after: list[float] = []
        self._host = host
        self._dice = dice
        self._seconds = seconds

    @property
    def met_all(self) -> bool:
        return set(self.met) == set(self.rounds)

    async def round(self, kind: str) -> None:
        dice, host = self._dice, self._host
        await asyncio.sleep(dice.uniform(0, 0.3))
        # The first of each kind is one that the host surely meets.
        sure = not self.rounds[kind]
        damage = "kill" if sure else dice.choice(DAMAGES)
        bot = "plain" if sure else dice.choice(BOTS)
        moment = 0.0 if sure else dice.uniform(0, self._seconds / 2)
        told = len(host.lines(TOLD))
        await host.begin(kind, dice, bot if damage == "kill" else None, sure=sure)
        self.rounds[kind] += 1
        await asyncio.sleep(moment)
        await host.damage(damage, bot)
        await asyncio.sleep(self._seconds - moment)
        if sure:  # on a busy machine it may take longer
            with contextlib.suppress(AssertionError):
                await eventually(lambda: len(host.lines(TOLD)) > told, DEADLINE)
        await host.end(kind)
        began = time.monotonic()
        try:
            await host.all_ready()
            self.ready_after.append(time.monotonic() - began)
        except AssertionError:
            states = "the host has ended" if host.ended else await host.ask(states=True)
            self.not_ready.append(f"{kind}, {damage}: {states}")
        if len(host.lines(TOLD)) > told:
            self.met[kind] += 1


class ShortHost:
    """A host in a process of its own, ``short_host.py``; as another user, where that is possible and needed."""

    def __init__(self, folder: Path, traces: Traces, *, real_disk: bool) -> None:
        disk = folder / "disk"
        self._disk = disk
        self._real_disk = real_disk
        self._log = folder / "host.log"
        self.exit_code: int | None = None
        self.tasks = "by the system"
        for name in BOTS:
            damage_project(disk / name)
        (disk / "chatty" / "bot.py").write_text(CHATTY)
        (disk / "pyproject.toml").write_text(_settings(traces))
        command = [sys.executable, str(Path(__file__).with_name("short_host.py")), str(disk)]
        if os.getuid() == 0:
            command = self._as_another_user(folder) + command
        reading, writing = os.pipe()
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [*command, str(writing)],
                cwd=disk,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,
                env={**os.environ, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        os.close(writing)
        self._replies = os.fdopen(reading, encoding="utf-8")

    def _as_another_user(self, folder: Path) -> list[str]:
        """What makes a command another user's, who may read and write as root does."""
        capabilities = "+dac_override,+dac_read_search"
        command = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups"]
        command += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
        works = shutil.which("setpriv") and subprocess.run([*command, sys.executable, "-c", ""]).returncode == 0
        if not works:
            self.tasks = "at the calls (root has no such limit, and there is no setpriv)"
            return []
        subprocess.run(["chown", "-R", f"{OTHER_USER}:{OTHER_USER}", str(folder)], check=True)
        return command

    def __enter__(self) -> ShortHost:  # noqa: PYI034  # nothing derives from it
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._replies.close()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    async def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = await asyncio.wait_for(asyncio.to_thread(self._replies.readline), DEADLINE)
        assert line, "the host has ended:\n" + "\n".join(self.lines(".")[-20:])
        reply = json.loads(line)
        if isinstance(reply, dict) and "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    async def settled(self) -> Any:
        """Its descriptors and threads, once they have been the same for a while."""
        seen: list[Any] = []

        async def at_rest() -> bool:
            seen.append(await self.ask(held=True))
            await asyncio.sleep(0.2)
            return len(seen) >= REST and all(one == seen[-1] for one in seen[-REST:])

        with contextlib.suppress(AssertionError):
            await eventually(at_rest, DEADLINE)
        return seen[-1]

    async def all_ready(self) -> None:
        """Raises AssertionError: they are not, in a while, or the host has ended."""

        async def ready() -> bool:
            assert not self.ended, f"the host has ended: {self.lines('.')[-5:]}"
            states = await self.ask(states=True)
            return all(state in ("ready", "busy") and pid is not None for state, pid in states.values())

        await eventually(ready, RECOVERY)

    async def begin(self, kind: str, dice: random.Random, going: str | None, *, sure: bool) -> None:
        """Make it short of that.

        Args:
            going: a bot that is about to be killed.
            sure: so short that the next start certainly fails.
        """
        if kind == "descriptors":
            await self._begin("descriptors", -1 if sure else dice.choice((-1, 0, 1, 2, 5, 9)))
        elif kind in ("processes", "threads"):
            tasks = "tasks" if self.tasks == "by the system" else "refused tasks"
            pid = None if going is None else (await self.ask(states=True))[going][1]
            room = (0 if sure or kind == "processes" else dice.randint(1, 3)) - (THREADS_OF_A_BOT if pid else 0)
            await self._begin(tasks, room, going=pid or 0)
        elif kind == "memory" and going is not None:
            await self._begin("address space", ADDRESS_SPACE[0] if sure else dice.randint(*ADDRESS_SPACE))
        elif kind == "memory":
            await self._begin("memory", dice.randint(*MEMORY))
        elif self._real_disk:
            fill(self._disk / "filler")
        else:
            await self._begin("file size", 0)

    async def _begin(self, what: str, room: int, *, going: int = 0) -> None:
        await self.ask(short={"what": what, "room": room, "going": going})

    async def end(self, kind: str) -> None:
        if kind == "disk" and self._real_disk:
            (self._disk / "filler").unlink()
        else:
            await self.ask(enough=True)

    async def damage(self, damage: str, bot: str) -> None:
        if damage == "kill":
            await self.kill(bot)
        elif damage == "save":
            with contextlib.suppress(OSError):  # the disk may be full
                os.utime(self._disk / "reloading" / "lab.py")
        elif damage == "restart":
            await self.ask(restart=bot)

    async def kill(self, bot: str) -> None:
        _, pid = (await self.ask(states=True))[bot]
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def restart(self, bot: str) -> None:
        """Returns when another one is ready."""
        _, before = (await self.ask(states=True))[bot]
        await self.ask(restart=bot)

        async def another() -> bool:
            state, pid = (await self.ask(states=True))[bot]
            return state == "ready" and pid != before

        await eventually(another, RECOVERY)

    async def stop(self) -> int:
        await self.ask(stop=True)
        self.exit_code = await asyncio.wait_for(asyncio.to_thread(self._process.wait), DEADLINE)
        return self.exit_code

    def lines(self, *patterns: str) -> list[str]:
        """What it has said so far that is like one of these."""
        text = self._log.read_text("utf-8", "replace")
        return [line for line in text.splitlines() if any(re.search(pattern, line) for pattern in patterns)]


def _settings(traces: Traces) -> str:
    lines = ["[tool.lycomm]", 'log_dir = "logs"']
    for name in BOTS:
        lines += [f"[tool.lycomm.processes.{name}]", f'project = "{name}"', "max_restarts = 1000"]
        lines += ["backoff_base = 0.2", "backoff_max = 0.5", 'memory_limit = "4 GiB"', "drain_timeout = 0"]
        if name == "reloading":
            lines.append('reload = "swap"')
        lines += [f"[tool.lycomm.processes.{name}.env]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in traces.environment(name).items()]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own in *folder*, of 4 MiB. False: there may be none, and *folder* is an ordinary one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    real = sys.platform == "linux" and os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield real
    finally:
        if real:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
