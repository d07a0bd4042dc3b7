"""What comes while a stream is being opened."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, eventually, loops, until

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import Callback
from liteyuki_host.comm.codec import decode_payload
from liteyuki_host.comm.testing import Pair, connected_pair


class Early:
    """The host sends on a stream as soon as the child has asked for it, before the child gets to do anything else: so
    it happens on one core."""

    def __init__(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        link = pair.child.link
        assert link is not None
        self._pair = pair
        self._arrived = threading.Event()
        self._published = False
        self._link, self._received, self._write = link, link.received, link.transport.try_write
        monkeypatch.setattr(link, "received", self.received)
        monkeypatch.setattr(link.transport, "try_write", self.try_write)

    def received(self, *what: Any) -> Any:
        if self._published:  # it is read; to handle it, the reader waits until the topic has been announced
            self._arrived.set()
        told = self._received(*what)
        if any(stream.key[1] == "early" and stream.received for stream in self._link.connection.streams.values()):
            self._arrived.set()
        return told

    def try_write(self, buffers: Any) -> int:
        taken = self._write(buffers)
        written = b"".join(map(bytes, buffers))
        if b"early" in written:
            if b"topic" in written:
                until(lambda: "early" in self._pair.host.subscribers.counts())
                self._published = True
                self._pair.host.publish("early", codec.encode("first"), 0, may_wait=False)
            assert self._arrived.wait(DEADLINE)
        return taken


async def test_a_message_on_a_channel_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected_pair() as pair:
        Early(pair, monkeypatch)
        channel(pair.host, "early").send("first")
        assert await asyncio.to_thread(channel(pair.child, "early").receive, DEADLINE) == "first"


async def test_a_publication_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected_pair() as pair:
        Early(pair, monkeypatch)
        got: list[str] = []
        async with loops(pair.child):
            await asyncio.to_thread(pair.child.subscribe, "early", Callback(got.append, None, decode_payload))
            await eventually(lambda: got == ["first"])
