"""A loop whose tasks start eagerly (``asyncio.eager_task_factory``, Python 3.12 on)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pair_kit import DEADLINE, eventually, loops

from liteyuki_host.comm.testing import Pair, connected_pair

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="the eager task factory came with Python 3.12")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  (not known to Python 3.10)
    try:
        with connected_pair() as made:
            async with loops(made.host, made.child):
                yield made
    finally:
        loop.set_task_factory(before)


async def test_callbacks_get_every_message(pair: Pair) -> None:
    got: list[int] = []

    @pair.child_channel("nonebot-passive").on_receive()
    async def handle(number: int) -> int:
        await asyncio.sleep(0)
        got.append(number)
        return number

    sender = pair.host_channel("nonebot-passive")
    for number in range(3):
        sender.send(number)
    await eventually(lambda: len(got) == 3)
    assert await sender.request(3, timeout=DEADLINE) == 3
    assert got == [0, 1, 2, 3]


async def test_registering_calls_no_callback_at_once(pair: Pair) -> None:
    pair.host_channel("nonebot-passive").send(1)
    channel = pair.child_channel("nonebot-passive")
    await eventually(lambda: channel.statistics().waiting_to_be_read)
    got: list[Any] = []
    channel.on_receive()(got.append)
    assert got == []
    await eventually(lambda: got == [1])


async def test_eager_tasks_may_call_everything(pair: Pair) -> None:
    memory = pair.child_memory
    answering = pair.host_channel("nonebot-passive")
    answering.on_receive()(lambda data: data)
    channel = pair.child_channel("nonebot-passive")
    results = await asyncio.wait_for(
        asyncio.gather(
            *(asyncio.ensure_future(memory.aincr("number")) for _ in range(20)),
            *(asyncio.ensure_future(channel.request(number, timeout=DEADLINE)) for number in range(20)),
        ),
        DEADLINE,
    )
    assert sorted(results[:20]) == list(range(1, 21))
    assert results[20:] == list(range(20))
