"""A child without NoneBot, for what is about the child's half alone, or about many children.

The host starts its launcher as ever. That imports ``nonebot`` when everything else is in place, and in the project that
``lycomm.light_project`` makes finds this instead: an event loop that callbacks run on, and what a job does there.

It imports nothing of the benchmarks: what this process has loaded is measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from liteyuki_host.comm import active_channel, passive_channel, shared_memory, subscribe
from liteyuki_host.comm.node import current

TOPIC = "benchmarks"

PART = 250
"""Publications after which a listener says that it has heard them."""


def run() -> None:
    """Live as a child until the host asks for the end, which interrupts this."""
    asyncio.run(_live())


async def _live() -> None:
    node = current()
    node.attach_loop(asyncio.get_running_loop())
    role, _, argument = os.environ.get("BENCHMARKS_ROLE", "").partition(" ")
    if role:
        ROLES[role](argument)
    node.hooks_done(adapters=[])
    node.ready(address=None, details={})
    await asyncio.Event().wait()


def _sink(argument: str) -> None:
    """The first message is a number; when so many more have come, say so."""
    left = 0

    @passive_channel.on_receive()
    async def take(value: object) -> None:
        nonlocal left
        if not left:
            assert isinstance(value, int)
            left = value
            return
        left -= 1
        if not left:
            await passive_channel.asend("done")


def _listen(argument: str) -> None:
    """So many subscribers of the topic; the last one says after each part that it has come."""
    for _ in range(int(argument) - 1):
        subscribe(TOPIC)(_ignore())
    heard = 0

    @subscribe(TOPIC)
    async def take(value: object) -> None:
        nonlocal heard
        heard += 1
        if not heard % PART:
            await active_channel.asend(heard)


def _ignore() -> Callable[[object], None]:
    return lambda value: None


def _store(argument: str) -> None:
    """Asked with a number of keys: write them all; asked with a key: read it many times. Answers the seconds."""

    def write(count: int) -> float:
        began = time.perf_counter()
        for number in range(count):
            shared_memory.set(f"key-{number}", number)
        shared_memory.sync(timeout=300)
        return time.perf_counter() - began

    def read(key: str) -> float:
        get = shared_memory.get
        began = time.perf_counter()
        for _ in range(100_000):
            get(key)
        return (time.perf_counter() - began) / 100_000

    @passive_channel.on_receive()
    async def work(question: int | str) -> float:
        if isinstance(question, int):
            return await asyncio.to_thread(write, question)
        return await asyncio.to_thread(read, question)


ROLES: dict[str, Callable[[str], None]] = {"sink": _sink, "listen": _listen, "store": _store}
