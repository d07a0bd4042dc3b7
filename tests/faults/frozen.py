"""Bots that hang: each way is found in time, called by its name, shown, and ended; and no bot that works is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from faults_kit import Report
from live_kit import DEADLINE, SERVING, LiveHost, Traces, every_core_busy, live_host, percentile

from liteyuki_host.comm.channel.outbox import MAX_ATTEMPTS
from liteyuki_host.supervisor.states import State

TITLE = "bots that hang"
SHORT = {
    "stopped": 1,
    "blocked": 1,
    "locked": 1,
    "poisoned": 0,
    "lanes": 3,
    "limit": 1.0,
    "busy_seconds": 6.0,
    "import_seconds": 1.0,
}
LONG = {
    "stopped": 50,
    "blocked": 50,
    "locked": 10,
    "poisoned": 10,
    "lanes": 4,
    "limit": 2.0,
    "busy_seconds": 1800.0,
    "import_seconds": 60.0,
}

SLACK = 1.0
"""Seconds beyond its limit until a hanging bot must be found."""


@dataclass(frozen=True)
class Hang:
    """A way to hang, and what must be said of it."""

    begin: Callable[[LiveHost, str], None]
    state: State
    words: str
    shown: str
    """In the stacks: where it hangs. Of a stopped process that is anywhere."""


def _stop(lab: LiveHost, name: str) -> None:
    os.kill(lab.pid(name), signal.SIGSTOP)


def _in_child(damage: str, **arguments: Any) -> Callable[[LiveHost, str], None]:
    return lambda lab, name: lab.start_damage(name, damage, **arguments)


STOPPED = Hang(_stop, State.FROZEN, "process stopped", "launch.py")
BLOCKED = Hang(_in_child("sleep", seconds=3600), State.BLOCKED, "event loop blocked", "in damage_sleep")
LOCKED = [
    Hang(_in_child("sum"), State.FROZEN, "interpreter's lock held", "in damage_sum"),
    Hang(_in_child("regex"), State.FROZEN, "interpreter's lock held", "in damage_regex"),
]


@dataclass(frozen=True)
class Found:
    seconds: float
    """From the beginning of the hang until it was found."""
    wrong: str
    """What was not as it should be, in words; empty: nothing."""


async def run(
    report: Report,
    folder: Path,
    *,
    stopped: int,
    blocked: int,
    locked: int,
    poisoned: int,
    lanes: int,
    limit: float,
    busy_seconds: float,
    import_seconds: float,
) -> None:
    traces = Traces(folder)
    hangs = [*[STOPPED] * stopped, *[BLOCKED] * blocked, *(LOCKED[number % 2] for number in range(locked))]
    short = {"loop_timeout": limit, "freeze_timeout": limit, "max_restarts": 1000, "backoff_base": 0.0}
    victims = {f"victim{number}": short for number in range(lanes)}
    async with live_host(folder, traces, victims) as lab:
        await lab.ready(*victims)
        found = await _hang_all(lab, list(victims), hangs)
        poison = [wrong for _ in range(poisoned) if (wrong := await _poison(lab, "victim0", limit))]
    if poisoned:
        report.none(f"{poisoned} times a message that blocks each new bot at once: not got rid of in time", poison)
    _report_hangs(report, found, limit)
    await _nobody_else(report, folder, traces, busy_seconds, import_seconds)
    await traces.report(report)


async def _hang_all(lab: LiveHost, victims: list[str], hangs: list[Hang]) -> list[tuple[Hang, Found]]:
    waiting, found = list(reversed(hangs)), []

    async def lane(name: str) -> None:
        while waiting:
            hang = waiting.pop()
            found.append((hang, await _hang(lab, name, hang)))

    await asyncio.gather(*map(lane, victims))
    return found


async def _hang(lab: LiveHost, name: str, hang: Hang) -> Found:
    last_line, began = lab.host.output(name).last, time.time()
    hang.begin(lab, name)
    found = await lab.entered(name, State.BLOCKED, State.FROZEN, State.STOPPING, since=began)
    await lab.entered(name, State.READY, since=found.at)
    wrong = []
    if (found.state, found.cause.rpartition(" ")[0].rpartition(" ")[0]) != (hang.state, hang.words):
        wrong.append(f"called {found.state}: {found.cause}")
    text = lab.text(name, last_line)
    if text.count("Thread 0x") + text.count("thread 0x") < 2 or hang.shown not in text:
        wrong.append(f"its stacks are not in its output, or do not show {hang.shown!r}: {text[-2000:]}")
    return Found(found.at - began, f"{hang.words}: {', '.join(wrong)}" if wrong else "")


async def _poison(lab: LiveHost, name: str, limit: float) -> str:
    """A bot that hangs as soon as it is ready, until the message is given up. Returns what went wrong, if anything."""
    began = time.time()
    lab.poison(name, "sleep", seconds=3600)
    for _ in range(MAX_ATTEMPTS):
        found = await lab.entered(name, State.BLOCKED, since=began)
        if not limit <= found.at - began <= limit + SLACK:
            return f"found after {found.at - began:.2f} s"
        began = (await lab.entered(name, State.READY, since=found.at)).at
    return "" if await lab.ask(name, "echo", value=1) == 1 else "does not work"


def _report_hangs(report: Report, found: list[tuple[Hang, Found]], limit: float) -> None:
    for hang in (STOPPED, BLOCKED, *LOCKED):
        seconds = [result.seconds for kind, result in found if kind is hang]
        if seconds:
            what = f"{len(seconds)} times {hang.words}" + f" ({hang.shown})" * (hang in LOCKED)
            median, most = percentile(seconds, 0.5), max(seconds)
            report.hold(
                f"{what}: found after, limit {limit:g} s",
                f"median {median:.2f} s, at most {most:.2f} s",
                f"{limit:g} to {limit + SLACK:g} s",
                limit <= min(seconds) and most <= limit + SLACK,
            )
    report.none("called by a wrong name, or not shown with all its threads", [r.wrong for _, r in found if r.wrong])


async def _nobody_else(report: Report, folder: Path, traces: Traces, seconds: float, import_seconds: float) -> None:
    """Every core is busy, and bots that work are left alone."""
    calm = [f"calm{number}" for number in range(1 if seconds < 60 else 3)]
    declared: dict[str, dict[str, Any]] = {name: {} for name in calm}
    declared["strict"] = {"loop_timeout": 5.0, "freeze_timeout": 5.0}
    declared["slow"] = {
        "autostart": False,
        "ready_timeout": 600.0,
        "env": {"DAMAGE": f"import={import_seconds}"},
    }
    async with live_host(folder, traces, declared) as lab:
        await lab.ready(*calm, "strict")
        began = time.time()
        async with every_core_busy():
            psutil.cpu_percent()  # from here on
            lab.host.start_process("slow")
            until = time.monotonic() + seconds
            await lab.ready("slow", timeout=import_seconds * 10 + DEADLINE)
            await asyncio.sleep(max(until - time.monotonic(), 0))
            busy = psutil.cpu_percent()
        alarms = [
            f"{step.process} {step.state} ({step.cause})"
            for name in declared
            for step in lab.story(name, began)
            if step.state not in (State.STARTING, State.HOOKS_DONE, *SERVING)
        ]
    report.hold(f"every core busy for {seconds:,.0f} s", f"{busy:.0f} %", "> 97 %", busy > 97)
    report.none("false alarms meanwhile", alarms)
