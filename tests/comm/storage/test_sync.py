"""``sync()``: everything that any process had written before, confirmed or not, is visible here."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from pair_kit import DEADLINE, Child, gated, memory, until

from liteyuki_host.comm.errors import RequestTimeout, SharedMemoryError
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.transport.memory import memory_link

LINKS: list[Any] = [memory_link]
if sys.platform != "win32":
    from liteyuki_host.comm.transport.posix import socket_link

    LINKS.append(socket_link)

ROUNDS = 300


@pytest.fixture(params=LINKS)
def places(request: pytest.FixtureRequest) -> Iterator[dict[str, SharedMemory]]:
    with connected_pair() as pair:
        a, b = (Child(pair, name, transports=request.param) for name in "ab")
        yield {"host": pair.host_memory, "a": memory(a.node), "b": memory(b.node)}
        a.node.reset()
        b.node.reset()


@pytest.mark.parametrize(("writer", "reader"), [("a", "host"), ("a", "b"), ("host", "a"), ("a", "a"), ("host", "host")])
def test_every_write_is_seen(places: dict[str, SharedMemory], writer: str, reader: str) -> None:
    missed = 0
    for number in range(ROUNDS):
        places[writer].set("key", number)
        places[reader].sync()
        missed += places[reader].get("key") != number
    assert missed == 0


def test_deletes_are_seen_too(places: dict[str, SharedMemory]) -> None:
    for number in range(ROUNDS):
        places["a"].set("key", number)
        places["a"].delete("key")
        places["b"].sync()
        assert "key" not in places["b"]


async def test_a_task_sees_every_write(places: dict[str, SharedMemory]) -> None:
    for number in range(ROUNDS):
        places["a"].set("key", number)
        await places["host"].async_()
        assert places["host"].get("key") == number
        places["host"].set("key", -number)
        await places["b"].async_()
        assert places["b"].get("key") == -number


def test_the_revision_is_that_of_the_write(places: dict[str, SharedMemory]) -> None:
    places["a"].set("key", 1)
    revision = places["b"].sync()
    assert revision == places["b"].revision == places["host"].revision == 1


def test_many_may_sync_at_once(places: dict[str, SharedMemory]) -> None:
    wrong: list[str] = []

    def work(name: str) -> None:
        for number in range(30):
            places[name].set(name, number)
            places[name].sync()
            other = places["host"].get(name)
            if other != number:
                wrong.append(f"{name}: {other} instead of {number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert wrong == []


def test_without_a_host_it_is_done_at_once() -> None:
    storage = memory(Node())
    storage.set("key", 1)
    assert storage.sync() == 1


@pytest.fixture
def silent() -> Iterator[tuple[Pair, Child]]:
    """A pair, and a bot that does not read its link while its gate is closed."""
    with connected_pair() as pair:
        child = Child(pair, "silent", transports=gated)
        child.transports[1].open.clear()
        yield pair, child
        child.transports[1].open.set()
        child.node.reset()


def test_a_silent_process_is_waited_for(silent: tuple[Pair, Child]) -> None:
    pair, child = silent
    memory(child.node).set("key", 1)
    for storage in (pair.child_memory, pair.host_memory):
        with pytest.raises(RequestTimeout, match="may be frozen"):
            storage.sync(timeout=0.05)
    child.transports[1].open.set()
    for storage in (pair.child_memory, pair.host_memory):
        storage.sync(timeout=DEADLINE)
        assert storage.get("key") == 1


def test_a_process_that_ends_is_not_waited_for(silent: tuple[Pair, Child]) -> None:
    pair, child = silent
    syncing = threading.Thread(target=lambda: pair.child_memory.sync(timeout=DEADLINE))
    syncing.start()
    child.session.link.transport.close()
    syncing.join(DEADLINE / 2)
    assert not syncing.is_alive()


def test_the_end_of_the_host_ends_it(silent: tuple[Pair, Child]) -> None:
    pair, _ = silent
    errors: list[Exception] = []

    def sync() -> None:
        try:
            pair.child_memory.sync(timeout=DEADLINE)
        except SharedMemoryError as error:
            errors.append(error)

    syncing = threading.Thread(target=sync)
    syncing.start()
    until(lambda: pair.child_memory.revision >= 0 and syncing.is_alive())
    pair.cut()
    syncing.join(DEADLINE / 2)
    assert ["the host went away" in str(error) for error in errors] == [True]


async def test_a_cancelled_sync_leaves_nothing_behind(places: dict[str, SharedMemory]) -> None:
    for seconds in (0, 0.0001, 0.001):
        with anyio.move_on_after(seconds):
            await places["a"].async_()
    places["b"].set("key", 1)
    await asyncio.wait_for(places["a"].async_(), DEADLINE)
    assert places["a"].get("key") == 1
