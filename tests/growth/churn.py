"""Churn: use names, topics, incarnations, watches, requests and locks again and again, and weigh what stays.

``pytest`` runs it in short form (``test_growth.py``). The long form, before a release or after a change of what it
covers, takes some minutes for each kind::

    python tests/growth/churn.py 100000            # all kinds
    python tests/growth/churn.py 100000 topics     # one of them

It prints for each kind what 100,000 rounds have added: objects of lycomm, tasks, descriptors, threads and memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, channel, eventually, memory

from liteyuki_host.comm import topics
from liteyuki_host.comm.errors import RequestTimeout
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.transport.posix import socket_link

__all__ = ["KINDS", "Churn", "churned"]

Round = Callable[["Churn", int], Awaitable[None]]
KINDS: dict[str, Round] = {}


def kind(function: Round) -> Round:
    KINDS[function.__name__] = function
    return function


class Churn:
    """A host and two children in one process, whose callbacks run on the current loop."""

    def __init__(self, pair: Pair, other: Child) -> None:
        self.pair = pair
        self.other = other
        self.host, self.child = pair.host, pair.child


@kind
async def names(churn: Churn, number: int) -> None:
    """A channel for one question and its answer, between a bot and the host."""
    here, there = channel(churn.host, f"reply-{number}"), channel(churn.child, f"reply-{number}")
    here.send(number)
    assert await there.areceive(DEADLINE) == number
    there.send("thanks")
    assert await here.areceive(DEADLINE) == "thanks"


@kind
async def names_between_bots(churn: Churn, number: int) -> None:
    here, there = channel(churn.child, f"pair-{number}"), channel(churn.other.node, f"pair-{number}")
    here.send(number)
    assert await there.areceive(DEADLINE) == number


@kind
async def names_in_messages(churn: Churn, number: int) -> None:
    """A channel sent through a channel, to be answered on."""
    line = channel(churn.child, "nonebot-active")
    reply = channel(churn.child, f"sent-{number}")
    line.send(["answer on", reply])
    _, back = await channel(churn.host, "nonebot-active").areceive(DEADLINE)
    channel(churn.host, back.name).send(number)
    assert await reply.areceive(DEADLINE) == number


@kind
async def names_with_callbacks(churn: Churn, number: int) -> None:
    line = channel(churn.child, f"asked-{number}")

    async def answer(data: Any) -> Any:
        return data

    line.on_receive()(answer)
    assert await channel(churn.host, f"asked-{number}").request(number, timeout=DEADLINE) == number
    line.remove(answer)


@kind
async def refused_names(churn: Churn, number: int) -> None:
    """A channel between two others."""
    if number % 5 == 0:  # as used by its two ends
        for exchange in (churn.host, churn.other.node):
            channel(exchange, f"taken-{number}").send(1)
            await channel(churn.host if exchange is not churn.host else churn.other.node, f"taken-{number}").areceive()
    with contextlib.suppress(Exception):
        channel(churn.child, f"taken-{number - number % 5}").send(number)
        await channel(churn.child, f"taken-{number - number % 5}").flush(timeout=DEADLINE)


@kind
async def subscribers(churn: Churn, number: int) -> None:
    """A topic with a subscriber in a bot and in the host, that goes while publications are on their way."""
    got = asyncio.Event()

    def once(data: Any) -> None:
        got.set()

    for exchange in (churn.child, churn.host):
        topics.subscribe(f"news-{number}", exchange=exchange)(once)
    await eventually(lambda: f"news-{number}" in churn.host.subscribers.counts())
    for publication in range(3):
        topics.publish(f"news-{number}", publication, exchange=churn.host)
    await got.wait()
    for exchange in (churn.child, churn.host):
        assert topics.unsubscribe(f"news-{number}", once, exchange=exchange) == 1


@kind
async def incarnations(churn: Churn, number: int) -> None:
    """A bot that comes, declares names of its own, leaves an unread message, and dies."""
    child = Child(churn.pair, "short", transports=socket_link)
    child.node.declare(f"of-{number}")
    channel(child.node, f"of-{number}").send(number)
    assert await channel(churn.host, f"of-{number}").areceive(DEADLINE) == number
    channel(child.node, "short-active").send("x" * 1_000)
    memory(child.node).set("mine", number, ephemeral=True)
    await asyncio.to_thread(child.session.link.ping, DEADLINE)
    await asyncio.to_thread(child.kill)
    child.node.reset()


@kind
async def watches(churn: Churn, number: int) -> None:
    for exchange in (churn.child, churn.host):
        store = memory(exchange)
        asyncio.get_running_loop().call_soon(store.set, f"key-{number % 10}", number)
        async for change in store.watch("key-"):
            assert change.key.startswith("key-")
            break


@kind
async def requests(churn: Churn, number: int) -> None:
    line = channel(churn.host, "nonebot-passive")
    assert await line.request(number, timeout=DEADLINE) == number
    if number % 20 == 0:
        with contextlib.suppress(RequestTimeout):
            await line.request("never", timeout=0.001)


@kind
async def locks(churn: Churn, number: int) -> None:
    """A lock of its own name, one that is waited for in vain, and one whose waiter is cancelled."""
    here, there = memory(churn.child), memory(churn.host)
    async with here.lock(f"lock-{number}"), here.lock("busy"):
        with contextlib.suppress(TimeoutError):
            async with memory(churn.other.node).lock("busy", timeout=0.0005):
                raise AssertionError("two have the lock")
        waiting = asyncio.create_task(there.lock("busy").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])


@kind
async def keys(churn: Churn, number: int) -> None:
    store = memory(churn.child)
    await store.aset(f"short-{number}", number, ttl=0.02)
    await store.aset("again", number, ttl=1_000.0)
    await store.aset(f"gone-{number}", [number])
    assert await store.adelete(f"gone-{number}")


@kind
async def losses(churn: Churn, number: int) -> None:
    churn.host.losses.add(f"lost-{number}", 1, f"because of {number}")


class Weight:
    """What there is now."""

    def __init__(self) -> None:
        gc.collect()
        self.objects: Counter[str] = Counter()
        for thing in gc.get_objects():
            of = type(thing)
            if str(of.__module__).startswith("liteyuki_host.") or of is asyncio.Task:
                self.objects[of.__name__] += 1
        self.descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        self.threads = threading.active_count()
        self.bytes = tracemalloc.get_traced_memory()[0]

    def added(self, before: Weight) -> dict[str, int]:
        """What has been added since *before*; ``bytes`` of Python's own memory."""
        objects = self.objects.copy()
        objects.subtract(before.objects)
        return {
            **{name: count for name, count in objects.items() if count > 0},
            "descriptors": self.descriptors - before.descriptors,
            "threads": self.threads - before.threads,
            "bytes": self.bytes - before.bytes,
        }


