"""background_thread: a blocking loop beside the bot."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import nonebot
import pytest

from liteyuki_host.comm.errors import ChannelClosed, HostNotAttached
from liteyuki_host.comm.testing import Pair
from nonebot_plugin_lycomm import active_channel, background_thread
from tests.plugin.support import Logged

DEADLINE = 5.0


def started_in(function: Callable[[], Any]) -> threading.Thread:
    """Decorates the function in the running bot, and returns the thread it runs in."""
    running: list[threading.Thread] = []
    entered = threading.Event()

    def body() -> None:
        running.append(threading.current_thread())
        entered.set()
        function()

    body.__qualname__ = "loop"
    assert background_thread(body) is body
    assert entered.wait(DEADLINE)
    return running[0]


def ended(thread: threading.Thread) -> None:
    thread.join(DEADLINE)
    assert not thread.is_alive()


async def test_it_runs_in_a_daemon_thread_of_its_own(app: object) -> None:
    release = threading.Event()
    thread = started_in(lambda: release.wait(DEADLINE))
    assert thread.daemon, "a thread that is no daemon hangs the exit of a bot whose loop never returns"
    assert thread is not threading.main_thread()
    assert thread.name.startswith("lycomm ")
    release.set()
    ended(thread)


async def test_in_a_bot_that_has_not_started_it_waits_for_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = nonebot.get_driver()
    monkeypatch.setattr(driver._lifespan, "_task_group", None)
    hooks: list[Any] = []
    monkeypatch.setattr(driver._lifespan, "_startup_funcs", hooks)
    ran = threading.Event()
    background_thread(ran.set)
    assert len(hooks) == 1
    assert not ran.is_set()
    await driver._lifespan._run_lifespan_func(hooks)
    assert await asyncio.to_thread(ran.wait, DEADLINE)


async def test_an_error_ends_it_and_is_logged_once_with_its_traceback(app: object, logged: Logged) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the loop's own fault")

    ended(started_in(fail))
    (line,) = logged.containing("background thread")
    assert line.startswith(f"ERROR background thread {__name__}.loop ended with an error")
    assert "ZeroDivisionError: the loop's own fault" in line


async def test_a_closed_channel_ends_it_quietly(app: object, logged: Logged) -> None:
    def closed() -> None:
        raise ChannelClosed("nonebot-active: this process is shutting down")

    ended(started_in(closed))
    (line,) = logged.containing("background thread")
    assert line.startswith("DEBUG ")
    assert "Traceback" not in line


async def test_without_a_host_it_ends_with_one_line_and_no_traceback(app: object, logged: Logged) -> None:
    def no_host() -> None:
        raise HostNotAttached("no host: run `lycomm`")

    ended(started_in(no_host))
    (line,) = logged.containing("background thread")
    assert line.startswith("WARNING ")
    assert "no host: run `lycomm`" in line
    assert "Traceback" not in line


async def test_a_receive_loop_reads_until_the_process_shuts_down(
    app: object, lycomm_pair: Pair, logged: Logged
) -> None:
    got: list[str] = []
    both = threading.Event()

    def loop() -> None:
        while True:
            got.append(active_channel.receive())
            if len(got) == 2:
                both.set()

    thread = started_in(loop)
    for text in ("one", "two"):
        await lycomm_pair.host_channel("nonebot-active").asend(text)
    assert await asyncio.to_thread(both.wait, DEADLINE)
    assert got == ["one", "two"]
    lycomm_pair.child.detach("the bot ends")
    ended(thread)
    (line,) = logged.containing("background thread")
    assert line.startswith("DEBUG ")


async def test_an_async_function_is_refused_where_it_is_decorated(app: object) -> None:
    async def loop() -> None: ...

    with pytest.raises(TypeError, match=r"blocking functions; .*loop is async"):
        background_thread(loop)


class Async:
    async def __call__(self) -> None: ...


def with_yield() -> Any:
    yield


NEVER: dict[str, tuple[Any, str]] = {
    "a partial coroutine": (functools.partial(Async.__call__, Async()), "is async: start it as a task"),
    "an async object": (Async(), "is async: start it as a task"),
    "a generator": (with_yield, "has a `yield`"),
    "an argument": (lambda channel: None, "is called without arguments, but takes \\(channel\\)"),
    "no function": (None, "is a function, not None"),
}


@pytest.mark.parametrize(("function", "words"), NEVER.values(), ids=NEVER)
async def test_useless_functions_are_refused(app: object, function: Any, words: str) -> None:
    """Nothing of them ran, and nothing said so, or only the log."""
    with pytest.raises(TypeError, match=words):
        background_thread(function)
