"""Checkpoints of the ``a...`` forms: the loop turns, a cancelled task does nothing, and trio is refused in words."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator

import anyio
import pytest
import trio
from a_forms import PLACES, Call, Forms, forms
from pair_kit import DEADLINE, loops, memory

from liteyuki_host.comm import Channel
from liteyuki_host.comm.errors import AsyncioNeeded, ChannelFull, WouldBlockEventLoop
from liteyuki_host.comm.testing import connected_pair
from liteyuki_host.comm.waiting.checkpoints import CALLBACK_SECONDS, TURN_SECONDS, checkpoint, is_cancelled, may_go_on

OF_MEMORY = ("aset", "adelete", "aincr", "acompare_and_set", "aupdate", "async_", "lock", "watch", "apublish")
ALL = (*OF_MEMORY, "asend", "flush", "areceive", "async for", "request")

SENDING = [name for name in ALL if name not in ("areceive", "async for", "watch")]
"""Those that leave a trace when they are done. The others have tests of their own."""


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Forms]:
    with forms(request.param) as made:
        yield made


def call_of(place: Forms, name: str) -> Call:
    if name not in place.all:
        pytest.skip("a process without a host has no channels")
    return place.all[name]


class Turns:
    """Counts the turns of the running loop."""

    def __init__(self) -> None:
        self.count = 0
        self._task = asyncio.ensure_future(self._turn())

    async def _turn(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1

    async def stop(self) -> int:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.count


# --- fairness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
async def test_the_loop_turns_during_many_calls(place: Forms, name: str) -> None:
    call = call_of(place, name)
    async with loops(*place.exchanges):
        turns = Turns()
        begun = time.perf_counter()
        calls = 0
        while time.perf_counter() - begun < 0.1 or calls < 20:
            await call()
            calls += 1
        taken = time.perf_counter() - begun
        turned = await turns.stop()
    # Far below one for each TURN_SECONDS: a busy machine takes the processor away for milliseconds.
    assert turned >= min(calls, taken / TURN_SECONDS) / 20


@pytest.mark.parametrize("name", ALL)
async def test_a_call_after_long_work_lets_the_loop_turn(place: Forms, name: str) -> None:
    call = call_of(place, name)
    async with loops(*place.exchanges):
        await call()
        turned = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turned.set_result, None)
        until = time.perf_counter() + 2 * TURN_SECONDS
        while time.perf_counter() < until:
            pass
        await call()
        assert turned.done()


@pytest.mark.parametrize("name", ALL)
async def test_a_time_limit_ends_endless_calls(place: Forms, name: str) -> None:
    call = call_of(place, name)
    async with loops(*place.exchanges):
        deadline = time.monotonic() + DEADLINE
        with anyio.move_on_after(0.02) as scope:
            while time.monotonic() < deadline:
                await call()
        assert scope.cancelled_caught


async def test_a_spinning_waiter_lets_the_holder_go_on(place: Forms) -> None:
    storage = memory(place.exchange)
    spun = 0

    async def hold() -> None:
        assert await storage.acompare_and_set("owner", None, "a")
        await asyncio.sleep(0.02)
        await storage.adelete("owner")

    async def spin() -> None:
        nonlocal spun
        while not await storage.acompare_and_set("owner", None, "b"):
            spun += 1

    await asyncio.wait_for(asyncio.gather(hold(), spin()), DEADLINE)
    assert spun


async def test_the_loop_turns_during_a_long_callback() -> None:
    with connected_pair(window=1 << 26) as pair:
        turned: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        outgoing = pair.child_channel("nonebot-active")

        @pair.child_channel("nonebot-passive").on_receive()
        async def callback(data: str) -> None:
            turns = Turns()
            begun = time.perf_counter()
            while time.perf_counter() - begun < 5 * CALLBACK_SECONDS:
                await outgoing.asend(data)
            turned.set_result(await turns.stop())

        async with loops(pair.child):
            pair.host_channel("nonebot-passive").send("begin")
            assert await asyncio.wait_for(turned, DEADLINE) >= 1


# --- cancelled before the call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SENDING)
async def test_nothing_is_done_in_a_cancelled_scope(place: Forms, name: str) -> None:
    call = call_of(place, name)
    before = place.traces()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call()
    assert scope.cancelled_caught
    assert place.traces() == before


@pytest.mark.parametrize("name", SENDING)
async def test_nothing_is_done_in_a_cancelled_task(place: Forms, name: str) -> None:
    call = call_of(place, name)
    before = place.traces()

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await call()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(cancelled())
    assert place.traces() == before


async def test_a_scope_cancelled_between_calls_counts() -> None:
    with forms("child") as place, anyio.CancelScope() as scope:
        await place.all["asend"]()
        sent = place.traces()["sent"]
        scope.cancel()
        await place.all["asend"]()
    assert place.traces()["sent"] == sent == 1


async def test_an_outer_cancelled_scope_counts_too() -> None:
    with forms("child") as place:
        with anyio.CancelScope() as outer, anyio.CancelScope():
            outer.cancel()
            await place.all["asend"]()
        assert place.traces()["sent"] == 0


async def test_a_shielded_call_in_a_cancelled_scope_is_done() -> None:
    with forms("child") as place:
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await place.all["asend"]()
        assert place.traces()["sent"] == 1


async def test_a_message_stays_for_a_cancelled_receiver() -> None:
    with connected_pair() as pair:
        pair.host_channel("nonebot-active").send("kept")
        incoming = pair.child_channel("nonebot-active")
        assert await incoming.areceive(DEADLINE) == "kept"
        pair.host_channel("nonebot-active").send("kept, too")
        while not incoming.statistics().waiting_to_be_read:
            await asyncio.sleep(0)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await incoming.areceive()
        assert await incoming.areceive(0) == "kept, too"


async def test_a_cancelled_watch_keeps_its_change() -> None:
    with connected_pair() as pair, pair.host_memory.watch() as watch:
        pair.host_memory["key"] = 1
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(aiter(watch))
        assert (await anext(aiter(watch))).value == 1


# --- what is known of the loop and of AnyIO ----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("cancelled", [None, 0, 1])
@pytest.mark.parametrize("shield", [False, True])
async def test_the_answer_is_that_of_anyio(depth: int, cancelled: int | None, shield: bool) -> None:
    scopes = [anyio.CancelScope(shield=shield and index == depth - 1) for index in range(depth)]
    answers: list[tuple[bool, bool]] = []

    def ask() -> None:
        answers.append((is_cancelled(), anyio.current_effective_deadline() == -math.inf))

    with contextlib.ExitStack() as stack:
        around = stack.enter_context(anyio.CancelScope())
        for scope in scopes:
            stack.enter_context(scope)
        if cancelled is not None and cancelled < depth:
            scopes[cancelled].cancel()
        ask()
        around.cancel()
        ask()
    assert all(ours == theirs for ours, theirs in answers)


async def test_after_a_checkpoint_it_may_go_on() -> None:
    await checkpoint()
    assert may_go_on()
    until = time.perf_counter() + 2 * TURN_SECONDS
    while time.perf_counter() < until:
        pass
    assert not may_go_on()


async def test_a_task_started_inside_a_scope_sees_it() -> None:
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(is_cancelled())
        group.cancel_scope.cancel()
        answers.append(is_cancelled())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
    assert answers == [False, True]


# --- trio ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_trio_is_refused_in_words(place: Forms, name: str) -> None:
    call = call_of(place, name)

    async def on_trio() -> None:
        with pytest.raises(AsyncioNeeded, match="run on asyncio, and this task runs on trio"):
            await call()

    trio.run(on_trio)


def test_a_guest_trio_is_refused_in_words() -> None:
    with forms("alone") as place:
        errors: list[BaseException] = []

        async def on_trio() -> None:
            try:
                await place.all["aset"]()
            except BaseException as error:
                errors.append(error)

        async def main() -> None:
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            trio.lowlevel.start_guest_run(
                on_trio,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=lambda outcome: over.set(),
            )
            await over.wait()

        asyncio.run(main())
    assert [type(error) for error in errors] == [AsyncioNeeded]


def test_no_loop_at_all_is_refused_in_words() -> None:
    with forms("alone") as place, pytest.raises(AsyncioNeeded, match="this thread runs no event loop"):
        place.all["aset"]().__await__().send(None)  # type: ignore[attr-defined]


def fill(channel: Channel[str]) -> None:
    while True:
        channel.send("x" * 1000)


def test_waiting_calls_refuse_to_block_trio() -> None:
    with connected_pair(window=4096) as pair:
        incoming, storage, outgoing = (
            pair.child_channel("nonebot-active"),
            pair.child_memory,
            pair.child_channel("nonebot-passive"),
        )

        async def on_trio() -> None:
            for call in (
                lambda: incoming.receive(timeout=0.1),
                lambda: storage.incr("n"),
                lambda: storage.compare_and_set("n", None, 1),
                lambda: storage.update("n", lambda value: 1),
                storage.sync,
                lambda: storage.lock("l").__enter__(),
                lambda: next(iter(storage.watch())),
            ):
                with pytest.raises(WouldBlockEventLoop, match="trio"):
                    call()
            with pytest.raises(ChannelFull):
                fill(outgoing)

        trio.run(on_trio)


def test_a_thread_of_trio_may_wait() -> None:
    with connected_pair() as pair:
        pair.host_channel("nonebot-active").send(1)
        incoming = pair.child_channel("nonebot-active")

        async def on_trio() -> int:
            value: int = await trio.to_thread.run_sync(lambda: incoming.receive(timeout=DEADLINE))
            return value

        assert trio.run(on_trio) == 1
