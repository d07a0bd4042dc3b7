"""Every ``a...`` form cancelled at each of its await points, in each way: nothing is used up, leaked or lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from a_forms import PLACES, Forms, forms
from pair_kit import DEADLINE, connected_pair, each_link, eventually, loops

from liteyuki_host.comm.testing import Pair

__all__ = ["each_link"]  # the fixture, for pytest

TURNS = range(8)
"""Turns of the loop after which a call is cancelled. The longest form here takes fewer, so the last ones are not."""

FORMS = ("aset", "adelete", "aincr", "acompare_and_set", "aupdate", "async_", "lock", "apublish", "asend", "flush")
"""Those that can be repeated after they were cancelled half-way. The others have tests of their own below."""

Call = Callable[[], Awaitable[Any]]
Way = Callable[[Call, int], Awaitable[bool]]


async def by_task(call: Call, turns: int) -> bool:
    """Cancel the task after *turns*. Returns whether the call was cancelled."""
    task = asyncio.ensure_future(call())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    return isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def by_scope(call: Call, turns: int) -> bool:
    """Cancel an AnyIO scope around the call after *turns*."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                for _ in range(turns):
                    await asyncio.sleep(0)
                scope.cancel()

            group.start_soon(cancel)
            await call()
            group.cancel_scope.cancel()
    return scope.cancelled_caught


async def by_time_limit(call: Call, turns: int) -> bool:
    """Let ``asyncio.wait_for`` end the call after *turns* tenths of a millisecond."""
    try:
        await asyncio.wait_for(call(), turns * 1e-4)
    except asyncio.TimeoutError:
        return True
    return False


WAYS: dict[str, Way] = {"task": by_task, "scope": by_scope, "time limit": by_time_limit}


@pytest.fixture(params=WAYS)
def cancelled(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Forms]:
    with forms(request.param) as made:
        yield made


@pytest.fixture
def pair(each_link: None) -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


@pytest.fixture
def narrow(each_link: None) -> Iterator[Pair]:
    """A pair whose channels have room for one message of 1,000 bytes."""
    with connected_pair(window=1_500) as made:
        yield made


def threads_in_use() -> int:
    return anyio.to_thread.current_default_thread_limiter().statistics().borrowed_tokens


@pytest.mark.parametrize("name", FORMS)
async def test_a_cancelled_form_can_be_repeated(place: Forms, name: str, cancelled: Way) -> None:
    if name not in place.all:
        pytest.skip("a process without a host has no channels")
    call = place.all[name]
    async with loops(*place.exchanges):
        for turns in TURNS:
            await cancelled(call, turns)
        await asyncio.wait_for(call(), DEADLINE)
        assert threads_in_use() == 0


async def test_no_message_is_lost_or_repeated(pair: Pair, cancelled: Way) -> None:
    """A receiver that is cancelled again and again, while messages arrive, gets each once and in order."""
    incoming, outgoing = pair.child_channel("nonebot-active"), pair.host_channel("nonebot-active")
    received: list[int] = []

    async def take() -> None:
        received.append(await incoming.areceive())

    async def send() -> None:
        for number in range(300):
            await outgoing.asend(number)
            await asyncio.sleep(0)

    sending = asyncio.ensure_future(send())
    turns = 0
    while not sending.done():
        await cancelled(take, turns % 4)
        turns += 1
    await sending
    while len(received) < 300:
        received.append(await incoming.areceive(DEADLINE))
    assert received == list(range(300))


async def test_cancelled_senders_without_room_send_nothing(narrow: Pair, cancelled: Way) -> None:
    """What a sender sent although it was cancelled, or the room that it has kept, would show afterwards."""
    outgoing, incoming = narrow.host_channel("nonebot-active"), narrow.child_channel("nonebot-active")
    await outgoing.asend(b"x" * 1_000)
    for turns in TURNS:
        assert await cancelled(lambda: outgoing.asend(b"y" * 1_000), turns)
    assert not narrow.host.end("nonebot-active").outbox.room.callbacks  # nobody waits any more
    assert await incoming.areceive(DEADLINE) == b"x" * 1_000
    await asyncio.wait_for(outgoing.asend(b"z" * 1_000), DEADLINE)
    assert await incoming.areceive(DEADLINE) == b"z" * 1_000
    await outgoing.flush(timeout=DEADLINE)
    assert outgoing.statistics().sent == 2


async def test_a_cancelled_flush_leaves_nothing(narrow: Pair, cancelled: Way) -> None:
    outgoing, incoming = narrow.host_channel("nonebot-active"), narrow.child_channel("nonebot-active")
    await outgoing.asend(b"x" * 1_000)
    for turns in TURNS:
        assert await cancelled(outgoing.flush, turns)
    await incoming.areceive(DEADLINE)
    await outgoing.flush(timeout=DEADLINE)


async def test_cancelled_requests_leave_no_credit_behind(narrow: Pair, cancelled: Way) -> None:
    """Each asks with a third of the room, and the callback there takes until all have been cancelled."""
    asking, answering = narrow.host_channel("nonebot-passive"), narrow.child_channel("nonebot-passive")
    gate = asyncio.Event()

    @answering.on_receive()
    async def answer(data: bytes) -> int:
        await gate.wait()
        return len(data)

    async with loops(narrow.child):
        for turns in TURNS:
            assert await cancelled(lambda: asking.request(b"q" * 400, timeout=DEADLINE), turns)
        gate.set()
        for _ in range(5):
            assert await asking.request(b"q" * 400, timeout=DEADLINE) == 400
        await eventually(lambda: asking.statistics().waiting_to_be_consumed == 0)


async def test_a_cancelled_iteration_keeps_its_messages(pair: Pair, cancelled: Way) -> None:
    incoming, outgoing = pair.child_channel("nonebot-active"), pair.host_channel("nonebot-active")
    received: list[int] = []

    async def iterate() -> None:
        async for number in incoming:
            received.append(number)
            await asyncio.sleep(0)

    for number in range(100):
        outgoing.send(number)
        with contextlib.suppress(asyncio.CancelledError):
            assert await cancelled(iterate, number % 4)
    while len(received) < 100:
        received.append(await incoming.areceive(DEADLINE))
    assert received == list(range(100))
