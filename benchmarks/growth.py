"""``python -m benchmarks growth``: how cost grows with the number and size of things, as plots and as slopes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.measures import Job
from benchmarks.peers import OURS
from benchmarks.runner import TurnFailed, turn
from benchmarks.svg import Points, count, plot, seconds

PATIENCE = 600.0
"""Seconds that one turn may take: ten million messages, a million keys."""

TIE = 1.3
"""So many times more than linear is not yet a bend: differences below that come and go from run to run."""

ROUNDS = 3
"""Of a curve each of whose points has a host of its own; the others repeat inside of one."""


@dataclass(frozen=True)
class Curve:
    name: str
    title: str
    across: str
    sizes: Sequence[int]
    own_host: bool = False
    """Each point needs a host that was started for it."""
    quick: int = 10**12
    """The largest size of a quick look."""


CURVES = (
    Curve("messages", "Messages of 35 characters, one way", "messages", [10**n for n in range(3, 8)], quick=10**6),
    Curve("values", "One message by its size", "bytes", [*(10**n for n in range(1, 8)), 64 * 2**20]),
    Curve("keys", "Keys of the shared memory", "keys", [10**n for n in range(2, 7)], quick=10**5),
    Curve("children", "Children of one host", "children", [1, 2, 5, 10, 20, 50], own_host=True, quick=10),
    Curve("subscribers", "Subscribers in one child", "subscribers", [1, 2, 5, 10, 20, 50, 100, 200], own_host=True),
)

NAMES = tuple(curve.name for curve in CURVES)


def run(names: Sequence[str], *, quick: bool, folder: Path, tell: Callable[[str], None]) -> Iterator[str]:
    """Measure the curves, write ``growth-NAME.svg`` for each, and yield what they say, line by line."""
    folder.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    for curve in CURVES:
        if curve.name not in names:
            continue
        tell(f"growth: {curve.title}")
        try:
            series = _measure(curve, quick)
        except TurnFailed as error:
            yield f"{curve.name}: not measured: {error}"
            continue
        path = folder / f"growth-{curve.name}.svg"
        path.write_text(plot(curve.title, curve.across, series), "utf-8")
        yield from _words(curve, series)


def _measure(curve: Curve, quick: bool) -> dict[str, Points]:
    sizes = [size for size in curve.sizes if not quick or size <= curve.quick]
    turns = [(size,) for size in sizes] * (1 if quick else ROUNDS) if curve.own_host else [tuple(sizes)]
    found: dict[str, dict[int, list[float]]] = {}
    for points in turns:
        job = Job(OURS, "growth", curve.name, False, 0.25, 0, points)
        for key, value in turn(job, PATIENCE).items():
            name, _, size = key.partition("|")
            found.setdefault(name, {}).setdefault(int(size), []).append(value)
    return {name: [(size, median(values)) for size, values in sorted(by.items())] for name, by in found.items()}


def _words(curve: Curve, series: dict[str, Points]) -> Iterator[str]:
    yield curve.title
    for name, points in series.items():
        yield f"  {name}: {', '.join(f'{seconds(y)} at {count(x)}' for x, y in points)}"
        yield f"    slope per decade: {', '.join(f'{slope:.2f}' for slope in slopes(points))}"
        for (x, y), (next_x, next_y) in pairwise(points):
            times = (next_y / y) / (next_x / x)
            if times > TIE:
                yield f"    BEND: from {count(x)} to {count(next_x)} it costs {times:.1f} times what is linear"


def slopes(points: Points) -> Iterator[float]:
    """How many decades of time a decade of size costs between two points: 1 is linear, 0 is for nothing."""
    for (x, y), (next_x, next_y) in pairwise(points):
        yield math.log10(next_y / y) / math.log10(next_x / x)
