"""What nobody can read: refused at the sender, and where it lies all the same, an error for its reader alone."""

from __future__ import annotations

import asyncio
import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from naming import shown

from liteyuki_host.comm import Channel, codec
from liteyuki_host.comm.errors import NotANumber, RemoteError, ValueRefused, ValueUnreadable
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.topics import publish, subscribe
from tests.comm.pair_kit import logged

DEADLINE = 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Place:
    group: int


@dataclasses.dataclass(eq=False)
class ByIdentity:
    x: int


class Key(msgspec.Struct, frozen=True):
    a: int


@dataclasses.dataclass
class Holder:
    inside: Any


def nested_tuple(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = (value,)
    return value


Ext, Raw = msgspec.msgpack.Ext, msgspec.Raw
LONG = "x" * 1000

REFUSED: list[tuple[Any, str]] = [
    ({Place(1): 10}, r"a \S+\.Place as a key of a dict cannot travel"),
    ({Key(1): 10}, r"a \S+\.Key as a key of a dict cannot travel"),
    ({ByIdentity(1): 10}, r"a \S+\.ByIdentity as a key of a dict cannot travel"),
    ({(Place(1), 2): 10}, "a tuple as a key of a dict cannot travel"),
    ({nested_tuple(200): 10}, "the value is nested deeper than 200 levels"),
    ({"scores": [{nested_tuple(900): 10}]}, "the value is nested deeper than 200 levels"),
    ({"scores": [{Place(1): 10}]}, r"Place as a key of a dict cannot travel at \.scores\[0\]; a key is"),
    (Holder({Place(1): 10}), r"Place as a key of a dict cannot travel at \.inside"),
    (types.MappingProxyType({Place(1): 1}), r"Place as a key of a dict cannot travel"),
    (Ext(5, b"x"), "a value of type msgspec.msgpack.Ext cannot travel between processes"),
    (Ext(1, b"a-channel"), "a value of type msgspec.msgpack.Ext cannot travel"),
    (Ext(-1, b"\0\0\0\0"), "a value of type msgspec.msgpack.Ext cannot travel"),
    ({"a": {"b": Ext(5, b"x")}}, r"a value of type msgspec.msgpack.Ext cannot travel between processes at \.a\.b"),
    ([Holder(Ext(5, b""))], r"msgspec.msgpack.Ext cannot travel between processes at \[0\]\.inside"),
    (Raw(b'{"a":1}'), "a value of type msgspec.Raw cannot travel .*; this one holds no MessagePack value"),
    ({"a": [Raw(b'{"a":1}')]}, r"a value of type msgspec.Raw cannot travel between processes at \.a\[0\]"),
    ([Raw(b"")], r"a value of type msgspec.Raw cannot travel between processes at \[0\]"),
    ([Raw(b"\xa1\xff")], r"a value of type msgspec.Raw cannot travel between processes at \[0\]"),
    ([Raw(b"\xa2a"), "b"], r"a value of type msgspec.Raw cannot travel between processes at \[0\]"),
    ([Raw(msgspec.msgpack.encode({Place(1): 1}))], r"a value of type msgspec.Raw cannot travel"),
    ([Raw(msgspec.msgpack.encode(Ext(5, b"x")))], r"a value of type msgspec.Raw cannot travel"),
    (Holder(Raw(b"\x01\x02")), r"a value of type msgspec.Raw cannot travel between processes at \.inside"),
]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made
        assert made.listener.closed == []
        assert made.child.attached


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(("value", "words"), REFUSED, ids=shown)
def test_what_nobody_can_read_is_refused_everywhere(value: Any, words: str, size: str, pair: Pair) -> None:
    if size == "large":
        value, words = {"pad": LONG, "v": value}, words.partition(" at ")[0]
    memory = pair.child_memory
    memory.set("fine", 1)
    for send in (
        pair.child_channel("x").send,
        pair.host_channel("x").send,
        lambda value: memory.set("k", value),
        lambda value: memory.__setitem__("k", value),
        lambda value: memory.compare_and_set("k", {"other": 1}, value),
        lambda value: memory.compare_and_set("k", value, 1),
        lambda value: memory.update("k", lambda old: value),
        lambda value: publish("t", value, exchange=pair.child),
    ):
        with pytest.raises(ValueRefused, match=words):
            send(value)
    assert memory.get_all() == {"fine": 1}


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    payload: bytes


UNREADABLE = [
    Case("a dict as a key", msgspec.msgpack.encode({Place(1): 10})),
    Case("an extension", msgspec.msgpack.encode([Ext(5, b"x")])),
    Case("an extension alone", msgspec.msgpack.encode(Ext(5, b"x"))),
    Case("JSON", b'{"a":1}'),
    Case("nothing", b""),
    Case("half a text", b"\xa5ab"),
    Case("a text that is none", b"\xa2\xff\xfe"),
    Case("a list with a text that is none", b"\x91\xa2\xff\xfe"),
    Case("too deep", b"\x91" * 100_000 + b"\x01"),
    Case("a channel without a name", msgspec.msgpack.encode([Ext(1, b"")])),
]


@pytest.fixture(params=UNREADABLE, ids=lambda case: case.name)
def unreadable(request: pytest.FixtureRequest) -> bytes:
    case: Case = request.param
    return case.payload


def put_raw(pair: Pair, key: str, payload: bytes) -> None:
    """Write a payload as another implementation of the link might."""
    exchange = pair.child
    assert exchange.put(key, payload, None, False, None, may_wait=False)
    pair.child_memory.sync(timeout=DEADLINE)


def test_a_stored_value_that_cannot_be_read_is_an_error_for_its_reader(pair: Pair, unreadable: bytes) -> None:
    """Whoever compared it, or counted with it, lost its link, and the host killed its process."""
    put_raw(pair, "bad", unreadable)
    pair.child_memory.set("fine", [1])
    pair.child_memory.sync(timeout=DEADLINE)
    for memory in (pair.child_memory, pair.host_memory):
        with pytest.raises(ValueUnreadable, match=r"^shared_memory\['bad'\]: the value "):
            memory.get("bad")
        with pytest.raises(ValueUnreadable, match=r"^shared_memory\['bad'\]: "):
            memory["bad"]
        assert memory.get_all() == {"fine": [1]}
        with pytest.raises(ValueUnreadable, match=r"^shared_memory\['bad'\]: "):
            memory.update("bad", lambda value: value)
        assert memory.compare_and_set("bad", {"other": 1}, 1) is False
        with pytest.raises(NotANumber):
            memory.incr("bad")
        assert memory.get("fine") == [1]
        assert sorted(memory) == ["bad", "fine"]
    pair.child_memory.set("bad", "good again")
    pair.child_memory.sync(timeout=DEADLINE)
    assert pair.host_memory.get_all() == {"bad": "good again", "fine": [1]}


def test_get_all_leaves_it_out_and_says_so_once_for_each_value(pair: Pair, unreadable: bytes) -> None:
    """One such value kept everybody from reading all others."""
    host = pair.host_memory
    with logged() as lines:
        for number, good in enumerate(({"n": 1}, "text", 3)):
            pair.child_memory.set(f"fine{number}", good)
        put_raw(pair, "bad", unreadable)
        everything = {"fine0": {"n": 1}, "fine1": "text", "fine2": 3}
        for memory in (host, pair.child_memory):
            assert memory.get_all() == memory.get_all() == dict(memory.items()) == everything
        assert [line.partition(": ")[0] for line in lines] == [
            f"WARNING shared_memory['bad'], written by {pair.process}, is left out of get_all()",
            "WARNING shared_memory['bad'], written by another process, is left out of get_all()",
        ]
        lines.clear()
        put_raw(pair, "bad", unreadable)  # anew: told again
        put_raw(pair, "worse", unreadable)
        for _ in range(3):
            assert host.get_all() == everything
        assert len(lines) == 2
        lines.clear()
        host.delete("worse")
        host.set("bad", "good")
        assert host.get_all() == everything | {"bad": "good"}
        assert lines == []


def test_the_writer_is_the_one_of_the_last_write(pair: Pair) -> None:
    unreadable = msgspec.msgpack.encode([Ext(5, b"x")])
    assert pair.host.put("k", unreadable, None, False, None, may_wait=False)
    assert pair.host.writer_of("k") == "host"
    put_raw(pair, "k", unreadable)
    assert pair.host.writer_of("k") == pair.process
    assert pair.host_memory.update("k2", lambda old: 1, default=0) == 1
    assert pair.host.writer_of("k2") == "host"
    assert pair.child_memory.update("k2", lambda old: [old]) == [1]
    assert pair.host.writer_of("k2") == pair.process
    assert pair.host.writer_of("missing") == ""


def test_a_value_that_expires_and_cannot_be_read_is_an_error_too(pair: Pair, unreadable: bytes) -> None:
    assert pair.child.put("bad", unreadable, 60.0, False, None, may_wait=False)
    pair.child_memory.sync(timeout=DEADLINE)
    for memory in (pair.child_memory, pair.host_memory):
        with pytest.raises(ValueUnreadable):
            memory.get("bad")


async def test_the_forms_for_tasks_answer_too(pair: Pair, unreadable: bytes) -> None:
    assert pair.child.put("bad", unreadable, None, False, None, may_wait=False)
    memory = pair.child_memory
    await memory.async_(timeout=DEADLINE)
    assert await memory.acompare_and_set("bad", {}, {"x": 1}) is False
    with pytest.raises(NotANumber):
        await memory.aincr("bad")
    with pytest.raises(ValueUnreadable):
        await memory.aupdate("bad", lambda value: value)
    assert await memory.aset("bad", 2) > 0


def test_a_bot_that_starts_is_given_what_cannot_be_read_without_harm(unreadable: bytes) -> None:
    """The snapshot used to end the new bot's link, at each start."""
    with connected_pair() as pair:
        put_raw(pair, "bad", unreadable)
        pair.cut()
        pair.connect()
        assert sorted(pair.child_memory) == ["bad"]
        with pytest.raises(ValueUnreadable):
            pair.child_memory.get("bad")
        assert pair.child.attached


def test_a_watch_tells_of_it_and_goes_on(pair: Pair, unreadable: bytes) -> None:
    with pair.child_memory.watch("") as watch:
        put_raw(pair, "bad", unreadable)
        pair.child_memory.set("fine", 1)
        with pytest.raises(ValueUnreadable, match=r"^shared_memory\['bad'\]: "):
            next(iter(watch))
        assert next(iter(watch)).value == 1


def _raw(channel: Channel[Any], payload: bytes, flags: int = 0) -> None:
    """Send a payload as another implementation of the link might."""
    assert channel._usable_end().outbox.offer(payload, flags, may_wait=True)


@pytest.mark.parametrize("kind", [None, dict[str, int]], ids=["plain", "typed"])
def test_a_message_that_cannot_be_read_is_one_error(pair: Pair, unreadable: bytes, kind: Any) -> None:
    there, here = pair.host_channel("x", kind), pair.child_channel("x")
    _raw(here, unreadable)
    here.send({"a": 1})
    with pytest.raises(ValueUnreadable, match=r"^channel 'x': "):
        there.receive(DEADLINE)
    assert there.receive(DEADLINE) == {"a": 1}


async def test_a_callback_is_spared_it(pair: Pair, unreadable: bytes) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    pair.host.attach_loop(asyncio.get_running_loop())
    try:
        there, here = pair.host_channel("x"), pair.child_channel("x")
        there.on_receive()(got.put)
        _raw(here, unreadable)
        here.send("next")
        assert await asyncio.wait_for(got.get(), DEADLINE) == "next"
        assert there.statistics().last_error
    finally:
        pair.host.detach_loop()


async def test_a_question_that_cannot_be_read_is_answered_so(pair: Pair, unreadable: bytes) -> None:
    pair.host.attach_loop(asyncio.get_running_loop())
    try:
        there = pair.host_channel("x")
        there.on_receive()(lambda data: data)
        end = pair.child.end("x")
        end.use()
        number = end.requests.new()
        assert end.outbox.try_offer(unreadable, Flag.REQUEST, number) is True
        with pytest.raises(RemoteError, match="ValueUnreadable"):
            await end.requests.reply_to(number, DEADLINE)
    finally:
        pair.host.detach_loop()


async def test_an_answer_that_cannot_travel_is_told_to_the_asker(pair: Pair) -> None:
    pair.host.attach_loop(asyncio.get_running_loop())
    try:
        there, here = pair.host_channel("x"), pair.child_channel("x")
        there.on_receive()(lambda data: {Place(1): 1})
        with pytest.raises(RemoteError, match=r"ValueRefused: a \S+Place as a key of a dict cannot travel"):
            await here.request("question", timeout=DEADLINE)
    finally:
        pair.host.detach_loop()


async def test_a_publication_that_cannot_be_read_is_skipped(pair: Pair, unreadable: bytes) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()
    pair.host.attach_loop(asyncio.get_running_loop())
    try:
        subscribe("t", exchange=pair.host)(got.put)
        assert pair.child.publish("t", unreadable, 0, may_wait=False)
        publish("t", "next", exchange=pair.child)
        assert await asyncio.wait_for(got.get(), DEADLINE) == "next"
    finally:
        pair.host.detach_loop()


# --- objects that fail when they are looked at ----------------------------------------------------------------------


class NoClass:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class NoItems(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no items")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class NoText:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("kind", [NoClass, NoItems, NoText])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["alone", "inside"])
def test_what_fails_when_it_is_looked_at_is_refused_in_our_words(kind: Any, wrap: Any) -> None:
    value = wrap(kind())  # not a parameter: pytest looks at those
    with pytest.raises(ValueRefused, match=r"a value of type .*(NoClass|NoItems|NoText) cannot travel"):
        codec.encode(value)


class Int(int):
    pass


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def test_incr_takes_numbers_of_any_class_and_refuses_the_rest_in_our_words() -> None:
    with connected_pair() as pair:
        for memory in (pair.host_memory, pair.child_memory):
            memory.delete("n")
            assert memory.incr("n", Int(2), timeout=10) == 2
            for by in (NoText(), nested(), "1", None, True):
                with pytest.raises(NotANumber, match="cannot add"):
                    memory.incr("n", by, timeout=10)  # type: ignore[arg-type]
