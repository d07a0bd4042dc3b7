"""Every ``a...`` form, in the host, in a child and without a host: what tests of all of them go through."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from pair_kit import Child, channel, memory

from liteyuki_host.comm import topics
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.testing import connected_pair
from liteyuki_host.comm.transport.memory import memory_link

__all__ = ["PLACES", "Call", "Forms", "forms"]

PLACES = ("host", "child", "alone")

Call = Callable[[], Awaitable[Any]]


def _links() -> tuple[Any, Any]:
    """What users have, where it can be made in one process; else the memory link."""
    if sys.platform == "win32":
        return memory_link()
    from liteyuki_host.comm.transport.posix import socket_link

    return socket_link()


class Forms(NamedTuple):
    """The forms of one place.

    Attributes:
        exchange: of the process that calls.
        exchanges: all that need a loop for their callbacks.
        all: the forms by name. Each can be called again and again.
        traces: what any of them would leave behind, had it been done.
    """

    exchange: Exchange
    exchanges: list[Exchange]
    all: dict[str, Call]
    traces: Callable[[], dict[str, Any]]


@contextlib.contextmanager
def forms(place: str) -> Iterator[Forms]:
    """The forms in *place*, one of :data:`PLACES`."""
    with connected_pair(window=1 << 26) as pair:
        child = Child(pair, "bot", transports=_links)
        try:
            if place == "alone":
                yield _forms(Node(), None)
            else:
                here, there = (pair.host, child.node) if place == "host" else (child.node, pair.host)
                yield _forms(here, there)
        finally:
            child.node.reset()


def _forms(here: Exchange, there: Exchange | None) -> Forms:
    storage = memory(here)
    heard: list[Any] = []

    async def lock() -> None:
        async with storage.lock("a lock"):
            pass

    async def changed() -> None:
        with storage.watch("watched") as watch:
            storage["watched"] = 1
            storage["watched"] = 2
            async for change in watch:
                if change.value == 2:
                    return

    calls: dict[str, Call] = {
        "aset": lambda: storage.aset("key", 1),
        "adelete": lambda: storage.adelete("kept"),
        "aincr": lambda: storage.aincr("number"),
        "acompare_and_set": lambda: storage.acompare_and_set("compared", None, 1),
        "aupdate": lambda: storage.aupdate("updated", lambda value: 1),
        "async_": storage.async_,
        "lock": lock,
        "watch": changed,
        "apublish": lambda: topics.apublish("news", 1, exchange=here),
    }
    storage["kept"] = 1
    topics.subscribe("news", exchange=there or here)(heard.append)
    received: list[Any] = []
    if there is not None:
        out, incoming = channel(here, "bot-passive"), channel(here, "bot-active")
        channel(there, "bot-passive").on_receive()(received.append)
        sender = channel(there, "bot-active")

        async def areceive() -> None:
            sender.send(1)
            sender.send(2)
            assert await incoming.areceive(5) == 1
            assert await incoming.areceive(5) == 2

        async def iteration() -> None:
            sender.send(1)
            sender.send(2)
            async for message in incoming:
                if message == 2:
                    return

        calls["asend"] = lambda: out.asend("message")
        calls["flush"] = out.flush
        calls["areceive"] = areceive
        calls["async for"] = iteration
        calls["request"] = lambda: out.request("question", timeout=5)

    def traces() -> dict[str, Any]:
        return {
            "values": storage.get_all(),
            "received": received,
            "heard": heard,
            "sent": 0 if there is None else out.statistics().sent,
        }

    return Forms(here, [here] if there is None else [here, there], calls, traces)
