"""The test kit of plugin authors behaves as a host does."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pair_kit import DEADLINE, eventually, loops, until

from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair, connected_pair

TTL = 0.05


@pytest.mark.parametrize("writer", ["host", "child"])
@pytest.mark.parametrize("watcher", ["host", "child"])
async def test_keys_expire_everywhere(writer: str, watcher: str) -> None:
    """Nobody deleted them, unless something else was written."""
    with connected_pair() as pair:
        memories: dict[str, SharedMemory] = {"host": pair.host_memory, "child": pair.child_memory}
        with memories[watcher].watch("key") as watch:
            changes = aiter(watch)
            await memories[writer].aset("key", 1, ttl=TTL)
            assert not (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
            assert (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
        await eventually(lambda: len(pair.host_memory) == len(pair.child_memory) == 0)
        assert pair.host.authority.store.next_deadline() is None


async def test_watchers_hear_of_expiry() -> None:
    with connected_pair() as pair:
        async with loops(pair.child):
            gone = asyncio.Event()
            pair.child_memory.watch("key")(lambda change: gone.set() if change.deleted else None)
            await pair.host_memory.aset("key", 1, ttl=TTL)
            await asyncio.wait_for(gone.wait(), DEADLINE)


async def test_shorter_ttl_is_not_waited_past() -> None:
    with connected_pair() as pair:
        memory = pair.child_memory
        with memory.watch("short") as watch:
            changes = aiter(watch)
            await memory.aset("long", 1, ttl=3600.0)
            await memory.aset("short", 1, ttl=TTL)
            assert not (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
            assert (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
        assert list(memory) == ["long"]


async def test_served_hub_expires_too() -> None:
    """A test may run the host's own clock beside the kit's."""
    with connected_pair() as pair:
        serving = asyncio.create_task(pair.host.serve())
        for _ in range(2):
            with pair.child_memory.watch("key") as watch:
                changes = aiter(watch)
                await pair.host_memory.aset("key", 1, ttl=TTL)
                assert not (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
                assert (await asyncio.wait_for(anext(changes), DEADLINE)).deleted
            serving.cancel()
            await asyncio.wait({serving})


def test_closed_pair_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with connected_pair() as pair:
        pair.host_memory.set("key", 1, ttl=3600.0)
    until(lambda: set(threading.enumerate()) <= before)  # the threads of the link end when they have seen its end


async def test_fixture_expires_keys(lycomm_pair: Pair) -> None:
    from liteyuki_host.comm.storage import shared_memory

    await shared_memory.aset("key", 1, ttl=TTL)
    await eventually(lambda: lycomm_pair.host.authority.store.next_deadline() is None)
    assert "key" not in shared_memory
