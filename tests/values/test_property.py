"""For every value: it is refused in our words, with its place, or everybody can decode it, to its plain form."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import ipaddress
import math
import pathlib
import re
import subprocess
import sys
import typing
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liteyuki_host.comm import codec
from liteyuki_host.comm.codec import encoding, quick
from liteyuki_host.comm.codec.differences import difference
from liteyuki_host.comm.codec.plain import is_safe
from liteyuki_host.comm.errors import ValueRefused, ValueTooLarge, ValueUnreadable

pytestmark = pytest.mark.slow


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    TWO = (1, 2)
    NONE = object()


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Number(int):
    pass


@dataclasses.dataclass(frozen=True)
class Place:
    a: Any
    b: Any = None


class Shape(msgspec.Struct, frozen=True):
    a: Any


class Row(msgspec.Struct, frozen=True, array_like=True):
    a: Any


class Pair(typing.NamedTuple):
    a: Any
    b: Any = 2


class Unknown:
    pass


ZONES = st.sampled_from(
    [dt.timezone.utc, dt.timezone(dt.timedelta(hours=5, minutes=45)), dt.timezone(dt.timedelta(seconds=7))]
)
numbers = st.integers(-(2**65), 2**65) | st.integers(-3, 3) | st.floats() | st.decimals() | st.booleans()
texts = (
    st.text(max_size=5) | st.text(alphabet=st.characters(codec=None), max_size=2) | st.sampled_from(["red", "1", "a"])
)
times = st.dates() | st.times(timezones=st.none() | ZONES) | st.timedeltas() | st.datetimes(timezones=st.none() | ZONES)
others = st.one_of(
    st.none(),
    st.binary(max_size=5),
    st.uuids(),
    st.sampled_from(Colour),
    st.just(Level.HIGH),
    st.builds(Text, st.text(max_size=3)),
    st.builds(Number, st.integers(-3, 3)),
    st.builds(pathlib.PurePosixPath, st.sampled_from(["a", "b/c"])),
    st.ip_addresses(),
    st.builds(msgspec.Raw, st.binary(max_size=6)),
    st.builds(lambda value: msgspec.Raw(msgspec.msgpack.encode(value)), st.integers(-3, 3) | st.text(max_size=2)),
    st.builds(msgspec.msgpack.Ext, st.integers(-2, 3), st.binary(max_size=4)),
    st.sampled_from([1j, range(3), re.compile("x"), print, msgspec.UNSET, memoryview(b"abcd")[::2], Unknown()]),
)
FLAT = [numbers, texts, times, others]
CONTAINERS = [
    list,
    tuple,
    dict,
    set,
    Place,
    Shape,
    Row,
    Pair,
    collections.OrderedDict,
    collections.UserDict,
    collections.deque,
]


@st.composite
def values(draw: st.DrawFn, depth: int = 3) -> Any:
    kind = draw(st.sampled_from([None, *CONTAINERS])) if depth else None
    if kind is None:
        return draw(draw(st.sampled_from(FLAT)))
    inner = values(depth - 1)
    if issubclass(kind, (dict, collections.UserDict)):
        return kind(draw(st.dictionaries(inner.filter(_hashable), inner, max_size=3)))
    if kind in (list, tuple, collections.deque):
        return kind(draw(st.lists(inner, max_size=3)))
    if kind is set:
        return draw(st.sets(inner.filter(_hashable), max_size=3))
    return kind(*(draw(inner) for _ in range(1 if kind in (Shape, Row) else 2)))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):
        return False
    return True


def plain_form(value: Any) -> Any:
    """What the page of values says that *value* arrives as."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return plain_form(value.value)
    if value is None or kind in (bool, float):
        return value
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value)
    if kind is dt.datetime:
        return value.isoformat() if value.tzinfo is None else value.astimezone(dt.timezone.utc)
    if kind in (dt.date, dt.time):
        return msgspec.json.decode(msgspec.json.encode(value))
    if kind is dt.timedelta:
        return msgspec.json.decode(msgspec.json.encode(value))
    if isinstance(value, (decimal.Decimal, uuid.UUID, pathlib.PurePath, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return str(value)
    if kind is msgspec.Raw:
        return msgspec.msgpack.decode(value)
    if kind is Row:
        return [plain_form(value.a)]
    if kind in (Place, Shape):
        names = ("a", "b") if kind is Place else ("a",)
        found = {name: getattr(value, name) for name in names}
        return {name: plain_form(item) for name, item in found.items() if item is not msgspec.UNSET}
    if isinstance(value, Mapping):
        return {_as_key(plain_form(key)): plain_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, collections.deque, set, frozenset)):
        return [plain_form(item) for item in value]
    raise AssertionError(f"{value!r} should have been refused")


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Equal, with types and NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)


