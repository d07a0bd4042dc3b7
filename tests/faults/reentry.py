"""Finalizers, weakref callbacks, ``gc.callbacks``, signal handlers and log sinks that call lycomm from the middle of
its own work, in a bot and in the host: nothing hangs, and what was taken arrives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from bare_kit import bare_child, bare_host
from faults_kit import Report
from interruptions import KINDS
from kit import eventually
from live_kit import DEADLINE, Traces

TITLE = "re-entry"
SHORT = {"seconds": 1.0}
LONG = {"seconds": 60.0}

STALLED = 5.0
"""Seconds that one call may take at most: what hangs takes for ever. A log sink that waits for the thread of a
finalizer, which waits for the sink, goes on after 0.05 s."""


async def run(report: Report, folder: Path, *, seconds: float) -> None:
    """
    Args:
        seconds: that each kind goes on, in each process.
    """
    traces = Traces(folder)
    names = {kind: kind.replace(" ", "-") for kind in KINDS}
    specs = [
        bare_child(
            folder,
            traces,
            name,
            "interrupt",
            KIND=kind,
            SECONDS=str(seconds),
            FAULTS=str(Path(__file__).parent),
        )
        for kind, name in names.items()
    ]
    for kind, spec in zip(KINDS, specs, strict=True):
        async with bare_host([spec]) as host:
            numbers: list[int] = []
            over: list[list[float]] = []
            host.channel(f"numbers-{spec.name}").on_receive()(numbers.append)
            host.channel(f"work-{spec.name}").on_receive()(lambda round: None)
            host.channel(f"told-{spec.name}").on_receive()(over.append)
            await eventually(lambda found=over: found, seconds + DEADLINE)
            taken, rounds, stalled = over[0]
            await eventually(lambda found=numbers, count=taken: len(found) >= count, DEADLINE)
            once = len(set(numbers)) == len(numbers) >= taken  # more: what was freed after the count
            report.hold(
                f"a bot, {kind}: taken and arrived once", f"{taken:,.0f} and {len(numbers):,}", "no fewer", once
            )
            report.below(f"a bot, {kind}: the longest of {rounds:,.0f} rounds", stalled, STALLED, "s")
            report.none(f"a bot, {kind}: restarts", host.status(spec.name).restarts)
    for kind in KINDS:
        command = [sys.executable, str(Path(__file__).with_name("reentrant_host.py")), kind, str(seconds)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, env={**os.environ, **traces.environment(f"host {kind}")}
        )
        began = time.monotonic()
        try:
            out, _ = await asyncio.wait_for(process.communicate(), seconds + 2 * DEADLINE)
            taken, arrived, rounds, stalled = map(float, out.split()[-4:])
        except (asyncio.TimeoutError, ValueError):
            process.kill() if process.returncode is None else None
            report.hold(f"the host, {kind}", f"no answer in {time.monotonic() - began:.0f} s", "an answer", False)
            continue
        same = f"{taken:,.0f} and {arrived:,.0f}"
        report.hold(f"the host, {kind}: taken and arrived once", same, "no fewer", arrived >= taken > 0)
        report.below(f"the host, {kind}: the longest of {rounds:,.0f} rounds", stalled, STALLED, "s")
    await traces.report(report)
