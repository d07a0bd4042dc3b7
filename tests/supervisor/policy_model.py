"""Unasked ends on a simulated clock, and a second opinion on what follows them.

The model keeps the whole history and looks at all of it each time; the policy keeps a short record. It is used by
``test_policy.py`` for a few thousand sequences, and by the fault matrix for as many as it likes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from liteyuki_host.supervisor.exits import Cause, Kind
from liteyuki_host.supervisor.policy import Decision, Policy, Record, decide
from liteyuki_host.supervisor.spec import Restart
from liteyuki_host.supervisor.states import State

TICK = 1 / 64
"""Seconds. Every moment is a multiple, so that sums and differences are exact and edges are really met."""

WITHOUT_ERROR = [Kind.CLEAN, Kind.ENDED_EARLY]
FAILURES: list[Kind] = [kind for kind in Kind if kind not in (*WITHOUT_ERROR, Kind.CANNOT_START, Kind.SHORTAGE)]


@dataclass(frozen=True)
class End:
    """One run, as it came to its end."""

    kind: Kind
    now: float
    ready_for: float
    jitter: float
    by_hand: bool
    """Whether somebody had asked for the start of this run."""


@dataclass
class Model:
    """What follows each end, worked out from all that has happened."""

    policy: Policy
    history: list[tuple[End, bool]] = field(default_factory=list)
    """Every end, and whether a restart followed."""

    def expect(self, end: End) -> tuple[State, float]:
        """The state that follows, and the delay."""
        restarted = self._is_restarted(end)
        delay = self._delay(end) if restarted else 0.0
        state = State.BACKING_OFF if restarted else State.FAILED
        if end.kind is Kind.CLEAN and self.policy.restart is not Restart.ALWAYS:
            state = State.STOPPED
        self.history.append((end, restarted))
        return state, delay

    def _is_restarted(self, end: End) -> bool:
        if end.kind is Kind.SHORTAGE:
            return True
        wanted: dict[Restart, list[Kind]] = {
            Restart.NEVER: [],
            Restart.ON_FAILURE: FAILURES,
            Restart.ALWAYS: [*FAILURES, *WITHOUT_ERROR],
        }
        if end.kind not in wanted[self.policy.restart]:
            return False
        count = 0
        for earlier, restarted in self._since_started_by_hand(end):
            if restarted and earlier.kind is not Kind.SHORTAGE and earlier.now > end.now - self.policy.restart_window:
                count += 1
        return count + 1 <= self.policy.max_restarts

    def _delay(self, end: End) -> float:
        delay = self.policy.backoff_base
        if not self._good(end):
            for earlier, _ in reversed(self._since_started_by_hand(end)):
                delay *= 2
                if self._good(earlier):
                    break
        delay = min(delay, self.policy.backoff_max) * (100 + 20 * end.jitter) / 100
        return sorted((0.25, delay, 10))[1] if end.kind is Kind.SHORTAGE else delay

    def _good(self, end: End) -> bool:
        return end.ready_for >= 10 and end.ready_for >= self.policy.backoff_max

    def _since_started_by_hand(self, end: End) -> list[tuple[End, bool]]:
        """The ends before this one, back to the last start that somebody asked for."""
        since: list[tuple[End, bool]] = []
        run = end
        for earlier in reversed(self.history):
            if run.by_hand:
                break
            since.insert(0, earlier)
            run = earlier[0]
        return since


@dataclass
class Tally:
    """What the sequences came across."""

    seen: Counter[tuple[Restart, Kind, State]] = field(default_factory=Counter)
    edges: Counter[str] = field(default_factory=Counter)


class Mismatch(AssertionError):
    """The policy and the model do not agree."""


def compare(sequences: int, *, seed: int = 3) -> Tally:
    """Play that many random sequences against the policy. The same seed plays the same ones.

    Raises:
        Mismatch: at the first difference; it shows the sequence up to there.
    """
    dice = random.Random(seed)
    tally = Tally()
    for _ in range(sequences):
        _play(dice, tally)
    return tally


def _play(dice: random.Random, tally: Tally) -> None:
    policy = _some_policy(dice)
    model, record = Model(policy), Record()
    now, by_hand = _ticks(dice.uniform(0, 1e6)), True
    for _ in range(dice.randint(1, 30)):
        now, ready_for = _some_run(dice, policy, record, now)
        kind = dice.choice(_LIKELY_KINDS)
        end = End(kind, now, ready_for, dice.choice((-1.0, 1.0, dice.uniform(-1, 1))), by_hand)
        decision = decide(policy, record, Cause(kind, str(kind)), now=now, ready_for=ready_for, jitter=end.jitter)
        state, delay = model.expect(end)
        if decision.state is not state or abs(decision.delay - delay) > 1e-9 * delay:
            told = "\n".join(map(str, model.history))
            raise Mismatch(f"{policy}\n{told}\nthe model: {state}, {delay} s\nthe policy: {decision}")
        _check_bounds(policy, decision)
        tally.seen[policy.restart, kind, state] += 1
        tally.edges.update(_edges(policy, record, end))

        by_hand = decision.state is not State.BACKING_OFF
        record = Record() if by_hand else decision.record
        now += _ticks(decision.delay)


def _check_bounds(policy: Policy, decision: Decision) -> None:
    longest = max(policy.backoff_max * 1.2, 0.25)
    if not 0 <= decision.delay <= longest or len(decision.record.restarts) > policy.max_restarts:
        raise Mismatch(f"{policy}\nout of bounds: {decision}")


_LIKELY_KINDS = [*FAILURES, *FAILURES, *WITHOUT_ERROR, *WITHOUT_ERROR, Kind.CANNOT_START, Kind.SHORTAGE]


def _some_policy(dice: random.Random) -> Policy:
    return Policy(
        restart=dice.choice((Restart.ALWAYS, Restart.ALWAYS, Restart.ON_FAILURE, Restart.ON_FAILURE, Restart.NEVER)),
        max_restarts=dice.choice((0, 1, 2, 3, 10)),
        restart_window=dice.choice((5.0, 60.0, 600.0)),
        backoff_base=dice.choice((0.0, 0.25, 1.0, 30.0)),
        backoff_max=dice.choice((0.0, 1.0, 8.0, 60.0)),
    )


def _some_run(dice: random.Random, policy: Policy, record: Record, start: float) -> tuple[float, float]:
    """When a run that starts now ends, and how long it was ready; often just at an edge, or beside it."""
    beside = dice.choice((-TICK, 0.0, TICK))
    if record.restarts and dice.random() < 0.3:
        end = dice.choice(record.restarts) + policy.restart_window + beside
        if end >= start:
            return end, dice.choice((0.0, end - start))
    ready_for = dice.choice((0.0, 0.0, _ticks(dice.uniform(0, 100)), max(10.0, policy.backoff_max) + beside))
    return start + ready_for + _ticks(dice.uniform(0, 2)), ready_for


def _edges(policy: Policy, record: Record, end: End) -> Iterator[str]:
    if end.now - policy.restart_window in record.restarts:
        yield "a restart just leaves the window"
    if end.now - policy.restart_window + TICK in record.restarts:
        yield "a restart is just inside the window"
    if end.ready_for == max(10.0, policy.backoff_max) and record.in_a_row:
        yield "a good run, just long enough"
    if end.ready_for == max(10.0, policy.backoff_max) - TICK and record.in_a_row:
        yield "a run just too short to be good"


def _ticks(seconds: float) -> float:
    return round(seconds / TICK) * TICK
