"""Children that do what no child should: each ends in the state that says so, and its neighbours notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
from faults_kit import Report
from kit import eventually
from live_kit import DEADLINE, LiveHost, Traces, live_host

from liteyuki_host.supervisor.states import State

TITLE = "children that behave badly"
SHORT = {"rounds": 1, "flood_seconds": 2.0, "reply_limit": 2.0}
LONG = {"rounds": 20, "flood_seconds": 30.0, "reply_limit": 1.0}

PROCESSES: dict[str, dict[str, Any]] = {
    "neighbour": {},
    "flooder": {},
    "half": {},
    "closer": {"backoff_base": 0.0, "max_restarts": 1000},
    "forker": {},
    "deaf": {
        "env": {"DAMAGE": "deaf"},
        "autostart": False,
        "drain_timeout": 0.5,
        "stop_timeout": 0.5,
        "interrupt_timeout": 0.3,
        "terminate_timeout": 0.3,
    },
    "quitter": {"restart": "always", "max_restarts": 2, "backoff_base": 0.05, "autostart": False},
}


async def run(report: Report, folder: Path, *, rounds: int, flood_seconds: float, reply_limit: float) -> None:
    traces = Traces(folder)
    quitter = folder / "quitter"
    quitter.mkdir()
    (quitter / "bot.py").write_text("import sys\nsys.exit(0)  # where nonebot.run() should be\n")
    processes = {**PROCESSES, "quitter": {**PROCESSES["quitter"], "project": str(quitter)}}
    async with live_host(folder, traces, processes) as lab:
        await lab.ready("neighbour", "flooder", "half", "closer", "forker")
        await _flood(report, lab, flood_seconds, reply_limit)
        for number in range(1, rounds + 1):
            damaged = Report(f"{report.title}, round {number}")
            await asyncio.gather(
                _ends_before_it_is_ready(damaged, lab),
                _closes_everything(damaged, lab),
                _forks_and_exits(damaged, lab),
                _ignores_everything(damaged, lab),
            )
            if number == rounds or not damaged.holds:
                report.findings += damaged.findings
    await asyncio.to_thread(_wrong_settings, report, folder)
    await traces.report(report)


async def _flood(report: Report, lab: LiveHost, seconds: float, reply_limit: float) -> None:
    """One child writes as fast as it can, one never ends its line; the third wants to be heard."""
    me = psutil.Process()
    lab.start_damage("half", "half_line")
    memory, flood = (
        me.memory_info().rss,
        asyncio.ensure_future(lab.damage("flooder", "flood", seconds=seconds, timeout=seconds + DEADLINE)),
    )
    began, last_line = time.time(), lab.host.output("neighbour").last
    replies, asked = [], 0
    while not flood.done():
        asked += 1
        sent = time.monotonic()
        told = await lab.damage("neighbour", "control", verb="status")
        await lab.damage("neighbour", "say", text=f"line {asked} of the neighbour")
        replies.append(time.monotonic() - sent)
        assert {process["name"] for process in told} == set(PROCESSES)
        await asyncio.sleep(0.05)
    rate = await flood / seconds / 1e6
    await asyncio.sleep(0.5)  # what the pipes still hold: a reader needs no longer for 64 KiB
    grown = (me.memory_info().rss - memory) / 1e6
    report.hold("a child floods its stderr with", f"{rate:.0f} MB/s", "> 1 MB/s", rate > 1)
    report.below("a neighbour's control round trip and a line meanwhile, slowest", max(replies), reply_limit, "s")
    text = lab.text("neighbour", last_line)
    report.none(
        f"of {asked} lines of the neighbour missing",
        [number for number in range(1, asked + 1) if f"line {number} of the neighbour" not in text],
    )
    report.below("memory of the host grown by", grown, 64, "MB")
    half = [len(line.text) for line in lab.host.output("half").lines()[0] if "half half" in line.text]
    report.hold("a line that never ends: shown in pieces", bool(half), "True", bool(half))
    report.below("the longest piece", max(half, default=0), 66_000, "characters")
    steps = [f"{name} {step.state}" for name in ("flooder", "half", "neighbour") for step in lab.story(name, began)]
    report.none("of the three not simply ready all the time", [step for step in steps if not step.endswith("ready")])


async def _ends_before_it_is_ready(report: Report, lab: LiveHost) -> None:
    began = time.time()
    lab.host.start_process("quitter")
    step = await lab.entered("quitter", State.FAILED, since=began)
    starts = [step.state for step in lab.story("quitter", began)].count(State.STARTING)
    report.hold("ends with 0 before it is ready, restart = always: starts until failed", starts, "3", starts == 3)
    _says(report, "and says", step.cause, "exited 0 before it was ready")


async def _closes_everything(report: Report, lab: LiveHost) -> None:
    began, pid = time.time(), lab.pid("closer")
    lab.start_damage("closer", "close_all")
    end = await lab.entered("closer", State.BACKING_OFF, State.FAILED, State.STOPPED, since=began)
    again = await lab.entered("closer", State.READY, since=end.at)
    report.hold("closes all its descriptors: ready again", f"{again.at - began:.1f} s", "yes", True)
    _says(report, "closes all its descriptors: it is said that it", end.cause, "lost its link", "exited", "killed by")
    report.none("closes all its descriptors: of it left", [pid] * _runs(pid))


async def _forks_and_exits(report: Report, lab: LiveHost) -> None:
    began, pid = time.time(), lab.pid("forker")
    lab.start_damage("forker", "fork_and_exit")
    step = await lab.entered("forker", State.STOPPED, since=began)
    _says(report, "forks and exits with 0: it is said that it", step.cause, "exited 0")
    with contextlib.suppress(AssertionError):
        await eventually(lambda: not _group(pid))  # killed they are; when they are gone is the system's business
    report.none("forks and exits: of its group left", _group(pid))
    await lab.host.astart_process("forker")


async def _ignores_everything(report: Report, lab: LiveHost) -> None:
    """Every signal, and the request to stop: its shutdown hook does not return."""
    await lab.host.astart_process("deaf")
    pid = lab.pid("deaf")
    await lab.damage("deaf", "deafen")
    began = time.monotonic()
    await asyncio.wait_for(lab.host.astop_process("deaf"), DEADLINE)
    seconds = time.monotonic() - began
    report.below("ignores every signal and every request, ladder of 1.1 s: gone after", seconds, 4, "s")
    _says(report, "and is", str(lab.status("deaf")["last_exit"]), "killed by SIGKILL")
    _says(report, "ignores everything: its state", lab.status("deaf")["state"], "stopped")
    report.none("ignores everything: of it left", [pid] * _runs(pid))


def _says(report: Report, what: str, words: str, *one_of: str) -> None:
    report.hold(what, words, " or ".join(one_of), any(expected in words for expected in one_of))


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid)


def _group(group: int) -> list[psutil.Process]:
    """Those of it that live. What has no parent left is a zombie until the system looks after it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _wrong_settings(report: Report, folder: Path) -> None:
    """Refused before anything runs, each in one line that names it."""
    project = folder / "settings"
    project.mkdir()
    settings = """\
        [tool.lycomm.processes.a]
        backoff_base = -1
        restart = "sometimes"
        after = ["b"]
        [tool.lycomm.processes.b]
        after = ["a"]
        """
    problems: dict[str, str] = {}
    for wrong, needles in {
        "backoff_base = -1": ["backoff_base", "-1"],
        'restart = "sometimes"': ["restart", "sometimes", "on-failure"],
        "after": ["after", "a", "b"],
    }.items():
        lines = textwrap.dedent(settings).splitlines()
        kept = [line for line in lines if line.startswith(("[", wrong))]
        (project / "pyproject.toml").write_text("\n".join(kept))
        check = subprocess.run(
            [sys.executable, "-m", "liteyuki_host", "check"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        said = check.stderr.splitlines()
        if check.returncode != 2 or len(said) != 1 or not all(needle in said[0] for needle in needles):
            problems[wrong] = f"exit code {check.returncode}, {json.dumps(said)}"
    report.none("wrong settings not refused in one line that names them (negative, unknown word, circle)", problems)
