"""Requests that cannot be answered: on a channel of two others, and in a circle of callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, children, connected_pair, each_link, eventually, logged, loops, memory

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.channel.requests import Requests
from liteyuki_host.comm.channel.unit import Here
from liteyuki_host.comm.errors import ChannelTaken, RemoteError, RequestCycle, RequestTimeout
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.topics import publish, subscribe

__all__ = ["each_link"]  # the fixture, for pytest

NAME = "nonebot-passive"
OTHER = "nonebot-active"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


@pytest.fixture
def taken() -> Iterator[Any]:
    """A third process's handle of a channel that two others have."""
    with children("a", "b", "c") as (_, (a, b, c)):
        for child in (a, b):
            channel(child.node, "shared").on_receive()(lambda data: "an answer")
            memory(child.node).sync()  # answered after what the link has brought before: the channel's use
        yield channel(c.node, "shared")


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, DEADLINE])
async def test_a_refused_request_is_told_why(taken: Any, timeout: float | None) -> None:
    with pytest.raises(ChannelTaken, match="already joins a and b"):
        await asyncio.wait_for(taken.request("question", timeout=timeout), DEADLINE)


async def test_later_requests_are_refused_at_once(taken: Any) -> None:
    with pytest.raises(ChannelTaken):
        await taken.request("first", timeout=DEADLINE)
    with pytest.raises(ChannelTaken):
        await taken.request("second", timeout=0)


