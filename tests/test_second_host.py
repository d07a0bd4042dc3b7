"""A process has one host. A second one used to take its place without a word: all channels led to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host import Host, get_bot
from liteyuki_host.comm import get_channels
from liteyuki_host.comm.errors import HostError, HostNotRunning, SettingsError

DEADLINE = 20.0
PROCESSES: Any = {"bot": {"autostart": False}}


@pytest.fixture(autouse=True)
async def no_host_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    host = get_bot_or_none()
    if host is not None:
        host.stop()
        await asyncio.wait_for(host.serve(), DEADLINE)


def make(**settings: Any) -> Host:
    return Host(processes=PROCESSES, on_failed="stay", **settings)


def test_second_host_is_refused() -> None:
    first = make()
    with pytest.raises(HostError, match=r"has not run; use that one .*, or call its stop\(\)"):
        Host(processes={"other": {"autostart": False}})
    assert get_bot() is first
    assert "other-passive" not in get_channels()


async def test_running_host_keeps_its_place() -> None:
    first = make()
    started = asyncio.Event()
    first.on_after_start(started.set)
    serving = asyncio.create_task(first.serve())
    await asyncio.wait_for(started.wait(), DEADLINE)
    with pytest.raises(HostError, match="and it runs; declare further bots as its `processes`"):
        make()
    first.stop()
    await asyncio.wait_for(serving, DEADLINE)
    with pytest.raises(HostNotRunning):
        get_bot()


async def test_ended_host_makes_room() -> None:
    for _ in range(2):
        host = make()
        host.stop()
        await asyncio.wait_for(host.serve(), DEADLINE)


async def test_failed_host_makes_room() -> None:
    host = make(plugins=["there_is_no_such_module"])
    with pytest.raises(HostError, match="there is no module"):
        await asyncio.wait_for(host.serve(), DEADLINE)
    assert get_bot_or_none() is None
    make()


def get_bot_or_none() -> Host | None:
    try:
        return get_bot()
    except HostNotRunning:
        return None


async def test_stopped_host_gives_up_its_place() -> None:
    first = make()
    first.stop()
    second = make()
    assert get_bot() is second
    with pytest.raises(HostError, match="this host was stopped, and another"):
        await first.serve()
    assert get_bot() is second


def test_wrong_settings_take_no_place() -> None:
    with pytest.raises(SettingsError):
        make(backoff_base="soon")
    host = make()
    assert get_bot() is host


def test_one_of_many_threads_wins() -> None:
    made: list[Host] = []
    refused: list[HostError] = []
    together = threading.Barrier(8)

    def try_to() -> None:
        together.wait(DEADLINE)
        try:
            made.append(make())
        except HostError as error:
            refused.append(error)

    threads = [threading.Thread(target=try_to) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert (made, len(refused)) == ([get_bot()], 7)


@pytest.mark.parametrize("moment", ["on_before_start", "on_after_start", "on_after_shutdown", "on_after_restart"])
def test_useless_hooks_are_refused(moment: str) -> None:
    host: Any = make()
    register = getattr(host, moment)

    async def with_yield(*arguments: object) -> Any:
        yield arguments

    with pytest.raises(TypeError):
        register()
    with pytest.raises(TypeError, match="without parentheses"):
        register("name")
    with pytest.raises(TypeError, match="has a `yield`"):
        register(with_yield)
    with pytest.raises(TypeError, match="takes \\(a, b, c\\)"):
        register(lambda a, b, c: None)
    for hook in (lambda: None, lambda *names: None, lambda name=None: None):
        assert register(hook) is hook
