"""Promises that need real processes: a host and three real NoneBot children."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio
from kit import Lab, eventually, running_host

from liteyuki_host.comm.errors import ChannelFull, ChannelTaken, UnknownChannel, ValueTooLarge
from liteyuki_host.comm.storage import SharedMemory

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with running_host(tmp_path_factory.mktemp("lab"), "a", "b", "c") as running:
        yield running


async def test_f6_every_process_has_its_two_channels(lab: Lab) -> None:
    expected = {f"{name}-{kind}" for name in "abc" for kind in ("passive", "active")}
    assert expected <= lab.host.hub.channel_names()


async def test_f7_ten_thousand_each_way_at_once(lab: Lab) -> None:
    count = 10_000
    channel = lab.channel("f7")
    got: list[Any] = []
    done = asyncio.Event()

    def collect(message: Any) -> None:
        got.append(message)
        if len(got) == count:
            done.set()

    channel.on_receive()(collect)
    await lab.ask("a", "collect", channel="f7")
    flood = asyncio.ensure_future(lab.ask("a", "flood", channel="f7", count=count))
    sender = threading.Thread(target=lambda: [channel.send(["host", number]) for number in range(count)])
    sender.start()
    await flood
    await asyncio.wait_for(done.wait(), 30)
    await asyncio.to_thread(sender.join)
    await channel.flush(timeout=30)
    assert got == [["child", number] for number in range(count)]
    assert await lab.ask("a", "collected") == [["host", number] for number in range(count)]


async def test_f8_callbacks_run_on_nonebots_own_loop(lab: Lab) -> None:
    nonebot_loop, callback_loop = await lab.ask("a", "loop_ids")
    assert nonebot_loop == callback_loop


async def test_f10_an_idle_channel_times_out(lab: Lab) -> None:
    assert await lab.ask("b", "receive", seconds=0.2) == ["timeout"]


async def test_f14_an_unknown_channel_is_a_prompt_error_and_the_next_call_works(lab: Lab) -> None:
    """D14: it used to hang the caller, and every later caller in any process."""
    assert await lab.ask("a", "unknown_channel") == "UnknownChannel in 0.0 s"
    assert await lab.ask("a", "echo", value="still here") == "still here"
    with pytest.raises(UnknownChannel, match="no channel 'nope'"):
        lab.host.hub.check_known("nope")


async def test_f15_a_channel_sent_through_channels_joins_two_children(lab: Lab) -> None:
    made = await lab.ask("a", "make_channel", name="between")
    assert made.name == "between"
    assert await lab.ask("b", "take_channel", channel=made) == "between"
    await lab.ask("a", "talk", count=100)
    await eventually(lambda: _length(lab, "b", 100))
    assert await lab.ask("b", "collected") == list(range(100))
    with pytest.raises(ChannelTaken, match=r"already joins (a and b|b and a)"):
        lab.channel("between").send("a third end")


async def _length(lab: Lab, process: str, count: int) -> bool:
    return len(await lab.ask(process, "collected")) == count


async def test_f17_no_user_value_stops_or_restarts_anything(lab: Lab) -> None:
    pid = await lab.ask("b", "pid")
    values = [0, 1, True, False, 1.0, None, [], {}, "restart", "stop", b"\x00\x01"]
    for value in values:
        lab.channel("b-active").send(value)
    assert await lab.ask("b", "receive", seconds=5, count=len(values)) == values
    assert await lab.ask("b", "pid") == pid


async def test_f22_no_update_is_lost(lab: Lab) -> None:
    """D15: three children with 300 increments each used to end at 300."""
    await asyncio.gather(*(lab.ask(name, "increment", key="counter", times=300) for name in "abc"))
    assert SharedMemory(lab.host.hub).get("counter") == 900


async def test_f22_large_values_from_many_threads_are_all_there(lab: Lab) -> None:
    """D16: 1 of 100 keys used to be stored, and the storage was dead."""
    await asyncio.gather(
        *(lab.ask(name, "large_values", prefix=name, threads=3, each=17, size=400_000) for name in "ab")
    )
    for name in "ab":
        await lab.ask(name, "increment", key="settled", times=1)  # behind all its own writes
    memory = SharedMemory(lab.host.hub)
    wanted = {f"{name}.{t}.{n}": chr(97 + t) * 400_000 for name in "ab" for t in range(3) for n in range(17)}
    assert {key: memory.get(key) for key in wanted} == wanted
    await eventually(lambda: not lab.host.hub.laggards())  # who reads along; a write on a loop does not wait for them
    for key in wanted:
        memory.delete(key)


async def test_f24_every_subscriber_gets_everything_in_order(lab: Lab) -> None:
    """D19: two children used to share one pipe, and got 29 and 37 of 100."""
    from liteyuki_host.comm.topics import publish, subscribe, unsubscribe

    mine: list[Any] = []
    subscribe("news", exchange=lab.host.hub)(mine.append)
    for name in "ab":
        await lab.ask(name, "subscribe", topic="news")
    await lab.ask("c", "publish", topic="news", count=100, name="c")
    expected = [["c", number] for number in range(100)]
    await eventually(lambda: len(mine) == 100)
    for name in "ab":
        await eventually(lambda name=name: _published(lab, name, 100))
        assert await lab.ask(name, "published") == expected
    assert mine == expected
    assert await lab.ask("a", "unsubscribe", topic="news") == 1
    unsubscribe("news", exchange=lab.host.hub)
    publish("news", "after", exchange=lab.host.hub)
    await eventually(lambda: _published(lab, "b", 101))
    assert len(await lab.ask("a", "published")) == 100
    assert len(mine) == 100


async def _published(lab: Lab, process: str, count: int) -> bool:
    return len(await lab.ask(process, "published")) == count


async def test_f28_flooding_an_unread_channel_freezes_nothing(lab: Lab) -> None:
    channel = lab.channel("c-active")
    sent = _fill(channel)
    assert sent < 4 * 1024 * 1024 // 1000
    assert channel.statistics().waiting_to_be_consumed == sent
    assert await lab.ask("c", "echo", value="alive") == "alive"
    blocked = threading.Thread(target=lambda: channel.send("waits in a thread"), daemon=True)
    blocked.start()
    assert len(await lab.ask("c", "receive", seconds=5, count=sent + 1)) == sent + 1
    await asyncio.to_thread(blocked.join, 5)
    assert not blocked.is_alive()


def _fill(channel: Any) -> int:
    """Send until it is refused; returns how many messages were accepted."""
    sent = 0
    while True:
        try:
            channel.send("x" * 1000)
        except ChannelFull:
            return sent
        sent += 1


def _held() -> int:
    """Resident bytes of this process, without what the allocator keeps for later, of other tests as well."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return psutil.Process().memory_info().rss


