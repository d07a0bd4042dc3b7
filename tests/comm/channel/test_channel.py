"""Channels between a host and a child, over each kind of link."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from pair_kit import (
    DEADLINE,
    Child,
    channel,
    children,
    connected_pair,
    each_link,
    eventually,
    logged,
    loops,
    until,
)

from liteyuki_host.comm import Channel
from liteyuki_host.comm.channel.channel import blocking_receive_hook
from liteyuki_host.comm.codec import DEFAULT_MESSAGE_LIMIT, MAX_DEPTH
from liteyuki_host.comm.errors import (
    ChannelBroken,
    ChannelClosed,
    ChannelFull,
    ChannelModeError,
    ChannelTaken,
    HostNotAttached,
    ReceiveTimeout,
    RemoteError,
    RequestTimeout,
    UnknownChannel,
    ValueRefused,
    ValueTooLarge,
    WouldBlockEventLoop,
)
from liteyuki_host.comm.process.current import set_current
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport.memory import memory_link

__all__ = ["each_link"]  # the fixture, for pytest

pytestmark = pytest.mark.usefixtures("each_link")

PASSIVE, ACTIVE = "nonebot-passive", "nonebot-active"


@pytest.fixture
def pair(each_link: None) -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


@pytest.fixture
def narrow(each_link: None) -> Iterator[Pair]:
    """A pair whose windows hold three short messages."""
    with connected_pair(window=3 * 257) as made:
        yield made


def both(pair: Pair, name: str = ACTIVE, kind: Any = None) -> tuple[Channel[Any], Channel[Any]]:
    return pair.host_channel(name, kind), pair.child_channel(name, kind)


def in_thread(function: Any, *args: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function(*args))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def joined(thread: threading.Thread, results: list[Any]) -> Any:
    thread.join(DEADLINE)
    assert not thread.is_alive()
    return results[0]


# --- send and receive -------------------------------------------------------------------------------------------


def test_both_sides_send_and_receive_and_nobody_gets_its_own(pair: Pair) -> None:
    host, child = both(pair)
    for number in range(200):
        host.send(["host", number])
        child.send(["child", number])
    assert [child.receive(DEADLINE) for _ in range(200)] == [["host", n] for n in range(200)]
    assert [host.receive(DEADLINE) for _ in range(200)] == [["child", n] for n in range(200)]
    for side in (host, child):
        with pytest.raises(ReceiveTimeout):
            side.receive(0)


def test_ten_thousand_each_way_at_once(pair: Pair) -> None:
    host, child = both(pair)
    total = 10_000

    def send(side: Channel[Any], name: str) -> None:
        for number in range(total):
            side.send(f"{name}{number}")

    threads = [in_thread(send, host, "h"), in_thread(send, child, "c")]
    receivers = [in_thread(lambda side=side: [side.receive(DEADLINE) for _ in range(total)]) for side in (host, child)]
    for thread in threads:
        joined(*thread)
    assert joined(*receivers[0]) == [f"c{n}" for n in range(total)]
    assert joined(*receivers[1]) == [f"h{n}" for n in range(total)]
    for side in (host, child):
        with pytest.raises(ReceiveTimeout):
            side.receive(0)
        until(lambda side=side: side.statistics().waiting_to_be_consumed == 0)


@pytest.mark.parametrize("value", [None, b"", b"raw bytes", "", 0, [], {"a": [1, None]}, "x" * 300_000, b"y" * 300_000])
def test_values_arrive_as_they_were(pair: Pair, value: Any) -> None:
    host, child = both(pair)
    host.send(value)
    got = child.receive(DEADLINE)
    assert got == value
    assert type(got) is type(value)


def test_the_timeout_of_receive(pair: Pair) -> None:
    _, child = both(pair)
    with pytest.raises(ReceiveTimeout, match=r"channel 'nonebot-active': nothing arrived within 0.05 s") as caught:
        child.receive(0.05)
    assert isinstance(caught.value, TimeoutError)


async def test_receive_in_a_task(pair: Pair) -> None:
    host, child = both(pair)
    task = asyncio.create_task(child.areceive(DEADLINE))
    await asyncio.sleep(0)
    host.send("x")
    assert await task == "x"
    with pytest.raises(ReceiveTimeout):
        await child.areceive(0.01)


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    host, child = both(pair)
    for number in range(30):
        task = asyncio.create_task(child.areceive())
        await asyncio.sleep(0)
        host.send(number)
        task.cancel()
        try:
            assert await task == number
        except asyncio.CancelledError:
            assert await child.areceive(DEADLINE) == number


async def test_receiving_in_a_loop_ends_quietly_when_the_process_leaves(pair: Pair) -> None:
    host, child = both(pair)
    got: list[int] = []

    async def read() -> None:
        async for data in child:
            got.append(data)

    task = asyncio.create_task(read())
    for number in range(5):
        host.send(number)
    await eventually(lambda: len(got) == 5)
    await asyncio.to_thread(pair.child.detach, "over")
    await asyncio.wait_for(task, DEADLINE)
    assert got == [0, 1, 2, 3, 4]


def test_receiving_in_a_thread_ends_quietly_when_the_process_leaves(pair: Pair) -> None:
    host, child = both(pair)
    thread, results = in_thread(lambda: list(child))
    host.send(1)
    until(lambda: child.statistics().received == 1)
    pair.child.detach("over")
    assert joined(thread, results) == [1]


def test_a_receive_between_two_messages_ends_like_one_that_waits(pair: Pair) -> None:
    """A loop that was busy with a message at that moment used to get HostNotAttached from its next receive()."""
    host, child = both(pair)
    host.send(1)
    host.send(2)
    assert child.receive(DEADLINE) == 1
    until(lambda: child.statistics().received == 2)
    pair.child.detach("over")
    assert child.receive(DEADLINE) == 2
    with pytest.raises(ChannelClosed, match="this process is shutting down"):
        child.receive(DEADLINE)


async def test_receive_on_the_loop_is_refused(pair: Pair) -> None:
    _, child = both(pair)
    with pytest.raises(
        WouldBlockEventLoop, match=r"channel 'nonebot-active': receive\(\) waits, .* `await channel.areceive\(\)`"
    ):
        child.receive()


def test_receive_without_a_timeout_announces_that_it_may_block(pair: Pair) -> None:
    host, child = both(pair)
    announced: list[str] = []
    token = blocking_receive_hook.set(lambda: announced.append("blocks"))
    try:
        host.send(1)
        host.send(2)
        child.receive(DEADLINE)
        assert announced == []
        child.receive()
        assert announced == ["blocks"]
    finally:
        blocking_receive_hook.reset(token)


def test_a_receive_loop_never_hears_of_a_missing_host_while_its_process_leaves() -> None:
    """Between leaving and the end of the last flush, the next receive() raised HostNotAttached."""
    with connected_pair() as pair:
        gate = threading.Event()
        gate.set()

        def slow_host() -> tuple[Any, Any]:
            ours, theirs = memory_link()
            read = ours.read_into

            def read_into(buffer: memoryview) -> int:
                count = read(buffer)
                gate.wait(DEADLINE)
                return count

            ours.read_into = read_into  # type: ignore[method-assign]
            return ours, theirs

        child = Child(pair, "slow", transports=slow_host)
        line = channel(child.node, "slow-active")
        with pytest.raises(ReceiveTimeout):
            line.receive(0)
        gate.clear()
        line.send("x" * 1_000_000)  # more than the transport takes at once
        thread, results = in_thread(lambda: child.node.detach("over", timeout=0.1))
        ended: list[Exception] = []
        while not ended:
            try:
                line.receive(0)
            except ReceiveTimeout:
                pass
            except Exception as error:
                ended.append(error)
        assert isinstance(ended[0], ChannelClosed)
        gate.set()
        joined(thread, results)


# --- room ---------------------------------------------------------------------------------------------------


async def test_a_full_channel_refuses_on_the_loop_and_says_what_to_do(narrow: Pair) -> None:
    host, child = both(narrow)
    for _ in range(3):
        host.send(1)
    with pytest.raises(ChannelFull, match=r"'nonebot-active' is full: 3 messages are not consumed yet") as caught:
        host.send(2)
    assert str(caught.value).endswith("use `await channel.asend(...)`, or read the channel faster")
    assert [await child.areceive(DEADLINE) for _ in range(3)] == [1, 1, 1]
    await host.flush(timeout=DEADLINE)
    host.send(3)
    assert await child.areceive(DEADLINE) == 3


def test_a_full_channel_makes_a_thread_wait(narrow: Pair) -> None:
    host, child = both(narrow)
    for _ in range(3):
        host.send(1)
    thread, results = in_thread(host.send, 4)
    thread.join(0.05)
    assert thread.is_alive()
    assert child.receive(DEADLINE) == 1
    assert joined(thread, results) is None
    assert [child.receive(DEADLINE) for _ in range(3)] == [1, 1, 4]


def test_a_thread_that_waited_for_room_writes_itself() -> None:
    """It may wait until the link takes the rest of a long message; nobody else has to be woken for that."""
    with connected_pair(window=3_000_000) as pair:
        host, child = both(pair)
        long = "x" * 1_200_000  # more than a link takes at once
        for _ in range(2):  # the main thread leaves the rest of these to the link's own thread
            host.send(long)
        until(lambda: child.statistics().received == 2)
        (transport, _), writers = pair.transports, set[str]()
        write_all = transport.write_all

        def note(buffers: Any) -> None:
            writers.add(threading.current_thread().name)
            write_all(buffers)

        transport.write_all = note  # type: ignore[method-assign]
        thread, results = in_thread(host.send, long)
        thread.join(0.05)
        assert thread.is_alive()
        assert child.receive(DEADLINE) == long
        assert joined(thread, results) is None
        assert [child.receive(DEADLINE) for _ in range(2)] == [long, long]
        assert thread.name in writers


async def test_asend_waits_for_room(narrow: Pair) -> None:
    host, child = both(narrow)
    for _ in range(3):
        await host.asend(1)
    task = asyncio.create_task(host.asend(4))
    await asyncio.sleep(0.02)
    assert not task.done()
    assert await child.areceive(DEADLINE) == 1
    await asyncio.wait_for(task, DEADLINE)
    assert [await child.areceive(DEADLINE) for _ in range(3)] == [1, 1, 4]


async def test_a_cancelled_asend_sends_nothing(narrow: Pair) -> None:
    host, child = both(narrow)
    for _ in range(3):
        host.send(1)
    task = asyncio.create_task(host.asend("cancelled"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*(child.areceive(DEADLINE) for _ in range(3)))
    await host.asend("next")
    assert await child.areceive(DEADLINE) == "next"


def test_flooding_an_unread_channel_is_bounded_and_its_depth_is_visible() -> None:
    with connected_pair(window=50_000) as pair:
        host, child = both(pair)
        thread, _ = in_thread(lambda: [host.send("x" * 100) for _ in range(1000)])
        until(lambda: child.statistics().received >= 50_000 // 359)
        thread.join(0.05)
        assert thread.is_alive()
        assert child.statistics().received == child.statistics().waiting_to_be_read == 50_000 // 358
        assert host.statistics().waiting_to_be_consumed == 50_000 // 358
        for _ in range(1000):
            child.receive(DEADLINE)
        thread.join(DEADLINE)
        assert not thread.is_alive()


async def test_flush_waits_until_everything_is_consumed(pair: Pair) -> None:
    host, child = both(pair)
    await host.flush(timeout=0)
    for number in range(3):
        host.send(number)
    with pytest.raises(RequestTimeout, match=r"3 messages not consumed in 0.02 s"):
        await host.flush(timeout=0.02)
    task = asyncio.create_task(host.flush(timeout=DEADLINE))
    for _ in range(3):
        assert not task.done()
        await child.areceive(DEADLINE)
    await task


async def test_flush_ends_when_the_host_does() -> None:
    """With nobody left who could consume, it used to wait for ever."""
    with connected_pair() as pair:
        host, _ = both(pair)
        pair.cut()
        host.send(1)
        task = asyncio.create_task(host.flush())
        await asyncio.sleep(0)
        with logged() as lines:
            await asyncio.to_thread(pair.host.close, "the test is over")
        try:
            await asyncio.wait_for(task, DEADLINE)
        except ChannelClosed:
            pass
        assert "WARNING nonebot-active: 1 message lost (the test is over)" in lines


async def test_flush_ends_when_the_process_leaves(pair: Pair) -> None:
    child = pair.child_channel("unread")
    for number in range(3):
        child.send(number)
    task = asyncio.create_task(child.flush())
    await eventually(lambda: pair.child.end("unread").outbox.room.callbacks)  # it waits
    await asyncio.to_thread(pair.child.detach, "over")
    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(task, DEADLINE)


# --- the host's end -----------------------------------------------------------------------------------------


def test_a_channel_that_is_read_first_after_the_hosts_end_is_closed(pair: Pair) -> None:
    """As one that was read before: a loop over it just ends, whichever of the two was faster."""
    pair.cut()
    pair.child.wait_detached(DEADLINE)
    assert list(Channel[Any]("late", exchange=pair.child)) == []
    with pytest.raises(ChannelClosed):
        Channel[Any]("later", exchange=pair.child).receive(DEADLINE)


def test_what_has_arrived_can_be_read_after_the_hosts_end(pair: Pair) -> None:
    host, child = both(pair)
    child.send("last")
    until(lambda: host.statistics().received == 1)
    pair.host.close("over")
    assert host.receive(DEADLINE) == "last"
    with pytest.raises(ChannelClosed, match="this process is shutting down"):
        host.receive(DEADLINE)


def test_senders_that_wait_for_room_are_woken_when_the_host_ends() -> None:
    """They used to sleep on, or to be let in by the very give-up that reported everything as lost."""
    with connected_pair(window=3 * 257) as pair:
        host, _ = both(pair)
        pair.cut()
        for _ in range(3):
            host.send(1)
        thread, results = in_thread(host.send, 2)
        thread.join(0.05)
        assert thread.is_alive()
        pair.host.close("over")
        assert isinstance(joined(thread, results), ChannelClosed)
        assert host.statistics().lost == 3
        with pytest.raises(ChannelClosed, match="the host has ended"):
            host.send(3)
        assert host.statistics().sent == 3
        with pytest.raises(ChannelClosed):
            host.receive(DEADLINE)


# --- types --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


TYPES: list[tuple[Any, Any, Any]] = [
    (str, "text", 123),
    (int, 5, True),
    (float, 1.5, "1.5"),
    (bytes, b"raw", "raw"),
    (dict[str, int], {"a": 1}, {"a": "1"}),
    (tuple[int, ...], (1, 2), (1, "2")),
    (tuple[int, str], (1, "2"), (1, 2)),
    (Optional[int], None, "x"),  # noqa: UP045  (people write it so)
    (int | str, "x", 1.5),
    (list[Point], [Point(1, 2)], [{"y": 1}]),
    (Point, Point(1), {"x": None}),
]


@pytest.mark.parametrize(("kind", "good", "bad"), TYPES, ids=lambda value: f"{value!r:.30}")
def test_a_typed_channel_checks_at_send_and_gives_the_type_back(pair: Pair, kind: Any, good: Any, bad: Any) -> None:
    host, child = both(pair, kind=kind)
    host.send(good)
    got = child.receive(DEADLINE)
    assert got == good
    assert type(got) is type(good)
    with pytest.raises(ValueRefused, match=r"channel 'nonebot-active' carries .+, got \w+: Expected|missing required"):
        host.send(bad)
    assert host.statistics().sent == 1


def test_the_argument_of_the_class_is_the_type(pair: Pair) -> None:
    """``Channel[str]("x")`` accepted anything in 2024: the argument is not known yet in ``__init__``."""
    host, child = pair.host, pair.child_channel(ACTIVE)
    for typed in (Channel[str](ACTIVE, exchange=host), Channel(ACTIVE, str, exchange=host)):
        typed.send("text")
        assert child.receive(DEADLINE) == "text"
        with pytest.raises(ValueRefused, match="channel 'nonebot-active' carries str, got int: Expected `str`, got"):
            typed.send(123)  # type: ignore[arg-type]
    for untyped in (Channel(ACTIVE, exchange=host), Channel[Any](ACTIVE, exchange=host)):
        untyped.send({"anything": [1]})
        assert child.receive(DEADLINE) == {"anything": [1]}


def test_a_value_of_another_type_from_an_untyped_sender_is_one_messages_error(pair: Pair) -> None:
    host, child = pair.host_channel(ACTIVE), pair.child_channel(ACTIVE, str)
    for value in (5, "good", b"raw"):
        host.send(value)
    with pytest.raises(ValueError, match="Expected `str`, got `int`"):
        child.receive(DEADLINE)
    assert child.receive(DEADLINE) == "good"
    with pytest.raises(ValueError, match="Expected `str`, got `bytes`"):
        child.receive(DEADLINE)
    until(lambda: host.statistics().waiting_to_be_consumed == 0)


def test_a_value_that_cannot_travel_is_refused_and_nothing_is_sent(pair: Pair) -> None:
    host, _ = both(pair)
    with pytest.raises(ValueRefused, match=r"^channel 'nonebot-active': a value of type object cannot .* at \.a\[1\]"):
        host.send({"a": [1, object()]})
    with pytest.raises(ValueTooLarge, match=r"^channel 'nonebot-active': the value is 16,777,217 bytes, the limit is"):
        host.send(b"x" * (16 * 1024 * 1024 + 1))
    assert host.statistics().sent == 0


async def test_a_channel_in_use_refuses_as_on_its_first_use(pair: Pair) -> None:
    host, child = both(pair)
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    large = "x" * DEFAULT_MESSAGE_LIMIT
    refused = ((deep, ValueRefused), (large, ValueTooLarge), (object(), ValueRefused))
    for value, error in refused:
        host.send("usable")
        with pytest.raises(error, match="channel 'nonebot-active'"):
            host.send(value)
        with pytest.raises(error, match="channel 'nonebot-active'"):
            await host.asend(value)
        assert await child.areceive(DEADLINE) == "usable"
    assert host.statistics().sent == 3


def test_values_of_exactly_the_limit_travel_on_every_way() -> None:
    with connected_pair(message_limit=1 << 20) as pair:
        host, child = both(pair)
        value = "x" * ((1 << 20) - 5)
        host.send(value)
        child.send(value)
        assert child.receive(DEADLINE) == host.receive(DEADLINE) == value
        for sender, receiver in ((pair.host_memory, pair.child_memory), (pair.child_memory, pair.host_memory)):
            sender.set("k" * 512, value)
            sender.sync()
            until(lambda receiver=receiver: receiver.get("k" * 512) == value)
            sender.delete("k" * 512)
        assert pair.child.attached


# --- callbacks ------------------------------------------------------------------------------------------------


async def test_callbacks_get_every_message_in_order_filters_choose(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    got: list[tuple[str, int]] = []
    async with loops(pair.child):

        @child.on_receive()
        def first(data: int) -> None:
            got.append(("sync", data))

        @child.on_receive(filter_func=lambda data: data % 2 == 0)
        async def second(data: int) -> None:
            await asyncio.sleep(0)
            got.append(("even", data))

        async def large(data: int) -> bool:
            return data > 2

        @child.on_receive(filter_func=large)
        async def third(data: int) -> None:
            got.append(("large", data))

        for number in range(1, 5):
            host.send(number)
        await eventually(lambda: len(got) == 8)
    assert got == [
        ("sync", 1),
        ("sync", 2),
        ("even", 2),
        ("sync", 3),
        ("large", 3),
        ("sync", 4),
        ("even", 4),
        ("large", 4),
    ]


async def test_callbacks_run_on_the_processs_loop(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    where: list[Any] = []
    async with loops(pair.child):
        child.on_receive()(lambda data: where.append((asyncio.get_running_loop(), threading.get_ident())))
        host.send(1)
        await eventually(lambda: where)
    assert where == [(asyncio.get_running_loop(), threading.get_ident())]


async def test_messages_before_the_callback_or_before_the_loop_are_handed_over(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    got: list[int] = []
    host.send(1)
    await eventually(lambda: child.statistics().received == 1)
    child.on_receive()(got.append)
    host.send(2)
    await eventually(lambda: child.statistics().received == 2)
    assert got == []
    async with loops(pair.child):
        host.send(3)
        await eventually(lambda: len(got) == 3)
    assert got == [1, 2, 3]


async def test_a_callback_registered_by_a_thread_misses_no_message(pair: Pair) -> None:
    """In between, the channel was passive without a callback, and what came then was handled by nobody."""
    async with loops(pair.child):
        for number in range(40):
            name = f"c{number}"
            host, child = channel(pair.host, name), channel(pair.child, name)
            got: list[int] = []
            host.send(1)
            child.statistics()
            await asyncio.to_thread(child.on_receive(), got.append)
            await eventually(lambda got=got: got == [1])


async def test_a_failing_callback_or_filter_is_logged_by_name_and_the_next_message_is_handled(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    got: list[int] = []
    with logged() as lines:
        async with loops(pair.child):

            def picky(data: int) -> bool:
                return 10 // data > 0

            @child.on_receive()
            async def fragile(data: int) -> None:
                if data == 1:
                    raise RuntimeError("not this one")

            child.on_receive(picky)(got.append)
            for number in (1, 0, 2):
                host.send(number)
            await eventually(lambda: 2 in got)
    assert got == [1, 2]
    errors = [line for line in lines if line.startswith("ERROR")]
    assert len(errors) == 2
    assert "channel 'nonebot-passive': the callback of" in errors[0]
    assert "fragile failed; the next message is handled as usual" in errors[0]
    assert "the filter of" in errors[1]
    assert child.statistics().last_error == "ZeroDivisionError: integer division or modulo by zero"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot tell whose cancellation it is")
async def test_errors_without_a_text_and_cancelled_futures_do_not_end_the_receiving(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    got: list[Any] = []

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text either")

    async with loops(pair.child):

        @child.on_receive()
        async def awkward(data: Any) -> None:
            got.append(data)
            if data == "mute":
                raise Mute
            if data == "cancelled":
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

        for value in ("mute", "cancelled", "fine"):
            host.send(value)
        await eventually(lambda: got == ["mute", "cancelled", "fine"])
        await host.flush(timeout=DEADLINE)
        with pytest.raises(RemoteError, match="Mute: "):
            await host.request("mute", timeout=DEADLINE)
        with pytest.raises(RemoteError, match="CancelledError"):
            await host.request("cancelled", timeout=DEADLINE)


async def test_a_slow_callback_delays_only_its_own_channel(pair: Pair) -> None:
    gate = asyncio.Event()
    slow, fast = pair.child_channel(PASSIVE), pair.child_channel("other")
    got: list[int] = []
    async with loops(pair.child):

        @slow.on_receive()
        async def wait(data: int) -> None:
            await gate.wait()

        fast.on_receive()(got.append)
        pair.host_channel(PASSIVE).send(0)
        for number in range(20):
            pair.host_channel("other").send(number)
        await eventually(lambda: len(got) == 20)
        gate.set()


async def test_removing_a_callback(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)

    class Plugin:
        def __init__(self) -> None:
            self.got: list[int] = []

        def method(self, data: int) -> None:
            self.got.append(data)

    plugin, rest = Plugin(), []
    async with loops(pair.child):
        child.on_receive()(plugin.method)
        child.on_receive()(rest.append)
        host.send(1)
        await eventually(lambda: len(rest) == 1)
        assert child.remove(plugin.method) is True  # bound methods are made anew on every access
        assert child.remove(plugin.method) is False
        host.send(2)
        await eventually(lambda: len(rest) == 2)
    assert plugin.got == [1]
    assert rest == [1, 2]
    with pytest.raises(ChannelModeError):
        await child.areceive(0)


def test_a_filter_is_a_function(pair: Pair) -> None:
    with pytest.raises(TypeError, match=r"write @channel.on_receive\(\) with its parentheses"):
        pair.child_channel(PASSIVE).on_receive("not a function")  # type: ignore[arg-type]


def test_one_mode_per_side_names_the_first(pair: Pair) -> None:
    host, child = both(pair)
    with pytest.raises(ReceiveTimeout):
        child.receive(0)
    with pytest.raises(ChannelModeError, match=r"already read by receive\(\) \(active\)"):
        child.on_receive()(print)
    assert not child.remove(print)
    host.on_receive()(print)  # the other side is free to choose
    with pytest.raises(ChannelModeError, match=r"already read by on_receive callbacks \(passive\)"):
        host.receive(0)


# --- requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["pong", None, b"raw", b"", {"a": [1]}, "x" * 400_000])
async def test_a_request_is_answered_by_the_callbacks_result(pair: Pair, value: Any) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child):
        child.on_receive()(lambda data: value)
        answer = await host.request("ping", timeout=DEADLINE)
    assert answer == value
    assert type(answer) is type(value)


async def test_the_first_callback_whose_filter_takes_it_answers(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child):
        child.on_receive(lambda data: data == 1)(lambda data: "first")
        child.on_receive()(lambda data: "second")
        assert await host.request(1, timeout=DEADLINE) == "first"
        assert await host.request(2, timeout=DEADLINE) == "second"


async def test_requests_both_ways_and_many_at_once(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child, pair.host):

        @child.on_receive()
        async def double(data: int) -> int:
            await asyncio.sleep(0)
            return data * 2

        host.on_receive()(lambda data: -data)
        answers = await asyncio.gather(*(host.request(n, timeout=DEADLINE) for n in range(100)))
        back = await asyncio.gather(*(child.request(n, timeout=DEADLINE) for n in range(100)))
    assert answers == [n * 2 for n in range(100)]
    assert back == [-n for n in range(100)]
    assert len(pair.host.end(PASSIVE).requests) == 0


async def test_an_exception_of_the_callback_arrives_as_remote_error(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child):

        @child.on_receive()
        async def fail(data: Any) -> Any:
            if data == "odd result":
                return object()
            raise LookupError(f"no {data} here \ud800")

        with pytest.raises(RemoteError) as caught:
            await host.request("bread", timeout=DEADLINE)
        assert caught.value.type_name == "LookupError"
        assert "the message cannot be shown" in str(caught.value)
        with pytest.raises(RemoteError, match="ValueRefused: a value of type object cannot travel"):
            await host.request("odd result", timeout=DEADLINE)


async def test_the_remote_traceback_is_there_and_is_bounded(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child):

        @child.on_receive()
        async def fail(data: int) -> None:
            raise ValueError("x" * data)

        with pytest.raises(RemoteError, match=r"^ValueError: xxx$") as caught:
            await host.request(3, timeout=DEADLINE)
        assert "raise ValueError" in caught.value.remote_traceback
        with pytest.raises(RemoteError) as caught:
            await host.request(1_000_000, timeout=DEADLINE)
        assert len(str(caught.value)) < 20_000
        assert len(caught.value.remote_traceback) <= 16 * 1024


async def test_a_request_nobody_answers_times_out_and_the_late_answer_is_dropped(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    gate = asyncio.Event()
    async with loops(pair.child):

        @child.on_receive()
        async def slow(data: int) -> int:
            if data == 1:
                await gate.wait()
            return data

        with pytest.raises(RequestTimeout, match=r"no answer within 0.05 s; the other end may still do the work"):
            await host.request(1, timeout=0.05)
        gate.set()
        assert await host.request(2, timeout=DEADLINE) == 2
    assert len(pair.host.end(PASSIVE).requests) == 0


async def test_the_timeout_includes_the_wait_for_room(narrow: Pair) -> None:
    host, child = both(narrow)
    loop = asyncio.get_running_loop()
    for _ in range(3):
        host.send(1)
    started = loop.time()
    task = asyncio.create_task(host.request("q", timeout=0.8))
    await asyncio.sleep(0.5)
    await asyncio.gather(*(child.areceive(DEADLINE) for _ in range(2)))  # room after half of it; nobody answers then
    await eventually(lambda: child.statistics().received == 4)
    with pytest.raises(RequestTimeout):
        await task
    assert 0.8 <= loop.time() - started < 1.25  # not 0.5 + 0.8


async def test_where_no_callback_takes_it_the_request_fails_with_words(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    async with loops(pair.child):
        child.on_receive(lambda data: False)(print)
        with pytest.raises(RemoteError, match="LookupError: no callback of channel 'nonebot-passive' took the request"):
            await host.request("x", timeout=DEADLINE)


async def test_a_side_that_uses_receive_cannot_answer(pair: Pair) -> None:
    host, child = both(pair)
    task = asyncio.create_task(host.request("x", timeout=DEADLINE))
    assert await child.areceive(DEADLINE) == "x"
    with pytest.raises(RemoteError, match=r"is read by receive\(\) there, which cannot answer requests"):
        await task


async def test_requests_fail_when_the_other_process_dies(pair: Pair) -> None:
    host, child = both(pair, PASSIVE)
    seen = asyncio.Event()
    async with loops(pair.child):

        @child.on_receive()
        async def never(data: Any) -> None:
            seen.set()
            await asyncio.Event().wait()

        tasks = [asyncio.create_task(host.request(n, timeout=None)) for n in range(3)]
        await asyncio.wait_for(seen.wait(), DEADLINE)
        await asyncio.to_thread(pair.cut)
        for task in tasks:
            with pytest.raises(
                ChannelBroken, match=r"no answer can come any more \(.*\); whether the work was done is unknown"
            ):
                await asyncio.wait_for(task, DEADLINE)
    assert host.statistics().waiting_to_be_consumed == 0


async def test_a_request_before_the_child_is_there_waits_for_it(pair: Pair) -> None:
    pair.cut()
    host = pair.host_channel(PASSIVE)
    task = asyncio.create_task(host.request("early", timeout=DEADLINE))
    await asyncio.sleep(0)
    pair.child = Node()
    pair.child_channel(PASSIVE).on_receive()(lambda data: data.upper())
    async with loops(pair.child):
        await asyncio.to_thread(pair.connect)
        assert await task == "EARLY"


# --- restarts -------------------------------------------------------------------------------------------------


def restart(pair: Pair) -> None:
    """Kill the child and connect a new incarnation of it."""
    pair.cut()
    pair.child = Node()
    pair.connect()


def test_what_was_not_consumed_goes_to_the_next_incarnation_and_nothing_else(pair: Pair) -> None:
    host, child = both(pair)
    for number in range(10):
        host.send(number)
    assert [child.receive(DEADLINE) for _ in range(4)] == [0, 1, 2, 3]
    until(lambda: host.statistics().waiting_to_be_consumed == 6)
    pair.cut()
    for number in range(10, 13):
        host.send(number)
    pair.child = Node()
    pair.connect()
    child = pair.child_channel(ACTIVE)
    got = []
    for _ in range(9):
        got.append((child.receive(DEADLINE), child.redelivered))
    assert got == [(n, True) for n in range(4, 10)] + [(n, False) for n in range(10, 13)]
    statistics = host.statistics()
    assert (statistics.sent, statistics.redelivered, statistics.lost) == (13, 6, 0)


async def test_callbacks_know_what_is_redelivered(pair: Pair) -> None:
    host = pair.host_channel(PASSIVE)
    host.send("old")
    await eventually(lambda: pair.child_channel(PASSIVE).statistics().received == 1)
    await asyncio.to_thread(restart, pair)
    child = pair.child_channel(PASSIVE)
    got: list[Any] = []
    async with loops(pair.child):
        child.on_receive()(lambda data: got.append((data, child.redelivered)))
        host.send("new")
        await eventually(lambda: len(got) == 2)
    assert got == [("old", True), ("new", False)]


@pytest.mark.parametrize("known", [True, False], ids=["consumption is known", "killed in the middle"])
def test_three_thousand_messages_across_restarts_are_received_or_reported(pair: Pair, known: bool) -> None:
    host = pair.host_channel(ACTIVE)
    total = 3000
    sender, results = in_thread(lambda: [host.send(n) for n in range(total)] and None)
    got: list[int] = []
    for incarnation in range(1, 4):
        child = pair.child_channel(ACTIVE)
        got += [child.receive(DEADLINE) for _ in range(500)]

        def consumed() -> int:
            return host.statistics().sent - host.statistics().waiting_to_be_consumed

        if known:
            until(lambda goal=incarnation * 500: consumed() >= goal)
        restart(pair)
    assert joined(sender, results) is None
    child = pair.child_channel(ACTIVE)
    while True:
        try:
            got.append(child.receive(0.05))
        except ReceiveTimeout:  # only then: the host counts what waits one by one
            if not host.statistics().waiting_to_be_consumed:
                break
    once = list(dict.fromkeys(got))
    assert once == sorted(once)
    if known:
        assert got == list(range(total))
        assert host.statistics().lost == 0
    else:  # whose consumption nobody could know of was handed over again, or set aside after three deaths
        assert len(once) + host.statistics().lost >= total


def test_a_poisonous_message_is_set_aside_after_three_deaths_with_a_line_in_the_log(pair: Pair) -> None:
    host = pair.host_channel(ACTIVE)
    host.send("poison")
    host.send("good")
    with logged() as lines:
        for _ in range(3):
            until(lambda: pair.child_channel(ACTIVE).statistics().received == 2)
            restart(pair)
        assert pair.child_channel(ACTIVE).receive(DEADLINE) == "good"
    assert [line for line in lines if "lost" in line] == [
        "WARNING nonebot-active: 1 message lost (it was first in line 3 times when its receiver died; "
        "it may be what kills it)"
    ]


def test_the_same_node_attached_again_sees_nothing_twice(pair: Pair) -> None:
    host, child = both(pair)
    for number in range(3):
        host.send(number)
    until(lambda: child.statistics().received == 3)
    pair.cut()
    pair.connect()
    assert [child.receive(DEADLINE) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ReceiveTimeout):
        child.receive(0.02)


def test_a_child_whose_host_is_gone_reports_what_it_could_not_deliver(pair: Pair) -> None:
    child = pair.child_channel("unheard")
    for number in range(5):
        child.send(number)
    with logged() as lines:
        pair.cut()
    assert "WARNING unheard: 5 messages lost (the host is gone)" in lines
    with pytest.raises(HostNotAttached, match="needs the host, which is gone: this process is shutting down"):
        child.send(6)


def test_a_thread_that_waits_for_room_ends_with_the_host() -> None:
    with connected_pair(window=3 * 257) as pair:
        child = pair.child_channel("unread")
        for _ in range(3):
            child.send(1)
        thread, results = in_thread(child.send, 2)
        thread.join(0.05)
        assert thread.is_alive()
        pair.cut()
        assert isinstance(joined(thread, results), (HostNotAttached, ChannelClosed))


def test_a_new_incarnation_whose_predecessors_end_was_not_noticed_yet() -> None:
    """The old link's messages used to vanish without a word: it was no longer the bound one when it ended."""
    with connected_pair() as pair:
        host = pair.host_channel(ACTIVE)
        for number in range(3):
            host.send(number)
        until(lambda: pair.child_channel(ACTIVE).statistics().received == 3)
        first, pair.child = pair.child, Node()
        pair.connect()  # without a cut
        child = pair.child_channel(ACTIVE)
        assert [child.receive(DEADLINE) for _ in range(3)] == [0, 1, 2]
        first.detach("late")
        host.send(3)
        assert child.receive(DEADLINE) == 3
        until(lambda: host.statistics().waiting_to_be_consumed == 0)


