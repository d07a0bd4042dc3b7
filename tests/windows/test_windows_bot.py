"""``python bot.py`` on Windows, from the start to every kind of end."""

from __future__ import annotations

import asyncio
import ctypes
import datetime
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onebot_client import onebot_client
from windows_kit import DEADLINE, Console, accepts, ended, watched

assert sys.platform == "win32"

HERE = Path(__file__).parent
PROJECT = HERE / "project"
REPOSITORY = HERE.parent.parent

ON_WINE = hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def bot() -> Iterator[Console]:
    """The tests' own project, ready."""
    with Console(PROJECT) as console:
        console.wait_until_ready()
        yield console


def test_the_example_comes_up_and_its_lines_alternate_three_seconds_apart() -> None:
    with Console(REPOSITORY) as console:
        console.wait_until_ready()
        assert accepts(console.port)
        console.wait_for(rf"OneBot V11.*ws://127\.0\.0\.1:{console.port}/onebot/v11/ws")
        lines = console.wait_for(
            r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \[INFO\] nonebot \| .*"
            r"(Passive receive: I am liteyuki main process passive"
            r"|Active receive: I am liteyuki main process active)$",
            times=6,
        )
        assert [line[2][:7].strip() for line in lines] == ["Passive", "Active"] * 3
        times = [datetime.datetime.fromisoformat(line[1]) for line in lines]
        for first, second in ((0, 2), (2, 4), (1, 3), (3, 5)):
            # Whole seconds in the lines: 3 s apart is shown as 2 to 4.
            assert 2 <= (times[second] - times[first]).total_seconds() <= 4
        assert not re.search("KeyError|Traceback", console.text)


def test_a_blocking_start_up_hook_as_printed_in_2024_is_harmless() -> None:
    with Console(PROJECT, TEST_CHILD="page_2024") as console:
        console.wait_until_ready()
        assert accepts(console.port)
        console.wait_for("start-up hook .*page_2024.* waits for messages and does not return")
        console.say("first")
        console.wait_for("Active receive: first")
        console.say("second")
        console.wait_for("Active receive: second")
        console.say("stop")
        assert console.wait_for_end() == 0


def test_ten_thousand_messages_each_way_at_once(bot: Console) -> None:
    bot.say("exchange")
    bot.wait_for("host: own 0, lost 0, duplicated 0, order kept")
    bot.wait_for("child: own 0, lost 0, duplicated 0, order kept")


@pytest.mark.parametrize("who", ["host", "child"])
def test_a_restart_brings_a_new_child_that_is_heard_and_hears(who: str, bot: Console) -> None:
    [first] = bot.wait_for(r"child pid (\d+)")
    seen = len(bot.lines)
    bot.say("restart" if who == "host" else "restart me")
    [second] = bot.wait_for(r"child pid (\d+)", after=seen)
    assert second[1] != first[1]
    bot.wait_for("child hook: shutdown", after=seen)
    bot.wait_until_ready(after=seen)
    bot.say("hello")
    bot.wait_for("heard hello", after=seen)
    assert accepts(bot.port)


async def test_a_superuser_restarts_the_bot_from_chat() -> None:
    with Console(PROJECT, SUPERUSERS='["10000"]') as console:
        await asyncio.to_thread(console.wait_until_ready)
        async with onebot_client(f"ws://127.0.0.1:{console.port}/onebot/v11/ws") as client:
            await client.wait_connected()
            await client.send_group_message("/restart", user_id=10000, group_id=4242)
            assert "restarting" in (await client.wait_for_message()).text
            answer = await client.wait_for_message(timeout=DEADLINE)
        assert re.search(r"restarted, took \d+(\.\d+)? s", answer.text)
        assert answer.params["group_id"] == 4242
        assert answer.connection == 2
        first, second = console.wait_for(r"child pid (\d+)", times=2)
        assert first[1] != second[1]
        console.say("stop")
        assert await asyncio.to_thread(console.wait_for_end) == 0


def test_a_crashed_child_is_started_again_and_what_it_started_is_gone(bot: Console) -> None:
    bot.say("spawn")
    [grandchild] = bot.wait_for(r"grandchild pid (\d+)")
    seen = len(bot.lines)
    with watched(int(grandchild[1])) as process:
        bot.say("crash")
        bot.wait_for(r"child nonebot exited 3; starting it again", after=seen)
        assert ended(process, 3)
    bot.wait_until_ready(after=seen)


@pytest.mark.parametrize("state", ["idle", "with its loop blocked"])
def test_a_killed_host_takes_the_child_and_its_children_along(state: str, bot: Console) -> None:
    [child] = bot.wait_for(r"child pid (\d+)")
    bot.say("spawn")
    [grandchild] = bot.wait_for(r"grandchild pid (\d+)")
    if state != "idle":
        bot.say("block")
        bot.wait_for("blocking the loop")
    with watched(int(child[1])) as first, watched(int(grandchild[1])) as second:
        bot.process.kill()
        assert ended(first, 3)
        assert ended(second, 3)
    assert not accepts(bot.port)
    bot.wait_for_end()


def test_a_host_killed_while_the_child_still_imports_leaves_nothing() -> None:
    with Console(PROJECT) as console:
        [started] = console.wait_for(r"child nonebot started \(pid (\d+)\)")
        with watched(int(started[1])) as child:
            console.process.kill()
            assert ended(child, 3)
        console.wait_for_end()
        assert "child pid" not in console.text


@pytest.mark.parametrize("word", ["stop", "SIGINT", "SIGBREAK"])
def test_a_clean_stop_runs_the_hooks_and_ends_with_zero(word: str, bot: Console) -> None:
    """By the host's own API, and by what Ctrl+C and Ctrl+Break do inside a process that gets them."""
    bot.say("spawn")
    [grandchild] = bot.wait_for(r"grandchild pid (\d+)")
    with watched(int(grandchild[1])) as process:
        bot.say(word)
        assert bot.wait_for_end() == 0
        assert ended(process, 0)
    assert "child hook: shutdown" in bot.text
    assert "host hook: after shutdown" in bot.text
    assert not re.search("Traceback|WARNING|ERROR", bot.text)
    assert not accepts(bot.port)


def test_a_blocked_child_is_ended_all_the_same(bot: Console) -> None:
    bot.say("block")
    bot.wait_for("blocking the loop")
    bot.say("stop")
    assert bot.wait_for_end() == 0
    # The stop message and the console event find nobody who could act on them. Python 3.10 kills at once when
    # there is no console to send the event through.
    bot.wait_for("child nonebot stopped after (CTRL_BREAK|a kill)")


@pytest.mark.skipif(ON_WINE, reason="Wine has no console to send CTRL_BREAK through")
def test_ctrl_break_from_the_console_is_a_clean_stop(bot: Console) -> None:
    bot.process.send_signal(signal.CTRL_BREAK_EVENT)
    assert bot.wait_for_end() == 0
    assert "child hook: shutdown" in bot.text
