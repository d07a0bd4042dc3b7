"""More than one child of one host, in memory; and waiting for facts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from loguru import logger

from liteyuki_host.comm import Channel
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.hub import SessionListener

__all__ = ["DEADLINE", "Child", "channel", "children", "eventually", "logged", "loops", "memory", "until"]

DEADLINE = 10.0


async def eventually(condition: Callable[[], object], *, deadline: float = DEADLINE) -> None:
    """Let the loop run until a fact that nobody announces is true."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        await asyncio.sleep(0.001)


def until(condition: Callable[[], object], *, deadline: float = DEADLINE) -> None:
    """The same in a test without a loop."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.001)


def channel(exchange: Exchange, name: str, kind: Any = None) -> Channel[Any]:
    return Channel(name, kind, exchange=exchange)


def memory(exchange: Exchange) -> SharedMemory:
    return SharedMemory(exchange)


class Listener(SessionListener):
    """Notes the greetings and the end of a child."""

    def __init__(self) -> None:
        self.hello: list[int] = []
        self.closed: list[str | None] = []

    def on_hello(self, pid: int) -> None:
        self.hello.append(pid)

    def on_closed(self, cause: str | None) -> None:
        self.closed.append(cause)


class Child:
    """One more child of a pair's host."""

    def __init__(self, pair: Pair, name: str, *, transports: Callable[[], tuple[Any, Any]] = memory_link) -> None:
        self.node = Node()
        self.name = name
        self.gone: list[str] = []
        self.stopped: list[str] = []
        self.listener = Listener()
        pair.host.declare_process(name)
        ours, theirs = transports()
        self.transports = (ours, theirs)
        self.session = pair.host.connect(name, ours, self.listener)
        self.node.attach(theirs, name, on_stop=self.stopped.append, on_host_gone=self.gone.append)

    def kill(self) -> None:
        """End its link without a goodbye; everybody knows when it returns."""
        for transport in self.transports:
            transport.close()
        self.session.link.join(DEADLINE)
        self.node.wait_detached(DEADLINE)


@contextlib.contextmanager
def children(*names: str, **limits: int) -> Iterator[tuple[Pair, list[Child]]]:
    """A host with a child ``nonebot`` (the pair's) and more."""
    with connected_pair(**limits) as pair:
        made = [Child(pair, name) for name in names]
        try:
            yield pair, made
        finally:
            for child in made:
                child.node.reset()


@contextlib.asynccontextmanager
async def loops(*exchanges: Exchange) -> AsyncIterator[None]:
    """Callbacks of these processes run on the test's loop."""
    for exchange in exchanges:
        exchange.attach_loop(asyncio.get_running_loop())
    try:
        yield
    finally:
        for exchange in exchanges:
            exchange.detach_loop()
        await asyncio.sleep(0)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Lines of the log, as `LEVEL message`."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(f"{message.record['level'].name} {message.record['message']}"))
    try:
        yield lines
    finally:
        logger.remove(sink)
