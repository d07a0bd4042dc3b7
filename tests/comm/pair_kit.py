"""Pairs over each kind of link, more than one child of one host; and waiting for facts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from links import LINKS, Maker
from loguru import logger

from liteyuki_host.comm import Channel, testing
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.hub import SessionListener

__all__ = [
    "DEADLINE",
    "Child",
    "Gate",
    "channel",
    "children",
    "connected_pair",
    "each_link",
    "eventually",
    "gated",
    "logged",
    "loops",
    "make_link",
    "memory",
    "until",
]

DEADLINE = 10.0

_maker: Maker = memory_link
_made: list[Transport] | None = None  # while `each_link` is in use: what it closes


@pytest.fixture(params=LINKS)
def each_link(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test once over each kind of link: every pair and child that it makes is joined by it."""
    global _maker, _made
    _maker, _made = LINKS[request.param], []
    before = set(threading.enumerate())
    yield
    made, _maker, _made = _made, memory_link, None
    for transport in made:  # one that no link has taken is nobody else's to close
        transport.close()
    for thread in set(threading.enumerate()) - before:  # no descriptor may go while a thread reads it
        if thread.name.startswith("lycomm-"):
            thread.join(DEADLINE)
    for transport in made:
        getattr(transport, "release", lambda: None)()


def make_link() -> tuple[Transport, Transport]:
    """The two ends of a link of the kind that the test runs over; closed after it."""
    ours, theirs = _maker()
    if _made is not None:
        _made.extend((ours, theirs))
    return ours, theirs


def connected_pair(process: str = "nonebot", **options: Any) -> contextlib.AbstractContextManager[Pair]:
    """A pair that is joined by the link of the test, see :func:`each_link`; otherwise the test kit's."""
    return testing.connected_pair(process, **{"transports": make_link, **options})


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

    def __init__(self, pair: Pair, name: str, *, transports: Maker | None = None) -> None:
        self.node = Node()
        self.name = name
        self.gone: list[str] = []
        self.stopped: list[str] = []
        self.listener = Listener()
        pair.host.declare_process(name)
        ours, theirs = (transports or make_link)()
        self.transports = (ours, theirs)
        self.session = pair.host.connect(name, ours, self.listener)
        self.node.attach(theirs, name, on_stop=self.stopped.append, on_host_gone=self.gone.append)

    def kill(self) -> None:
        """End its link without a goodbye; everybody knows when it returns."""
        for transport in self.transports:
            transport.close()
        self.session.link.join(DEADLINE)
        self.node.wait_detached(DEADLINE)


class Gate:
    """A transport whose reads wait at a gate: a process that does not read its link."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.open = threading.Event()
        self.open.set()

    def read_into(self, buffer: memoryview) -> int:
        count = self._inner.read_into(buffer[:4096])
        self.open.wait(DEADLINE)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def gated() -> tuple[Any, Any]:
    """A link whose child's end is behind a :class:`Gate`."""
    ours, theirs = memory_link()
    return ours, Gate(theirs)


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
