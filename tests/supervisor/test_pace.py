"""Rows of reloads: what comes at the same moment after each start waits longer and longer, a developer does not."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from liteyuki_host.supervisor.reload_pace import (
    AT_ONCE,
    FIRST_WAIT,
    LONGEST_WAIT,
    LOOP_SECONDS,
    MAX_FILES,
    MAX_SIGNS,
    Moment,
    ReloadPace,
    Since,
)

OWN, MINE = Path("/bot/generated.py"), Path("/bot/mine.py")


def ready(seconds: float) -> Moment:
    return Moment(Since.READY, seconds)


def waits(pace: ReloadPace, *moments: Moment | float, files: tuple[Path, ...] = (OWN,)) -> list[float]:
    return [
        pace.wait_before(dict.fromkeys(files, True), each if isinstance(each, Moment) else ready(each))
        for each in moments
    ]


LOOPS = {
    "while it is imported": [0.0] * 40,
    "by a program after 6 s": [6.0 + random.Random(seed).uniform(-0.5, 0.5) for seed in range(40)],
    "on a busy machine": [30.0 + random.Random(seed).uniform(-1.9, 1.9) for seed in range(40)],
    "after two minutes": [LOOP_SECONDS - 1] * 40,
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_waits_twice_as_long_each_time(loop: list[float]) -> None:
    given = waits(ReloadPace(), *loop)
    assert given[:AT_ONCE] == [0.0] * AT_ONCE
    assert given[AT_ONCE] == FIRST_WAIT
    for one, following in pairwise(given[AT_ONCE:]):
        assert following == min(2 * one, LONGEST_WAIT)
    assert given[-1] == LONGEST_WAIT


def test_the_names_of_a_loops_files_do_not_matter() -> None:
    pace = ReloadPace()
    names = [Path(f"/bot/at{number}.py") for number in range(3 * MAX_FILES)]
    given = [pace.wait_before({name: False}, ready(1.0)) for name in names]
    assert given[AT_ONCE] == FIRST_WAIT
    assert given[-1] == LONGEST_WAIT
    assert len(pace._files) <= MAX_FILES


@pytest.mark.parametrize("seed", range(20))
def test_a_developer_who_saves_often_never_waits_long(seed: int) -> None:
    """Two thousand saves, each 5 to 40 s after the restart before it."""
    dice = random.Random(seed)
    given = waits(ReloadPace(), *(dice.uniform(5, 40) for _ in range(2000)))
    assert sum(map(bool, given)) <= 10
    assert max(given) <= 4 * FIRST_WAIT


@pytest.mark.parametrize("after", [LOOP_SECONDS + 1, 86_400.0])
def test_what_comes_after_a_quiet_time_never_waits(after: float) -> None:
    """A deployment by the clock, each night."""
    assert not any(waits(ReloadPace(), *[after] * 100))


def test_a_quiet_time_or_another_moment_ends_the_row() -> None:
    for other in (LOOP_SECONDS + 1, 20.0):
        pace = ReloadPace()
        assert waits(pace, *[3.0] * (AT_ONCE + 2))[-1] == 2 * FIRST_WAIT
        assert waits(pace, other) == [0.0]
        assert not any(waits(pace, *[3.0] * AT_ONCE))
        assert waits(pace, 3.0) == [FIRST_WAIT]
        assert pace.is_first_wait


def test_a_developer_beside_a_loop_is_obeyed_at_once_and_the_loop_goes_on() -> None:
    pace = ReloadPace()
    waits(pace, *[8.0] * (AT_ONCE + 1))
    assert waits(pace, 3.0, files=(MINE,)) == [0.0]
    assert waits(pace, 8.0) == [2 * FIRST_WAIT]
    assert not pace.is_first_wait


def test_trials_that_cause_each_other_are_a_row_of_their_own() -> None:
    pace = ReloadPace()
    failed = Moment(Since.TRIAL, 0.0)
    assert waits(pace, 40.0, *[failed] * (AT_ONCE + 1)) == [0.0] * (AT_ONCE + 1) + [FIRST_WAIT]


def test_a_reload_that_restarts_nothing_breaks_the_row() -> None:
    """Saves that come like clockwork, of which every third cannot be loaded."""
    row = [ready(0.7), ready(0.8), Moment(Since.TRIAL, 0.7)] * 30
    assert not any(waits(ReloadPace(), *row))


def waiting() -> ReloadPace:
    pace = ReloadPace()
    assert waits(pace, *[1.0] * (AT_ONCE + 1))[-1] == FIRST_WAIT
    return pace


def test_another_file_is_a_sign_of_somebody_at_work_each_time() -> None:
    pace = waiting()
    for seconds in (5.0, 40.0, 9.0, 300.0, 2.0) * 10:
        assert pace.is_sign({MINE: True}, ready(seconds))
        assert waits(pace, 1.0)[0] > 0


@pytest.mark.parametrize("was_there", [True, False])
def test_the_rows_own_and_new_files_are_a_sign_a_few_times(was_there: bool) -> None:
    pace = waiting()
    path = OWN if was_there else Path("/bot/new.py")
    signs = [pace.is_sign({path: was_there}, ready(seconds)) for seconds in (5.0, 40.0, 9.0, 300.0, 2.0)]
    assert signs == [number < MAX_SIGNS for number in range(5)]
    assert pace.is_sign({MINE: True}, ready(20.0))


def test_a_loop_that_writes_another_file_later_gives_no_more_signs_after_a_while() -> None:
    pace = waiting()
    other = Path("/bot/later.py")
    signs = [pace.is_sign({other: True}, ready(5.0)) for _ in range(10)]
    assert signs.count(True) == 1 + MAX_SIGNS
    assert signs[-1] is False
    assert pace.is_sign({MINE: True}, ready(20.0))


def test_a_file_that_is_written_all_the_time_gives_few_signs() -> None:
    pace = waiting()
    signs = [pace.is_sign({OWN: True}, ready(number * 3.0)) for number in range(2, 100)]
    assert signs.count(True) == MAX_SIGNS


def test_what_is_remembered_is_bounded() -> None:
    pace = waiting()
    for number in range(3 * MAX_FILES):
        pace.is_sign({Path(f"/bot/{number}.py"): True}, ready(number))
    assert len(pace._others) <= MAX_FILES
