from __future__ import annotations

from pathlib import Path

import pytest

from liteyuki_host.supervisor.order import also_restarted, problems, stop_levels
from liteyuki_host.supervisor.spec import ProcessSpec, Strategy


def declare(strategy: Strategy = Strategy.ONE, /, **after: str) -> dict[str, ProcessSpec]:
    """``declare(a="", b="a")``: two processes, ``b`` after ``a``."""
    return {
        name: ProcessSpec(name, Path("bot"), after=others.split(), strategy=strategy) for name, others in after.items()
    }


def test_sound_declarations_have_no_problems() -> None:
    assert problems({}) == []
    assert problems(declare(a="", b="a", c="a b", d="d2", d2="")) == []


def test_a_name_that_is_not_declared_is_told_once_for_each_process() -> None:
    assert problems(declare(a="ghost ghost", b="a ghost")) == [
        "process a is after ghost, which is not declared: correct after",
        "process b is after ghost, which is not declared: correct after",
    ]


def test_a_process_cannot_be_after_itself() -> None:
    assert problems(declare(a="a")) == ["process a cannot be after itself: remove it from after"]


@pytest.mark.parametrize(
    ("after", "circles"),
    [
        ({"a": "b", "b": "a"}, ["a -> b -> a"]),
        ({"x": "c", "c": "b", "b": "a", "a": "c"}, ["c -> b -> a -> c"]),
        ({"a": "b", "b": "a", "c": "d", "d": "c"}, ["a -> b -> a", "c -> d -> c"]),
        ({"x": "b", "a": "b", "b": "a"}, ["a -> b -> a"]),
        ({"a": "b", "b": "a c", "c": "b b"}, ["a -> b -> a", "b -> c -> b"]),
    ],
    ids=["two", "three, and one before them", "two circles", "from the first declared", "two through one process"],
)
def test_processes_that_wait_for_each_other_are_named_in_order(after: dict[str, str], circles: list[str]) -> None:
    expected = [
        f"processes wait for each other: {circle} (each is after the next): remove one after" for circle in circles
    ]
    assert problems(declare(**after)) == expected


def test_every_kind_of_problem_is_told_at_once() -> None:
    lines = problems(declare(a="a ghost b", b="a"))
    assert len(lines) == 3
    assert lines[2].startswith("processes wait for each other: a -> b -> a (")


def test_a_long_chain_is_no_problem() -> None:
    chain = declare(p0="", **{f"p{i}": f"p{i - 1}" for i in range(1, 3000)})
    assert problems(chain) == []
    assert [level[0] for level in stop_levels(chain)] == [f"p{i}" for i in reversed(range(3000))]


def test_dependents_are_stopped_before_what_they_come_after() -> None:
    specs = declare(database="", bot="database", proxy="", web="bot proxy", lonely="")
    assert stop_levels(specs) == [["web", "lonely"], ["bot", "proxy"], ["database"]]


def test_without_dependencies_all_are_stopped_together() -> None:
    assert stop_levels(declare(c="", a="", b="")) == [["c", "a", "b"]]
    assert stop_levels({}) == []


def test_what_is_not_declared_is_not_stopped() -> None:
    assert stop_levels(declare(a="ghost")) == [["a"]]


@pytest.mark.parametrize(
    ("strategy", "name", "others"),
    [
        (Strategy.ONE, "b", []),
        (Strategy.ALL, "b", ["a", "d", "c"]),
        (Strategy.REST, "b", ["d", "c"]),
        (Strategy.REST, "a", ["b", "d", "c"]),
        (Strategy.REST, "d", []),
    ],
)
def test_the_strategy_says_who_is_restarted_along(strategy: Strategy, name: str, others: list[str]) -> None:
    """``c`` comes after ``d``, though it is declared before it."""
    assert also_restarted(declare(strategy, a="", b="", c="d", d=""), name) == others


def test_it_is_the_strategy_of_the_one_that_ended() -> None:
    specs = {**declare(Strategy.ALL, a=""), **declare(Strategy.ONE, b="")}
    assert also_restarted(specs, "a") == ["b"]
    assert also_restarted(specs, "b") == []