PAD = ["", "x" * 300]


@pytest.mark.parametrize("pad", PAD, ids=["small", "large"])
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=values())
def test_what_is_accepted_arrives_as_the_plain_form_and_the_rest_is_refused(pad: str, value: Any) -> None:
    sent = [pad, value] if pad else value
    try:
        payload = codec.encode(sent)
    except ValueRefused as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert re.search(r"cannot travel|nested deeper|would be one key", refused)
        return
    arrived = codec.decode(payload)
    assert same(arrived, plain_form(sent)), (arrived, plain_form(sent))


KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats()),
    (str, st.text()),
    (bytes, st.binary()),
    (dt.datetime, st.datetimes(timezones=st.none() | ZONES)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (decimal.Decimal, st.decimals()),
    (uuid.UUID, st.uuids()),
    (Level, st.just(Level.HIGH)),
    (list[set[int]], st.lists(st.sets(st.integers(-9, 9)))),
    (dict[int, tuple[str, bool]], st.dictionaries(st.integers(-9, 9), st.tuples(st.text(), st.booleans()))),
    (Place, st.builds(Place, st.integers(-9, 9) | st.none() | st.text(), st.lists(st.integers(-9, 9)))),
    (Shape, st.builds(Shape, st.floats() | st.binary())),
    (Row, st.builds(Row, st.booleans())),
    (Pair, st.builds(Pair, st.integers(-9, 9), st.just(2))),
    (ipaddress.IPv4Address, st.ip_addresses(v=4)),
]


@pytest.mark.parametrize(("kind", "strategy"), KINDS, ids=lambda value: f"{value!r:.30}")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_value_of_the_channels_type_arrives_equal(
    kind: Any, strategy: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(strategy)
    decoder = codec.TypedDecoder[Any](kind)
    try:
        payload = codec.encode(value)
    except ValueRefused:
        assert isinstance(value, dt.datetime)  # the first or last hours that there are
        return
    decoder.check(value, payload)
    arrived = decoder.decode(payload)
    assert type(arrived) is type(value)
    assert difference(arrived, value) is None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([int, list[int], Place, Pair, dict[str, Any]]))
def test_any_bytes_are_a_value_or_one_kind_of_error(payload: bytes, kind: Any) -> None:
    for decode in (codec.decode, codec.TypedDecoder[Any](kind).decode):
        try:
            decode(payload)
        except ValueUnreadable:
            pass


@settings(max_examples=200, deadline=None)
@given(values(), st.sampled_from([int, str, list[Any], Place, Pair, dict[str, Any], dt.datetime, float]))
def test_a_typed_channel_refuses_in_one_kind_of_error(value: Any, kind: Any) -> None:
    decoder = codec.TypedDecoder[Any](kind)
    try:
        payload = codec.encode(value)
        decoder.check(value, payload)
    except (ValueRefused, ValueTooLarge):
        return
    decoder.decode(payload)


# --- the quick way and the thorough one -----------------------------------------------------------------------------


