"""The plugin in a bot that runs without a host: what a plain ``nb run`` is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import nonebot
import pytest
from nonebot.config import Config, Env
from nonebot.drivers.none import Driver

from liteyuki_host.comm.command import lycomm
from liteyuki_host.comm.errors import HostNotAttached
from liteyuki_host.comm.process.current import current_node
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.testing import Pair
from nonebot_plugin_lycomm import (
    active_channel,
    get_channel,
    get_channels,
    more_time,
    passive_channel,
    publish,
    restart_process,
    shared_memory,
    subscribe,
    unsubscribe,
)
from nonebot_plugin_lycomm import driver_hooks as plugin_hooks
from tests.plugin.support import Logged

DEADLINE = 5.0


async def test_there_is_no_host_here(app: object) -> None:
    assert not current_node().attached


async def test_the_start_says_in_exactly_one_line_that_there_is_no_host(app: object, logged: Logged) -> None:
    await plugin_hooks._attach_loop()
    (line,) = logged
    assert line.startswith("WARNING no host: channels to it are off, everything else works in this process; ")
    assert f"run `{lycomm('run')}` in this folder" in line


async def test_pydantic_1_is_said_in_one_line(app: object, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    """NoneBot runs on it, and the plugin does without a host."""
    monkeypatch.setattr("pydantic.VERSION", "1.10.27")
    driver = Driver(Env(), Config(_env_file=None))
    plugin_hooks.register(driver)
    [line] = logged
    assert line.startswith("WARNING pydantic 1.10.27 is installed, and lycomm needs pydantic 2: run `")


async def test_the_hooks_are_nonebots(app: object) -> None:
    lifespan = nonebot.get_driver()._lifespan
    assert plugin_hooks._attach_loop in lifespan._startup_funcs
    assert plugin_hooks._detach_loop in lifespan._shutdown_funcs


async def test_a_failing_node_does_not_keep_other_shutdown_hooks_from_running(
    app: object, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """NoneBot skips every shutdown hook after one that raises."""

    def broken(self: Node) -> None:
        raise BrokenPipeError("the host is gone")

    monkeypatch.setattr(Node, "detach_loop", broken)
    await plugin_hooks._detach_loop()
    assert len(logged.containing("BrokenPipeError: the host is gone")) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: active_channel.send("x"),
        lambda: passive_channel.send("x"),
        lambda: active_channel.receive(timeout=1),
    ],
    ids=["active send", "passive send", "active receive"],
)
async def test_a_channel_says_in_one_line_how_to_run_under_a_host(app: object, call: Callable[[], object]) -> None:
    with pytest.raises(HostNotAttached) as error:
        await asyncio.to_thread(call)
    assert f"`{lycomm('run')}`" in str(error.value), "the command to run is named"
    assert "\n" not in str(error.value)


async def test_callbacks_register_without_a_host(app: object) -> None:
    @passive_channel.on_receive(filter_func=lambda data: isinstance(data, str))
    async def callback(data: str) -> None: ...

    assert passive_channel.remove(callback), "it was not registered"


async def test_both_channels_exist_under_their_names(app: object) -> None:
    assert get_channel("nonebot-active") == active_channel
    assert get_channel("nonebot-passive") == passive_channel
    assert {"nonebot-active", "nonebot-passive"} <= set(get_channels())


async def test_the_shared_memory_works_inside_the_process(app: object) -> None:
    shared_memory.set("plugin test", {"deep": [1, 2]})
    shared_memory.get("plugin test")["deep"].append(3)
    assert shared_memory.get("plugin test") == {"deep": [1, 2]}
    shared_memory.delete("plugin test")
    assert shared_memory.get("plugin test", "gone") == "gone"


async def test_publish_reaches_subscribers_on_nonebots_loop_and_in_order(app: object) -> None:
    got: list[object] = []
    where: set[object] = set()
    everything = asyncio.Event()

    @subscribe("plugin test")
    async def on_message(data: object) -> None:
        where.add((asyncio.get_running_loop(), threading.current_thread()))
        got.append(data)
        if len(got) == 100:
            everything.set()

    def publish_from_a_thread() -> None:
        for number in range(100):
            publish("plugin test", number)

    await asyncio.to_thread(publish_from_a_thread)
    await asyncio.wait_for(everything.wait(), DEADLINE)
    assert got == list(range(100))
    assert where == {(asyncio.get_running_loop(), threading.main_thread())}
    assert unsubscribe("plugin test") == 1


async def test_under_a_host_nothing_is_said_about_one(app: object, lycomm_pair: Pair, logged: Logged) -> None:
    await plugin_hooks._attach_loop()
    assert logged.containing("no host") == []


async def test_callbacks_of_a_message_from_the_host_run_on_nonebots_loop(app: object, lycomm_pair: Pair) -> None:
    where: list[object] = []

    @passive_channel.on_receive(filter_func=lambda data: isinstance(data, str))
    async def callback(data: str) -> str:
        where.append((asyncio.get_running_loop(), threading.current_thread()))
        return f"heard {data}"

    answer = lycomm_pair.host_channel("nonebot-passive").request("it", timeout=DEADLINE)
    assert await answer == "heard it"
    assert where == [(asyncio.get_running_loop(), threading.main_thread())]
    passive_channel.remove(callback)


async def test_restart_process_asks_the_host_for_this_or_a_named_process(app: object, lycomm_pair: Pair) -> None:
    restart_process()
    restart_process("bot2")
    await current_node().control("status")  # in order on the link, so the host has seen what came before
    assert lycomm_pair.controls == [("restart", "nonebot"), ("restart", "bot2"), ("status", None)]


async def test_restart_process_says_that_there_is_no_host(app: object) -> None:
    with pytest.raises(HostNotAttached, match="lycomm run`"):
        restart_process()


async def test_more_time_needs_no_host_but_a_sensible_number(app: object) -> None:
    more_time(3600, "a long reason")
    for wrong in (0, -1, 3600.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 3600"):
            more_time(wrong)
