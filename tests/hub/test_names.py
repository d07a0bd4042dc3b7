"""Names of channels and topics: how long they are known, and that whoever uses one is not forgotten."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, channel, children, eventually, loops, until

from liteyuki_host.comm import topics
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.testing import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with children() as (made, _):
        yield made


def use_names(pair: Pair, count: int, *, prefix: str = "n") -> None:
    """Use so many names once, so that every process has looked for unused ones."""
    for number in range(count):
        channel(pair.child, f"{prefix}{number}").send(number)
        assert channel(pair.host, f"{prefix}{number}").receive(DEADLINE) == number


def test_a_name_that_nobody_uses_is_forgotten(pair: Pair) -> None:
    other = Child(pair, "other")
    use_names(pair, 400)
    assert channel(pair.child, "n1").statistics().sent == 0  # a new one
    for exchange in (pair.host, pair.child, other.node):
        until(lambda exchange=exchange: len(exchange.channel_names()) < 250)
        assert "nonebot-active" in exchange.channel_names()
    other.node.reset()


@pytest.mark.parametrize("user", ["host", "child"])
def test_a_name_with_a_handle_stays(pair: Pair, user: str) -> None:
    exchange = pair.host if user == "host" else pair.child
    kept = channel(exchange, "kept")
    kept.send("first")
    use_names(pair, 400)
    there = channel(pair.child if user == "host" else pair.host, "kept")
    assert there.receive(DEADLINE) == "first"
    use_names(pair, 400, prefix="m")
    assert "kept" in pair.host.channel_names()
    there.send("back")
    assert kept.receive(DEADLINE) == "back"
    assert kept.statistics().sent == 1


def test_an_unread_message_keeps_its_channel(pair: Pair) -> None:
    channel(pair.host, "letters").send("for later")
    channel(pair.child, "to the host").send("for later")
    use_names(pair, 400)
    assert channel(pair.child, "letters").receive(DEADLINE) == "for later"
    assert channel(pair.host, "to the host").receive(DEADLINE) == "for later"


async def test_a_callback_keeps_its_channel(pair: Pair) -> None:
    got: list[Any] = []
    async with loops(pair.child):
        channel(pair.child, "orders").on_receive()(got.append)
        await asyncio.to_thread(use_names, pair, 400)
        channel(pair.host, "orders").send("tea")
        await eventually(lambda: got == ["tea"])


def test_a_declared_name_stays_known(pair: Pair) -> None:
    other = Child(pair, "other")
    pair.child.declare("on purpose")
    pair.host.declare("by the host")
    use_names(pair, 400)
    for exchange in (pair.host, pair.child, other.node):
        assert {"on purpose", "by the host"} <= exchange.channel_names()
    other.node.reset()


def test_names_of_a_dead_incarnation_are_forgotten(pair: Pair) -> None:
    child = Child(pair, "short")
    for number in range(200):
        child.node.declare(f"of the first {number}")
    until(lambda: "of the first 199" in pair.host.channel_names())
    child.kill()
    use_names(pair, 100)
    assert "of the first 1" in pair.host.channel_names()  # it may come back
    again = Child(pair, "short")
    use_names(pair, 700, prefix="m")
    assert not [name for name in pair.host.channel_names() if name.startswith("of the first")]
    again.node.reset()


def test_a_greeting_has_room_for_all_names(pair: Pair) -> None:
    names = {f"{number}".ljust(200, "名") for number in range(2_000)}
    for name in names:
        pair.host.declare(name)
    child = Child(pair, "other")
    assert child.node.channel_names() >= names
    child.node.reset()


def test_a_channel_refused_to_many_names_costs_none(pair: Pair) -> None:
    other = Child(pair, "other")
    for number in range(300):
        here, there = channel(pair.host, f"two {number}"), channel(other.node, f"two {number}")
        here.send(number)
        assert there.receive(DEADLINE) == number
        try:
            channel(pair.child, f"two {number}").send("mine too")
        except Exception:
            pass
    until(lambda: len(pair.child.link.connection.streams) < 150)  # type: ignore[union-attr]
    other.node.reset()


async def test_a_topic_is_closed_behind_its_publications(pair: Pair) -> None:
    session = pair.host.session("nonebot")
    assert session is not None
    streams = session.link.connection.streams
    before = len(streams)
    async with loops(pair.child):
        got: list[Any] = []
        topics.subscribe("news", exchange=pair.child)(got.append)
        await eventually(lambda: len(streams) == before + 1)
        for number in range(100):
            topics.publish("news", number, exchange=pair.host)
        topics.unsubscribe("news", got.append, exchange=pair.child)
        await eventually(lambda: len(streams) == before)


async def test_who_subscribes_again_meanwhile_gets_publications(pair: Pair) -> None:
    session = pair.host.session("nonebot")
    assert session is not None
    async with loops(pair.child):
        for round_ in range(200):
            got = asyncio.Event()

            def note(data: int, got: asyncio.Event = got, round_: int = round_) -> None:
                if data == round_:
                    got.set()

            topics.subscribe("news", exchange=pair.child)(note)
            await asyncio.to_thread(session.link.ping, DEADLINE)
            await asyncio.to_thread(pair.child.link.ping, DEADLINE)  # type: ignore[union-attr]
            topics.publish("news", round_, exchange=pair.host)
            await asyncio.wait_for(got.wait(), DEADLINE)
            topics.unsubscribe("news", note, exchange=pair.child)


def test_messages_survive_names_that_come_and_go(pair: Pair) -> None:
    """The same few names, dropped and used again while their streams are being closed."""
    sent: dict[str, int] = {}
    for number in range(1_500):
        name = f"again {number % 7}"
        channel(pair.child, name).send(number)
        assert channel(pair.host, name).receive(DEADLINE) == number
        channel(pair.host, name).send(-number)
        assert channel(pair.child, name).receive(DEADLINE) == -number
        sent[name] = number
        if number % 3 == 0:
            pair.child._sweep()
            pair.host._sweep()


def test_an_older_child_is_told_nothing_new(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take what it does not know for a fault."""
    told: list[object] = []
    decode = m.decode_event

    def note(payload: bytes) -> m.Event:
        event = decode(payload)
        told.append(type(event))
        return event

    make = m.Hello
    monkeypatch.setattr(m, "Hello", lambda **fields: make(**{**fields, "closes": False}))
    old = Child(pair, "old")
    monkeypatch.setattr(m, "decode_event", note)
    for number in range(300):
        channel(old.node, f"o{number}").send(number)
        assert channel(pair.host, f"o{number}").receive(DEADLINE) == number
    use_names(pair, 300)
    assert m.Undeclared in told  # by the other child
    assert old.node.attached
    assert len(old.session.link.connection.streams) > 300
    old.node.reset()
