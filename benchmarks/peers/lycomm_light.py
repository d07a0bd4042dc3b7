"""A child without NoneBot, for what is about the child's half alone, or about many children.

The host starts its launcher as ever. That imports ``nonebot`` when everything else is in place, and in the project that
``lycomm.light_project`` makes finds this instead: an event loop that callbacks run on, and what a job does there. Or,
without a role, no event loop: a process that reads its channel in its one thread.

It imports nothing of the benchmarks, and asyncio only with a role: what this process has loaded is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from liteyuki_host.comm import active_channel, passive_channel, shared_memory, subscribe
from liteyuki_host.comm.errors import ChannelClosed
from liteyuki_host.comm.process.current import current_node

TOPIC = "benchmarks"

PART = 250
"""Publications after which a listener says that it has heard them."""


def run() -> None:
    """Live as a child until the host asks for the end, which interrupts this."""
    role, _, argument = os.environ.get("BENCHMARKS_ROLE", "").partition(" ")
    if role:
        import asyncio

        asyncio.run(_live(role, argument))
    else:
        _report_ready()
        _read()


async def _live(role: str, argument: str) -> None:
    import asyncio

    current_node().attach_loop(asyncio.get_running_loop())
    ROLES[role](argument)
    _report_ready()
    await asyncio.Event().wait()


def _report_ready() -> None:
    current_node().hooks_done(adapters=[])
    current_node().ready(address=None, details={})


def _read() -> None:
    """Answer what comes with what the shared memory has for it."""
    shared_memory["reader"] = os.getpid()
    while True:
        try:
            active_channel.send(shared_memory.get(active_channel.receive()))
        except ChannelClosed:
            return


def _nothing(argument: str) -> None:
    """Only the event loop."""


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
        import asyncio

        if isinstance(question, int):
            return await asyncio.to_thread(write, question)
        return await asyncio.to_thread(read, question)


ROLES: dict[str, Callable[[str], None]] = {"loop": _nothing, "sink": _sink, "listen": _listen, "store": _store}
