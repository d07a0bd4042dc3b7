"""The host notices that its own event loop does not turn."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit import host_process, write
from loguru import logger

from liteyuki_host.self_watch import SelfWatch, Stall, Step

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# One look: seconds since the last, of processor time since, and since the loop has turned.
FINE = (1.0, 0.01, 0.999)
BLOCKED = (1.0, 0.01, None)


# Counting.


def steps(*looks: tuple[float, float, float | None]) -> list[Step]:
    stall = Stall()
    return [stall.look(*look) for look in looks]


def test_a_loop_that_turns_is_nothing_to_tell() -> None:
    assert set(steps(*[FINE] * 100)) == {Step.NOTHING}


def test_a_stall_is_told_once_and_its_end_once() -> None:
    found = steps(FINE, *[BLOCKED] * 30, FINE, FINE)
    assert found.index(Step.STALLED) == 10
    assert found.count(Step.STALLED) == 1
    assert found[-2:] == [Step.OVER, Step.NOTHING]


def test_the_next_stall_is_told_again() -> None:
    one = [*[BLOCKED] * 12, FINE, FINE]
    assert steps(*one, *one).count(Step.STALLED) == 2


def test_short_stalls_do_not_add_up() -> None:
    assert set(steps(*[*[BLOCKED] * 8, FINE] * 20)) == {Step.NOTHING}


@pytest.mark.parametrize("seconds", [12.0, 60.0, 8 * 3600.0])
@pytest.mark.parametrize("answered", [True, False])
def test_a_process_that_was_stopped_has_no_stall(seconds: float, answered: bool) -> None:
    """However long it was, and wherever in a look it began: the loop turns again as soon as the process does."""
    stopped = (seconds, 0.02, seconds - 0.1 if answered else None)
    assert set(steps(FINE, stopped, FINE)) == {Step.NOTHING}


def test_stopped_and_continued_all_the_time_is_no_stall_either() -> None:
    assert set(steps(*[(30.0, 0.02, None), FINE] * 20)) == {Step.NOTHING}


def test_a_block_that_is_interrupted_by_a_stop_is_still_one() -> None:
    found = steps(*[BLOCKED] * 5, (3600.0, 0.1, None), *[BLOCKED] * 5)
    assert found.index(Step.STALLED) == 9  # the hour counts as one look


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_interpreters_lock_held_is_a_stall_although_nobody_could_look(answered: bool, share: float) -> None:
    """Whether or not the loop had turned in the same look before; also on a machine that others use too."""
    held = (15.0, 15.0 * share, 14.5 if answered else None)
    assert steps(FINE, held, FINE, FINE) == [Step.NOTHING, Step.STALLED, Step.OVER, Step.NOTHING]


# The real thing.


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    sink = logger.add(lambda message: written.append(message.rstrip("\n")), format="{level} {message}", level="INFO")
    yield written
    logger.remove(sink)


def block_for(seconds: float) -> None:
    time.sleep(seconds)  # what this is about


def spin_for(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def hold_the_lock_for(seconds: float) -> None:
    began = time.monotonic()
    sum(range(10**6))
    sum(range(int(10**6 * seconds / (time.monotonic() - began))))  # in C, without giving up the interpreter's lock


@pytest.mark.parametrize("block", [block_for, spin_for, hold_the_lock_for])
async def test_a_blocked_loop_is_told_with_the_line_that_blocks_it(
    block: Callable[[float], None], lines: list[str]
) -> None:
    watch = SelfWatch(asyncio.get_running_loop(), limit=0.4)
    watch.start()
    try:
        block(1.5)
        while len(lines) < 2:
            await asyncio.sleep(0.01)
    finally:
        watch.close()
    stalled, over = lines
    headline = stalled.splitlines()[0]
    assert headline.startswith("ERROR the host's event loop has not turned for ")
    assert re.search(rf"{Path(__file__).name} line \d+ \(in {block.__name__}\) keeps it\.", headline)
    assert "none is watched, started, stopped or reloaded" in headline
    assert "(the event loop):\n" in stalled
    assert "test_a_blocked_loop_is_told_with_the_line_that_blocks_it" in stalled
    assert over.startswith("WARNING the host's event loop turns again, after ")


async def test_a_loop_that_works_a_lot_is_not_blocked(lines: list[str]) -> None:
    watch = SelfWatch(asyncio.get_running_loop(), limit=1.0)
    watch.start()
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        block_for(0.02)
        await asyncio.sleep(0)
    watch.close()
    assert lines == []


async def test_its_thread_ends_with_it() -> None:
    watch = SelfWatch(asyncio.get_running_loop())
    watch.start()
    assert "lycomm-self-watch" in [thread.name for thread in threading.enumerate()]
    began = time.monotonic()
    watch.close()
    watch.close()
    assert time.monotonic() - began < 0.5
    assert "lycomm-self-watch" not in [thread.name for thread in threading.enumerate()]


async def test_without_a_thread_the_host_goes_on(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    watch = SelfWatch(asyncio.get_running_loop())
    watch.start()
    watch.close()
    assert lines == ["WARNING the host does not watch its own event loop: can't start new thread"]


def test_the_loop_may_end_first(lines: list[str]) -> None:
    async def main() -> SelfWatch:
        watch = SelfWatch(asyncio.get_running_loop(), limit=0.2)
        watch.start()
        return watch

    watch = asyncio.run(main())
    watch._thread.join(5)
    assert not watch._thread.is_alive()
    watch.close()
    assert lines == []


# In a host, with the seconds that it has there.

BOT = 'import nonebot\nnonebot.init(driver="~none")\nnonebot.run()\n'

MODULE = """
    import asyncio, time
    from liteyuki_host import get_bot

    @get_bot().on_after_start
    async def refresh():
        await asyncio.sleep(1)
        time.sleep(12)
        print("has blocked", flush=True)
"""


@pytest.mark.e2e
def test_a_main_process_module_that_blocks_is_named(tmp_path: Path) -> None:
    settings = '[tool.lycomm]\nplugins = ["blocking"]\n'
    write(tmp_path, {"pyproject.toml": settings, "blocking.py": MODULE, "bot.py": BOT})
    with host_process(tmp_path) as host:
        host.wait_for("has blocked", timeout=40)
        (line,) = host.wait_for(r"\[ERROR\] host \| the host's event loop has not turned for 1\d s")
        assert ": blocking.py line 8 (in refresh) keeps it. Until it turns again bots go on" in line
        host.wait_for(r"\[WARNING\] host \| the host's event loop turns again, after 1\d s")
        assert host.stop() == 0
        assert len(host.wait_for("has not turned for")) == 1


@posix_only
@pytest.mark.e2e
def test_a_host_that_was_stopped_for_longer_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": BOT})
    with host_process(tmp_path) as host:
        host.wait_for("child nonebot ready")
        os.kill(host.pid, signal.SIGSTOP)
        time.sleep(13)  # nothing can be awaited of a stopped process
        os.kill(host.pid, signal.SIGCONT)
        time.sleep(3)  # two looks
        assert "event loop" not in host.text
        assert host.stop() == 0
