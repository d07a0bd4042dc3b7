"""pydantic models and other classes: what arrives of them, plain and typed, and what would change and is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import pathlib
import typing
import uuid
from collections import UserDict
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar
from unittest.mock import MagicMock, Mock

import annotated_types
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import shown

from liteyuki_host.comm import codec
from liteyuki_host.comm.codec.differences import difference
from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.testing import Pair
from tests.values.sending import through as _through

HERE = __name__
T = TypeVar("T")


class Aliased(pydantic.BaseModel):
    user_id: int = pydantic.Field(alias="userId")


class ByEither(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    user_id: int = pydantic.Field(alias="userId")


class Camel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=lambda name: name.title().replace("_", ""))
    user_id: int
    inner: Aliased


class WrittenOtherwise(pydantic.BaseModel):
    user_id: int = pydantic.Field(serialization_alias="out")


class ReadOtherwise(pydantic.BaseModel):
    user_id: int = pydantic.Field(validation_alias=pydantic.AliasChoices("uid", "id"))


class ReadOtherwiseOrNot(pydantic.BaseModel):
    user_id: int = pydantic.Field(5, validation_alias=pydantic.AliasChoices("uid", "id"))
    at: int = pydantic.Field(6, validation_alias=pydantic.AliasPath("place", 0))


class ReadInside(pydantic.BaseModel):
    group_id: int = pydantic.Field(7, alias="groupId")
    inner: ReadOtherwiseOrNot


class StrictWithBytes(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    data: bytes
    when: dt.datetime
    id: uuid.UUID
    tags: set[int]


class Cents(pydantic.BaseModel):
    price: int

    @pydantic.field_validator("price", mode="before")
    @classmethod
    def from_euros(cls, euros: Any) -> int:
        return int(euros * 100)


class Animal(pydantic.BaseModel):
    name: str


class Dog(Animal):
    barks: bool = True


class Owner(pydantic.BaseModel):
    pet: Animal
    others: list[Animal] = []


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    amount: decimal.Decimal
    at: tuple[int, int]
    when: dt.datetime


class Texts(pydantic.BaseModel):
    url: pydantic.AnyUrl
    http: pydantic.HttpUrl
    path: pathlib.Path
    host: ipaddress.IPv4Address
    net: ipaddress.IPv6Network
    id: uuid.UUID
    size: pydantic.ByteSize


class Rich(pydantic.BaseModel):
    day: dt.date
    time: dt.time
    span: dt.timedelta
    amount: decimal.Decimal
    data: bytes
    tags: set[str]
    pair: tuple[int, str]
    by_id: dict[int, str]


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    known: int


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    a: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Fish(pydantic.BaseModel):
    kind: Literal["fish"] = "fish"


class Zoo(pydantic.BaseModel):
    animal: Annotated[Cat | Fish, pydantic.Field(discriminator="kind")]


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Numbers(pydantic.RootModel[list[int]]):
    pass


class WithJson(pydantic.BaseModel):
    setting: pydantic.Json[dict[str, int]]


class WithFactory(pydantic.BaseModel):
    id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)


class WithPrivate(pydantic.BaseModel):
    a: int
    _cache: int = pydantic.PrivateAttr(default=0)


class SerializedOtherwise(pydantic.BaseModel):
    a: int

    @pydantic.field_serializer("a")
    def as_text(self, value: int) -> str:
        return f"{value}"


class SerializedWhole(pydantic.BaseModel):
    a: int

    @pydantic.model_serializer
    def whole(self) -> dict[str, int]:
        return {"b": self.a}


class Excluded(pydantic.BaseModel):
    a: int = 0
    hidden: int = pydantic.Field(default=0, exclude=True)


class Secret(pydantic.BaseModel):
    token: pydantic.SecretStr


class Unset:
    """A sentinel, as some adapters have."""


class Sparse(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    a: int
    maybe: int | type[Unset] = Unset
    inner: list[Sparse] = []


class AgainstItsAnnotation(pydantic.BaseModel):
    name: str = None  # type: ignore[assignment]
    inner: AgainstItsAnnotation = None  # type: ignore[assignment]


class Moment(pydantic.BaseModel):
    at: dt.datetime

    @pydantic.field_validator("at", mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        return value if isinstance(value, dt.datetime) else dt.datetime.fromtimestamp(int(value))


@pydantic.dataclasses.dataclass
class PydanticPoint:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(eq=False)
class ByIdentity:
    x: float


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    x: int
    _y: int = 0


@dataclasses.dataclass
class PostInit:
    x: int
    constant: typing.ClassVar[int] = 5

    def __post_init__(self) -> None:
        self.x *= 100


@dataclasses.dataclass
class Counted:
    x: int
    seen: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class WithInitVar:
    x: int
    scale: dataclasses.InitVar[int] = 1


class Tagged(msgspec.Struct, tag="t", array_like=True):
    x: int


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    user_id: int
    group_id: int = 0


class Colour(enum.Enum):
    RED = "red"


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Pair2(typing.NamedTuple):
    a: int
    b: int = 2


class Options(typing.TypedDict, total=False):
    a: int


def _counted() -> Counted:
    made = Counted(1)
    made.seen = 3
    return made


UTC = dt.timezone.utc
NOON = dt.datetime(2026, 1, 2, 12)
SAME: list[tuple[Any, Any]] = [
    (Aliased(userId=1), {"userId": 1}),
    (ReadOtherwiseOrNot(uid=1, place=[2]), {"uid": 1, "place": [2]}),
    (ReadInside(groupId=1, inner={"id": 2}), {"groupId": 1, "inner": {"uid": 2, "place": [6]}}),
    (
        StrictWithBytes(data=b"\xff", when=NOON, id=uuid.UUID(int=1), tags={1}),
        {"data": b"\xff", "when": "2026-01-02T12:00:00", "tags": [1]} | {"id": str(uuid.UUID(int=1))},
    ),
    (ByEither(user_id=1), {"userId": 1}),
    (Camel(UserId=1, Inner=Aliased(userId=2)), {"UserId": 1, "Inner": {"userId": 2}}),
    (WrittenOtherwise(user_id=1), {"user_id": 1}),
    (Dog(name="x", barks=False), {"name": "x", "barks": False}),
    (Owner(pet=Animal(name="x")), {"pet": {"name": "x"}, "others": []}),
    (
        Strict(amount=decimal.Decimal("1.50"), at=(1, 2), when=dt.datetime(2026, 1, 2, tzinfo=UTC)),
        {"amount": "1.50", "at": [1, 2], "when": dt.datetime(2026, 1, 2, tzinfo=UTC)},
    ),
    (
        Texts(url="a://b/", http="http://c/", path="d", host="1.1.1.1", net="::/8", id=uuid.UUID(int=1), size="1KiB"),
        {"url": "a://b/", "http": "http://c/", "path": "d", "host": "1.1.1.1", "net": "::/8"}
        | {"id": "00000000-0000-0000-0000-000000000001", "size": 1024},
    ),
    (
        Rich(
            day=dt.date(2026, 1, 2),
            time=dt.time(3, 4),
            span=dt.timedelta(days=1),
            amount=decimal.Decimal("1.0"),
            data=b"\xff",
            tags={"a"},
            pair=(1, "b"),
            by_id={1: "a"},
        ),
        {"day": "2026-01-02", "time": "03:04:00", "span": "P1D", "amount": "1.0", "data": b"\xff", "tags": ["a"]}
        | {"pair": [1, "b"], "by_id": {1: "a"}},
    ),
    (Computed(width=3), {"width": 3}),
    (Extra(known=1, more=[1]), {"known": 1, "more": [1]}),
    (Frozen(a=1), {"a": 1}),
    (Zoo(animal=Cat(lives=3)), {"animal": {"kind": "cat", "lives": 3}}),
    (Box[int](content=1), {"content": 1}),
    (Box[Box[Aliased]](content=Box[Aliased](content=Aliased(userId=1))), {"content": {"content": {"userId": 1}}}),
    (Numbers([1, 2]), [1, 2]),
    (WithJson(setting='{"a": 1}'), {"setting": {"a": 1} if pydantic.VERSION.startswith("2.12.") else '{"a":1}'}),
    (WithFactory(id=uuid.UUID(int=2)), {"id": "00000000-0000-0000-0000-000000000002"}),
    (WithPrivate(a=1), {"a": 1}),
    (SerializedOtherwise(a=1), {"a": "1"}),
    (Excluded(a=1), {"a": 1}),
    (Sparse(a=1, inner=[Sparse(a=2)]), {"a": 1, "inner": [{"a": 2, "inner": []}]}),
    (AgainstItsAnnotation(inner=AgainstItsAnnotation()), {"name": None, "inner": {"name": None, "inner": None}}),
    (Moment(at=1763871904), {"at": Moment(at=1763871904).at.isoformat()}),
    (PydanticPoint(1, ["a"]), {"x": 1, "tags": ["a"]}),
    (Point(1), {"x": 1, "y": 0}),
    (ByIdentity(float("nan")), None),
    (Slotted(1, 2), {"x": 1, "_y": 2}),
    (Counted(1), {"x": 1}),
    (_counted(), {"x": 1, "seen": 3}),
    (Tagged(1), ["t", 1]),
    (Renamed(1), {"userId": 1}),
    (Colour.RED, "red"),
    (Flags.A | Flags.B, 3),
    (Pair2(1), [1, 2]),
]


@pytest.mark.parametrize(("value", "plain"), SAME, ids=lambda value: type(value).__name__)
def test_it_arrives_plain_and_as_it_was(value: Any, plain: Any, pair: Pair) -> None:
    got = _through(pair, value)
    if plain is not None:
        assert got == plain
    back = _through(pair, value, type(value))
    assert type(back) is type(value)
    assert difference(back, value) is None


@pytest.mark.parametrize(("value", "plain"), SAME, ids=lambda value: type(value).__name__)
def test_it_is_the_same_inside_of_something_large(value: Any, plain: Any, pair: Pair) -> None:
    got = _through(pair, {"pad": "x" * 1000, "v": [value]})
    if plain is not None:
        assert got["v"] == [plain]


WORDS = r"^channel 'x' carries .*, got [\w.]+: "


class Dated(pydantic.BaseModel):
    at: dt.datetime | str


class Members(pydantic.BaseModel):
    who: set[int] | list[int]


CHANGED: list[tuple[Any, Any, str]] = [
    (Cents(price=1), Cents, r"it would arrive changed at \.price: 100 becomes 10000"),
    (Owner(pet=Dog(name="x")), Owner, r"it would arrive changed at \.pet: a \S+Dog becomes a \S+Animal"),
    (Owner(pet=Animal(name="x"), others=[Dog(name="y")]), Owner, r"at \.others\[0\]: a \S+Dog becomes a \S+Animal"),
    (Dog(name="x"), Animal, r"it would arrive changed: a \S+Dog becomes a \S+Animal"),
    (Excluded(a=1, hidden=2), Excluded, r"it would arrive changed at \.hidden: 2 becomes 0"),
    (SerializedWhole(a=1), SerializedWhole, "Field required"),
    (PostInit(1), PostInit, r"it would arrive changed at \.x: 100 becomes 10000"),
    (Animal.model_construct(name=5), Animal, "Input should be a valid string"),
    ({"m": Cents(price=1)}, dict[str, Cents], r"it would arrive changed at \.m\.price"),
    (
        Dated(at=dt.datetime(2026, 1, 1)),
        Dated,
        r"it would arrive changed at \.at: datetime.* becomes '2026",
    ),
    (Members(who={1}), Members, r"it would arrive changed at \.who: \{1\} becomes \[1\]"),
    ([Point(1), PostInit(2)], list[Any], ""),
]


@pytest.mark.parametrize(("value", "kind", "words"), CHANGED, ids=lambda value: f"{value!r:.40}")
def test_what_would_arrive_changed_is_refused_by_a_typed_channel_only(
    value: Any, kind: Any, words: str, pair: Pair
) -> None:
    assert _through(pair, value) is not None
    if not words:
        assert _through(pair, value, kind) == [{"x": 1, "y": 0}, {"x": 200}]
        return
    with pytest.raises(ValueRefused, match=WORDS + "(.|\n)*" + words):
        _through(pair, value, kind)


def test_an_object_may_be_described_by_plain_data(pair: Pair) -> None:
    assert _through(pair, {"x": 1}, Point) == Point(1)
    assert _through(pair, {"price": 1}, Cents).price == 100
    assert _through(pair, [1, 2], tuple[int, int]) == (1, 2)
    assert _through(pair, "red", Colour) is Colour.RED
    assert _through(pair, UserDict(a=1), dict[str, int]) == {"a": 1}
    assert _through(pair, Options(a=1), Options) == {"a": 1}


def test_a_model_with_what_cannot_travel_is_refused_with_the_place(pair: Pair) -> None:
    with pytest.raises(ValueRefused, match=r"pydantic.types.SecretStr cannot travel between processes at \.a\.token"):
        _through(pair, {"a": Secret(token="x")})
    with pytest.raises(ValueRefused, match=rf"type {HERE}.Unknown cannot travel between processes at \.content\.known"):
        _through(pair, Box[Any](content=Extra.model_construct(known=Unknown())))


# --- who answers to any name ----------------------------------------------------------------------------------


class Unknown:
    pass


class Duck:
    """As an object of NoneBot's Bot does, it makes an API call of any name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: {"called": name}


