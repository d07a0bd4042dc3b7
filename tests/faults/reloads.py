"""Saves of a bot's files while people ask it things: broken ones change nothing, good ones are one restart each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from faults_kit import Report
from kit import eventually, free_port, write
from live_kit import SERVING, LiveHost, Traces, live_host, percentile
from planned_restarts import host_lines

from liteyuki_host.supervisor.file_watch import QUIET_SECONDS
from liteyuki_host.supervisor.states import State, Transition

TITLE = "reloads"
SHORT = {"reloads": 3, "idle": 1.0}
LONG = {"reloads": 50, "idle": 60.0}

RATE = 100
"""Requests per second and bot, each on a connection of its own."""

ANSWER_SECONDS = 10.0
DEADLINE_SECONDS = 60.0
"""For a reload, which takes two or three."""

PAUSE_LIMIT = 5.0
"""Seconds without an answer when a bot is restarted by ``swap``, besides those that its start takes by itself: its
imports, on a machine that may be busy."""

PLUGIN = """
    import nonebot
    from fastapi import FastAPI

    app: FastAPI = nonebot.get_app()

    @app.get("/version")
    def version() -> int:
        return {version}
"""

BROKEN = {
    "syntax": "def",
    "missing module": "1\n\nimport no_such_module\n",
    "raises": "1\n\nraise RuntimeError('not today')\n",
}
"""Versions that cannot be loaded."""


async def run(report: Report, folder: Path, *, reloads: int, idle: float, seed: int = 1) -> None:
    """
    Args:
        reloads: saves for each mode; every third one breaks the bot's plugin.
        idle: seconds without a save, in the middle of them.
        seed: of the pauses between saves.
    """
    traces = Traces(folder)
    ports = {mode: bot_project(folder / mode) for mode in ("swap", "overlap")}
    processes: dict[str, dict[str, Any]] = {mode: {"project": str(folder / mode), "reload": mode} for mode in ports}
    dice = random.Random(seed)
    with host_lines() as lines:
        async with live_host(folder, traces, processes) as lab:
            await lab.ready(*ports)
            edits = [Edits(lab, mode, folder / mode, port, lines, dice) for mode, port in ports.items()]
            await asyncio.gather(*(each.run(reloads, idle) for each in edits))
    for each in edits:
        each.report(report)
    await traces.report(report)


def bot_project(folder: Path) -> int:
    """Make a bot; returns its port."""
    port = free_port()
    write(
        folder,
        {
            "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
            ".env": f"DRIVER=~fastapi\nPORT={port}\nLOG_LEVEL=WARNING\n",
            "plugins/mine.py": PLUGIN.format(version=0),
        },
    )
    return port


@dataclass(frozen=True)
class Asked:
    """One request."""

    began: float
    ended: float
    """``time.time()``."""
    answer: str
    """What the bot said, or what went wrong."""

    @property
    def failed(self) -> bool:
        return not self.answer.isdecimal()


class Visitors:
    """Ask a bot for its version, ``RATE`` times a second, until cancelled."""

    def __init__(self, port: int) -> None:
        self.asked: list[Asked] = []
        """In the order of their ends."""
        self._port = port

    async def run(self) -> None:
        asking: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        try:
            while True:
                task = asyncio.ensure_future(self._ask())
                asking.add(task)
                task.add_done_callback(asking.discard)
                due += 1 / RATE
                await asyncio.sleep(due - time.monotonic())
        finally:
            if asking:
                await asyncio.wait(asking)

    async def _ask(self) -> None:
        began = time.time()
        try:
            answer = await asyncio.wait_for(self._get(), ANSWER_SECONDS)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            answer = f"{type(error).__name__}: {error}"
        self.asked.append(Asked(began, time.time(), answer))

    async def _get(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"GET /version HTTP/1.1\r\nHost: bot\r\nConnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return body.decode() if b" 200 " in head else f"answered {head!r}"


class Edits:
    """Edits one bot while it has visitors, and counts what comes of it."""

    def __init__(
        self, lab: LiveHost, mode: str, project: Path, port: int, lines: list[str], dice: random.Random
    ) -> None:
        self._lab = lab
        self._mode = mode
        self._project = project
        self._plugin = project / "plugins" / "mine.py"
        self._lines = lines
        self._dice = dice
        self._visitors = Visitors(port)
        self._broken: list[tuple[float, float]] = []
        """From each save until the next one; ``time.time()``, like all here."""
        self._good: list[tuple[float, float]] = []
        """From each save until the restart is over."""
        self._idle = 0.0
        self._restarts = self._allowed = 0
        self._steps: list[Transition] = []
        self._wrong: list[str] = []

    async def run(self, reloads: int, idle: float) -> None:
        visiting = asyncio.ensure_future(self._visitors.run())
        try:
            for number in range(reloads):
                await (self._break(number // 3) if number % 3 == 0 else self._improve(number))
                if number == reloads // 2:
                    await self._nothing(idle)
            await asyncio.sleep(1.0)  # a second restart after the last save would be one too many
            self._restarts = self._lab.status(self._mode)["restarts"]
        finally:
            visiting.cancel()
            await asyncio.wait({visiting})

    async def _break(self, number: int) -> None:
        kind = list(BROKEN)[(number + (self._mode == "overlap")) % len(BROKEN)]
        pid, heard, began = self._lab.pid(self._mode), len(self._lines), time.time()
        self._save(BROKEN[kind])
        turned_down = f"child {self._mode}: the change cannot start: "
        await self._until(lambda: any(line.startswith(turned_down) for line in self._lines[heard:]), f"end of {kind}")
        await self._pause()
        self._broken.append((began, time.time()))
        if self._lab.pid(self._mode) != pid or self._starts(began):
            self._wrong.append(f"{kind}: pid {pid} has become {self._lab.pid(self._mode)}")

    async def _improve(self, number: int) -> None:
        heard, began = len(self._lines), time.time()
        await asyncio.to_thread((self._save, self._replace, self._save_three_times)[number % 5 % 3], number)
        # On a machine that does not get round to the next write in time, it is a save of its own.
        allowed = 1 if time.time() - began < QUIET_SECONDS else 3
        await self._until(lambda: self._serves(number) and self._at_rest(heard), f"version {number}")
        self._good.append((began, time.time()))
        self._steps += self._lab.story(self._mode, began)  # now: the host remembers only the last ones
        self._allowed += allowed
        await self._pause()
        if self._starts(began) > allowed:
            self._wrong.append(f"{self._starts(began)} starts after version {number} was saved")

    async def _nothing(self, seconds: float) -> None:
        """Nothing that concerns the bot is changed; everything is read, and other files are written."""
        heard, began = len(self._lines), time.time()
        for name in ("notes.txt", "data.db", "plugins/.mine.py.swp", "plugins/__pycache__/mine.py"):
            (self._project / name).parent.mkdir(exist_ok=True)
            (self._project / name).write_text("not of the code")
        while time.time() < began + seconds:
            for path in self._project.rglob("*"):
                if path.is_file():
                    path.read_bytes()
            await asyncio.sleep(0.1)
        self._idle = time.time() - began
        if self._starts(began) or any("changed" in line for line in self._lines_about(heard)):
            self._wrong.append("restarted without a change")

    # Ways to save.

    def _save(self, version: int | str) -> None:
        self._plugin.write_text(textwrap.dedent(PLUGIN).format(version=version), encoding="utf-8")

    def _replace(self, version: int) -> None:
        """As editors do that never leave half a file."""
        beside = self._plugin.with_suffix(".py.tmp")
        beside.write_text(textwrap.dedent(PLUGIN).format(version=version), encoding="utf-8")
        os.replace(beside, self._plugin)

    def _save_three_times(self, version: int) -> None:
        """As with slow formatters: the watcher sees each of them, and each could be started."""
        for each in (version + 1000, version + 2000, version):
            self._save(each)
            if each != version:
                time.sleep(0.12)

    # Waiting.

    async def _pause(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.5, 1.0))

    async def _until(self, look: Callable[[], object], what: str) -> None:
        try:
            await eventually(look, DEADLINE_SECONDS)
        except AssertionError:
            told = "\n".join(self._lines_about(-20))
            raise AssertionError(
                f"{self._mode}: no {what} in {DEADLINE_SECONDS:g} s; the last lines:\n{told}"
            ) from None

    def _starts(self, since: float) -> int:
        return sum(step.state is State.STARTING for step in self._lab.story(self._mode, since))

    def _serves(self, version: int) -> bool:
        return self._visitors.asked[-1].answer == str(version)

    def _at_rest(self, heard: int) -> bool:
        """The new bot is ready, and the old one has ended."""
        ended = any(line.startswith(f"child {self._mode} stopped after") for line in self._lines_about(heard))
        return ended and self._lab.status(self._mode)["state"] in map(str, SERVING)

    def _lines_about(self, since: int) -> list[str]:
        return [line for line in self._lines[since:] if line.startswith(f"child {self._mode}")]

    # What came of it.

    def report(self, report: Report) -> None:
        mode, asked = self._mode, self._visitors.asked
        failed = [request for request in asked if request.failed]
        in_broken = [request for request in failed if any(a <= request.began < b for a, b in self._broken)]
        report.none(
            f"{mode}: requests failed while the saved code was broken ({len(self._broken)} times)",
            [request.answer for request in in_broken],
        )
        report.none(f"{mode}: wrong", self._wrong)
        report.hold(
            f"{mode}: restarts after {len(self._good)} good saves, {self._idle:.0f} s without one between them",
            self._restarts,
            "one for each save",
            0 < len(self._good) <= self._restarts <= self._allowed,
        )
        if mode == "swap":
            pauses = [self._pause_in(period) for period in self._good]
            starts = [self._start_in(period) for period in self._good]
            beyond = max(pause - start for pause, start in zip(pauses, starts, strict=True))
            report.hold(
                "swap: pause of each restart",
                f"median {percentile(pauses, 0.5):.2f} s, at most {max(pauses):.2f} s, "
                f"of which the start of the bot itself {percentile(starts, 0.5):.2f} s and {max(starts):.2f} s",
                f"< {PAUSE_LIMIT:g} s beyond that start",
                beyond < PAUSE_LIMIT,
            )
        else:
            kinds = dict(Counter(request.answer for request in failed))
            report.hold(f"overlap: requests failed, of {len(asked):,}", f"{len(failed)} {kinds or ''}", "0", not failed)

    def _start_in(self, period: tuple[float, float]) -> float:
        """Seconds from the spawn until ready, as the host tells them."""
        steps = [step for step in self._steps if period[0] <= step.at <= period[1]]
        return next(float(step.cause.split()[2]) for step in steps if step.cause.startswith("ready in "))

    def _pause_in(self, period: tuple[float, float]) -> float:
        """The longest time between two answers."""
        begin, end = period
        answered = [
            request.ended
            for request in self._visitors.asked
            if begin <= request.ended <= end + 0.5 and not request.failed
        ]
        return max(later - earlier for earlier, later in pairwise(answered))
