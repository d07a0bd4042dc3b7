"""Time limits of locks: decided by the host, the same in every place, and an error that names the holder."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from pair_kit import DEADLINE, children, memory, until

from liteyuki_host.comm.errors import LockTimeout, SharedMemoryError
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import connected_pair


@pytest.fixture(params=["host", "child", "alone"])
def storage(request: pytest.FixtureRequest) -> Iterator[SharedMemory]:
    with connected_pair() as pair:
        yield {"host": pair.host_memory, "child": pair.child_memory, "alone": memory(Node())}[request.param]


@pytest.fixture
def three() -> Iterator[tuple[SharedMemory, SharedMemory, SharedMemory]]:
    """The shared memory in the host and in two bots."""
    with children("a", "b") as (pair, (a, b)):
        yield pair.host_memory, memory(a.node), memory(b.node)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9])
def test_a_free_lock_is_taken_at_once(storage: SharedMemory, timeout: float) -> None:
    for number in range(50):
        with storage.lock(f"lock {number}", timeout=timeout) as lock:
            assert lock.fence


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9])
async def test_a_task_takes_a_free_lock_at_once(storage: SharedMemory, timeout: float) -> None:
    for number in range(50):
        async with storage.lock(f"lock {number}", timeout=timeout) as lock:
            assert lock.fence


@pytest.mark.parametrize("timeout", [-1, -1e-9, float("-inf"), float("nan"), "1", True])
def test_a_limit_that_is_none_is_refused(storage: SharedMemory, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout of a lock"):
        storage.lock("lock", timeout=timeout)


def test_an_infinite_limit_is_no_limit(storage: SharedMemory) -> None:
    with storage.lock("lock", timeout=float("inf")):
        pass


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_the_loser_is_told_the_holder(storage: SharedMemory, timeout: float) -> None:
    with storage.lock("lock"), pytest.raises(LockTimeout) as told, storage.lock("lock", timeout=timeout):
        pass
    assert (told.value.key, told.value.holder) == ("lock", storage._exchange.process)
    assert "this process itself" in str(told.value)
    assert isinstance(told.value, TimeoutError)
    assert isinstance(told.value, SharedMemoryError)


@pytest.mark.parametrize("timeout", [0, 0.02])
async def test_a_losing_task_is_told_too(storage: SharedMemory, timeout: float) -> None:
    async with storage.lock("lock"):
        with pytest.raises(LockTimeout, match="'lock'"):
            async with storage.lock("lock", timeout=timeout):
                pass


def test_another_process_is_named(three: tuple[SharedMemory, SharedMemory, SharedMemory]) -> None:
    host, a, b = three
    for holder, loser, name in ((a, b, "a"), (b, host, "b"), (host, a, "host")):
        with holder.lock("lock"), pytest.raises(LockTimeout) as told, loser.lock("lock", timeout=0):
            pass
        assert told.value.holder == name
        assert f"process '{name}' holds it" in str(told.value)


def test_the_holder_at_the_end_is_named() -> None:
    outcome: list[LockTimeout] = []
    with children("a", "b") as (pair, (a, b)):
        authority = pair.host.authority
        first, second = pair.host_memory.lock("lock"), memory(a.node).lock("lock", timeout=DEADLINE)

        def lose() -> None:
            try:
                with memory(b.node).lock("lock", timeout=1):
                    pass
            except LockTimeout as error:
                outcome.append(error)

        first.__enter__()
        waiting, losing = threading.Thread(target=second.__enter__), threading.Thread(target=lose)
        waiting.start()
        until(lambda: authority.waiting_for_locks() == {"lock": 1})  # the next in line
        losing.start()
        until(lambda: authority.waiting_for_locks() == {"lock": 2})
        first.__exit__(None, None, None)
        waiting.join(DEADLINE)
        losing.join(DEADLINE)
        second.__exit__(None, None, None)
    assert [error.holder for error in outcome] == ["a"]


def test_a_loser_waits_no_longer(storage: SharedMemory) -> None:
    with storage.lock("lock"):
        for _ in range(3):
            with pytest.raises(LockTimeout), storage.lock("lock", timeout=0):
                pass
    with storage.lock("lock", timeout=0):
        pass


def test_a_lock_object_can_try_again(storage: SharedMemory) -> None:
    again = storage.lock("lock", timeout=0)
    with storage.lock("lock"), pytest.raises(LockTimeout):
        again.__enter__()
    with again:
        assert again.fence


def test_a_lock_freed_in_time_is_taken(three: tuple[SharedMemory, SharedMemory, SharedMemory]) -> None:
    host, a, _ = three
    held = host.lock("lock")
    held.__enter__()
    timer = threading.Timer(0.02, held.__exit__, (None, None, None))
    timer.start()
    begun = time.monotonic()
    with a.lock("lock", timeout=DEADLINE):
        assert time.monotonic() - begun < DEADLINE / 2
    timer.join()


async def test_a_cancelled_wait_leaves_the_lock_free(storage: SharedMemory) -> None:
    async with storage.lock("lock"):
        for timeout in (None, 0.01, DEADLINE):
            with anyio.move_on_after(0.005):
                async with storage.lock("lock", timeout=timeout):
                    pass
    async with storage.lock("lock", timeout=0):
        pass


async def test_limits_race_with_the_release(three: tuple[SharedMemory, SharedMemory, SharedMemory]) -> None:
    """Whatever comes first, the limit or the grant: nobody holds a lock that it does not know of."""
    _, a, b = three
    inside = 0

    async def work(storage: SharedMemory, timeout: float) -> None:
        nonlocal inside
        for _ in range(30):
            try:
                async with storage.lock("lock", timeout=timeout):
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0.001)
                    inside -= 1
            except LockTimeout:
                pass

    await asyncio.gather(*(work(storage, timeout) for storage in (a, b) for timeout in (0, 0.001, 0.002)))
    async with a.lock("lock", timeout=DEADLINE):
        pass
