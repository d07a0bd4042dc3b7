"""Runs the measures: peers take turns, round after round, each turn in fresh processes that do not outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from benchmarks import machine
from benchmarks.measures import Job, Measure
from benchmarks.peers import NAMES, peer
from benchmarks.processes import end_tree

ROOT = Path(__file__).resolve().parents[1]

PATIENCE = 60.0
"""Seconds that one turn may take beside the time that it measures: starts of processes on a busy machine."""

CAN_PIN = hasattr(os, "sched_setaffinity")


@dataclass
class Figures:
    """What one peer reached in one measure, round by round."""

    values: list[float] = field(default_factory=list)
    extras: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: dict[str, float]) -> None:
        self.values.append(result["value"])
        for name, value in result.items():
            if name != "value":
                self.extras.setdefault(name, []).append(value)

    @property
    def median(self) -> float:
        return median(self.values)

    def extra(self, name: str) -> float | None:
        values = self.extras.get(name)
        return median(values) if values else None


@dataclass
class Outcome:
    """A whole run."""

    measures: Sequence[Measure]
    figures: dict[str, dict[str, Figures]] = field(default_factory=dict)
    """By key of the measure and name of the peer."""
    missing: dict[str, str] = field(default_factory=dict)
    """What was not measured, and why: peers, and peers in one measure."""
    load: float | None = field(default_factory=machine.load)
    """Of the machine, before the run."""


@dataclass(frozen=True)
class Plan:
    measures: Sequence[Measure]
    peers: Sequence[str] = NAMES
    rounds: int = 5
    seconds: float = 0.5
    children: int = 20
    patience: float = PATIENCE


def run(plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """Do the whole plan. *tell* gets a line for each measure that is begun.

    Measure by measure, so that what is compared was measured within the same minute.
    """
    outcome = Outcome(plan.measures)
    present = []
    for name in plan.peers:
        reason = peer(name).missing()
        if reason is None:
            present.append(name)
        else:
            outcome.missing[name] = reason
    for number, measure in enumerate(plan.measures, 1):
        if measure.one_core and not CAN_PIN:
            outcome.missing[measure.key] = "this system cannot pin a process to a core"
            continue
        tell(f"[{number}/{len(plan.measures)}] {measure.key}: {measure.title}")
        _measure(plan, measure, [name for name in present if peer(name).does(measure)], outcome)
    return outcome


def _measure(plan: Plan, measure: Measure, names: Sequence[str], outcome: Outcome) -> None:
    failed: set[str] = set()
    for _ in range(plan.rounds):
        for name in names:
            if name in failed:
                continue
            job = Job(name, measure.workload, measure.subject, measure.one_core, plan.seconds, plan.children)
            try:
                result = turn(job, plan.patience + 20 * job.seconds + job.children)
            except TurnFailed as error:
                failed.add(name)
                outcome.missing[f"{name}, {measure.key}"] = str(error)
                continue
            outcome.figures.setdefault(measure.key, {}).setdefault(name, Figures()).add(result)


class TurnFailed(Exception):
    """A peer did not deliver; the text says what it said last."""


def turn(job: Job, patience: float) -> dict[str, float]:
    """One measurement in a process of its own, which gets *patience* seconds.

    Raises:
        TurnFailed: no result, or none in time.
    """
    with tempfile.TemporaryDirectory(prefix="lycomm-benchmarks-") as folder:
        result, printed = Path(folder, "result.json"), Path(folder, "printed.txt")
        with printed.open("wb") as output, _process(job, result, output) as process:
            try:
                code = process.wait(patience)
            except subprocess.TimeoutExpired:
                raise TurnFailed("no result in time") from None
        if code or not result.exists():
            lines = printed.read_text(errors="replace").strip().splitlines()
            raise TurnFailed(lines[-1][:200] if lines else f"it ended with code {code}")
        values: dict[str, float] = json.loads(result.read_text())
        return values


@contextlib.contextmanager
def _process(job: Job, result: Path, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The host of one turn; it and all it has started are ended with the block, whatever ends that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LYCOMM_")}
    environment["PYTHONPATH"] = str(ROOT)
    environment["TMPDIR"] = str(result.parent)  # goes with the turn, also after a kill
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pair", job.to_json(), str(result)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,  # nothing is written: its end is that of the runner
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl+C is for the runner, which ends them all
    )
    try:
        yield process
    finally:
        end_tree(process)
        assert process.stdin is not None
        process.stdin.close()
