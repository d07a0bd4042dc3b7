"""Sync start-up hooks in threads of their own, without a bot around them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio.from_thread
import pytest
from loguru import logger

from liteyuki_host._child import startup_hooks
from liteyuki_host._child.startup_hooks import StartupHooks
from liteyuki_host.comm.channel.channel import blocking_receive_hook
from liteyuki_host.comm.errors import ChannelClosed

DEADLINE = 10.0
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_hooks, "PATIENCE_SECONDS", 0.05)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]), format="{message}")
    yield found
    logger.remove(sink)


async def start(hook: Callable[[], object], startup: StartupHooks | None = None) -> None:
    wrapped = (startup or StartupHooks()).wrap(hook)
    await asyncio.wait_for(wrapped(), DEADLINE)  # type: ignore[arg-type]


def wait_like_receive() -> None:
    """What ``receive()`` without a timeout does before it blocks."""
    announce = blocking_receive_hook.get()
    assert announce is not None
    announce()


async def test_an_async_hook_runs_in_the_task_of_the_start() -> None:
    """What it enters there (a cancel scope, a context variable) it may leave in a shutdown hook."""
    seen: list[object] = []

    async def hook() -> None:
        seen.append(asyncio.current_task())
        variable.set("set by the hook")

    await StartupHooks().wrap(hook)()
    assert seen == [asyncio.current_task()]
    assert variable.get() == "set by the hook"


async def test_a_hook_that_is_interrupted_ends_and_those_after_it_are_left_out() -> None:
    hooks = StartupHooks()
    seen: list[str] = []

    async def waits() -> None:
        asyncio.get_running_loop().call_soon(hooks.interrupt, None)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    async def later() -> None:
        seen.append("later")

    await asyncio.wait_for(hooks.wrap(waits)(), 5)
    await hooks.wrap(later)()
    assert seen == ["cleaned up"]
    task = asyncio.current_task()
    assert task is not None
    assert sys.version_info < (3, 11) or task.cancelling() == 0


async def test_a_hook_that_blocks_is_interrupted_where_it_is() -> None:
    hooks = StartupHooks()

    async def blocks() -> None:
        with pytest.raises(KeyboardInterrupt):
            hooks.interrupt(sys._getframe())  # as a signal handler would, in the middle of a blocking call
        hooks.interrupt(sys._getframe())  # once more: it may be cleaning up
        raise KeyboardInterrupt

    await hooks.wrap(blocks)()


async def test_a_hook_that_cancels_itself_is_none_of_our_business() -> None:
    async def hook() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await StartupHooks().wrap(hook)()


async def test_a_sync_hook_is_awaited_in_a_daemon_thread_with_the_callers_context() -> None:
    seen: list[object] = []

    def hook() -> None:
        seen.extend([threading.current_thread().daemon, variable.get(), threading.get_ident()])

    variable.set("set")
    await start(hook)
    daemon, value, ident = seen
    assert (daemon, value) == (True, "set")
    assert ident != threading.get_ident()
    wrapped = StartupHooks().wrap(hook)
    assert inspect.iscoroutinefunction(wrapped)
    assert wrapped.__name__ == "hook"


async def test_a_hook_can_call_back_into_the_loop_as_from_anyios_own_threads() -> None:
    seen: list[int] = []

    async def on_the_loop() -> None:
        seen.append(threading.get_ident())

    await start(lambda: anyio.from_thread.run(on_the_loop))
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration()])
async def test_what_a_hook_raises_fails_the_start(error: Exception) -> None:
    def hook() -> None:
        raise error

    with pytest.raises((ValueError, RuntimeError)):
        await start(hook)


async def test_the_start_goes_on_without_a_hook_that_waits_for_messages(lines: list[str]) -> None:
    release, ended = threading.Event(), threading.Event()

    def waits_for_ever() -> None:
        for _ in range(3):
            wait_like_receive()
        release.wait(DEADLINE)
        ended.set()

    await start(waits_for_ever)
    assert not ended.is_set()  # it goes on
    (warning,) = lines
    assert f"{__name__}." in warning
    assert "waits_for_ever" in warning
    assert f"{Path(__file__).name}:" in warning
    assert "background_thread" in warning
    release.set()
    assert await asyncio.to_thread(ended.wait, DEADLINE)


async def test_a_hook_that_gets_its_message_in_time_is_waited_for(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup_hooks, "PATIENCE_SECONDS", 60.0)
    done: list[bool] = []

    def hook() -> None:
        wait_like_receive()
        done.append(True)

    await start(hook)
    assert done == [True]
    assert lines == []


@pytest.mark.parametrize(
    ("error", "logged"), [(ValueError("late"), 1), (ChannelClosed("the process ends"), 0)], ids=["bug", "normal end"]
)
async def test_a_hook_that_ends_later_is_logged_only_for_an_error(
    lines: list[str], error: Exception, logged: int
) -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def hook() -> None:
        threads.append(threading.current_thread())
        wait_like_receive()
        release.wait(DEADLINE)
        raise error

    await start(hook)
    lines.clear()
    release.set()
    await asyncio.to_thread(threads[0].join, DEADLINE)
    await asyncio.sleep(0)  # what the thread has posted runs now
    assert len(lines) == logged
    if logged:
        assert "failed after the bot had started" in lines[0]


async def test_a_stop_releases_a_start_that_waits_for_a_hook(lines: list[str]) -> None:
    startup, running, release = StartupHooks(), threading.Event(), threading.Event()

    def hangs() -> None:
        running.set()
        release.wait(DEADLINE)

    starting = asyncio.create_task(start(hangs, startup))
    await asyncio.to_thread(running.wait, DEADLINE)
    await asyncio.to_thread(startup.release_all)  # as the link's thread does
    await asyncio.wait_for(starting, DEADLINE)
    assert lines == []
    release.set()