class AnyCase(str):
    """A text as a key of its own kind: equal whatever its case, and so beside a text that it travels as."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Table(dict[Any, Any]):
    pass


HAS_ORMSGPACK = importlib.util.find_spec("ormsgpack") is not None


def ways() -> list[str]:
    """ormsgpack is not there for every machine."""
    return ["with ormsgpack", "without ormsgpack"] if HAS_ORMSGPACK else ["without ormsgpack"]


@pytest.fixture(params=ways())
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without ormsgpack":
        monkeypatch.setattr(quick, "pack", None)
    return str(request.param)


def thoroughly(value: Any) -> bytes | None:
    """The payload of the thorough way alone; None where it refuses."""
    try:
        payload = encoding.encode_plain(value)
        encoding._check(value, payload)
    except Exception:
        return None
    return payload


def nest(value: Any, levels: int, key: str | None) -> Any:
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


keys = st.one_of(
    st.text(max_size=3),
    st.builds(AnyCase, st.sampled_from(["a", "A", "red"])),
    st.sampled_from(["a", "A", "1", 1, True, 1.0, None, b"a", (1, "a"), float("nan"), 2**64, Colour.RED, Level.HIGH]),
    st.sampled_from([Place(1), Shape(1), Row(1), Pair(1), dt.date(2026, 1, 1), "2026-01-01", Text("a"), Number(1)]),
    st.times(timezones=st.none() | ZONES),
)
leaves = st.one_of(
    numbers,
    texts,
    times,
    others,
    st.binary(max_size=4).map(bytearray),
    st.binary(max_size=4).map(memoryview),
    st.sampled_from(["机器人" * 200, bytes(range(256)), "x" * 300, [1] * 300, {}, [], ()]),
    st.sampled_from([Text("a"), Number(1), Table(a=1), Colour.RED, 1j, print])
    if not HAS_ORMSGPACK
    else st.builds(quick.ormsgpack.Ext, st.integers(0, 5), st.binary(max_size=3)),
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=6).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=6),
        st.dictionaries(keys, inner, max_size=6),
        st.dictionaries(keys, inner, max_size=3).map(Table),
    ),
    max_leaves=12,
)


@settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    value=nested | st.dictionaries(keys, leaves, max_size=5) | st.lists(leaves, max_size=5),
    levels=st.sampled_from([0, 0, 0, 0, 50, 190, 200, 201, 254]),
    key=st.none() | st.just("k"),
)
def test_what_the_quick_way_takes_the_thorough_way_takes_alike(way: str, value: Any, levels: int, key: Any) -> None:
    value = nest(value, levels, key)
    sent = codec.encode_quickly(value)
    if sent is not None:
        assert sent == thoroughly(value)
    try:
        payload = encoding.encode_plain(value)
    except Exception:
        return
    if is_safe(value, payload):
        assert payload == thoroughly(value)


@pytest.mark.skipif(not HAS_ORMSGPACK, reason="ormsgpack is not there")
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=nested, pad=st.sampled_from(PAD))
def test_both_quick_ways_lead_to_one_answer(value: Any, pad: str) -> None:
    sent = {"pad": pad, "value": value} if pad else value
    answers = []
    for without in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if without:
                patch.setattr(quick, "pack", None)
            try:
                answers.append(codec.encode(sent))
            except ValueRefused as error:
                answers.append(str(error).encode())
    assert answers[0] == answers[1]


FOREIGN = [
    Place(1),
    Shape(1),
    Row(1),
    Pair(1),
    AnyCase("a"),
    Text("a"),
    Number(1),
    Colour.RED,
    Level.HIGH,
    1,
    (1,),
    1.5,
]


@pytest.mark.parametrize("size", ["small", "large", "wide"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=repr)
def test_the_quick_way_takes_texts_as_keys_only_and_exact_types(way: str, foreign: Any, size: str) -> None:
    rest = {"small": {}, "large": {"pad": "x" * 300}, "wide": {str(number): number for number in range(9)}}[size]
    for value in ({foreign: 1, **rest}, {**rest, "k": [{foreign: None}]}):
        assert way == "without ormsgpack" or codec.encode_quickly(value) is None
        payload = codec.encode_quickly(value)
        assert payload is None or payload == thoroughly(value)
    if type(foreign) not in (int, float, tuple):
        for value in ({"k": foreign, **rest}, [foreign, rest]):
            payload = codec.encode_quickly(value)
            assert payload is None or (way == "without ormsgpack" and payload == thoroughly(value))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=60,
)


@pytest.mark.skipif(not HAS_ORMSGPACK, reason="ormsgpack is not there")
@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_plain_data_takes_the_quick_way(value: Any) -> None:
    payload = codec.encode_quickly(value)
    assert payload == msgspec.msgpack.encode(value)
    assert same(codec.decode(payload), plain_form(value))


@pytest.mark.parametrize(
    ("levels", "taken"), [(198, True), (199, True), (200, False), (201, False), (254, False), (2000, False)]
)
@pytest.mark.parametrize("kind", [list, dict, tuple])
def test_the_quick_way_knows_how_deep_a_value_is(kind: type, levels: int, taken: bool) -> None:
    value: Any = ["x" * 300]
    for _ in range(levels):
        value = {"k": value} if kind is dict else kind([value])
    if taken:
        assert codec.decode(codec.encode(value)) == plain_form(value)
    else:
        assert codec.encode_quickly(value) is None
        with pytest.raises(ValueRefused, match="nested deeper than 200 levels"):
            codec.encode(value)


@pytest.mark.skipif(not HAS_ORMSGPACK, reason="ormsgpack is not there")
@pytest.mark.parametrize("pad", ["", "x" * 300, "机器人" * 300], ids=["small", "large", "many marks"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 8, 16, 17, 300, 70_000])
def test_the_extension_type_of_ormsgpack_is_refused(size: int, pad: str) -> None:
    """Nobody can read it, and ormsgpack cannot be told to refuse it."""
    extension = quick.ormsgpack.Ext(5, b"x" * size)
    for value in ([pad, extension], {"pad": pad, "a": {"b": [extension]}}):
        assert codec.encode_quickly(value) is None
        with pytest.raises(ValueRefused, match=r"a value of type ormsgpack\.Ext cannot travel"):
            codec.encode(value)


@pytest.mark.parametrize("pad", ["", "x" * 300], ids=["small", "large"])
@pytest.mark.parametrize(
    ("offset", "travels"),
    [
        (dt.timedelta(0), True),
        (dt.timedelta(hours=5, minutes=45), True),
        (dt.timedelta(hours=-3, minutes=-30), True),
        (dt.timedelta(seconds=7), False),
        (dt.timedelta(seconds=-7), False),
        (dt.timedelta(hours=5, seconds=30), False),
        (dt.timedelta(microseconds=1), False),
        (dt.timedelta(hours=-3, microseconds=-5), False),
    ],
    ids=str,
)
def test_a_time_that_would_lose_the_seconds_of_its_offset_is_refused_at_any_size(
    way: str, offset: dt.timedelta, travels: bool, pad: str
) -> None:
    for time in (dt.time(1, 2, 3, tzinfo=dt.timezone(offset)), dt.time(1, 2, 3, 4, dt.timezone(offset))):
        for value in ([pad, time], {"pad": pad, "a": [{"b": time}]}, [pad, {time: 1}], [pad, {("a", time): 1}]):
            if travels:
                assert same(codec.decode(codec.encode(value)), plain_form(value))
            else:
                with pytest.raises(ValueRefused, match="whose offset from UTC has seconds cannot travel"):
                    codec.encode(value)


def test_a_date_time_with_a_zone_needs_no_thorough_look() -> None:
    """Events have them, and the thorough look takes ten times as long."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    value = {"at": now, "text": "x" * 300}
    assert is_safe(value, codec.encode(value))
    changing = {"at": now, "days": {dt.date(2026, 1, 1): 1, "2026-01-01": 2}, "text": "x" * 300}
    assert not is_safe(changing, codec.encode_plain(changing))


WITHOUT = """
import sys, types
sys.modules["ormsgpack"] = {module}
from liteyuki_host.comm import codec
from liteyuki_host.comm.codec import quick
assert quick.pack is None
value = {{"a": [1, {{"b": None}}], "pad": "x" * 300}}
assert codec.decode(codec.encode(value)) == value
"""


@pytest.mark.parametrize("module", ["None", "types.SimpleNamespace(packb=print)"], ids=["not there", "without options"])
def test_everything_works_without_ormsgpack(module: str) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT.format(module=module)], check=True, timeout=60)
