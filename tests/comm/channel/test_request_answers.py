"""Requests: who is woken by an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from pair_kit import DEADLINE, eventually, loops

from liteyuki_host.comm.errors import ChannelBroken
from liteyuki_host.comm.testing import connected_pair

PASSIVE = "nonebot-passive"


class Steps:
    """Awaits a coroutine and counts how often it is resumed."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.coroutine.__await__()
        try:
            waits_for = next(steps)
            while True:
                value = yield waits_for
                self.count += 1
                waits_for = steps.send(value)
        except StopIteration as end:
            return end.value


async def awaited(steps: Steps) -> Any:
    return await steps


async def test_an_answer_wakes_its_asker_alone() -> None:
    """Each of the others used to look whether it was theirs: 1,600 requests took 12 s."""
    gate = asyncio.Event()
    with connected_pair() as pair:
        async with loops(pair.child, pair.host):

            @pair.child_channel(PASSIVE).on_receive()
            async def one_by_one(data: int) -> int:
                await gate.wait()
                await asyncio.sleep(0)
                return data

            line = pair.host_channel(PASSIVE)
            askers = [Steps(line.request(number, timeout=DEADLINE)) for number in range(50)]
            tasks = [asyncio.create_task(awaited(asker)) for asker in askers]
            await eventually(lambda: line.statistics().sent == len(askers))
            gate.set()
            assert await asyncio.gather(*tasks) == list(range(len(askers)))
    assert [asker.count for asker in askers] == [1] * len(askers)


async def test_an_answer_wakes_one_control_request() -> None:
    with connected_pair() as pair:
        async with loops(pair.child, pair.host):
            waiting: list[Any] = []
            pair.host.on_control = lambda session, request: waiting.append((session, request))
            askers = [Steps(pair.child.control("status", timeout=DEADLINE)) for _ in range(20)]
            tasks = [asyncio.create_task(awaited(asker)) for asker in askers]
            await eventually(lambda: len(waiting) == len(askers))
            for session, request in waiting:
                session.reply_control(request.id, value=request.id)
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
    assert [asker.count for asker in askers] == [1] * len(askers)


async def test_every_asker_hears_of_the_end() -> None:
    with connected_pair() as pair:
        line = pair.host_channel(PASSIVE)
        tasks = [asyncio.create_task(line.request(number, timeout=DEADLINE)) for number in range(20)]
        await eventually(lambda: line.statistics().sent == len(tasks))
        await asyncio.to_thread(pair.cut)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            with pytest.raises(ChannelBroken, match="no answer can come any more"):
                raise end  # type: ignore[misc]
