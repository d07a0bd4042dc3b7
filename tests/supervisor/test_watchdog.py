"""The watchdog on a clock of the test's own."""

from __future__ import annotations

import random

import pytest

from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.watchdog import HOST_LAG, LONGEST_INTERVAL, Look, Watchdog


class Bot:
    """A simulated bot: beats from its loop, answers pings, each for as long as it does."""

    def __init__(self, loop_timeout: float = 10.0, freeze_timeout: float = 10.0) -> None:
        self.now = 1000.0
        self.dog = Watchdog(loop_timeout, freeze_timeout, self.now)
        self.beats = self.answers = True
        self.beat_at: float | None = None
        self.pong_at: float | None = None
        self.excused_until = 0.0
        self.pings = 0

    def run(self, seconds: float) -> list[Look]:
        """Let time go by, looking when it is time to look. Ends early at the first alarm."""
        looks: list[Look] = []
        until = self.now + seconds
        while self.now < until:
            self.now += self.dog.interval
            if self.beats:
                self.beat_at = self.now
            look = self.look()
            looks.append(look)
            if look.state in (State.BLOCKED, State.FROZEN):
                break
        return looks

    def look(self) -> Look:
        look = self.dog.look(self.now, beat_at=self.beat_at, pong_at=self.pong_at, excused_until=self.excused_until)
        if look.ping:
            self.pings += 1
            if self.answers:
                self.pong_at = self.now
        return look


def states(looks: list[Look]) -> list[State]:
    """Without repetitions."""
    return [look.state for index, look in enumerate(looks) if not index or looks[index - 1].state is not look.state]


def test_a_bot_that_beats_is_ready_and_never_pinged() -> None:
    bot = Bot()
    assert states(bot.run(3600)) == [State.READY]
    assert bot.pings == 0


def test_a_blocked_loop_is_busy_then_blocked_within_the_limit_and_a_second() -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    blocked_at = bot.now
    bot.beats = False
    assert states(bot.run(60)) == [State.READY, State.BUSY, State.BLOCKED]
    assert 10 <= bot.now - blocked_at <= 11


def test_a_beat_from_before_it_was_ready_shows_that_the_loop_can_and_is_not_held_against_it() -> None:
    bot = Bot(loop_timeout=10)
    bot.beats = False
    bot.beat_at = bot.now - 100  # its port took that long to open
    ready_at = bot.now
    assert states(bot.run(60)) == [State.READY, State.BUSY, State.BLOCKED]
    assert 10 <= bot.now - ready_at <= 11


def test_a_limit_that_passes_between_two_looks_is_not_found_an_interval_late() -> None:
    bot = Bot(loop_timeout=2)
    blocked_at = bot.beat_at = bot.now + 0.01  # it beats, and blocks before the next look
    while (look := bot.look()).state is not State.BLOCKED:
        bot.now = look.next
    assert 2 <= bot.now - blocked_at <= 2 + LONGEST_INTERVAL + 0.001


def test_a_silent_process_is_frozen_and_not_blocked() -> None:
    bot = Bot(loop_timeout=10, freeze_timeout=5)
    bot.run(60)
    frozen_at = bot.now
    bot.beats = bot.answers = False
    assert states(bot.run(60))[-1] is State.FROZEN
    assert 5 <= bot.now - frozen_at <= 6


def test_the_loop_limit_also_ends_a_frozen_process() -> None:
    bot = Bot(loop_timeout=5, freeze_timeout=0)
    bot.run(60)
    bot.beats = bot.answers = False
    assert bot.run(60)[-1].state is State.FROZEN


def test_a_bot_that_was_busy_and_beats_again_is_ready_again() -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    bot.beats = False
    assert bot.run(6)[-1].state is State.BUSY
    bot.beats = True
    assert bot.run(60)[-1].state is State.READY


def test_a_loop_that_never_beat_is_not_judged_but_its_process_is() -> None:
    bot = Bot(loop_timeout=5, freeze_timeout=5)
    bot.beats = False
    assert states(bot.run(600)) in ([State.READY], [State.BUSY], [State.READY, State.BUSY])
    bot.answers = False
    assert bot.run(60)[-1].state is State.FROZEN


def test_a_limit_of_zero_is_none() -> None:
    bot = Bot(loop_timeout=0, freeze_timeout=5)
    bot.run(60)
    bot.beats = False
    assert bot.run(3600)[-1].state is State.BUSY
    assert Watchdog(0, 0, 0.0).interval == 0


@pytest.mark.parametrize("asked", [30.0, 600.0])
def test_a_bot_that_asked_for_time_gets_it_and_not_more(asked: float) -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    blocked_at = bot.now
    bot.beats = False
    bot.excused_until = bot.now + asked
    assert bot.run(3600)[-1].state is State.BLOCKED
    assert asked <= bot.now - blocked_at <= asked + 1


def test_a_host_that_did_not_get_to_run_blames_nobody() -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    bot.now += 3600  # the host was stopped, or the machine asleep; the beats are still on their way
    assert bot.look().state is State.READY
    assert states(bot.run(60)) == [State.READY]


def test_after_the_host_slept_a_bot_that_stays_silent_is_found_all_the_same() -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    bot.now += 3600
    bot.beats = False
    woke_at = bot.now
    assert bot.run(60)[-1].state is State.BLOCKED
    assert bot.now - woke_at <= 11


def test_looks_that_come_a_little_late_do_not_put_off_the_alarm() -> None:
    bot = Bot(loop_timeout=10)
    bot.run(60)
    blocked_at = bot.now
    bot.beats = False
    lateness = random.Random(7)
    while bot.look().state not in (State.BLOCKED, State.FROZEN):
        bot.now += bot.dog.interval + lateness.uniform(0, HOST_LAG * 0.9)
        assert bot.now - blocked_at < 12
    assert bot.now - blocked_at <= 11.5


@pytest.mark.parametrize(("limit", "interval"), [(30.0, LONGEST_INTERVAL), (1.0, 0.25), (2.0, 0.5)])
def test_the_interval_is_a_quarter_of_the_shortest_limit_at_most(limit: float, interval: float) -> None:
    assert Watchdog(limit, 60, 0.0).interval == interval
    assert Watchdog(60, limit, 0.0).interval == interval