async def test_all_who_ask_are_refused(taken: Any) -> None:
    answers = await asyncio.gather(
        *(taken.request(number, timeout=DEADLINE) for number in range(5)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [ChannelTaken] * 5


async def test_a_refused_request_is_not_lost(taken: Any) -> None:
    with logged() as lines:
        for _ in range(3):
            with pytest.raises(ChannelTaken):
                await taken.request("question", timeout=DEADLINE)
        taken._own_end().monitor.settle()
    assert not [line for line in lines if "lost" in line]
    assert taken.statistics().lost == 0


async def test_an_unanswered_request_is_not_lost(pair: Pair) -> None:
    """Its asker gets ChannelBroken when the host ends."""
    from liteyuki_host.comm.errors import ChannelBroken

    line = pair.host_channel(NAME)
    with logged() as lines:
        asked = asyncio.create_task(line.request("question", timeout=None))
        await asyncio.to_thread(line.send, "a message")
        await eventually(lambda: line.statistics().waiting_to_be_consumed == 2)
        await asyncio.to_thread(pair.host.close, "the host ends")
        with pytest.raises(ChannelBroken):
            await asked
    assert [part for part in lines if "lost" in part] == [f"WARNING {NAME}: 1 message lost (the host ends)"]


async def test_flushing_a_refused_channel_says_so(taken: Any) -> None:
    await taken.asend("lost")
    with pytest.raises(ChannelTaken):
        await taken.flush(timeout=DEADLINE)


async def test_waiting_at_a_refused_channel_says_so(taken: Any) -> None:
    with pytest.raises(ChannelTaken):
        await taken.areceive(DEADLINE)


async def test_the_host_is_refused_at_once() -> None:
    with children("a", "b") as (pair, (a, b)):
        for child in (a, b):
            channel(child.node, "shared").on_receive()(lambda data: "an answer")
            await memory(child.node).async_()
        with pytest.raises(ChannelTaken):
            await channel(pair.host, "shared").request("question", timeout=DEADLINE)


# --- circles ------------------------------------------------------------------------------------------------------


def ask_back(here: Any, question: str, outcomes: list[Any] | None = None) -> Any:
    """A callback that asks the other end back, unless it is asked for the leaf."""

    async def callback(data: Any) -> Any:
        if data == "leaf":
            return "leaf"
        try:
            return await here.request(question, timeout=DEADLINE)
        except BaseException as error:
            if outcomes is not None:
                outcomes.append(error)
            raise

    return callback


async def test_a_nested_circle_is_noticed_at_once(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    outcomes: list[Any] = []
    host.on_receive()(ask_back(host, "back"))
    child.on_receive()(ask_back(child, "inner", outcomes))
    begun = time.monotonic()
    async with loops(pair.host, pair.child):
        with pytest.raises(RemoteError, match="RequestCycle"):
            await child.request("outer", timeout=DEADLINE)
    assert time.monotonic() - begun < DEADLINE / 2
    assert [type(error) for error in outcomes] == [RequestCycle]
    assert NAME in str(outcomes[0])


async def test_a_crossed_circle_is_noticed_at_once(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    outcomes: list[Any] = []
    host.on_receive()(ask_back(host, "question", outcomes))
    child.on_receive()(ask_back(child, "question", outcomes))
    async with loops(pair.host, pair.child):
        await asyncio.gather(host.asend("begin"), child.asend("begin"))
        await eventually(lambda: len(outcomes) >= 2)
    assert any(isinstance(error, RequestCycle) for error in outcomes)
    assert not any(isinstance(error, RequestTimeout) for error in outcomes)


async def test_a_circle_of_two_children_is_noticed() -> None:
    with children("a", "b") as (_, (a, b)):
        first, second = channel(a.node, "between"), channel(b.node, "between")
        outcomes: list[Any] = []
        first.on_receive()(ask_back(first, "back", outcomes))
        second.on_receive()(ask_back(second, "inner"))
        async with loops(a.node, b.node):
            with pytest.raises(RemoteError, match="RequestCycle"):
                await first.request("outer", timeout=DEADLINE)
    assert [type(error) for error in outcomes] == [RequestCycle]


async def test_the_channel_works_after_a_circle(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    host.on_receive()(ask_back(host, "back"))
    child.on_receive()(ask_back(child, "inner"))
    async with loops(pair.host, pair.child):
        for _ in range(20):
            with pytest.raises(RemoteError):
                await child.request("outer", timeout=DEADLINE)
        assert await child.request("leaf", timeout=DEADLINE) == "leaf"
        await child.flush(timeout=DEADLINE)
        assert child.statistics().waiting_to_be_consumed == 0


async def test_asking_back_once_is_no_circle(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    host.on_receive()(ask_back(host, "leaf"))
    child.on_receive()(ask_back(child, "unused"))
    async with loops(pair.host, pair.child):
        assert await child.request("outer", timeout=DEADLINE) == "leaf"


async def test_asking_back_on_another_channel_is_served(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel("nonebot-active"), pair.child_channel("nonebot-active")
    host.on_receive()(ask_back(other_host, "question"))
    other_child.on_receive()(ask_back(other_child, "leaf"))
    other_host.on_receive()(lambda data: "never asked")
    async with loops(pair.host, pair.child):
        assert await child.request("outer", timeout=DEADLINE) == "never asked"


async def test_a_task_of_the_callback_may_ask_later(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    begun: list[asyncio.Task[Any]] = []

    @child.on_receive()
    async def start(data: Any) -> str:
        if data == "start":
            begun.append(asyncio.ensure_future(child.request("from a task", timeout=DEADLINE)))
            await asyncio.sleep(0.05)
        return "child"

    host.on_receive()(ask_back(host, "leaf"))
    async with loops(pair.host, pair.child):
        assert await host.request("start", timeout=DEADLINE) == "child"
        assert await begun[0] == "child"


async def test_a_timeout_names_a_possible_circle(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    outcomes: list[Any] = []

    @child.on_receive()
    async def ask(data: Any) -> Any:
        try:
            return await asyncio.gather(child.request("inner", timeout=0.5))  # in a task of its own
        except RequestTimeout as error:
            outcomes.append(str(error))

    host.on_receive()(ask_back(host, "back"))
    async with loops(pair.host, pair.child):
        with pytest.raises(RequestTimeout) as outer:
            await child.request("outer", timeout=0.1)
        await eventually(lambda: outcomes)
    assert f"A callback of channel {NAME!r} asked" in outcomes[0]
    assert "A callback of channel" not in str(outer.value)


async def test_a_circle_is_reported_in_the_log(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    host.on_receive()(ask_back(host, "back"))
    child.on_receive()(ask_back(child, "inner"))
    with logged() as lines:
        async with loops(pair.host, pair.child):
            with pytest.raises(RemoteError):
                await child.request("outer", timeout=DEADLINE)
    assert any(NAME in line and line.startswith("ERROR") for line in lines)


# --- circles over several channels --------------------------------------------------------------------------------


def ask_on(target: Any, question: str, outcomes: list[Any] | None = None) -> Any:
    """A callback that asks on another channel, unless it is asked for the leaf."""
    return ask_back(target, question, outcomes)


def kinds(outcomes: list[Any]) -> set[type]:
    return {type(error) for error in outcomes}


@pytest.mark.usefixtures("each_link")
async def test_a_circle_over_two_channels_is_noticed(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    outcomes: list[Any] = []
    host.on_receive()(ask_on(other_host, "second"))
    other_child.on_receive()(ask_on(child, "third", outcomes))
    begun = time.monotonic()
    async with loops(pair.host, pair.child):
        with pytest.raises(RemoteError, match="RequestCycle"):
            await child.request("first", timeout=DEADLINE)
    assert time.monotonic() - begun < DEADLINE / 2
    assert kinds(outcomes) == {RequestCycle}
    assert NAME in str(outcomes[0])


async def test_crossed_channels_are_noticed_at_once(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    outcomes: list[Any] = []
    begun: list[Any] = []

    def begin(target: Any) -> Any:
        async def callback(data: Any) -> None:
            begun.append(data)
            await eventually(lambda: len(begun) == 2)
            try:
                await target.request("question", timeout=DEADLINE)
            except BaseException as error:
                outcomes.append(error)
                raise

        return callback

    host.on_receive()(begin(other_host))
    other_child.on_receive()(begin(child))
    async with loops(pair.host, pair.child):
        await asyncio.gather(child.asend("begin"), other_host.asend("begin"))
        await eventually(lambda: RequestCycle in kinds(outcomes))
    assert RequestTimeout not in kinds(outcomes)


@pytest.mark.usefixtures("each_link")
async def test_a_circle_of_three_processes_is_noticed() -> None:
    with children("a", "b", "c") as (_, (a, b, c)):
        outcomes: list[Any] = []
        ends = {
            name: (channel(first.node, name), channel(second.node, name))
            for name, first, second in (("ab", a, b), ("bc", b, c), ("ca", c, a))
        }
        ends["ab"][1].on_receive()(ask_on(ends["bc"][0], "to c", outcomes))
        ends["bc"][1].on_receive()(ask_on(ends["ca"][0], "to a", outcomes))
        ends["ca"][1].on_receive()(ask_on(ends["ab"][0], "to b", outcomes))
        begun = time.monotonic()
        async with loops(a.node, b.node, c.node):
            with pytest.raises(RemoteError, match="RequestCycle"):
                await ends["ab"][0].request("begin", timeout=DEADLINE)
    assert time.monotonic() - begun < DEADLINE / 2
    assert RequestCycle in kinds(outcomes)
    assert RequestTimeout not in kinds(outcomes)


async def test_a_circle_by_way_of_the_host() -> None:
    with children("a", "b") as (pair, (a, b)):
        outcomes: list[Any] = []
        first, first_host = channel(a.node, "a-passive"), channel(pair.host, "a-passive")
        second, second_host = channel(b.node, "b-passive"), channel(pair.host, "b-passive")
        near, far = channel(a.node, "between"), channel(b.node, "between")
        first_host.on_receive()(ask_on(second_host, "to b", outcomes))
        second.on_receive()(ask_on(far, "to a", outcomes))
        near.on_receive()(ask_on(first, "to the host", outcomes))
        async with loops(pair.host, a.node, b.node):
            with pytest.raises(RemoteError, match="RequestCycle"):
                await first.request("begin", timeout=DEADLINE)
    assert RequestCycle in kinds(outcomes)
    assert RequestTimeout not in kinds(outcomes)


async def test_channels_work_after_a_wide_circle(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    host.on_receive()(ask_on(other_host, "second"))
    other_child.on_receive()(ask_on(child, "third"))
    async with loops(pair.host, pair.child):
        for _ in range(20):
            with pytest.raises(RemoteError, match="RequestCycle"):
                await child.request("first", timeout=DEADLINE)
        assert await child.request("leaf", timeout=DEADLINE) == "leaf"
        assert await other_host.request("leaf", timeout=DEADLINE) == "leaf"
        for line in (child, other_host):
            await line.flush(timeout=DEADLINE)
            assert line.statistics().waiting_to_be_consumed == 0


@pytest.mark.usefixtures("each_link")
async def test_nested_requests_on_channels_are_served() -> None:
    """Callbacks of three processes ask on, many at once and in both directions, and nothing of it is a circle."""
    with children("a", "b", "c") as (pair, (a, b, c)):
        ab, ba = channel(a.node, "ab"), channel(b.node, "ab")
        bc, cb = channel(b.node, "bc"), channel(c.node, "bc")
        ca, ac = channel(c.node, "ca"), channel(a.node, "ca")
        ba.on_receive()(ask_on(bc, "on"))  # a asks b, which asks c, which asks a on another channel
        cb.on_receive()(ask_on(ca, "leaf"))
        ac.on_receive()(ask_on(ab, "leaf"))
        ab.on_receive()(ask_on(ab, "leaf"))
        async with loops(pair.host, a.node, b.node, c.node):
            answers = await asyncio.gather(
                *(line.request("begin", timeout=DEADLINE) for _ in range(100) for line in (ab, bc, ba))
            )
    assert answers == ["leaf"] * 300


async def test_the_first_channel_may_be_used_outward(pair: Pair) -> None:
    """The last request goes out on the channel whose callback waits here; the callback there is free."""
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    third_host, third_child = pair.host_channel("third"), pair.child_channel("third")
    host.on_receive()(ask_on(other_host, "second"))
    other_child.on_receive()(ask_on(third_child, "third"))
    third_host.on_receive()(ask_on(host, "fourth"))
    child.on_receive()(lambda data: data)
    async with loops(pair.host, pair.child):
        for _ in range(20):
            assert await child.request("first", timeout=DEADLINE) == "fourth"


async def test_a_circle_through_both_ends_is_noticed(pair: Pair) -> None:
    """Both callbacks of the first channel wait: one for the other, and that one by way of two other channels."""
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    third_host, third_child = pair.host_channel("third"), pair.child_channel("third")
    host.on_receive()(ask_on(other_host, "second"))
    other_child.on_receive()(ask_on(third_child, "third"))
    third_host.on_receive()(ask_on(host, "fourth"))
    child.on_receive()(ask_on(child, "first"))
    async with loops(pair.host, pair.child):
        with pytest.raises(RemoteError, match="RequestCycle"):
            await host.request("begin", timeout=DEADLINE)


async def test_a_timeout_names_the_asking_channel(pair: Pair) -> None:
    other_host, other_child = pair.host_channel(OTHER), pair.child_channel(OTHER)
    child, host = pair.child_channel(NAME), pair.host_channel(NAME)
    outcomes: list[Any] = []
    gate = asyncio.Event()

    @host.on_receive()
    async def never(data: Any) -> None:
        await gate.wait()

    @other_child.on_receive()
    async def ask(data: Any) -> None:
        try:
            await child.request("question", timeout=0.05)
        except RequestTimeout as error:
            outcomes.append(str(error))

    async with loops(pair.host, pair.child):
        await other_host.request("begin", timeout=DEADLINE)
        gate.set()
    assert f"A callback of channel {OTHER!r} asked" in outcomes[0]


async def test_a_callback_of_a_topic_gets_no_hint(pair: Pair) -> None:
    child = pair.child_channel(NAME)
    outcomes: list[Any] = []

    async def ask(data: Any) -> None:
        try:
            await child.request("question", timeout=0.05)
        except RequestTimeout as error:
            outcomes.append(str(error))

    subscribe(NAME, exchange=pair.child)(ask)
    async with loops(pair.child):
        publish(NAME, "go", exchange=pair.child)
        await eventually(lambda: outcomes)
    assert "callback" not in outcomes[0]


class Asker(Here):
    """Somebody whose request has arrived, and what was replied to it."""

    def __init__(self) -> None:
        self.replies: list[tuple[Any, int, int]] = []

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        self.replies.append((codec.decode(payload), flags, request_id))


@pytest.fixture
def requests() -> Requests:
    return Requests("x", Outbox(on_lost=lambda count, why: None))


async def test_a_broken_notice_is_dropped(requests: Requests) -> None:
    asker = Asker()
    number = requests.new(requests)
    requests.block("y", number)
    assert not requests.arrived(Flag.BY_CALLBACK, 5, asker)
    told = asker.replies.copy()
    for payload in (b"\xff", *map(codec.encode, ([1, 2, 3], ["x", "2", 3], ["x", 2], 1))):
        requests.answered(number, Flag.WAITS, payload)
    assert asker.replies == told == [(["y", number, 0], Flag.WAITS, 5)]
    requests.answered(number, Flag.RAW, b"the answer")
    assert await requests.reply_to(number, DEADLINE) == (Flag.RAW, b"the answer")


def test_a_request_in_progress_is_not_refused(requests: Requests) -> None:
    """Its callback is the one that waits: it will answer when it has its own answer."""
    asker = Asker()
    requests.arrived(Flag.BY_CALLBACK, 5, asker)
    assert not requests.begin(5, asker)
    requests.block("y", 7)
    requests.learn("x", 5, 0)
    assert asker.replies == [(["y", 7, 0], Flag.WAITS, 5)]


def test_a_queued_request_is_refused_once(requests: Requests) -> None:
    asker = Asker()
    requests.block("y", 7)
    requests.arrived(Flag.BY_CALLBACK, 5, asker)
    requests.learn("x", 5, 0)
    assert [flags for _, flags, _ in asker.replies] == [Flag.WAITS, Flag.ERROR]
    requests.unblock(7)
    assert requests.begin(5, asker)  # answered already, so it is skipped
    assert not requests.begin(6, asker)


def test_a_notice_does_not_go_round_for_ever(requests: Requests) -> None:
    asker = Asker()
    requests.arrived(Flag.BY_CALLBACK, 5, asker)
    requests.block("y", 7)
    for hops in range(100):
        requests.learn("z", 9, hops)
    assert len(asker.replies) < 20


def test_a_notice_that_comes_late_is_dropped(requests: Requests) -> None:
    asker = Asker()
    requests.arrived(Flag.BY_CALLBACK, 5, asker)
    requests.block("y", 7)
    requests.unblock(7)
    requests.learn("x", 5, 0)
    assert not requests.begin(5, asker)
