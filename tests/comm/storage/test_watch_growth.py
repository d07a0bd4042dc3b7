"""Watches that are left, and watches that are not read: what stays of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from pair_kit import eventually, loops

from liteyuki_host.comm.errors import WatchOverrun
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.storage.watch import Changed, Watch
from liteyuki_host.comm.testing import Pair, connected_pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


@pytest.fixture(params=["host", "child"])
def exchange(pair: Pair, request: pytest.FixtureRequest) -> Exchange:
    return pair.host if request.param == "host" else pair.child


@pytest.fixture
def no_collections() -> Iterator[None]:
    """What stays alive without a garbage collection counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watches() -> int:
    return sum(type(thing) is Watch for thing in gc.get_objects())


@pytest.mark.usefixtures("no_collections")
async def test_a_broken_off_loop_ends_its_watch(exchange: Exchange) -> None:
    """It stayed for ever, and a write took 1,463 us instead of 50 after 200 of them."""
    memory = SharedMemory(exchange)
    before = watches()
    for number in range(50):
        asyncio.get_running_loop().call_soon(memory.set, "k", number)
        async for _ in memory.watch("k"):
            break
    await eventually(lambda: watches() == before)


@pytest.mark.usefixtures("no_collections")
async def test_a_cancelled_loop_ends_its_watch(exchange: Exchange) -> None:
    memory = SharedMemory(exchange)
    before = watches()

    async def read() -> None:
        async for _ in memory.watch("k"):
            pass

    for _ in range(20):
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    del task
    await eventually(lambda: watches() == before)


@pytest.mark.usefixtures("no_collections")
def test_a_watch_never_read_ends_with_its_name(exchange: Exchange) -> None:
    memory = SharedMemory(exchange)
    before = watches()
    for _ in range(20):
        watch = memory.watch("k")
        memory.set("k", 1)
        iter(watch)
        del watch
    assert watches() == before


async def test_a_watch_is_read_on_after_a_break(exchange: Exchange) -> None:
    memory = SharedMemory(exchange)
    watch = memory.watch("k")
    for number in range(3):
        await memory.aset("k", number)
    got = []
    for _ in range(3):
        async for change in watch:
            got.append(change.value)
            break
    assert got == [0, 1, 2]


async def test_a_watching_function_stays_without_a_name(exchange: Exchange) -> None:
    memory = SharedMemory(exchange)
    got: list[Any] = []

    def note(change: Changed) -> None:
        got.append(change.value)

    async with loops(exchange):
        memory.watch("k")(note)
        gc.collect()
        await memory.aset("k", 1)
        await eventually(lambda: got == [1])


async def test_a_closed_watching_function_is_given_back(exchange: Exchange) -> None:
    memory = SharedMemory(exchange)
    gc.collect()
    before = watches()
    async with loops(exchange):
        watch = memory.watch("k")
        watch(lambda change: None)
        watch.close()
        del watch
        await asyncio.sleep(0)
        gc.collect()
        assert watches() == before


async def test_bytes_that_wait_end_a_watch(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "LIMIT_BYTES", 10_000)
    memory = SharedMemory(exchange)
    watch = memory.watch("k")
    for _ in range(5):
        await memory.aset("k", "x" * 3_000)
    got = 0
    with pytest.raises(WatchOverrun, match="the watch of 'k' fell behind by 10,000 bytes of changes"):  # noqa: PT012
        async for _ in watch:
            got += 1
    assert got == 3


async def test_a_read_watch_takes_any_amount(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "LIMIT_BYTES", 10_000)
    memory = SharedMemory(exchange)
    changes = aiter(memory.watch("k"))
    for number in range(20):
        await memory.aset("k", [number] * 3_000)
        assert (await anext(changes)).value[0] == number


async def test_one_change_beyond_the_limit_arrives(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "LIMIT_BYTES", 10_000)
    memory = SharedMemory(exchange)
    changes = aiter(memory.watch("k"))
    await memory.aset("k", "x" * 50_000)
    assert len((await anext(changes)).value) == 50_000
