"""What the host hears of a bot: its heartbeat, from NoneBot's own loop; pleas for more time; what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child_kit import watched
from launch_kit import make_project

from liteyuki_host._child.orders import Orders
from liteyuki_host._child.pulse import Pulse
from liteyuki_host.comm.protocol.messages import Drain, DumpStacks, WatchLoop

pytestmark = pytest.mark.slow


class ManualLoop:
    """A loop's clock and timers, turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, action: Callable[..., None], *args: Any) -> ManualTimer:
        self.timers.append(ManualTimer(when, lambda: action(*args)))
        return self.timers[-1]

    def turn(self, now: float) -> None:
        """Run what is due at *now*, as a loop does that comes to it only then."""
        self.now = now
        due = [timer for timer in self.timers if timer.when <= now]
        self.timers = [timer for timer in self.timers if timer.when > now]
        for timer in due:
            timer.run()


class ManualTimer:
    def __init__(self, when: float, run: Callable[[], None]) -> None:
        self.when = when
        self.run = run

    def cancel(self) -> None:
        self.run = lambda: None


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ManualLoop:
    loop = ManualLoop()
    monkeypatch.setattr("liteyuki_host._child.pulse.asyncio.get_running_loop", lambda: loop)
    return loop


def test_the_first_beat_comes_at_once_and_the_others_in_step(loop: ManualLoop) -> None:
    beats: list[float] = []
    Pulse(beats.append).watch(1.0)
    assert beats == [0.0]
    for now in (101.25, 102.25, 103.0):  # a little late twice; the third is not late for it
        loop.turn(now)
    assert beats == [0.0, 0.25, 0.25, 0.0]


def test_beats_that_a_blocked_loop_missed_are_one_late_beat(loop: ManualLoop) -> None:
    beats: list[float] = []
    Pulse(beats.append).watch(1.0)
    loop.turn(107.5)  # due at 101
    loop.turn(107.75)
    assert beats == [0.0, 6.5]
    loop.turn(108.0)
    assert beats == [0.0, 6.5, 0.0]


def test_a_timer_that_fires_early_is_not_late(loop: ManualLoop) -> None:
    beats: list[float] = []
    Pulse(beats.append).watch(1.0)
    loop.now = 100.999
    loop.timers.pop().run()
    assert beats == [0.0, 0.0]
    assert [timer.when for timer in loop.timers] == [102.0]


def test_another_interval_takes_the_place_of_the_first_and_0_ends_it(loop: ManualLoop) -> None:
    beats: list[float] = []
    pulse = Pulse(beats.append)
    pulse.watch(1.0)
    pulse.watch(10.0)
    assert len(beats) == 2
    loop.turn(105.0)
    assert len(beats) == 2
    loop.turn(110.0)
    assert len(beats) == 3
    pulse.watch(0)
    loop.turn(120.0)
    assert len(beats) == 3


class NoStacks:
    def __init__(self) -> None:
        self.written = 0

    def write(self) -> None:
        self.written += 1


async def test_watches_wait_for_the_loop_and_nothing_else_does() -> None:
    stacks, intervals = NoStacks(), asyncio.Queue[float]()
    timeouts: list[float] = []
    orders = Orders(stacks)  # type: ignore[arg-type]
    for order in (WatchLoop(5.0), Drain(3.0), Drain(1.0), WatchLoop(7.0), DumpStacks()):
        await asyncio.to_thread(orders.take, order)
    assert stacks.written == 1
    orders.drain_by(timeouts.append)
    orders.take(Drain(2.0))
    assert timeouts == [1.0, 2.0], "the last one from before, then at once"
    orders.watch_by(intervals.put_nowait, asyncio.get_running_loop())
    await asyncio.to_thread(orders.take, WatchLoop(9.0))
    assert [await asyncio.wait_for(intervals.get(), 5) for _ in range(2)] == [7.0, 9.0]


def test_orders_to_a_loop_that_has_ended_are_nobodys() -> None:
    loop = asyncio.new_event_loop()
    orders = Orders(NoStacks())  # type: ignore[arg-type]
    orders.watch_by(print, loop)
    loop.close()
    orders.take(WatchLoop(1.0))


# With a real bot

BLOCKING = """
import threading, time
from nonebot import get_driver, logger
from nonebot_plugin_lycomm import more_time, passive_channel

@get_driver().on_startup
def builds_an_index():
    more_time(120, "building the index")

@get_driver().on_startup
async def blocks_the_loop():
    more_time(30.5)
    time.sleep(0.2)

@passive_channel.on_receive()
async def _(seconds):
    print("blocking", flush=True)
    time.sleep(seconds)
    thread = threading.Thread(target=more_time, args=(60, "from a thread"))
    thread.start()
    thread.join()
    for wrong in (0, -1, 3601):
        try:
            more_time(wrong)
        except ValueError as error:
            print(error, flush=True)
"""


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_bot_beats_once_it_is_asked_to_and_tells_of_a_blocked_loop(tmp_path: Path, driver: str) -> None:
    with watched(make_project(tmp_path / "bot", BLOCKING, driver=driver)) as bot:
        assert bot.more_time == [(120.0, "building the index"), (30.5, "")], "heard before it is ready"
        assert len(bot.beats) == 1, "one before it is ready: this loop can beat"
        bot.session.watch(0.05)
        bot.until(lambda: len(bot.beats) >= 5, "beats")
        bot.tell(0.8)
        late = bot.until(lambda: next((n for n, beat in enumerate(bot.beats) if beat[1] >= 0.6), None), "late beat")
        assert bot.beats[late][0] - bot.beats[late - 1][0] >= 0.6, "no beat came while the loop was blocked"
        assert bot.until(lambda: bot.more_time[2:], "plea from the thread") == [(60.0, "from a thread")]
        bot.line(r"more_time\(\) takes seconds between 0 and 3600, not 3601")
        bot.end()
        assert not any("Traceback" in line or "Warning" in line for line in bot.lines)


def test_the_host_hears_which_plugins_could_not_be_loaded(tmp_path: Path) -> None:
    project = make_project(tmp_path / "bot", "import no_such_module", driver="~none")
    (project / "plugins" / "fine.py").write_text("")
    with watched(project) as bot:
        assert bot.failed_plugins == ["mine"]