@contextlib.asynccontextmanager
async def _world() -> AsyncIterator[Churn]:
    loop = asyncio.get_running_loop()
    with connected_pair(window=1 << 16) as pair:  # small, so that what it bounds is full after the first rounds
        other = Child(pair, "other")
        for exchange in (pair.host, pair.child, other.node):
            exchange.attach_loop(loop)

        async def echo(data: Any) -> Any:
            if data == "never":
                await asyncio.sleep(0.01)
            return data

        channel(pair.child, "nonebot-passive").on_receive()(echo)
        serving = asyncio.create_task(pair.host.serve())
        try:
            yield Churn(pair, other)
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            for exchange in (pair.host, pair.child, other.node):
                exchange.detach_loop()
            other.node.reset()
            await asyncio.sleep(0)


async def churned(name: str, rounds: int, *, first: int = 300) -> dict[str, int]:
    """Do *rounds* of a kind after *first* others, and return what they have added.

    The first ones bring everything to its usual size: tables, pools, and the names that are kept until there are
    enough to look for unused ones.
    """
    work = KINDS[name]
    tracemalloc.start()
    try:
        async with _world() as churn:
            for number in range(first):
                await work(churn, number)
            await _settled(churn)
            before = Weight()
            for number in range(first, first + rounds):
                await work(churn, number)
            await _settled(churn)
            return Weight().added(before)
    finally:
        tracemalloc.stop()


async def _settled(churn: Churn) -> None:
    """Wait until what closes by agreement has closed, and short-lived keys are gone."""
    for _ in range(3):
        for session in churn.host.roster.everybody:
            await asyncio.to_thread(session.link.ping, DEADLINE)
        await asyncio.sleep(0.02)
    churn.host.losses.flush()


def main(rounds: int, *chosen: str) -> None:
    from loguru import logger

    logger.remove()
    for name in chosen or KINDS:
        begun = time.perf_counter()
        added = asyncio.run(churned(name, rounds))
        print(f"{name}: {rounds:,} rounds in {time.perf_counter() - begun:.0f} s added {added}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