class AnswersForAll(type):
    def __getattr__(cls, name: str) -> Any:
        return lambda *args, **kwargs: {"called": name}


class MetaDuck(metaclass=AnswersForAll):
    pass


class NoDump:
    model_dump = None
    __pydantic_serializer__ = None


class Liar:
    """A proxy, as some frameworks have."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return str


DUCKS: list[tuple[Any, str]] = [
    (Duck(), f"{HERE}.Duck"),
    (MetaDuck(), f"{HERE}.MetaDuck"),
    (Mock(), "unittest.mock.Mock"),
    (MagicMock(spec=str), "unittest.mock.MagicMock"),
    (NoDump(), f"{HERE}.NoDump"),
    (Liar(), f"{HERE}.Liar"),
    (Point, "type"),
    (Aliased, r"\S*ModelMetaclass"),
]


@pytest.mark.parametrize(("value", "name"), DUCKS, ids=lambda value: shown(value) if isinstance(value, str) else "")
def test_the_type_is_asked_and_not_the_object(value: Any, name: str, pair: Pair) -> None:
    for sent, place in ((value, ""), ({"a": [value]}, r" at \.a\[0\]")):
        for kind in (None, dict[str, Any], Point):
            with pytest.raises(ValueRefused, match=rf"a value of type {name} cannot travel between processes{place}"):
                _through(pair, sent, kind)


def test_a_bot_is_refused_and_called_nothing(pair: Pair) -> None:
    from nonebot.adapters.onebot.v11 import Bot

    bot = Bot.__new__(Bot)
    vars(bot).update(adapter=None, self_id="1")
    with pytest.raises(ValueRefused, match=r"a value of type nonebot.adapters.onebot.v11.bot.Bot cannot travel"):
        _through(pair, bot)  # a coroutine that is never awaited is a warning, and so an error here


def test_refusals_name_the_real_type_of_numbers_and_arrays(pair: Pair) -> None:
    numpy = pytest.importorskip("numpy")
    for value, name in (
        (numpy.bool_(True), r"numpy\.bool\w*"),
        (numpy.int64(1), "numpy.int64"),
        (numpy.array([1]), "numpy.ndarray"),
    ):
        with pytest.raises(ValueRefused, match=rf"a value of type {name} cannot travel between processes at \.n"):
            _through(pair, {"n": value})
    with pytest.raises(ValueRefused, match=r"a value of type numpy\.bool"):
        _through(pair, numpy.bool_(True), bool)
    assert _through(pair, {"n": numpy.float64(1.5), "s": numpy.str_("s")}) == {"n": 1.5, "s": "s"}


# --- bounds -----------------------------------------------------------------------------------------------------


class Bounded(msgspec.Struct):
    n: Annotated[int, annotated_types.Gt(0)]
    inner: list[Bounded] = []


@dataclasses.dataclass
class BoundedToo:
    n: Annotated[int, msgspec.Meta(ge=1)]


class Partly(typing_extensions.TypedDict):
    n: typing_extensions.NotRequired[Annotated[int, annotated_types.Gt(0)]]


NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone.utc)

WITH_ZONE, NO_ZONE = "Expected a date-time with a time zone", "Expected a date-time without a time zone"
NAIVE = NOON.replace(tzinfo=None)

BOUNDS: list[tuple[Any, Any, Any, str]] = [
    (Annotated[int, msgspec.Meta(gt=0)], 1, 0, "Expected `int` >= 1"),
    (Annotated[int, annotated_types.Gt(0)], 1, 0, r"Expected a value > 0 - at `\$`"),
    (Annotated[int, pydantic.Field(ge=0, le=9)], 9, 10, r"Expected a value <= 9"),
    (Annotated[str, annotated_types.Len(1, 3)], "abc", "abcd", r"Expected a length <= 3"),
    (Annotated[list[int], annotated_types.MinLen(1)], [1], [], r"Expected a length >= 1"),
    (Annotated[float, annotated_types.Interval(ge=0, lt=1)], 0.5, 1.0, r"Expected a value < 1"),
    (Annotated[int, annotated_types.MultipleOf(5)], 10, 11, r"Expected a multiple of 5"),
    (Annotated[str, annotated_types.Predicate(str.islower)], "a", "A", r"Expected what str\.islower accepts"),
    (list[Annotated[int, annotated_types.Gt(0)]], [1, 2], [1, 0], r"Expected a value > 0 - at `\$\[1\]`"),
    (dict[str, Annotated[int, annotated_types.Gt(0)]], {"a": 1}, {"a": 0}, r"Expected a value > 0 - at `\$\[\.\.\.\]`"),
    (tuple[str, Annotated[int, annotated_types.Gt(0)]], ("a", 1), ("a", 0), r"Expected a value > 0 - at `\$\[1\]`"),
    (Annotated[int, annotated_types.Gt(0)] | None, None, 0, r"Expected a value > 0"),
    (Annotated[int, annotated_types.Gt(0)] | str, "x", 0, r"Expected a value > 0"),
    (Bounded, Bounded(1, [Bounded(2)]), Bounded(1, [Bounded(0)]), r"Expected a value > 0 - at `\$\.inner\[0\]\.n`"),
    (BoundedToo, BoundedToo(1), BoundedToo(0), r"Expected `int` >= 1 - at `\$\.n`"),
    (
        pydantic.condecimal(max_digits=3),
        decimal.Decimal("1.25"),
        decimal.Decimal("1.255"),
        r"Expected at most 3 digits",
    ),
    (
        Annotated[decimal.Decimal, pydantic.Field(max_digits=4, decimal_places=2)],
        decimal.Decimal("12.50"),
        decimal.Decimal("123.4"),
        r"Expected at most 4 digits and at most 2 decimal places - at `\$`",
    ),
    (Annotated[str, pydantic.Field(pattern="^a")], "ab", "b", r"Expected a text that matches '\^a'"),
    (pydantic.constr(max_length=2, pattern="^a"), "ab", "abc", r"Expected a length <= 2"),
    (pydantic.constr(max_length=2, pattern="^a"), "a", "b", r"Expected a text that matches '\^a'"),
    (Annotated[str, annotated_types.LowerCase], "a", "A", r"Expected what str\.islower accepts"),
    (Annotated[str, annotated_types.Not(str.islower)], "A", "a", r"Expected what str\.islower does not accept"),
    (Annotated[float, annotated_types.IsNotNan], 1.0, float("nan"), r"Expected what "),
    (pydantic.FiniteFloat, 1.0, float("inf"), r"Expected a finite number"),
    (
        Annotated[dt.datetime, annotated_types.Timezone(...)],
        NOON,
        NAIVE,
        WITH_ZONE,
    ),
    (
        Annotated[dt.datetime, annotated_types.Timezone(None)],
        NAIVE,
        NOON,
        NO_ZONE,
    ),
    (Partly, {"n": 1}, {"n": 0}, r"Expected a value > 0 - at `\$\.n`"),
]


@pytest.mark.parametrize(("kind", "good", "bad", "words"), BOUNDS, ids=lambda value: f"{value!r:.60}")
def test_bounds_are_checked_at_the_sender(kind: Any, good: Any, bad: Any, words: str, pair: Pair) -> None:
    assert _through(pair, good, kind) == good
    with pytest.raises(ValueRefused, match=WORDS + words):
        _through(pair, bad, kind)


DIGITS = [(4, 2), (4, None), (None, 2), (2, 2), (1, 0), (5, 0), (3, 5)]


@pytest.mark.parametrize("apart", [False, True], ids=["in one", "apart"])
@pytest.mark.parametrize(("max_digits", "decimal_places"), DIGITS)
@settings(max_examples=150, deadline=None)
@given(
    sign=st.integers(0, 1),
    digits=st.lists(st.sampled_from([0, 0, 0, 1, 9]), min_size=1, max_size=6),
    exponent=st.integers(-6, 4) | st.sampled_from(["n", "F"]),
)
def test_the_length_of_a_decimal_is_checked_as_pydantic_does(
    max_digits: int | None, decimal_places: int | None, apart: bool, sign: int, digits: list[int], exponent: Any
) -> None:
    names = {"max_digits": max_digits, "decimal_places": decimal_places}
    wanted = {name: number for name, number in names.items() if number is not None}
    fields = [pydantic.Field(**{name: number}) for name, number in wanted.items()]  # type: ignore[call-overload]
    if not apart:
        fields = [pydantic.Field(**wanted)]  # type: ignore[call-overload]
    kind = Annotated[(decimal.Decimal, *fields)]
    value = decimal.Decimal((sign, tuple(digits), exponent))
    decoder = codec.TypedDecoder[Any](kind)
    try:
        pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError:
        with pytest.raises(ValueRefused, match="Expected at most "):
            decoder.check(value, codec.encode(value))
    else:
        decoder.check(value, codec.encode(value))


# --- types that nothing can be checked against --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (WithInitVar, WithInitVar(1)),
        ("str", "x"),
        (3, 3),
        (list[int] | set[int], [1]),
        (complex, 1),
        (object, Unknown()),
    ],
    ids=shown,
)
def test_a_kind_that_cannot_be_checked_is_an_error_of_ours(kind: Any, value: Any, pair: Pair) -> None:
    with pytest.raises(ValueRefused, match=r"^channel 'x'"):
        _through(pair, value, kind)
