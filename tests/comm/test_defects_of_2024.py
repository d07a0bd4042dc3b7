"""What broke in the page of 2024, by the numbers of the seed inventory: each has no counterpart here.

Those about processes are tested with processes, in tests/e2e.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, children, eventually, logged, loops, memory, until

from liteyuki_host.comm import Channel, get_channel, get_channels
from liteyuki_host.comm.errors import (
    ChannelClosed,
    ChannelFull,
    ReceiveTimeout,
    UnknownChannel,
    ValueRefused,
)
from liteyuki_host.comm.process.current import set_current
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.topics import publish, subscribe, unsubscribe

PASSIVE, ACTIVE = "nonebot-passive", "nonebot-active"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


def test_d1_a_side_never_gets_its_own_messages(pair: Pair) -> None:
    """A channel was one queue: both sides sent and received 200 times, and 200 of 200 were their own, on both sides."""
    host, child = pair.host_channel(ACTIVE), pair.child_channel(ACTIVE)

    def talk(side: Channel[Any], name: str, got: list[Any]) -> None:
        for number in range(200):
            side.send([name, number])
            got.append(side.receive(DEADLINE))

    at_host: list[Any] = []
    at_child: list[Any] = []
    thread = threading.Thread(target=talk, args=(host, "host", at_host), daemon=True)
    thread.start()
    talk(child, "child", at_child)
    thread.join(DEADLINE)
    assert at_host == [["child", n] for n in range(200)]
    assert at_child == [["host", n] for n in range(200)]


def test_d6_user_data_on_the_active_channel_controls_nothing(pair: Pair) -> None:
    """``True`` and ``1.0`` sent by a user restarted the child, and ``False`` stopped it: one channel for both."""
    for value in (True, 1.0, 1, False, 0):
        pair.child_channel(ACTIVE).send(value)
    assert [pair.host_channel(ACTIVE).receive(DEADLINE) for _ in range(5)] == [True, 1.0, 1, False, 0]
    assert pair.controls == []


async def test_d7_callbacks_run_on_the_processs_own_loop(pair: Pair) -> None:
    """They ran in the receive thread, each message on a new event loop, so ``await bot.send`` was on the wrong one."""
    seen: list[Any] = []
    bots_own = asyncio.get_running_loop().create_future()  # awaiting it on another loop is an error
    async with loops(pair.child):

        @pair.child_channel(PASSIVE).on_receive()
        async def callback(data: Any) -> None:
            seen.append((await bots_own, asyncio.get_running_loop()))

        pair.host_channel(PASSIVE).send(1)
        pair.host_channel(PASSIVE).send(2)
        asyncio.get_running_loop().call_soon(bots_own.set_result, "sent")
        await eventually(lambda: len(seen) == 2)
    assert seen == [("sent", asyncio.get_running_loop())] * 2


@pytest.mark.parametrize("where", ["callback", "filter"])
async def test_d8_an_exception_costs_one_message_and_is_logged(pair: Pair, where: str) -> None:
    """An exception in a callback or a filter killed the receive thread for good, and nobody was told."""
    got: list[int] = []

    def fail_at_two(data: int) -> bool:
        if data == 2:
            raise RuntimeError("two is too much")
        got.append(data)
        return True

    with logged() as lines:
        async with loops(pair.child):
            line = pair.child_channel(PASSIVE)
            if where == "filter":
                line.on_receive(fail_at_two)(lambda data: None)
            else:
                line.on_receive()(fail_at_two)
            for number in (1, 2, 3):
                pair.host_channel(PASSIVE).send(number)
            await eventually(lambda: got == [1, 3])
    [error] = [line for line in lines if line.startswith("ERROR")]
    assert f"channel 'nonebot-passive': the {where} of " in error


async def test_d9_messages_that_came_before_the_decorator_are_not_lost(pair: Pair) -> None:
    """5 of 5 were lost in the 50 ms between ``on_receive()`` and the decorator being applied."""
    got: list[int] = []
    async with loops(pair.child):
        decorator = pair.child_channel(PASSIVE).on_receive()
        for number in range(5):
            pair.host_channel(PASSIVE).send(number)
        await eventually(lambda: pair.child_channel(PASSIVE).statistics().received == 5)
        decorator(got.append)
        await eventually(lambda: got == [0, 1, 2, 3, 4])


async def test_d9_several_decorators_on_one_channel_each_get_every_message(pair: Pair) -> None:
    """The first messages were seen only by the first callback."""
    got: list[list[int]] = [[], [], []]
    async with loops(pair.child):
        for mine in got:
            pair.child_channel(PASSIVE).on_receive()(mine.append)
        for number in range(20):
            pair.host_channel(PASSIVE).send(number)
        await eventually(lambda: all(len(mine) == 20 for mine in got))
    assert got == [list(range(20))] * 3


async def test_d10_a_slow_callback_blocks_neither_other_channels_nor_the_loop(pair: Pair) -> None:
    """One slow async callback blocked everything behind it: 4 messages of 1 s took 4 s, on the receive thread."""
    gate = asyncio.Event()
    got: list[int] = []
    async with loops(pair.child):

        @pair.child_channel(PASSIVE).on_receive()
        async def slow(data: int) -> None:
            await gate.wait()

        pair.child_channel("other").on_receive()(got.append)
        for number in range(4):
            pair.host_channel(PASSIVE).send(number)
            pair.host_channel("other").send(number)
        await eventually(lambda: got == [0, 1, 2, 3])
        # Who wants its messages side by side says so in its own words: the callback starts a task.
        gate.set()


@dataclasses.dataclass
class Point:
    x: int


def test_d11_type_checks_apply(pair: Pair) -> None:
    """``Channel[str]("x")`` accepted 123; ``bool`` passed as ``int``; correct ``dict[str, int]`` and ``tuple`` were
    rejected; ``Any`` raised."""
    with pytest.raises(ValueRefused, match="carries str, got int"):
        Channel[str]("x", exchange=pair.host).send(123)  # type: ignore[arg-type]
    with pytest.raises(ValueRefused, match="carries int, got bool"):
        Channel[int]("x", exchange=pair.host).send(True)
    for kind, value in ((dict[str, int], {"a": 1}), (tuple[int, str], (1, "a")), (Any, [1]), (Point, Point(1))):
        line = pair.host_channel("x", kind)
        line.send(value)
        assert pair.child_channel("x", kind).receive(DEADLINE) == value


def test_d12_leaving_wakes_who_receives_and_tells_the_other_process(pair: Pair) -> None:
    """``close()`` did not wake or end the receive thread, and the other process was not told."""
    results: list[Any] = []

    def receive() -> None:
        try:
            pair.child_channel(ACTIVE).receive()
        except ChannelClosed as error:
            results.append(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    until(lambda: pair.child_channel(ACTIVE)._own_end().inbox.arrived)
    pair.child.detach("over")
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert len(results) == 1
    until(lambda: pair.listener.closed == [None])


async def test_d13_receiving_has_a_timeout_and_an_async_form_and_a_full_channel_freezes_no_loop() -> None:
    """An unread channel made ``send()`` block after 278 messages, in the sample's case inside main's event loop."""
    with connected_pair(window=100_000) as pair:
        host, child = pair.host_channel(ACTIVE), pair.child_channel(ACTIVE)
        with pytest.raises(ReceiveTimeout):
            await child.areceive(timeout=0.01)
        sent = 0
        started = time.monotonic()
        with pytest.raises(ChannelFull):  # noqa: PT012
            while True:
                host.send("x" * 100)
                sent += 1
        assert time.monotonic() - started < 5.0
        assert sent == 100_000 // 358
        for _ in range(sent):
            await child.areceive(timeout=DEADLINE)
        await host.asend("goes on")
        assert await child.areceive(timeout=DEADLINE) == "goes on"


def test_d14_an_unknown_channel_is_one_callers_error() -> None:
    """``get_channel("nope")`` in a child killed main's service thread: the caller hung, and so did every later one."""
    with children("other") as (pair, [other]):
        try:
            for node in (pair.child, other.node, pair.host):
                set_current(node)
                with pytest.raises(KeyError, match="there is no channel 'nope'; known are: "):
                    get_channel("nope")
                with pytest.raises(UnknownChannel):
                    get_channel("nope")
                assert get_channel(ACTIVE).name == ACTIVE
                assert set(get_channels()) >= {ACTIVE, PASSIVE, "other-active", "other-passive"}
        finally:
            set_current(None)


