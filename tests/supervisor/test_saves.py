"""The rules that tell a developer's save from what a bot has written, with the clock and the evidence as values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger
from supervisor_kit import child

from liteyuki_host.supervisor.file_watch import Change
from liteyuki_host.supervisor.reload_pace import Moment, Since
from liteyuki_host.supervisor.saves import AGAIN_SECONDS, MAX_IN_A_ROW, SUSPECT_SECONDS, Saves

PROJECT = Path("/bot")


class Bot:
    """A process with its saves; its time is told in seconds since the first spawn."""

    def __init__(self) -> None:
        self.served: bool | None = None
        """What the evidence says of the next changes."""
        self.may_have_written = False
        self.saves = Saves(child(project=PROJECT), self)  # type: ignore[arg-type]
        self.begin = time.monotonic()
        self.lines: list[str] = []
        self._texts: dict[str, bytes] = {}

    def evidence(self) -> Any:
        return SimpleNamespace(
            served_while_writing=lambda path, since, until: self.served,
            may_have_written=lambda path: self.may_have_written,
        )

    def start(self, at: float, ready: float | None = None) -> None:
        live = SimpleNamespace(started_at=self.begin + at)
        ready_at = None if ready is None else self.begin + ready
        self.life = SimpleNamespace(live_child=live, ready_at=ready_at, returncode=None)
        self.saves.started(self.life)  # type: ignore[arg-type]

    def change(self, at: float, *names: str, to: str = "") -> list[str]:
        """Change files; returns what a reload would be for."""
        changes = []
        for name in names:
            text = (to or f"{at}").encode()
            moment = self.begin + at
            changes.append(Change(PROJECT / name, self._texts.get(name, b"0"), text, moment - 0.5, moment))
            self._texts[name] = text
        sink = logger.add(self.lines.append, format="{level} {message}", level="INFO")
        self.saves.changed(changes)
        logger.remove(sink)
        return self.take()

    def take(self) -> list[str]:
        return [path.name for path in self.saves.take()]

    def told(self) -> list[str]:
        return [line for line in self.lines if line.startswith("WARNING")]


@pytest.fixture
def bot() -> Bot:
    one = Bot()
    one.start(0, ready=1)
    return one


@pytest.mark.parametrize("at", [0.5, 1.5, 100])
def test_what_nobody_says_to_have_written_is_a_save(bot: Bot, at: float) -> None:
    """While the bot starts, soon after, and later."""
    if at < 1:
        bot.life.ready_at = None
    assert bot.change(at, "a.py") == ["a.py"]
    assert bot.change(at + 0.1, "a.py", "b.py") == ["a.py", "b.py"]


def test_many_quick_saves_are_all_obeyed(bot: Bot) -> None:
    for number in range(1, 50):
        assert bot.change(3 * number - 1, "a.py") == ["a.py"]
        bot.start(3 * number, ready=3 * number + 1)
    assert not bot.told()


def test_what_a_process_says_to_have_written_while_it_did_not_serve_is_none(bot: Bot) -> None:
    bot.served = False
    for at in (0.5, 2, 100):
        assert bot.change(at, "a.py") == []
    assert not bot.told()


def test_what_was_there_before_the_spawn_is_loaded(bot: Bot) -> None:
    bot.change(100, "a.py")
    bot.start(101)
    assert not bot.saves.unloaded
    assert bot.change(100.9, "b.py") == []  # seen late
    assert bot.change(101.1, "c.py") == ["c.py"]


def test_saves_are_taken_once_and_together(bot: Bot) -> None:
    names: Sequence[str] = ("a.py", "b.py")
    bot.saves.changed([Change(PROJECT / name, b"0", b"1", bot.begin + 99, bot.begin + 100) for name in names])
    assert bot.take() == ["a.py", "b.py"]
    assert bot.take() == []
    assert [path.name for path in bot.saves.unloaded] == ["a.py", "b.py"]


def test_a_change_that_is_taken_back_is_none(bot: Bot) -> None:
    bot.change(100, "a.py", to="1")
    assert bot.change(101, "a.py", to="0") == []
    assert not bot.saves.unloaded
    assert bot.lines == ["INFO child bot: a.py is again as the running bot has loaded it\n"]


def test_the_bots_own_write_is_a_save_the_first_time(bot: Bot) -> None:
    bot.served = True
    assert bot.change(2, "a.py") == ["a.py"]
    bot.start(3, ready=4)
    assert bot.change(5, "a.py") == []
    assert bot.change(5 + AGAIN_SECONDS, "a.py") == []  # that file is its own from now on
    (line,) = bot.told()
    assert line.startswith("WARNING child bot: a.py was written by the bot itself again, 1 s after it was ready; no ")
    assert "reload_dirs" in line
    assert bot.change(70, "b.py") == ["b.py"]  # a plugin that it is told to install


def test_a_write_without_a_record_does_not_hide_the_bots_own(bot: Bot) -> None:
    bot.served = True
    assert bot.change(3, "a.py") == ["a.py"]
    bot.served, bot.may_have_written = None, True
    bot.change(4, "a.py")
    bot.start(5, ready=6)
    bot.served = True
    assert bot.change(7, "a.py") == []
    assert len(bot.told()) == 1


def test_a_developer_may_save_what_the_bot_writes_too(bot: Bot) -> None:
    bot.served = True
    bot.change(2, ".env")
    bot.start(3, ready=4)
    assert bot.change(5, ".env") == []
    bot.served, bot.may_have_written = None, True  # it has opened that file before
    assert bot.change(20, ".env") == [".env"]


def test_other_names_at_each_start_are_the_same_loop(bot: Bot) -> None:
    bot.served = True
    assert bot.change(2, "a1.py") == ["a1.py"]
    for number in range(2, 9):
        bot.start(number * 10, ready=number * 10 + 1)
        assert bot.change(number * 10 + 2, f"a{number}.py") == []
    assert len(bot.told()) == 1


def test_plugins_that_are_installed_one_a_day_are_loaded(bot: Bot) -> None:
    bot.served = True
    for day in range(1, 9):
        assert bot.change(day * 86400, "registry.py", f"plugin{day}.py") == ["registry.py", f"plugin{day}.py"]
        bot.start(day * 86400 + 1, ready=day * 86400 + 2)
    assert not bot.told()


def test_a_save_beside_the_bots_own_write_is_obeyed(bot: Bot) -> None:
    bot.served = True
    bot.change(2, "own.py")
    bot.start(3, ready=4)
    bot.change(5, "own.py")
    bot.served = None
    assert bot.change(5.1, "mine.py") == ["mine.py"]


def test_a_save_that_the_bot_writes_over_is_still_obeyed(bot: Bot) -> None:
    bot.saves.changed([Change(PROJECT / "own.py", b"0", b"1", bot.begin + 99, bot.begin + 100)])
    bot.served = False
    bot.saves.changed([Change(PROJECT / "own.py", b"1", b"2", bot.begin + 100, bot.begin + 101)])
    assert bot.take() == ["own.py"]


def test_what_a_program_may_write_during_two_starts_in_a_row_is_told(bot: Bot) -> None:
    bot.may_have_written = True
    assert bot.change(2, "a.py") == ["a.py"]
    bot.start(3, ready=4)
    assert bot.change(5, "a.py") == []
    assert "a.py changed during two starts or trials in a row" in bot.told()[0]
    bot.start(10)
    bot.life.ready_at = None
    assert bot.change(11, "a.py") == []
    assert len(bot.told()) == 1
    bot.life.ready_at = bot.begin + 12
    assert bot.change(12 + SUSPECT_SECONDS + 1, "a.py") == ["a.py"]  # a developer, who was told to save once more


def test_what_a_program_writes_under_other_names_ends_too(bot: Bot) -> None:
    bot.may_have_written = True
    obeyed = 0
    for number in range(1, 9):
        if not bot.change(number * 10 - 8, f"a{number}.py"):
            break
        obeyed += 1
        bot.start(number * 10, ready=number * 10 + 1)
    assert obeyed == MAX_IN_A_ROW


def test_a_trial_that_changes_a_file_through_a_program_is_made_once_more(bot: Bot) -> None:
    """Otherwise one that fails would be made for ever."""
    bot.may_have_written = True
    rounds = 0
    saved = [PROJECT / "mine.py"]
    bot.change(100, "mine.py")
    while saved and rounds < 9:
        rounds += 1
        bot.saves.trial_begins(saved)
        saved = [PROJECT / name for name in bot.change(100 + rounds, "generated.py")]
        bot.saves.trial_ended()
    assert rounds == 2
    assert len(bot.told()) == 1


def test_a_bot_that_is_gone_writes_nothing(bot: Bot) -> None:
    """Each attempt to repair a bot that does not come up is obeyed."""
    bot.may_have_written = True
    for number in range(1, 9):
        bot.start(number * 10)
        bot.life.returncode = 1
        assert bot.change(number * 10 + 1, "mine.py") == ["mine.py"]


def test_names_are_told_shortly(bot: Bot) -> None:
    paths = [PROJECT / name for name in ("plugins/a.py", "b.py", "c.py", "d.py", "e.py")]
    assert bot.saves.names(paths).replace("\\", "/") == "plugins/a.py, b.py, c.py and 2 more"
    assert bot.saves.names(paths[:1]).replace("\\", "/") == "plugins/a.py"


def test_what_is_put_back_is_taken_again_unless_it_was_loaded(bot: Bot) -> None:
    bot.change(100, "a.py")
    saved = [PROJECT / "a.py"]
    bot.saves.put_back(saved)
    assert bot.take() == ["a.py"]
    bot.start(101)
    bot.saves.put_back(saved)
    assert bot.take() == []
    assert bot.saves.starts == 2


def test_a_change_is_measured_from_what_the_code_did_last(bot: Bot) -> None:
    saved = [PROJECT / "a.py"]
    bot.change(3.5, "a.py")
    assert bot.saves.moment(saved) == Moment(Since.READY, pytest.approx(2.5))
    bot.saves.reload_was_in_vain()
    assert bot.saves.moment(saved).since is Since.TRIAL
    bot.start(4)
    bot.change(4.5, "a.py")
    assert bot.saves.moment(saved) == Moment(Since.READY, 0.0)
    bot.life.returncode = 1
    assert bot.saves.moment(saved) == Moment(Since.SPAWN, pytest.approx(0.5))


def test_a_new_file_is_told_from_one_that_was_there(bot: Bot) -> None:
    bot.saves.changed([Change(PROJECT / "new.py", None, b"1", bot.begin + 99, bot.begin + 100)])
    bot.change(100, "old.py")
    assert bot.saves.were_there([PROJECT / "new.py", PROJECT / "old.py"]) == {
        PROJECT / "new.py": False,
        PROJECT / "old.py": True,
    }
