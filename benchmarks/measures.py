"""What is measured: every workload with its payloads, free and on one core, and the job that one process pair gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.payloads import WORDS


@dataclass(frozen=True)
class Measure:
    """One row of the report: the same work for each peer that can do it."""

    workload: str
    subject: str
    title: str
    unit: str
    one_core: bool = False
    """Both processes on one core: the software's own cost, without the wake-up of a sleeping core."""

    @property
    def key(self) -> str:
        """What the command line and the JSON call it."""
        return f"{self.workload}{self.subject}{'-1' if self.one_core else ''}"

    @property
    def higher_is_better(self) -> bool:
        return self.unit.endswith("/s")

    def named(self, name: str) -> bool:
        """Whether ``--only name`` means this one: a workload, a workload with its subject, or the full key."""
        return name in (self.workload, f"{self.workload}{self.subject}", self.key)


@dataclass(frozen=True)
class Job:
    """What one fresh pair of processes has to do."""

    peer: str
    workload: str
    subject: str
    one_core: bool
    seconds: float
    """That the clock runs, at least about as long."""
    children: int
    sizes: tuple[int, ...] = ()
    """For a curve: how much there is, point by point."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        values = json.loads(text)
        return Job(**{**values, "sizes": tuple(values["sizes"])})


def _both(workload: str, subjects: Sequence[str], title: str, unit: str) -> list[Measure]:
    return [
        Measure(workload, subject, f"{title}, {subject}: {WORDS[subject]}", unit, one_core)
        for one_core in (False, True)
        for subject in subjects
    ]


MEASURES: tuple[Measure, ...] = (
    *_both("W1", ["S", "M", "L", "XL"], "one way, host to child", "msg/s"),
    *_both("W1r", ["S", "M", "L", "XL"], "one way, child to host", "msg/s"),
    *_both("W1a", ["S"], "one way from a coroutine, host to child", "msg/s"),
    *_both("W1ar", ["S"], "one way from a coroutine, child to host", "msg/s"),
    *_both("W2", ["S", "M"], "round trip, both sides block in a thread", "µs"),
    *_both("W2b", ["S", "M"], "round trip, the child answers in a coroutine", "µs"),
    Measure("W2load", "S", "round trip while another channel is flooded with L", "µs"),
    Measure("W2load", "control", "control round trip while a channel is flooded with L", "µs"),
    Measure("W3", "get", "key-value: get of a 35-character str", "ops/s"),
    Measure("W3", "getM", "key-value: get of a 1 KiB dict", "ops/s"),
    Measure("W3", "set", "key-value: set of a 35-character str, as the peer does it", "ops/s"),
    Measure("W3", "confirmed", "key-value: set, each confirmed before the next", "ops/s"),
    Measure("W3", "confirmed64", "key-value: set, each confirmed, from 64 tasks", "ops/s"),
    Measure("W3", "change", "key-value: set in one process until the callback in the other", "µs", one_core=True),
    Measure("broadcast", "M", "one publisher, all children: deliveries of M in all", "msg/s"),
    Measure("W4", "child", "resident memory of the child over a bare interpreter", "MiB"),
    Measure("W4", "host", "resident memory of the idle host, all of it", "MiB"),
    Measure("start", "ready", "from the start of the bot's process until its port answers", "s"),
    Measure("idle", "host", "processor time of an idle host with 5 bots, of one core", "%"),
)


def chosen(names: Sequence[str]) -> list[Measure]:
    """The measures that *names* mean, in the order of the report; all, when there are none.

    Raises:
        ValueError: a name means none.
    """
    for name in names:
        if not any(measure.named(name) for measure in MEASURES):
            known = " ".join(dict.fromkeys(measure.workload for measure in MEASURES))
            raise ValueError(f"there is no measure {name!r}; there are {known}, and each with its subject, as in W2S")
    return [measure for measure in MEASURES if not names or any(measure.named(name) for name in names)]
