"""What a child sends is checked where the host takes it in: it ends the link of its sender, and nobody else's.

And what the host has to say about it is said without its lock: sinks of the log are code of the user's.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loguru import logger

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, Listener, channel, children, until

from liteyuki_host.comm import topics
from liteyuki_host.comm.codec import encode
from liteyuki_host.comm.protocol.frames import Flag, Kind
from liteyuki_host.comm.protocol.messages import PROTOCOL_VERSION, PUBLISH_STREAM, STORE_STREAM
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport.memory import memory_link

LIMIT = 100_000


def frame(kind: int, message: Any, *, flags: int = 0, stream: int = 0) -> bytes:
    payload = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
    return struct.pack("!IBBHI", len(payload), kind, flags, stream, 0) + payload


def publication(topic: Any, payload: Any = b"\xa1x", flags: Any = 0) -> bytes:
    return frame(Kind.MESSAGE, [topic, payload, flags], stream=PUBLISH_STREAM)


def request(*fields: Any) -> bytes:
    return frame(Kind.MESSAGE, list(fields), stream=STORE_STREAM)


BAD = {
    "an unknown flag": publication("t", flags=256),
    "a flag of a request": publication("t", flags=Flag.REQUEST),
    "a negative flag": publication("t", flags=-1),
    "a flag of another type": publication("t", flags="1"),
    "a topic without a name": publication(""),
    "a topic with a control character": publication("a\nb"),
    "a topic that is too long": publication("x" * 201),
    "a payload of another type": publication("t", payload="x"),
    "a payload beyond the limit": publication("t", payload=bytes(LIMIT + 1)),
    "a number that is too large": request(1, 2**63, "k", encode(1), None, False),
    "a negative number": request(1, -1, "k", encode(1), None, False),
    "a key that is too long": request(1, 1, "k" * 513, encode(1), None, False),
    "a time that is none": request(1, 1, "k", encode(1), math.nan, False),
    "a value beyond the limit": request(1, 1, "k", bytes(LIMIT + 1), None, False),
    "a compared value beyond the limit": request(4, 1, "k", None, bytes(LIMIT + 1), None),
    "a channel with a control character": request(8, 1, "a\nb"),
    "a stream of an unknown kind": frame(Kind.CONTROL, [3, 3, "pipe", "x"]),
    "a subscription with a control character": frame(Kind.CONTROL, [3, 3, "topic", "a\nb"]),
    "a message without credit": frame(Kind.CONTROL, [3, 3, "channel", "bad-active"])
    + frame(Kind.MESSAGE, b"x", flags=Flag.UNCREDITED, stream=3),
}


class Raw:
    """A child that writes whatever it likes."""

    def __init__(self, pair: Pair, name: str) -> None:
        pair.host.declare_process(name)
        ours, self._theirs = memory_link()
        self.listener = Listener()
        self.session = pair.host.connect(name, ours, self.listener)
        self.write(frame(Kind.CONTROL, [1, PROTOCOL_VERSION, name, 1, "x", 4 << 20, 16 << 20]))

    def write(self, data: bytes) -> None:
        self._theirs.write_all([data])

    def close(self) -> None:
        self._theirs.close()
        self.session.link.join(DEADLINE)


@pytest.fixture
def good() -> Iterator[tuple[Pair, Child, list[Any]]]:
    """A child that subscribes, has the shared memory, and answers."""
    with children("good", message_limit=LIMIT) as (pair, (child,)):
        heard: list[Any] = []
        topics.subscribe("t", exchange=child.node)(heard.append)
        yield pair, child, heard


@pytest.mark.parametrize("what", BAD)
def test_a_bad_message_ends_its_sender_s_link_only(good: tuple[Pair, Child, list[Any]], what: str) -> None:
    pair, child, _ = good
    bad = Raw(pair, "bad")
    try:
        bad.write(BAD[what])
        until(lambda: bad.listener.closed)
        cause = bad.listener.closed[0]
        assert cause is not None
        assert "bad broke the link's protocol" in cause
    finally:
        bad.close()
    assert child.session.link.ping(DEADLINE) is not None
    assert pair.host.session("good") is child.session
    channel(child.node, "good-active").send("still here")
    assert channel(pair.host, "good-active").receive(DEADLINE) == "still here"


def test_a_sink_that_sends_holds_nobody_up() -> None:
    """A message was reported lost while the host held its locks: the sink waited for room, the host for the sink."""
    with children(window=20_000) as (pair, _):
        alerts = channel(pair.host, "nonebot-passive")
        outbox = alerts._usable_end().outbox
        while outbox.offer(b"\x01" * 10):
            pass
        lines: list[str] = []

        def forward(message: str) -> None:
            lines.append(message)
            alerts.send(message)

        sink = logger.add(forward, level="WARNING", format="{message}", catch=True)
        try:
            for _ in range(5):
                pair.cut()
                pair.connect()
                session = pair.host.session("nonebot")
                assert session is not None
                assert session.link.ping(DEADLINE) is not None
            assert [line for line in lines if "1 message lost" in line]
        finally:
            logger.remove(sink)


def test_a_sink_may_not_wait_in_a_thread_of_lycomm() -> None:
    """It would wait for what that very thread brings."""
    with children() as (pair, _):
        waited: list[BaseException] = []

        def wait(message: str) -> None:
            try:
                channel(pair.host, "nonebot-active").receive(DEADLINE)
            except BaseException as error:
                waited.append(error)

        sink = logger.add(wait, level="ERROR", format="{message}")
        try:
            bad = Raw(pair, "bad")
            bad.session.link.on_opened = None  # type: ignore[assignment]  # a bug of ours, in words
            bad.write(frame(Kind.CONTROL, [3, 3, "channel", "bad-active"]))
            until(lambda: waited)
            bad.close()
        finally:
            logger.remove(sink)
        assert "called by a log sink" in str(waited[0])
