"""The clock: how long to run, what to leave out, and what to make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

WARM_UP = 0.25
"""Share of the measuring time that is spent before it: code paths, caches, buffers and windows find their sizes."""

FIRST_STEP = 16
"""Units of the first step of a warm-up; each further step is four times as long."""

LEAST_TRIPS = 20
"""Of a warm-up, and of a measurement: with fewer there is no median to speak of."""


def rate(work: Callable[[int], float], seconds: float, first: int = FIRST_STEP) -> float:
    """Units per second of *work*, which does so many units and returns the seconds that they took.

    The warm-up finds out how many units fill *seconds*; they are then done in one go, so that the end of a stream,
    where everybody waits for a confirmation, counts once.

    Args:
        first: units of the first step of the warm-up.
    """
    count = first
    spent = work(count)
    while spent < seconds * WARM_UP:
        # Never far beyond the time: the first steps of a stream are slow, and say little about the last.
        count = min(count * 4, max(int(count / max(spent, 1e-9) * seconds), count + 1))
        spent = work(count)
    count = max(int(count / spent * seconds), 1)
    return count / work(count)


def trips(trip: Callable[[], object], seconds: float, told: list[float] | None = None) -> dict[str, float]:
    """Microseconds of each of the trips that fit into *seconds*, one after another: their median and their 99 %.

    Args:
        told: gets what each trip has taken, in seconds, from the trip itself; otherwise the trip is timed as a whole.
    """
    clock = time.perf_counter
    until = clock() + seconds * WARM_UP
    warm = 0
    while warm < LEAST_TRIPS or clock() < until:
        trip()
        warm += 1
    if told is not None:
        told.clear()
    taken: list[float] = []
    until = clock() + seconds
    while True:
        began = clock()
        trip()
        now = clock()
        taken.append(now - began)
        if now >= until and len(taken) >= LEAST_TRIPS:
            return microseconds(taken if told is None else told)


def microseconds(taken: Sequence[float]) -> dict[str, float]:
    """Seconds of many trips, as the two figures of a report."""
    ordered = sorted(taken)
    return {"value": 1e6 * share(ordered, 0.5), "p99": 1e6 * share(ordered, 0.99)}


def share(ordered: Sequence[float], part: float) -> float:
    """The value that *part* (0 to 1) of the ordered values do not exceed."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]