def test_d15_concurrent_increments_are_not_lost() -> None:
    """Three children x 300 ``set(get + 1)`` gave 300, and no atomic operation was offered."""
    with children("b", "c") as (pair, [b, c]):
        threads = [
            threading.Thread(target=lambda node=node: [memory(node).incr("n") for _ in range(300)], daemon=True)
            for node in (pair.child, b.node, c.node)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert pair.host_memory["n"] == 900


def test_d16_large_values_from_many_threads_are_all_there() -> None:
    """Two children with three threads each setting 400 kB values: 1 of 100 keys stored, the storage thread dead."""
    with children("b") as (pair, [b]):

        def work(node: Any, name: str) -> None:
            for number in range(16):
                memory(node).set(f"{name}{number}", name * 400_000)

        threads = [
            threading.Thread(target=work, args=(node, name), daemon=True)
            for node, names in ((pair.child, "abc"), (b.node, "def"))
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        for node in (pair.child, b.node):
            memory(node).sync(timeout=DEADLINE)
        for side in (pair.host_memory, pair.child_memory, memory(b.node)):
            until(lambda side=side: len(side) == 96)
            assert all(side[f"{name}15"] == name * 400_000 for name in "abcdef")


class OfAPlugin:
    """A class that the other process could not import."""


def test_d18_a_value_of_an_unknown_class_is_its_senders_error() -> None:
    """Main unpickled it, tried to import the plugin, and shared memory was dead for everyone."""
    with children("b") as (pair, [b]):
        with pytest.raises(TypeError, match=r"shared_memory\['k'\]: a value of type \S+OfAPlugin .* at \.a"):
            pair.child_memory.set("k", {"a": OfAPlugin()})
        memory(b.node).set("fine", 1)
        memory(b.node).sync(timeout=DEADLINE)
        pair.child_memory.sync(timeout=DEADLINE)
        assert pair.child_memory.get_all() == pair.host_memory.get_all() == {"fine": 1}


async def test_d19_a_publication_reaches_every_process(pair: Pair) -> None:
    """Without a subscriber in main 0 of 100 reached either child; with one, 29 and 37 of 100, then torn pipes."""
    with children("b") as (pair, [b]):
        got: list[list[int]] = [[], []]
        async with loops(pair.child, b.node):
            subscribe("t", exchange=pair.child)(got[0].append)
            subscribe("t", exchange=b.node)(got[1].append)
            for node in (pair.child, b.node):
                await memory(node).async_(timeout=DEADLINE)
            for number in range(100):
                publish("t", number, exchange=pair.host)
            await eventually(lambda: len(got[0]) == len(got[1]) == 100)
        assert got == [list(range(100))] * 2


def test_d20_get_all_is_a_copy_everywhere(pair: Pair) -> None:
    """In main it returned the live dict, without a lock."""
    for mine in (pair.host_memory, pair.child_memory):
        mine.set("k", {"list": [1]})
        everything = mine.get_all()
        everything["k"]["list"].append(2)
        everything.clear()
        assert mine.get_all() == {"k": {"list": [1]}}
        assert mine.get_all() is not mine.get_all()


def test_d29_reading_the_shared_memory_is_a_look_into_a_dict(pair: Pair) -> None:
    """A get took 1.2 ms: a new socket pair was made and passed for each call."""
    pair.host_memory.set("k", 5)
    mine = pair.child_memory
    mine.sync(timeout=DEADLINE)
    link = pair.child.link
    assert link is not None
    sent = link.connection.store.sent
    started = time.perf_counter()
    for _ in range(10_000):
        assert mine.get("k") == 5
    assert (time.perf_counter() - started) / 10_000 < 100e-6
    assert link.connection.store.sent == sent  # nobody was asked


async def test_d30_callbacks_and_subscriptions_can_be_removed(pair: Pair) -> None:
    """``Subscriber`` was a stub, and there was no way to remove a callback or a subscription."""
    got: list[Any] = []

    def callback(data: Any) -> None:
        got.append(data)

    async with loops(pair.child):
        line = pair.child_channel(PASSIVE)
        line.on_receive()(callback)
        line.on_receive()(lambda data: None)
        subscribe("t", exchange=pair.child)(callback)
        pair.host_channel(PASSIVE).send(1)
        await eventually(lambda: got == [1])
        assert line.remove(callback)
        assert unsubscribe("t", callback, exchange=pair.child) == 1
        await pair.child_memory.async_(timeout=DEADLINE)
        pair.host_channel(PASSIVE).send(2)
        publish("t", 3, exchange=pair.host)
        await pair.host_channel(PASSIVE).flush(timeout=DEADLINE)
    assert got == [1]


def test_d5_the_host_and_the_child_read_different_ends(pair: Pair) -> None:
    """Manager and user read the same end of one pipe: torn bytes, ``UnpicklingError``, restart dead from then on."""
    host, child = channel(pair.host, ACTIVE), channel(pair.child, ACTIVE)
    for number in range(100):
        host.send(number)
    with pytest.raises(ReceiveTimeout):
        host.receive(0.02)
    assert [child.receive(DEADLINE) for _ in range(100)] == list(range(100))
