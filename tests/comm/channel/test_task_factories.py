"""Loops with a task factory of their own: asyncio's eager one (from Python 3.12 on) runs a task's first step inside of
``create_task``; others wrap the coroutine."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, eventually, loops, memory

from liteyuki_host.comm import publish, subscribe
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.transport.posix import socket_link


def wrapping(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    """As tools for tracing have it."""

    async def wrapped() -> Any:
        return await coro

    return asyncio.Task(wrapped(), loop=loop, **options)


FACTORIES: dict[str, Any] = {"wrapping": wrapping}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:  # not made for Windows
    pass
else:
    _first = uvloop.new_event_loop()
    _first.run_until_complete(asyncio.sleep(0))  # libuv opens a pipe that stays open as long as the process
    _first.close()
    LOOPS["uvloop"] = uvloop.new_event_loop

COMBINATIONS = [f"{factory} {loop}" for factory in FACTORIES for loop in LOOPS]
if sys.version_info >= (3, 13) and "eager_start" not in inspect.signature(FACTORIES["eager"]).parameters:
    # uvloop passes that argument since CPython 3.13; asyncio's own factory takes it since 3.13.3.
    COMBINATIONS = [combination for combination in COMBINATIONS if combination != "eager uvloop"]

Run = Callable[[Callable[[Pair], Awaitable[None]]], None]


@pytest.fixture(params=COMBINATIONS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on a loop with one of the factories; both halves of a pair call back there."""
    factory, kind = request.param.split()
    loop = LOOPS[kind]()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    loop.set_task_factory(FACTORIES[factory])

    async def with_pair(test: Callable[[Pair], Awaitable[None]]) -> None:
        pair = Pair("nonebot", Node(), socket_link)
        try:
            async with loops(pair.child, pair.host):
                await asyncio.wait_for(test(pair), DEADLINE)
        finally:
            pair.close()

    yield lambda test: loop.run_until_complete(with_pair(test))
    loop.close()
    assert complaints == []


def test_callbacks_answer_in_order(run: Run) -> None:
    """With the eager factory no callback was ever called, and nothing said so."""

    async def test(pair: Pair) -> None:
        @channel(pair.child, "x").on_receive()
        async def callback(data: int) -> int:
            if data % 2:
                await asyncio.sleep(0)
            return data

        asked = [channel(pair.host, "x").request(number) for number in range(10)]
        assert await asyncio.gather(*asked) == list(range(10))

    run(test)


def test_lone_messages_reach_sync_callback(run: Run) -> None:
    async def test(pair: Pair) -> None:
        got: list[int] = []
        done = asyncio.Event()

        @channel(pair.child, "x").on_receive()
        def callback(data: int) -> None:
            got.append(data)
            channel(pair.host, "x").send(data + 1) if data < 5 else done.set()

        channel(pair.host, "x").send(0)
        await done.wait()
        assert got == list(range(6))

    run(test)


def test_callback_starts_eager_tasks(run: Run) -> None:
    async def test(pair: Pair) -> None:
        @channel(pair.child, "x").on_receive()
        async def callback(data: int) -> list[object]:
            async def work() -> str | None:
                first = asyncio.current_task()
                await asyncio.sleep(0)
                return first.get_name() if first is asyncio.current_task() and first is not None else None

            inner = asyncio.create_task(work(), name="inner")
            mine = asyncio.current_task()
            return [await inner, mine is asyncio.current_task()]

        assert await channel(pair.host, "x").request(1) == ["inner", True]

    run(test)


def test_registration_calls_no_callback(run: Run) -> None:
    """What has waited is handled once the code that registers has let the loop turn."""

    async def test(pair: Pair) -> None:
        await asyncio.to_thread(channel(pair.host, "x").send, "waits")
        await memory(pair.child).async_()
        got: list[str] = []
        done = asyncio.Event()
        channel(pair.child, "x").on_receive()(lambda data: (got.append(data), done.set()))
        assert got == []
        await done.wait()
        assert got == ["waits"]

    run(test)


def test_topics_and_watches_reach_callbacks(run: Run) -> None:
    async def test(pair: Pair) -> None:
        got: asyncio.Queue[object] = asyncio.Queue()
        subscribe("news", exchange=pair.child)(got.put)
        memory(pair.child).watch("key")(lambda change: got.put_nowait(change.value))
        await memory(pair.child).async_()
        publish("news", "published", exchange=pair.host)
        assert await got.get() == "published"
        await memory(pair.host).aset("key", "written")
        assert await got.get() == "written"

    run(test)


async def test_detaching_before_first_step() -> None:
    """The task that was cancelled then kept the queue for ever: nothing was received any more."""
    with connected_pair() as pair:
        got: list[str] = []
        done = asyncio.Event()
        here = channel(pair.child, "x")
        here.on_receive()(lambda data: (got.append(data), done.set()))
        await asyncio.to_thread(channel(pair.host, "x").send, "waits")
        await eventually(lambda: here.statistics().received)
        async with loops(pair.child):
            pair.child.detach_loop()
        async with loops(pair.child):
            await asyncio.wait_for(done.wait(), DEADLINE)
            assert got == ["waits"]