# --- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="a channel name has 1 to 200 printable characters"):
        Channel(name)


def test_names_are_texts_and_equal_names_are_the_same_channel() -> None:
    with pytest.raises(TypeError, match="a channel name is a text, not int"):
        Channel(5)  # type: ignore[arg-type]
    assert Channel("频道") == Channel[int]("频道") != Channel("x")
    assert len({Channel("x"), Channel("x")}) == 1
    assert repr(Channel("x")) == "Channel('x')"


def test_declared_channels_are_known_everywhere(pair: Pair) -> None:
    from liteyuki_host.comm import get_channel, get_channels, set_channel

    try:
        set_current(pair.child)
        with pytest.raises(
            UnknownChannel,
            match=r"^there is no channel 'mine'; known are: nonebot-active, nonebot-passive. set_channel",
        ) as caught:
            get_channel("mine")
        assert isinstance(caught.value, KeyError)
        set_channel("mine", Channel("mine"))
        assert get_channel("mine").name == "mine"
        set_channel("mine", Channel("mine"))
        until(lambda: "mine" in pair.host.channel_names())
        assert sorted(get_channels()) == ["mine", "nonebot-active", "nonebot-passive"]
        assert get_channels() is not get_channels()
        set_current(pair.host)
        with pytest.raises(ValueRefused, match="channel 'mine' carries int"):
            get_channel("mine", int).send("no number")  # type: ignore[arg-type]
        set_channel("of the host", Channel("of the host"))
        until(lambda: "of the host" in pair.child.channel_names())
        with pytest.raises(TypeError, match="set_channel takes a Channel, not str"):
            set_channel("x", "x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="the channel's own name is 'y', not 'x'"):
            set_channel("x", Channel("y"))
    finally:
        set_current(None)


# --- two children -----------------------------------------------------------------------------------------------


def test_two_children_talk_through_the_host() -> None:
    with children("other") as (pair, [other]):
        a, b = pair.child_channel("between"), channel(other.node, "between")
        for number in range(300):
            a.send(["a", number])
            b.send(["b", number])
        assert [b.receive(DEADLINE) for _ in range(300)] == [["a", n] for n in range(300)]
        assert [a.receive(DEADLINE) for _ in range(300)] == [["b", n] for n in range(300)]


def test_messages_wait_in_the_host_for_the_second_end() -> None:
    with connected_pair(window=10 * 257) as pair:
        a = pair.child_channel("between")
        for number in range(10):
            a.send(number)
        thread, results = in_thread(a.send, 10)
        thread.join(0.05)
        assert thread.is_alive()  # bounded by its window, wherever they wait
        other = Child(pair, "other")
        b = channel(other.node, "between")
        assert [b.receive(DEADLINE) for _ in range(11)] == list(range(11))
        assert joined(thread, results) is None
        other.node.reset()


def test_the_backlog_between_two_children_is_bounded() -> None:
    with children("other", window=10 * 257) as (pair, [other]):
        a, b = pair.child_channel("between"), channel(other.node, "between")
        with pytest.raises(ReceiveTimeout):
            b.receive(0)
        thread, results = in_thread(lambda: [a.send(n) for n in range(500)] and None)
        until(lambda: b.statistics().received == 10)
        thread.join(0.05)
        assert thread.is_alive()
        assert [b.receive(DEADLINE) for _ in range(500)] == list(range(500))
        assert joined(thread, results) is None


async def test_requests_between_two_children() -> None:
    with children("other") as (pair, [other]):
        a, b = pair.child_channel("between"), channel(other.node, "between")
        async with loops(other.node):

            @b.on_receive()
            async def answer(data: Any) -> Any:
                if data == "fail":
                    raise ValueError("failed there")
                if data == "wait":
                    await asyncio.Event().wait()
                return [data, data]

            assert await a.request("x", timeout=DEADLINE) == ["x", "x"]
            with pytest.raises(RemoteError, match="ValueError: failed there"):
                await a.request("fail", timeout=DEADLINE)
            task = asyncio.create_task(a.request("wait", timeout=None))
            await eventually(lambda: b.statistics().received == 3)
            await asyncio.to_thread(other.kill)
            with pytest.raises(ChannelBroken, match="whether the work was done is unknown"):
                await asyncio.wait_for(task, DEADLINE)


async def test_an_answer_to_a_predecessor_is_not_taken_for_ours() -> None:
    """Request numbers began at 1 in every incarnation, and the host passes late answers on to whoever is there."""
    with children("other") as (pair, [other]):
        b = channel(other.node, "between")
        gates = {"old": asyncio.Event(), "new": asyncio.Event()}
        started: list[str] = []
        async with loops(other.node):

            @b.on_receive()
            async def answer(data: str) -> str:
                started.append(data)
                await gates[data].wait()
                return f"answer to {data}"

            old = asyncio.create_task(pair.child_channel("between").request("old", timeout=None))
            await eventually(lambda: started == ["old"])
            await asyncio.to_thread(pair.cut)
            with pytest.raises(ChannelBroken):
                await old
            pair.child = Node()
            await asyncio.to_thread(pair.connect)
            new = asyncio.create_task(pair.child_channel("between").request("new", timeout=DEADLINE))
            await asyncio.sleep(0.02)
            gates["old"].set()  # its answer goes to the new incarnation
            await eventually(lambda: started == ["old", "new"])
            gates["new"].set()
            assert await new == "answer to new"


def test_a_third_process_is_refused_and_told_who_the_two_are() -> None:
    with children("b", "c") as (pair, [b, c]):
        pair.child_channel("x").send(1)
        until(lambda: "x" in pair.host.channel_names())
        channel(b.node, "x").send(2)
        until(lambda: pair.child_channel("x").statistics().received == 1)
        third, taken = channel(c.node, "x"), "channel 'x' already joins (nonebot and b|b and nonebot)"
        with pytest.raises(ChannelTaken, match=taken):
            third.receive(DEADLINE)  # it waits, until the host has refused
        for attempt in (lambda: third.send(3), lambda: third.receive(0)):
            with pytest.raises(ChannelTaken, match=f"{taken}; a channel has two ends"):
                attempt()
        with pytest.raises(ChannelTaken, match=taken):
            pair.host_channel("x").send(4)
        assert channel(b.node, "x").receive(DEADLINE) == 1


def test_a_process_own_channels_are_taken_for_the_others() -> None:
    with children("b") as (_pair, [b]):
        intruder = channel(b.node, PASSIVE)

        def is_refused() -> bool:
            """What is sent before the host has answered is accepted, and reported as lost."""
            try:
                intruder.send(1)
            except ChannelTaken:
                return True
            return False

        until(is_refused)
        with pytest.raises(ChannelTaken, match="already joins host and nonebot"):
            intruder.send(2)


def test_a_channel_sent_through_a_channel_arrives_as_a_working_one() -> None:
    with children("b") as (pair, [b]):
        try:
            set_current(pair.child)
            mine = Channel[str]("talk")
            pair.child_channel(ACTIVE).send({"reply to": mine})
            until(lambda: "talk" in pair.host.channel_names())
            set_current(b.node)
            arrived = pair.host_channel(ACTIVE).receive(DEADLINE)["reply to"]
            assert type(arrived) is Channel
            arrived.send("hello from b")
            set_current(pair.child)
            assert mine.receive(DEADLINE) == "hello from b"
            mine.send("hello back")
            set_current(b.node)
            assert arrived.receive(DEADLINE) == "hello back"
        finally:
            set_current(None)


def test_a_survivor_keeps_its_messages_for_the_next_incarnation_of_its_peer() -> None:
    with children("other") as (pair, [other]):
        a, b = pair.child_channel("between"), channel(other.node, "between")
        for number in range(5):
            a.send(number)
        assert [b.receive(DEADLINE) for _ in range(2)] == [0, 1]
        outbox = pair.host.switchboard.routes["between"].outbox["other"]
        until(lambda: outbox.waiting() == 3)
        other.kill()
        a.send(5)
        again = Child(pair, "other")
        b = channel(again.node, "between")
        got = []
        for _ in range(4):
            got.append((b.receive(DEADLINE), b.redelivered))
        assert got == [(2, True), (3, True), (4, True), (5, False)]
        again.node.reset()


# --- causality --------------------------------------------------------------------------------------------------


def test_set_then_send_the_receiver_always_sees_the_value() -> None:
    with children("other", "third") as (pair, [other, third]):
        memories = {"host": pair.host_memory, "a": pair.child_memory, "b": SharedMemory(other.node)}
        exchanges = {"host": pair.host, "a": pair.child, "b": other.node}
        wrong: list[Any] = []
        stop = threading.Event()

        def noise() -> None:
            busy = SharedMemory(third.node)
            number = 0
            while not stop.is_set():
                busy.set(f"noise{number % 50}", number)
                number += 1

        def send(sender: str, receiver: str, name: str) -> None:
            line = channel(exchanges[sender], name)
            for number in range(400):
                memories[sender].set(name, number)
                line.send(number)

        def receive(sender: str, receiver: str, name: str) -> None:
            line = channel(exchanges[receiver], name)
            for number in range(400):
                got = line.receive(DEADLINE)
                seen = memories[receiver].get(name)
                if got != number or seen is None or seen < number:
                    wrong.append((name, number, got, seen))

        ways = [("host", "a"), ("a", "host"), ("a", "b"), ("b", "a"), ("host", "b"), ("b", "host")]
        threads = [in_thread(noise)]
        for sender, receiver in ways:
            name = f"{sender} to {receiver}"
            threads += [in_thread(receive, sender, receiver, name), in_thread(send, sender, receiver, name)]
        for thread, results in threads[1:]:
            assert joined(thread, results) is None
        stop.set()
        joined(*threads[0])
        assert wrong == []


# --- figures ----------------------------------------------------------------------------------------------------


def test_statistics(pair: Pair) -> None:
    host, child = both(pair)
    assert child.statistics().mode is None
    for number in range(3):
        host.send(number)
    child.receive(DEADLINE)
    until(lambda: host.statistics().waiting_to_be_consumed == 2 and child.statistics().received == 3)
    assert child.statistics()._asdict() == {
        "name": ACTIVE,
        "mode": "active",
        "sent": 0,
        "waiting_to_be_consumed": 0,
        "redelivered": 0,
        "lost": 0,
        "received": 3,
        "waiting_to_be_read": 2,
        "last_error": None,
    }
    assert host.statistics().sent == 3
    assert set(pair.host.statistics()) >= {ACTIVE}


async def test_without_any_callback_messages_wait_for_the_next_one(pair: Pair) -> None:
    async with loops(pair.child):
        host, child = pair.host_channel("nonebot-passive"), pair.child_channel("nonebot-passive")
        first: list[Any] = []
        child.on_receive()(first.append)
        await host.asend(1)
        await host.flush(timeout=5)
        assert child.remove(first.append)
        assert not child.remove(first.append)  # which once let the messages go to nobody
        await host.asend(2)
        await pair.host_memory.aset("behind", 1)
        await pair.child_memory.async_()
        assert child.statistics().waiting_to_be_read == 1
        second: list[Any] = []
        child.on_receive()(second.append)
        await host.flush(timeout=5)
        assert (first, second) == ([1], [2])
