"""Children that crash again and again: what follows is what the policy says, it comes to an end, and a neighbour hardly
notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from faults_kit import Report
from live_kit import LiveHost, Traces, live_host, percentile, round_trips
from policy_model import Mismatch, Tally, compare

from liteyuki_host.supervisor.exits import Kind
from liteyuki_host.supervisor.spec import Restart
from liteyuki_host.supervisor.states import State

TITLE = "crash loops"
SHORT = {"sequences": 3000, "phases": 4, "phase_seconds": 0.6, "moved": 4.0, "anyway": 0.005, "seed": 3}
LONG = {"sequences": 10_000, "phases": 40, "phase_seconds": 3.0, "moved": 0.2, "anyway": 0.0, "seed": 3}

PAUSE = 0.002
"""Seconds between a neighbour's reply and the next request: some 300 requests a second, what a busy bot does."""

CRASHING: dict[str, Any] = {"backoff_base": 0.5, "backoff_max": 0.5}
"""Twice as fast as the first restart of the default policy, and it never gets slower."""


async def run(
    report: Report,
    folder: Path,
    *,
    sequences: int,
    phases: int,
    phase_seconds: float,
    moved: float,
    anyway: float,
    seed: int,
) -> None:
    """
    Args:
        moved: share by which the neighbour's round trips may become slower.
        anyway: seconds that they may take whatever they took before. In a short phase the 99th percentile is that of
            two trips, which wait for whoever has the processor, and on a quick machine they take 0.3 ms otherwise.
    """
    await asyncio.to_thread(_simulated, report, sequences, seed)
    traces = Traces(folder)
    crasher = folder / "crasher"
    crasher.mkdir()
    (crasher / "bot.py").write_text("import nonebot\nnonebot.init()\nraise RuntimeError('on purpose')\n")
    declared: dict[str, dict[str, Any]] = {
        "neighbour": {},
        "crasher": {**CRASHING, "project": str(crasher), "autostart": False, "max_restarts": 1000},
        "limited": {**CRASHING, "project": str(crasher), "autostart": False, "max_restarts": 2, "backoff_base": 0.05},
    }
    async with live_host(folder, traces, declared) as lab:
        await lab.ready("neighbour")
        await _beside_a_neighbour(report, lab, phases, phase_seconds, moved, anyway)
        await _comes_to_an_end(report, lab)
    await traces.report(report)


def _simulated(report: Report, sequences: int, seed: int) -> None:
    try:
        tally, differences = compare(sequences, seed=seed), 0
    except Mismatch as exc:
        tally, differences = Tally(), 1
        report.hold(f"the first difference, seed {seed}", exc, "none", False)
    report.none(f"{sequences:,} sequences of ends on a simulated clock, other than the model says", differences)
    seen = {(policy, cause) for policy, cause, _ in tally.seen}
    missing = [f"{policy} {cause}" for policy, cause in itertools.product(Restart, Kind) if (policy, cause) not in seen]
    report.none(f"of {len(Restart) * len(Kind)} pairs of policy and cause not met", missing)


async def _beside_a_neighbour(
    report: Report, lab: LiveHost, phases: int, seconds: float, moved: float, anyway: float
) -> None:
    """In turns, so that whatever else the machine does meets all: alone; beside the crashing child; beside the same
    programme that crashes as often and is nobody's child here, which shows what the processor's time alone does."""
    taken: dict[str, list[list[float]]] = {"alone": [], "child": [], "stranger": []}
    crashes = 0
    await round_trips(lab, "neighbour", seconds, pause=PAUSE)  # the first ones are slower
    for _ in range(phases):
        taken["alone"].append(await round_trips(lab, "neighbour", seconds, pause=PAUSE))
        began = time.time()
        lab.host.start_process("crasher")
        await lab.entered("crasher", State.STARTING, since=began)
        taken["child"].append(await round_trips(lab, "neighbour", seconds, pause=PAUSE))
        await lab.host.astop_process("crasher")
        crashes += [step.state for step in lab.story("crasher", began)].count(State.STARTING)
        async with _crashing_stranger(lab.host.folder / "crasher"):
            taken["stranger"].append(await round_trips(lab, "neighbour", seconds, pause=PAUSE))
    p99 = {who: statistics.median(percentile(trips, 0.99) for trips in phase) * 1e3 for who, phase in taken.items()}
    p50 = {who: statistics.median(percentile(trips, 0.5) for trips in phase) * 1e3 for who, phase in taken.items()}
    what = f"a neighbour's round trip, 99th percentile, while a child starts and crashes ({crashes} times in all)"
    for other, of_it in (("alone", "alone"), ("stranger", "beside a stranger that does the same")):
        change = p99["child"] / p99[other] - 1
        medians = f"median {p50['child']:.2f} and {p50[other]:.2f} ms"
        report.hold(
            f"{what}, against {of_it}",
            f"{p99['child']:.2f} and {p99[other]:.2f} ms: {change:+.0%} ({medians})",
            f"less than {moved:+.0%}" + (f", or than {anyway * 1e3:g} ms" if anyway else ""),
            change < moved or p99["child"] < anyway * 1e3,
        )
    report.hold("crashes in each such phase, on average", f"{crashes / phases:.1f}", "1 or more", crashes >= phases)


@contextlib.asynccontextmanager
async def _crashing_stranger(folder: Path) -> AsyncIterator[None]:
    async def crash() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "bot.py", cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                await process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await asyncio.sleep(CRASHING["backoff_base"])

    crashing = asyncio.ensure_future(crash())
    try:
        yield
    finally:
        crashing.cancel()
        await asyncio.wait({crashing})


async def _comes_to_an_end(report: Report, lab: LiveHost) -> None:
    began = time.time()
    lab.host.start_process("limited")
    step = await lab.entered("limited", State.FAILED, since=began)
    starts = [step.state for step in lab.story("limited", began)].count(State.STARTING)
    report.hold("a loop with max_restarts = 2: starts until it has failed", starts, "3", starts == 3)
    expected = "exited 1 before it was ready"
    report.hold("and says", step.cause, expected, expected in step.cause)
