"""What lycomm has to reach, and what it aims at: each as a ratio within one run, or a plain figure where it says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers import OURS, REFERENCE
from benchmarks.runner import Outcome

BATCHED = "socketpair + msgspec batched"
ZMQ = "zmq + msgspec"
MANAGER = "mp.Manager dict"

Figure = Callable[[Outcome], float | None]
"""None: something that it needs was not measured."""


@dataclass(frozen=True)
class Goal:
    words: str
    figure: Figure
    must: float | None
    aim: float
    at_most: bool = False
    """Less is better: times and sizes."""
    unit: str = "x"

    def met(self, value: float, goal: float) -> bool:
        return value <= goal if self.at_most else value >= goal


def _of(key: str, peer: str = OURS, extra: str = "") -> Figure:
    def figure(outcome: Outcome) -> float | None:
        figures = outcome.figures.get(key, {}).get(peer)
        if figures is None:
            return None
        return figures.extra(extra) if extra else figures.median

    return figure


def _ratio(key: str, to: str, to_key: str | None = None) -> Figure:
    """Our figure as a multiple of that of the peer *to*, in the same measure or in another one."""
    return _divided(_of(key), _of(to_key or key, to))


def _divided(ours: Figure, theirs: Figure) -> Figure:
    def figure(outcome: Outcome) -> float | None:
        own, other = ours(outcome), theirs(outcome)
        return None if own is None or not other else own / other

    return figure


def _longer(key: str, than: str) -> Figure:
    def figure(outcome: Outcome) -> float | None:
        own, other = _of(key)(outcome), _of(key, than)(outcome)
        return None if own is None or other is None else own - other

    return figure


def _one_way(key: str, direction: str) -> list[Goal]:
    return [
        Goal(f"W1 S, {direction}: x {ZMQ}", _ratio(f"{key}S", ZMQ), 1.6, 2.1),
        Goal(f"W1 S, {direction}: of {BATCHED}", _ratio(f"{key}S", BATCHED), None, 0.25),
        Goal(f"W1 M, {direction}: x {ZMQ}", _ratio(f"{key}M", ZMQ), 0.9, 1.0),
        Goal(f"W1 M, {direction}: of {BATCHED}", _ratio(f"{key}M", BATCHED), None, 0.95),
        Goal(f"W1 L, {direction}: x {REFERENCE}", _ratio(f"{key}L", REFERENCE), 0.9, 0.9),
        Goal(f"W1 L, {direction}: of {BATCHED}", _ratio(f"{key}L", BATCHED), None, 0.9),
        Goal(f"W1 XL, {direction}: x {REFERENCE}", _ratio(f"{key}XL", REFERENCE), 1.5, 3.0),
    ]


def _time(words: str, key: str, aim: float) -> Goal:
    return Goal(f"{words}: time over {REFERENCE}'s", _ratio(key, REFERENCE), 1.0, aim, at_most=True)


GOALS: tuple[Goal, ...] = (
    *_one_way("W1", "host to child"),
    *_one_way("W1r", "child to host"),
    Goal("W1 S from a coroutine of the host: of the thread's figure", _divided(_of("W1aS"), _of("W1S")), 0.6, 1.0),
    Goal("W1 S from a coroutine of the child: of the thread's figure", _divided(_of("W1arS"), _of("W1rS")), 0.6, 1.0),
    _time("W2 S, one core", "W2S-1", 0.82),
    _time("W2 M, one core", "W2M-1", 0.6),
    _time("W2b S, one core", "W2bS-1", 0.78),
    _time("W2b M, one core", "W2bM-1", 0.78),
    Goal("W2 under load, p99", _of("W2loadS", extra="p99"), 5000, 1000, True, "µs"),
    Goal("control round trip under load, p99", _of("W2loadcontrol", extra="p99"), 3000, 500, True, "µs"),
    Goal("get of a scalar: x UltraDict", _ratio("W3get", "UltraDict"), 3.0, 5.0),
    Goal(f"get of a 1 KiB dict: x {MANAGER}", _ratio("W3getM", MANAGER), 15.0, 15.0),
    Goal("get of a 1 KiB dict: of its bare decode", _ratio("W3getM", "local dict + msgspec"), None, 1.0),
    Goal("set, queued: x shared-memory-dict", _ratio("W3set", "shared-memory-dict"), 2.0, 5.0),
    Goal(f"set, confirmed one by one: x {MANAGER}", _ratio("W3confirmed", MANAGER), 1.0, 1.5),
    Goal(f"set, confirmed from 64 tasks: x {MANAGER}", _ratio("W3confirmed64", MANAGER, "W3confirmed"), 5.0, 10.0),
    Goal(
        f"set until the callback elsewhere, one core: time over {REFERENCE}'s round trip",
        _ratio("W3change-1", REFERENCE),
        1.0,
        0.5,
        at_most=True,
    ),
    Goal("broadcast of M, deliveries: x our own W1 M", _divided(_of("broadcastM"), _of("W1M")), 1.5, 3.0),
    Goal("memory of a child over a bare interpreter, without NoneBot", _of("W4child"), 12, 9, True, "MiB"),
    Goal("memory of an idle host", _of("W4host"), 45, 35, True, "MiB"),
    Goal("python bot.py until ready: longer than nb run by", _longer("startready", "nb run"), 0.5, 0.2, True, "s"),
    Goal("idle host with 5 bots, of one core", _of("idlehost"), 0.5, 0.5, True, "%"),
)
