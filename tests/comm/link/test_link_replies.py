"""Replies need no credit; what keeps them from piling up is that each waits for the ones before it to leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from liteyuki_host.comm.link import Link
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.messages import PROTOCOL_VERSION, Hello

WINDOW = 64 * 1024


class StuckTransport:
    """A peer that does not read until it is let go."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.closed = threading.Event()

    def read_into(self, buffer: memoryview) -> int:
        self.closed.wait(10)
        return 0

    def try_write(self, buffers: Sequence[Any]) -> int:
        return 0

    def write_all(self, buffers: Sequence[Any]) -> None:
        self.reading.wait(10)

    def close(self) -> None:
        self.reading.set()
        self.closed.set()


class Nobody:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


async def test_a_replier_waits_while_its_replies_do_not_leave() -> None:
    transport = StuckTransport()
    hello = Hello(version=PROTOCOL_VERSION, process="a", pid=1, window=WINDOW)
    link = Link(transport, Connection(Role.CHILD, hello), Nobody(), name="stuck")
    link.start()
    stream = link.open_stream("channel", "c")
    link.send(stream, b"x" * 1000, Flag.REPLY, 1)
    await asyncio.wait_for(link.replies_written(), 5)  # few: at once
    for number in range(3):
        link.send(stream, b"x" * WINDOW, Flag.REPLY, number)
    waiting = asyncio.ensure_future(link.replies_written())
    assert not (await asyncio.wait({waiting}, timeout=0.05))[0]
    transport.reading.set()
    await asyncio.wait_for(waiting, 5)
    link.send(stream, b"x" * WINDOW, Flag.REPLY, 4)
    transport.close()
    await asyncio.wait_for(link.replies_written(), 5)  # an ended link holds nobody up
    link.join(5)
