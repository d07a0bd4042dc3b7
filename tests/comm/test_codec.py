"""Values: what travels and how it arrives, and what is refused at which place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import typing
import uuid
from typing import Any, NamedTuple, Optional

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naming import shown

from liteyuki_host.comm import Channel, codec
from liteyuki_host.comm.errors import ValueRefused, ValueTooLarge


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Number(int):
    pass


class Real(float):
    pass


class Items(list[Any]):
    pass


class Mapping2(dict[str, Any]):
    pass


class Pair(NamedTuple):
    left: int
    right: str


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


@dataclasses.dataclass
class Line:
    start: Point
    name: str = ""


class Shape(msgspec.Struct):
    sides: int
    tags: list[str] = []


class User(pydantic.BaseModel):
    id: int
    name: str
    born: dt.date


UTC = dt.timezone.utc
MOMENT = dt.datetime(2026, 11, 23, 6, 0, 1, 5, tzinfo=UTC)

SAME = [
    None,
    True,
    False,
    0,
    -(2**63),
    2**64 - 1,
    0.1,
    -0.0,
    math.inf,
    "",
    "你好 🎉",
    b"",
    b"\x00\xff" * 100,
    [],
    [1, [2, [3]], None],
    {},
    {"a": {"b": [1, 2.5, None, True, "x", b"y"]}},
    {1: "one", 2: "two"},
    MOMENT,
    Channel("some-channel"),
]


@pytest.mark.parametrize("value", SAME, ids=shown)
def test_plain_values_arrive_as_they_were(value: object) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value
    assert type(back) is type(value)
    assert math.copysign(1, back) == -1 if value == 0.0 and isinstance(value, float) else True


AS_PLAIN = [
    ((1, 2), [1, 2]),
    ({5}, [5]),
    (frozenset({5}), [5]),
    (Pair(1, "r"), [1, "r"]),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (dt.datetime(2026, 11, 23, 6, 0), "2026-11-23T06:00:00"),
    (dt.date(2026, 11, 23), "2026-11-23"),
    (dt.time(6, 30), "06:30:00"),
    (dt.timedelta(seconds=90), "PT90S"),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Text("the text"), "the text"),
    (Number(5), 5),
    (Real(1.5), 1.5),
    (Items([1]), [1]),
    (Mapping2(a=1), {"a": 1}),
    (Point(1), {"x": 1, "y": 0.5}),
    (Line(Point(1, 2.0), "l"), {"start": {"x": 1, "y": 2.0}, "name": "l"}),
    (Shape(3, ["a"]), {"sides": 3, "tags": ["a"]}),
    (User(id=1, name="n", born=dt.date(2000, 1, 2)), {"id": 1, "name": "n", "born": "2000-01-02"}),
    ({"a": (User(id=1, name="n", born=dt.date(2000, 1, 2)),)}, {"a": [{"id": 1, "name": "n", "born": "2000-01-02"}]}),
]


@pytest.mark.parametrize(("value", "plain"), AS_PLAIN, ids=shown)
def test_richer_values_arrive_as_plain_data(value: object, plain: object) -> None:
    back = codec.decode(codec.encode(value))
    assert back == plain
    assert type(back) is type(plain)


TYPED: list[tuple[Any, Any]] = [
    (tuple[int, ...], (1, 2, 3)),
    (set[str], {"a", "b"}),
    (dict[int, str], {1: "one"}),
    (Pair, Pair(1, "r")),
    (dt.datetime, dt.datetime(2026, 11, 23, 6, 0)),
    (dt.datetime, MOMENT),
    (dt.date, dt.date(2026, 11, 23)),
    (dt.time, dt.time(6, 30)),
    (dt.timedelta, dt.timedelta(days=1, seconds=90)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (uuid.UUID, uuid.UUID(int=7)),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (bytearray, bytearray(b"x")),
    (Point, Point(1, 2.5)),
    (list[Line], [Line(Point(1, 2.0), "l")]),
    (Shape, Shape(3, ["a"])),
    (User, User(id=1, name="n", born=dt.date(2000, 1, 2))),
    (dict[str, User], {"u": User(id=1, name="n", born=dt.date(2000, 1, 2))}),
    (Optional[int], None),  # noqa: UP045  (people write it so)
    (typing.Union[int, str], "x"),  # noqa: UP007  (people write it so)
    (typing.Literal["a", "b"], "b"),
    (Any, {"a": [1]}),
    (float, 2),
    (Channel, Channel("typed")),
    (list[Channel[str]], [Channel("typed")]),
]


@pytest.mark.parametrize(("kind", "value"), TYPED, ids=shown)
def test_a_typed_channel_gives_the_type_back(kind: Any, value: Any) -> None:
    back = codec.TypedDecoder[Any](kind).decode(codec.encode(value))
    assert back == value
    if kind is not float:
        assert type(back) is type(value)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (str, 123, "Expected `str`, got `int`"),
        (int, True, "Expected `int`, got `bool`"),
        (int, 1.5, "Expected `int`, got `float`"),
        (list[int], [1, "x"], r"Expected `int`, got `str` - at `\$\[1\]`"),
        (dict[str, int], {"a": None}, r"Expected `int`, got `\w+` - at `\$\[...\]`"),
        (tuple[int, str], [1], "Expected `array` of length 2, got 1"),
        (Point, {"y": 1.0}, "missing required field `x`"),
        (Line, {"start": {"x": "no"}}, r"at `\$.start.x`"),
        (User, {"id": 1, "name": "n", "born": "never"}, "born"),
        (Channel, "name", "Expected a channel, got `str`"),
    ],
    ids=repr,
)
def test_a_typed_channel_refuses_the_rest_and_names_the_place(kind: Any, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codec.TypedDecoder[Any](kind).decode(codec.encode(value))


def test_a_type_that_cannot_be_rebuilt_says_so() -> None:
    with pytest.raises(ValueError, match="values of type Unknown cannot be rebuilt from a message"):
        codec.TypedDecoder[Any](Unknown).decode(codec.encode({"a": 1}))


# --- NoneBot ------------------------------------------------------------------------------------------------


def test_nonebot_messages_and_events_travel() -> None:
    from nonebot.adapters.onebot.v11 import GroupMessageEvent, Message, MessageSegment

    message = Message([MessageSegment.text("你好"), MessageSegment.at(10001), MessageSegment.image("http://x/y.png")])
    assert codec.decode(codec.encode(message)) == [{"type": segment.type, "data": segment.data} for segment in message]
    event = GroupMessageEvent.model_validate(
        {
            "time": 1700000000,
            "self_id": 1,
            "post_type": "message",
            "message_type": "group",
            "sub_type": "normal",
            "user_id": 10001,
            "message_id": 5,
            "group_id": 777,
            "message": [{"type": "text", "data": {"text": "hi"}}],
            "original_message": [{"type": "text", "data": {"text": "hi"}}],
            "raw_message": "hi",
            "font": 0,
            "sender": {"user_id": 10001, "nickname": "n"},
        }
    )
    plain = codec.decode(codec.encode({"event": event}))["event"]
    assert (plain["group_id"], plain["user_id"], plain["raw_message"]) == (777, 10001, "hi")
    assert plain["message"] == [{"type": "text", "data": {"text": "hi"}}]
    assert plain["sender"]["nickname"] == "n"
    again = codec.TypedDecoder[Any](GroupMessageEvent).decode(codec.encode(event))
    assert isinstance(again, GroupMessageEvent)
    assert again.group_id == 777
    assert again.message == Message("hi")


# --- refusals -----------------------------------------------------------------------------------------------


class Unknown:
    pass


CANNOT = f"a value of type {__name__}.Unknown cannot travel between processes"


@dataclasses.dataclass
class Holder:
    inside: Any


class Structure(msgspec.Struct):
    inside: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inside: Any


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Unknown(), rf"^{CANNOT}; send plain data"),
        ([1, Unknown()], rf"^{CANNOT} at \[1\]; "),
        ((1, (Unknown(),)), rf"^{CANNOT} at \[1\]\[0\]; "),
        ({"users": [{}, {"photo": Unknown()}]}, rf"^{CANNOT} at \.users\[1\]\.photo; "),
        ({5: Unknown()}, rf"^{CANNOT} at \[5\]; "),
        (Holder([Unknown()]), rf"^{CANNOT} at \.inside\[0\]; "),
        ({"h": Holder(Holder(Unknown()))}, rf"^{CANNOT} at \.h\.inside\.inside; "),
        (Structure({"a": Unknown()}), rf"^{CANNOT} at \.inside\.a; "),
        ([Model(inside=Unknown())], rf"^{CANNOT} at \[0\]\.inside; "),
        ({Unknown()}, rf"^{CANNOT} at \[an element\]; "),
        ({Unknown(): 1}, rf"^{CANNOT} at \[a key\]; "),
        ({"f": print}, "^a value of type builtin_function_or_method cannot travel between processes at .f; "),
        ([Unknown], r"^a value of type type cannot travel between processes at \[0\]"),
        ([range(3)], r"^a value of type range cannot travel between processes at \[0\]"),
        ([1j], r"^a value of type complex cannot travel between processes at \[0\]"),
        ([ValueError("x")], "^a value of type ValueError cannot travel between processes"),
        ([2**64], r"^an integer of more than 64 bits cannot travel at \[0\]$"),
        ({"n": -(2**63) - 1}, r"^an integer of more than 64 bits cannot travel at \.n$"),
        (2**64, "^an integer of more than 64 bits cannot travel$"),
        ({"t": ["\ud800"]}, r"^a text with a lone surrogate \(half of a character\) cannot travel at \.t\[0\]$"),
        ({"\udfff": 1}, "^a text with a lone surrogate .* cannot travel at "),
        ("a\udc80b", r"^a text with a lone surrogate \(half of a character\) cannot travel$"),
    ],
    ids=shown,
)
def test_what_cannot_travel_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(ValueRefused, match=words) as caught:
        codec.encode(value)
    assert isinstance(caught.value, TypeError)


def nested(levels: int, innermost: object = 0) -> object:
    value = innermost
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


def test_200_levels_travel_and_201_do_not() -> None:
    deep = nested(200)
    assert codec.decode(codec.encode(deep)) == deep
    with pytest.raises(ValueRefused, match="nested deeper than 200 levels"):
        codec.encode(nested(201))
    with pytest.raises(ValueRefused, match="nested deeper than 200 levels"):
        codec.encode({"a": 1, "b": [nested(200)]})


def test_depth_inside_dataclasses_counts_too() -> None:
    value: object = 0
    for _ in range(300):
        value = Holder([value])
    with pytest.raises(ValueRefused, match="nested deeper than 200 levels"):
        codec.encode(value)


def test_width_is_not_depth() -> None:
    wide = [[n] for n in range(1000)] + [{"k": [n]} for n in range(1000)]
    assert codec.decode(codec.encode(wide)) == wide


def test_a_list_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ValueRefused, match="nested deeper than 200 levels, or contains itself"):
        codec.encode(endless)
    mapping: dict[str, object] = {}
    mapping["self"] = [mapping]
    with pytest.raises(ValueRefused, match="or contains itself"):
        codec.encode(mapping)


def test_the_limit_is_exact() -> None:
    assert len(codec.encode("x" * 97, limit=99)) == 99
    with pytest.raises(ValueTooLarge, match="the value is 100 bytes when encoded, the limit is 99 bytes"):
        codec.encode("x" * 98, limit=99)
    with pytest.raises(ValueError, match="16,777,222 bytes when encoded, the limit is 16,777,216 bytes"):
        codec.encode("x" * (16 * 1024 * 1024 + 1))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\xa5ab", b"\x01\x02", b"\xd4\x02x", b"\xa2\xff\xfe"], ids=repr)
def test_what_encode_does_not_make_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the words are msgspec's)
        codec.decode(payload)


def test_a_payload_too_deep_to_decode_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|recursion"):
        codec.decode(b"\x91" * 100_000 + b"\x01")


@given(st.binary(max_size=40))
def test_garbage_is_a_value_error_or_a_value(payload: bytes) -> None:
    try:
        codec.decode(payload)
    except ValueError:
        pass


plain_data = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)


@given(plain_data)
def test_plain_data_always_arrives_as_it_was(value: object) -> None:
    assert codec.decode(codec.encode(value)) == value


# --- channels by reference ------------------------------------------------------------------------------------


def test_a_channel_travels_by_name() -> None:
    back = codec.decode(codec.encode({"reply to": [Channel[str]("answers-1")]}))
    assert type(back["reply to"][0]) is Channel
    assert back["reply to"][0].name == "answers-1"


def test_a_reference_to_a_name_that_is_none_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="printable characters"):
        codec.decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"")))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, True),
        (-0.5, True),
        (2**64 - 1, True),
        (-(2**63), True),
        (True, False),
        ("1", False),
        (None, False),
        (math.nan, False),
        (math.inf, False),
        (2**64, False),
        (-(2**63) - 1, False),
        (10**400, False),
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_what_can_be_counted_with(value: object, number: bool) -> None:
    assert codec.is_number(value) is number
