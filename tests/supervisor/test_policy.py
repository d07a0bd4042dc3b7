from __future__ import annotations

import dataclasses
import itertools
import sys

import policy_model
import pytest

from liteyuki_host.supervisor.exits import Cause, Kind
from liteyuki_host.supervisor.policy import Decision, Policy, Record, decide
from liteyuki_host.supervisor.spec import ProcessSpec, Restart
from liteyuki_host.supervisor.states import State

POLICY = Policy(Restart.ON_FAILURE, max_restarts=3, restart_window=600.0, backoff_base=1.0, backoff_max=60.0)
CRASH = Cause(Kind.CRASH, "killed by SIGSEGV")


def after(
    record: Record,
    policy: Policy = POLICY,
    cause: Cause = CRASH,
    *,
    now: float = 1000.0,
    ready_for: float = 0.0,
    jitter: float = 0.0,
) -> Decision:
    return decide(policy, record, cause, now=now, ready_for=ready_for, jitter=jitter)


def changed(**fields: object) -> Policy:
    return dataclasses.replace(POLICY, **fields)  # type: ignore[arg-type]


@pytest.mark.slow
def test_ten_thousand_sequences_go_as_the_model_says() -> None:
    tally = policy_model.compare(10_000)
    reachable = set()
    for restart, kind in itertools.product(Restart, Kind):
        states = {State.BACKING_OFF, State.FAILED}
        if kind is Kind.CLEAN and restart is not Restart.ALWAYS:
            states = {State.STOPPED}
        elif kind is Kind.ENDED_EARLY and restart is not Restart.ALWAYS:
            states = {State.FAILED}
        elif kind is Kind.SHORTAGE:
            states = {State.BACKING_OFF}
        elif kind is Kind.CANNOT_START or restart is Restart.NEVER:
            states = {State.FAILED}
        reachable |= {(restart, kind, state) for state in states}
    assert set(tally.seen) == reachable
    assert len(tally.edges) == 4
    assert min(tally.edges.values()) > 300, tally.edges


def test_the_policy_is_what_the_process_declares() -> None:
    spec = ProcessSpec(
        "bot",
        project=None,  # type: ignore[arg-type]
        restart=Restart.ALWAYS,
        max_restarts=4,
        restart_window=120.0,
        backoff_base=2.0,
        backoff_max=30.0,
    )
    assert Policy.of(spec) == Policy(Restart.ALWAYS, 4, 120.0, 2.0, 30.0)


def test_each_failure_in_a_row_waits_twice_as_long_up_to_the_ceiling_and_the_limit_ends_it() -> None:
    policy = changed(max_restarts=8)
    record, now, delays = Record(), 0.0, []
    while (decision := after(record, policy, now=now)).state is State.BACKING_OFF:
        delays.append(decision.delay)
        record, now = decision.record, now + decision.delay
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert decision.state is State.FAILED


@pytest.mark.parametrize(
    ("cause", "restart", "state"),
    [
        (Kind.CLEAN, Restart.ALWAYS, State.BACKING_OFF),
        (Kind.CLEAN, Restart.ON_FAILURE, State.STOPPED),
        (Kind.CLEAN, Restart.NEVER, State.STOPPED),
        (Kind.ENDED_EARLY, Restart.ALWAYS, State.BACKING_OFF),
        (Kind.ENDED_EARLY, Restart.ON_FAILURE, State.FAILED),
        (Kind.ENDED_EARLY, Restart.NEVER, State.FAILED),
        (Kind.NOT_READY, Restart.ALWAYS, State.BACKING_OFF),
        (Kind.NOT_READY, Restart.ON_FAILURE, State.BACKING_OFF),
        (Kind.NOT_READY, Restart.NEVER, State.FAILED),
        (Kind.CANNOT_START, Restart.ALWAYS, State.FAILED),
        (Kind.CANNOT_START, Restart.ON_FAILURE, State.FAILED),
        (Kind.CANNOT_START, Restart.NEVER, State.FAILED),
        (Kind.SHORTAGE, Restart.ALWAYS, State.BACKING_OFF),
        (Kind.SHORTAGE, Restart.ON_FAILURE, State.BACKING_OFF),
        (Kind.SHORTAGE, Restart.NEVER, State.BACKING_OFF),
    ],
)
def test_what_follows_is_a_matter_of_cause_and_policy(cause: Kind, restart: Restart, state: State) -> None:
    decision = after(Record(), changed(restart=restart), Cause(cause, "words"))
    assert decision.state is state
    assert (decision.delay > 0) == (state is State.BACKING_OFF)


def test_a_shortage_is_waited_for_without_a_limit() -> None:
    record, delays = Record((999.0,), in_a_row=1), []
    for _ in range(1000):
        decision = after(record, changed(max_restarts=1), Cause(Kind.SHORTAGE, "no files left"))
        assert decision.state is State.BACKING_OFF
        delays.append(decision.delay)
        record = decision.record
    assert delays[:5] == [2, 4, 8, 10, 10]
    assert record.restarts == (999.0,)