async def test_f28_memory_stays_within_the_bound_while_threads_flood(lab: Lab) -> None:
    """Both ways at once, nobody reads: 100 MB are offered, a window of 4 MiB is held on each side."""
    before = [_held(), await lab.ask("c", "memory")]
    await _declared(lab, "flooded")
    offered = [0]
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            lab.channel("flooded").send(b"x" * 10_000)
            offered[0] += 1

    sender = threading.Thread(target=flood, daemon=True)
    sender.start()
    answered = await lab.ask("c", "flood_for", channel="flooded", seconds=1.0, size=10_000)
    after = [_held(), await lab.ask("c", "memory")]
    assert answered < 500, "the child's window held it back"
    assert offered[0] < 500, "and the host's"
    assert max(now - then for now, then in zip(after, before, strict=True)) < 24 * 1024 * 1024
    stop.set()
    lab.channel("flooded").on_receive()(lambda data: None)  # the child's sender goes on
    await lab.ask("c", "drain", channel="flooded")  # and ours
    await asyncio.to_thread(sender.join, 10)
    assert not sender.is_alive()


async def test_f31_a_child_may_start_processes(lab: Lab) -> None:
    """D26: children were daemonic, and ProcessPoolExecutor failed."""
    assert await lab.ask("a", "pool") == 1024


async def test_a_forked_process_cannot_tear_its_parents_link(lab: Lab) -> None:
    assert await lab.ask("a", "fork") == "HostNotAttached HostNotAttached"
    assert await lab.ask("a", "echo", value="whole") == "whole"
    assert "forked" not in SharedMemory(lab.host.hub)


async def test_f41_the_size_limit_is_an_error_that_names_it(lab: Lab) -> None:
    with pytest.raises(ValueTooLarge, match="limit is 16,777,216 bytes"):
        lab.channel("a-active").send(b"x" * (16 * 1024 * 1024 + 1))


@pytest.mark.parametrize("sender", ["host", "a"])
async def test_a_message_is_received_after_the_write_before_it_is_visible(lab: Lab, sender: str) -> None:
    count = 10_000
    name, key = f"order-{sender}", f"order.{sender}"
    memory = SharedMemory(lab.host.hub)
    load = asyncio.ensure_future(lab.ask("c", "increment", key="load", times=500, threads=2))
    if sender == "host":
        await lab.ask("b", "check_causality", channel=(await _declared(lab, name)))
        channel = lab.channel(name)
        for number in range(count):
            memory.set(key, number)
            await channel.asend([key, number])
    else:
        await _declared(lab, name)
        await lab.ask("b", "check_causality", channel=name)
        await lab.ask("a", "causality", count=count, key=key, answer_on=name, timeout=60)
    await eventually(lambda: _length(lab, "b", count), 30)
    assert await lab.ask("b", "collected") == list(range(count))
    await load


async def test_the_host_sees_what_a_child_wrote_before_its_message(lab: Lab) -> None:
    count = 10_000
    memory = SharedMemory(lab.host.hub)
    seen: list[Any] = []
    done = asyncio.Event()

    def check(message: list[Any]) -> None:
        value = memory.get(message[0])
        seen.append(message[1] if value is not None and value >= message[1] else ["missed", message[1], value])
        if len(seen) == count:
            done.set()

    lab.channel("order-to-host").on_receive()(check)
    load = asyncio.ensure_future(lab.ask("c", "increment", key="load", times=500, threads=2))
    await lab.ask("a", "causality", count=count, key="order.up", answer_on="order-to-host", timeout=60)
    await asyncio.wait_for(done.wait(), 30)
    assert seen == list(range(count))
    await load


async def _declared(lab: Lab, name: str) -> str:
    lab.host.hub.declare(name)
    return name


async def test_a_blocked_loop_does_not_stop_the_link(lab: Lab) -> None:
    session = lab.host.hub.session("c")
    assert session is not None
    with SharedMemory(lab.host.hub).watch("blocked") as watch:
        blocking = asyncio.ensure_future(lab.ask("c", "block", seconds=1.0))
        await asyncio.wait_for(anext(aiter(watch)), 5)
    answers = [await asyncio.to_thread(session.link.ping, 5.0) for _ in range(5)]
    assert not blocking.done()
    assert all(answer is not None and answer < 0.5 for answer in answers)
    await blocking
