"""Requests that cannot be answered: on a channel of two others, and in a circle of callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, children, eventually, logged, loops, memory

from liteyuki_host.comm.errors import ChannelTaken, RemoteError, RequestCycle, RequestTimeout
from liteyuki_host.comm.testing import Pair, connected_pair

NAME = "nonebot-passive"


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
    assert "A callback of this channel asked" in outcomes[0]
    assert "callback of this channel" not in str(outer.value)


async def test_a_circle_is_reported_in_the_log(pair: Pair) -> None:
    host, child = pair.host_channel(NAME), pair.child_channel(NAME)
    host.on_receive()(ask_back(host, "back"))
    child.on_receive()(ask_back(child, "inner"))
    with logged() as lines:
        async with loops(pair.host, pair.child):
            with pytest.raises(RemoteError):
                await child.request("outer", timeout=DEADLINE)
    assert any(NAME in line and line.startswith("ERROR") for line in lines)