def test_tries_in_a_shortage_do_not_spin_without_a_back_off() -> None:
    assert after(Record(), changed(backoff_base=0.0), Cause(Kind.SHORTAGE, "no files left")).delay == 0.25


def test_a_bot_that_always_ends_with_0_is_given_up_as_well() -> None:
    record = Record((997.0, 998.0, 999.0), in_a_row=3)
    decision = after(record, changed(restart=Restart.ALWAYS), Cause(Kind.CLEAN, "exited 0"))
    assert decision.state is State.FAILED


@pytest.mark.parametrize(("max_restarts", "state"), [(2, State.FAILED), (3, State.FAILED), (4, State.BACKING_OFF)])
def test_as_many_restarts_as_allowed_and_no_more(max_restarts: int, state: State) -> None:
    record = Record((997.0, 998.0, 999.0), in_a_row=3)
    assert after(record, changed(max_restarts=max_restarts)).state is state


def test_no_restart_at_all_where_none_is_allowed() -> None:
    decision = after(Record(), changed(max_restarts=0, restart=Restart.ALWAYS))
    assert (decision.state, decision.words) == (State.FAILED, "not starting it again (max_restarts = 0)")


@pytest.mark.parametrize(
    ("now", "state"), [(1599.9, State.FAILED), (1600.0, State.BACKING_OFF), (1600.1, State.BACKING_OFF)]
)
def test_at_exactly_the_length_of_the_window_a_restart_is_forgotten(now: float, state: State) -> None:
    record = Record((1000.0, 1500.0, 1599.0), in_a_row=3)
    decision = after(record, now=now)
    assert decision.state is state
    if state is State.BACKING_OFF:
        assert decision.record.restarts == (1500.0, 1599.0, now)


@pytest.mark.parametrize(
    ("ready_for", "backoff_max", "delay"),
    [
        (59.9, 60.0, 16.0),
        (60.0, 60.0, 1.0),
        (9.9, 5.0, 5.0),
        pytest.param(10.0, 5.0, 1.0, id="a short ceiling still asks for 10 s"),
        (9.9, 60.0, 16.0),
    ],
)
def test_a_good_run_begins_the_row_anew(ready_for: float, backoff_max: float, delay: float) -> None:
    record = Record(in_a_row=4)
    assert after(record, changed(backoff_max=backoff_max), ready_for=ready_for).delay == delay


def test_a_good_run_does_not_empty_the_window() -> None:
    record = Record((800.0, 900.0, 950.0), in_a_row=3)
    assert after(record, ready_for=60.0).state is State.FAILED


@pytest.mark.parametrize(("jitter", "delay"), [(-1.0, 6.4), (0.0, 8.0), (0.5, 8.8), (1.0, 9.6)])
def test_the_delay_varies_by_a_fifth(jitter: float, delay: float) -> None:
    assert after(Record(in_a_row=3), jitter=jitter).delay == pytest.approx(delay)


@pytest.mark.parametrize("in_a_row", [64, 1023, 1024, 10**6, sys.maxsize])
@pytest.mark.parametrize("base", [1e-9, 1.0, 86400.0])
def test_a_row_without_end_stays_at_the_ceiling(in_a_row: int, base: float) -> None:
    decision = after(Record(in_a_row=in_a_row), changed(backoff_base=base), jitter=1.0)
    assert decision.delay == 60.0 * 1.2
    assert decision.record.in_a_row == in_a_row + 1


def test_without_a_back_off_there_is_no_delay() -> None:
    assert after(Record(in_a_row=10**6), changed(backoff_base=0.0), jitter=1.0).delay == 0.0


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (
            after(Record((999.0,), 1), changed(max_restarts=10), jitter=0.25),
            "starting it again in 2.1 s (2 of at most 10 restarts in 10 min)",
        ),
        (
            after(Record(), changed(restart_window=90.0)),
            "starting it again in 1.0 s (1 of at most 3 restarts in 90 s)",
        ),
        (
            after(Record(), changed(restart_window=7200.0)),
            "starting it again in 1.0 s (1 of at most 3 restarts in 2 h)",
        ),
        (after(Record(), changed(restart=Restart.NEVER)), "not starting it again (restart = never)"),
        (after(Record(), cause=Cause(Kind.CLEAN, "exited 0")), "not starting it again (restart = on-failure)"),
        (
            after(Record((997.0, 998.0, 999.0), 3)),
            "given up: ended 4 times in 10 min; correct the cause, then start it again",
        ),
        (
            after(Record(), cause=Cause(Kind.CANNOT_START, "exited 78")),
            "not starting it again: nothing changes by trying",
        ),
    ],
)
def test_the_operator_reads_what_happens_next(decision: Decision, words: str) -> None:
    assert decision.words == words
