"""``aset``, ``adelete`` and ``apublish`` without room: they wait in their task, and can be cancelled there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pair_kit import DEADLINE, Child, eventually, gated, memory

from liteyuki_host.comm import topics
from liteyuki_host.comm.errors import ChannelFull
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.testing import connected_pair

VALUE = "v" * 1000

CALLS: dict[str, Callable[[Exchange], Awaitable[Any]]] = {
    "aset": lambda exchange: memory(exchange).aset("late", VALUE),
    "adelete": lambda exchange: memory(exchange).adelete("key"),
    "apublish": lambda exchange: topics.apublish("news", VALUE, exchange=exchange),
}


def fill(write: Callable[[], None]) -> None:
    """Repeat *write* until there is no room."""
    with contextlib.suppress(ChannelFull):
        while True:
            write()


class Full:
    """A process whose writes and publications find no room, until :meth:`let_go`."""

    def __init__(self, exchange: Exchange, gates: list[Any]) -> None:
        self.exchange = exchange
        self._gates = gates

    def let_go(self) -> None:
        for gate in self._gates:
            gate.open.set()


@pytest.fixture(params=["host", "child"])
async def full(request: pytest.FixtureRequest) -> AsyncIterator[Full]:
    with connected_pair(window=20_000) as pair:
        slow = await asyncio.to_thread(Child, pair, "slow", transports=gated)
        gates = [slow.transports[1]]
        exchange: Exchange = pair.host
        writer: Child | None = None
        if request.param == "child":  # its host does not read: neither writes nor publications get through
            writer = await asyncio.to_thread(Child, pair, "writer", transports=lambda: gated()[::-1])
            gates.append(writer.transports[0])
            exchange = writer.node
        for gate in gates:
            gate.open.clear()
        fill(lambda: memory(exchange).set("key", VALUE))
        if writer is not None:
            fill(lambda: topics.publish("news", VALUE, exchange=exchange))
        yield Full(exchange, gates)
        for gate in gates:
            gate.open.set()
        await asyncio.to_thread(slow.node.reset)
        if writer is not None:
            await asyncio.to_thread(writer.node.reset)


def waits(full: Full, name: str) -> bool:
    return name != "apublish" or full.exchange.link is not None  # the host never waits for a subscriber


@pytest.mark.parametrize("name", CALLS)
async def test_it_is_cancelled_where_it_waits(full: Full, name: str) -> None:
    if not waits(full, name):
        pytest.skip("a publication of the host always finds room")
    with anyio.move_on_after(0.02) as scope:
        await CALLS[name](full.exchange)
    assert scope.cancelled_caught
    assert "late" not in memory(full.exchange)


@pytest.mark.parametrize("name", CALLS)
async def test_it_goes_on_when_there_is_room(full: Full, name: str) -> None:
    if not waits(full, name):
        pytest.skip("a publication of the host always finds room")
    task = asyncio.ensure_future(CALLS[name](full.exchange))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    full.let_go()
    await asyncio.wait_for(task, DEADLINE)


async def test_waiting_takes_no_thread(full: Full) -> None:
    threads = threading.active_count()
    calls = [call for name, call in CALLS.items() if waits(full, name)]
    tasks = [asyncio.ensure_future(call(full.exchange)) for call in calls for _ in range(50)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(anyio.to_thread.run_sync(threading.active_count), DEADLINE) <= threads + 1
    full.let_go()
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)


async def test_the_end_of_the_link_ends_it(full: Full) -> None:
    if full.exchange.link is None:
        pytest.skip("the host has no link")
    tasks = [asyncio.ensure_future(call(full.exchange)) for call in CALLS.values()]
    await asyncio.sleep(0)
    full.exchange.link.transport.close()
    full.let_go()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    await eventually(lambda: full.exchange.link is not None and full.exchange.link.ended)
