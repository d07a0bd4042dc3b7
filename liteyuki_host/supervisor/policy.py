"""Whether and when a child that ended unasked is started again. Pure: the clock and the dice are the caller's."""

from __future__ import annotations

from dataclasses import dataclass

from liteyuki_host.supervisor.exits import Cause, Kind
from liteyuki_host.supervisor.spec import ProcessSpec, Restart
from liteyuki_host.supervisor.states import State

GOOD_RUN_SECONDS = 10.0
"""The least a run must have been ready to begin the row of restarts anew; ``backoff_max`` where that is longer.
Otherwise a child that crashes a little later than it waits would never wait longer."""

JITTER = 0.2
"""Share of a delay by which it varies, either way: children that fell together do not come back together."""

SHORTAGE_SECONDS = (0.25, 10.0)
"""The least and the most that a start waits after one that failed for a shortage, whatever the back-off is. Not at
once, as there is no limit of such tries; and not for long, as a try in vain costs next to nothing."""

_MOST_DOUBLINGS = 1000
"""2.0 to this power is still a number, and no delay is left below its ceiling by then."""


@dataclass(frozen=True)
class Policy:
    """What the operator has declared; the fields are those of :class:`ProcessSpec`."""

    restart: Restart
    max_restarts: int
    restart_window: float
    backoff_base: float
    backoff_max: float

    @classmethod
    def of(cls, spec: ProcessSpec) -> Policy:
        return cls(spec.restart, spec.max_restarts, spec.restart_window, spec.backoff_base, spec.backoff_max)

    @property
    def good_run(self) -> float:
        """Seconds from ready to the end after which the row of restarts begins anew."""
        return max(GOOD_RUN_SECONDS, self.backoff_max)


@dataclass(frozen=True)
class Record:
    """What the next decision has to know of those before. An empty one is a clean slate."""

    restarts: tuple[float, ...] = ()
    """When the ends happened that led to an unasked restart, oldest first, on the caller's clock. Only those within
    the window are kept, at most ``max_restarts``."""
    in_a_row: int = 0
    """Unasked restarts since the last good run."""


@dataclass(frozen=True)
class Decision:
    """What follows an unasked end."""

    state: State
    """BACKING_OFF: start it again after the delay. STOPPED: it meant to end. FAILED: given up."""
    delay: float
    """Seconds until the next start; 0 where there is none."""
    record: Record
    """For the next decision."""
    words: str
    """What happens next, for the operator."""


def decide(policy: Policy, record: Record, cause: Cause, *, now: float, ready_for: float, jitter: float) -> Decision:
    """What follows an end that nobody asked for.

    A restart counts as long as less than ``restart_window`` has passed since the end that led to it: at exactly the
    window's length it is forgotten. With ``max_restarts`` of them counting, there is no further one.

    A start that failed for a shortage is tried again whatever the policy says and however often that happens: waiting
    cures it. It makes the next delay longer, as every failed start does, and uses up no restart.

    After FAILED or STOPPED the process is started only when somebody asks; the caller then begins with an empty
    :class:`Record`.

    Args:
        now: seconds on a clock that never goes back; the moment of the end.
        ready_for: seconds from ready to the end; 0 when it never was ready.
        jitter: evenly distributed from -1 to 1; the delay varies by ``JITTER`` with it.
    """
    recent = tuple(at for at in record.restarts if now - at < policy.restart_window)
    in_a_row = 0 if ready_for >= policy.good_run else record.in_a_row

    def rest(state: State, words: str) -> Decision:
        return Decision(state, 0.0, Record(recent, in_a_row), words)

    if cause.kind is Kind.CANNOT_START:
        return rest(State.FAILED, "not starting it again: nothing changes by trying")
    # Times inf is possible here, and harmless: the ceiling is below it.
    growing = policy.backoff_base * 2.0 ** min(in_a_row, _MOST_DOUBLINGS)
    delay = min(growing, policy.backoff_max) * (1 + JITTER * jitter)
    if cause.kind is Kind.SHORTAGE:
        # It did not run, so it did not end, which is what the limits are about. It is never given up for that.
        least, most = SHORTAGE_SECONDS
        delay = min(max(delay, least), most)
        return Decision(State.BACKING_OFF, delay, Record(recent, in_a_row + 1), f"trying again in {delay:.1f} s")
    without_error = cause.kind in (Kind.CLEAN, Kind.ENDED_EARLY)
    if policy.restart is Restart.NEVER or (without_error and policy.restart is not Restart.ALWAYS):
        # One that never served has failed: it was started to serve, and another start would end in the same way.
        state = State.STOPPED if cause.kind is Kind.CLEAN else State.FAILED
        return rest(state, f"not starting it again (restart = {policy.restart})")
    if policy.max_restarts == 0:
        return rest(State.FAILED, "not starting it again (max_restarts = 0)")
    window = _in_words(policy.restart_window)
    if len(recent) >= policy.max_restarts:
        ends = len(recent) + 1
        return rest(State.FAILED, f"given up: ended {ends} times in {window}; correct the cause, then start it again")
    count = f"{len(recent) + 1} of at most {policy.max_restarts} restarts in {window}"
    return Decision(
        State.BACKING_OFF,
        delay,
        Record((*recent, now), in_a_row + 1),
        f"starting it again in {delay:.1f} s ({count})",
    )


def _in_words(seconds: float) -> str:
    """``10 min`` and ``2 h`` where it is a round number of them, otherwise ``90 s``."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:g} {unit}"
    return f"{seconds:g} s"
