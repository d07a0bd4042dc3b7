"""A bot that nobody supervises: what needs no host works, the rest says how to get one, and nothing is opened."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pair_kit import DEADLINE, eventually, loops

from liteyuki_host.comm import Channel, active_channel, get_channel, get_channels, passive_channel
from liteyuki_host.comm.command import lycomm
from liteyuki_host.comm.errors import ChannelModeError, HostNotAttached, LycommError, UnknownChannel
from liteyuki_host.comm.process.current import current, current_node, set_current
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.topics import publish, subscribe, unsubscribe
from liteyuki_host.hub import Hub

REMEDY = f"start it with `{lycomm('run')}` in the project's folder"


@pytest.fixture
def node() -> Any:
    set_current(None)
    yield current_node()
    set_current(None)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []


def test_importing_and_working_alone_opens_nothing(node: Node) -> None:
    threads, fds = threading.active_count(), descriptors()
    memory = SharedMemory(node)
    memory.set("a", [1], ttl=60)
    memory.incr("n")
    with memory.lock("L"):
        memory.update("a", lambda value: [*value, 2])
    publish("news", 1)
    Channel("x").on_receive()(print)
    with pytest.raises(HostNotAttached):
        active_channel.receive(0)
    assert memory.get_all() == {"a": [1, 2], "n": 1}
    assert (threading.active_count(), descriptors()) == (threads, fds)
    assert not node.attached


CALLS: dict[str, Callable[[], Any]] = {
    "send": lambda: active_channel.send(1),
    "receive": active_channel.receive,
    "receive with a timeout": lambda: passive_channel.receive(1),
    "request_restart": lambda: current_node().request_restart(),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_what_needs_the_host_says_so_in_one_line_with_the_remedy(node: Node, name: str) -> None:
    with pytest.raises(
        HostNotAttached, match="needs the lycomm host, and this bot was started without one; start it with"
    ) as caught:
        CALLS[name]()
    assert str(caught.value).endswith(REMEDY)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, LycommError)


async def test_the_same_in_tasks(node: Node) -> None:
    for call in (
        active_channel.asend(1),
        active_channel.areceive(),
        active_channel.request(1),
        active_channel.flush(),
        node.control("status"),
    ):
        with pytest.raises(HostNotAttached, match="was started without one"):
            await call


def test_a_receive_that_failed_decides_no_mode(node: Node) -> None:
    """It used to: the callback registered afterwards was refused because of a receive() that never was."""
    with pytest.raises(HostNotAttached):
        active_channel.receive()
    active_channel.on_receive()(print)
    assert active_channel.statistics().mode == "passive"
    with pytest.raises((HostNotAttached, ChannelModeError)):
        active_channel.receive()


def test_the_two_channels_are_known_and_no_others(node: Node) -> None:
    assert sorted(get_channels()) == ["nonebot-active", "nonebot-passive"]
    assert get_channel("nonebot-active") == active_channel
    assert (active_channel.name, passive_channel.name) == ("nonebot-active", "nonebot-passive")
    with pytest.raises(UnknownChannel, match="known are: nonebot-active, nonebot-passive"):
        get_channel("nope")


async def test_callbacks_register_and_topics_work_inside_the_process(node: Node) -> None:
    got: list[Any] = []
    async with loops(node):
        passive_channel.on_receive()(got.append)
        subscribe("news")(got.append)
        publish("news", {"a": 1})
        publish("nobody", 2)
        await eventually(lambda: got == [{"a": 1}])
        assert unsubscribe("news") == 1
        publish("news", 3)
        for _ in range(3):
            await asyncio.sleep(0)
    assert got == [{"a": 1}]


async def test_watches_and_locks_work_inside_the_process(node: Node) -> None:
    memory = SharedMemory(node)
    with memory.watch("k") as watch:
        memory.set("k", 1)
        await memory.aset("k", 2)
        seen = []
        async for change in watch:
            seen.append(change.value)
            if len(seen) == 2:
                break
    assert seen == [1, 2]
    async with memory.lock("L"):
        waiter = asyncio.create_task(memory.lock("L").__aenter__())
        await asyncio.sleep(0.01)
        assert not waiter.done()
    lock = await asyncio.wait_for(waiter, DEADLINE)
    await lock.__aexit__()


def test_the_current_exchange_is_made_once_and_is_a_node(node: Node) -> None:
    assert current() is current() is node
    try:
        set_current(Hub())
        with pytest.raises(LycommError, match="this process is the host; the bot's half cannot be used in it"):
            current_node()
    finally:
        set_current(None)
    assert current() is not node


def test_module_level_names_follow_the_current_exchange() -> None:
    from liteyuki_host.comm import shared_memory

    first, second = Node("first"), Node("second")
    try:
        set_current(first)
        shared_memory.set("who", "first")
        assert active_channel.name == "first-active"
        set_current(second)
        assert "who" not in shared_memory
        assert active_channel.name == "second-active"
        set_current(first)
        assert shared_memory["who"] == "first"
    finally:
        set_current(None)


def test_the_shared_memory_is_there_in_a_process_that_has_used_nothing_else() -> None:
    code = "from liteyuki_host.comm import shared_memory as m; assert m.get('a', 1) == 1; m['a'] = 2; print(m.get('a'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
