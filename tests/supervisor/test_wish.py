"""The two tables that a keeper acts by: their values, what they are made of, and the text that shows them."""

from __future__ import annotations

import itertools

import pytest

from liteyuki_host.supervisor import wish as tables
from liteyuki_host.supervisor.wish import STEPS, WISHES, Heard, Phase, Step, Wish

ASKED = (Heard.START, Heard.STOP, Heard.RESTART)


def rows_of_the_docstring(first: str) -> dict[tuple[str, str], str]:
    """The cells of the table whose heading begins with *first*, by row and column. Columns are two spaces apart."""
    lines = iter((tables.__doc__ or "").splitlines())
    heading = next(line for line in lines if line.strip().startswith(first + "  "))
    columns = [cell.strip() for cell in heading.split("  ") if cell.strip()][1:]
    cells: dict[tuple[str, str], str] = {}
    for line in itertools.takewhile(str.strip, lines):
        row, *values = [cell.strip() for cell in line.split("  ") if cell.strip()]
        cells |= {(row, column): value for column, value in zip(columns, values, strict=True)}
    return cells


def test_the_docstring_shows_every_change_of_the_wish() -> None:
    shown = rows_of_the_docstring("wish")
    assert shown == {(before.value, heard.value): after.value for (before, heard), after in WISHES.items()}


def test_the_docstring_shows_every_step_of_the_keeper() -> None:
    shown = rows_of_the_docstring("phase")
    assert shown == {(phase.value, wish.value): step.value for (phase, wish), step in STEPS.items()}


def test_every_pair_has_exactly_one_outcome() -> None:
    assert set(WISHES) == set(itertools.product(Wish, Heard))
    assert set(STEPS) == set(itertools.product(Phase, Wish))


@pytest.mark.parametrize("before", list(Wish))
def test_the_last_one_who_asks_is_heard(before: Wish) -> None:
    assert WISHES[before, Heard.STOP].wants_child is False
    assert WISHES[before, Heard.START].wants_child is True
    assert WISHES[before, Heard.RESTART] is Wish.RESTART


@pytest.mark.parametrize(("before", "heard"), list(itertools.product(Wish, ASKED)))
def test_asking_twice_is_asking_once(before: Wish, heard: Heard) -> None:
    once = WISHES[before, heard]
    assert WISHES[once, heard] is once


@pytest.mark.parametrize("heard", [Heard.BEGUN, Heard.ENDED, Heard.REFUSED])
@pytest.mark.parametrize("before", list(Wish))
def test_only_somebody_who_asks_turns_a_wish(before: Wish, heard: Heard) -> None:
    """What the keeper itself hears makes nobody want a child, and takes none away."""
    assert WISHES[before, heard].wants_child is before.wants_child


@pytest.mark.parametrize("phase", list(Phase))
def test_no_child_is_made_that_nobody_wants(phase: Phase) -> None:
    for wish in Wish:
        if not wish.wants_child:
            assert STEPS[phase, wish] not in (Step.BEGIN, Step.POLICY)


def test_only_a_running_wish_waits_for_the_policy() -> None:
    assert {wish for (_, wish), step in STEPS.items() if step is Step.POLICY} == {Wish.RUNNING}
    assert {wish for wish in Wish if STEPS[Phase.BACKING_OFF, wish] is Step.GO_ON} == {Wish.RUNNING}
