"""Objects that would arrive as something else, or in part: rebuilt, or refused in one line with the place."""

from __future__ import annotations

import dataclasses
import typing
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Annotated, Any

import annotated_types
import attr
import attrs
import msgspec
import pydantic
import pytest

from liteyuki_host.comm import codec
from liteyuki_host.comm.codec import quick
from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.testing import Pair
from tests.values.sending import through as _through

HERE = __name__
LONG = "x" * 1000

# Up to 2.12, pydantic writes the fields of subclasses only by `serialize_as_any`. In 2.12 that skips what an annotation
# says of writing.
POLYMORPHIC = tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 13)


# --- a tuple is no list -----------------------------------------------------------------------------------------


class Pair2(typing.NamedTuple):
    a: int
    b: int


class Anything(pydantic.BaseModel):
    x: Any


class ListOrTuple(pydantic.BaseModel):
    x: list[int] | tuple[int, ...]


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


@dataclasses.dataclass
class Record:
    x: Any


class Struct(msgspec.Struct):
    x: Any


@attrs.define
class Attrs:
    x: Any


HOLDERS: list[Any] = [Anything, Extra, Record, Struct, Attrs]
NO_LIST: list[tuple[Any, str]] = [
    ((1, 2), r"at \.x: \(1, 2\) becomes \[1, 2\]"),
    ({"deep": [(1, 2)]}, r"at \.x\.deep\[0\]: \(1, 2\) becomes \[1, 2\]"),
    (Pair2(1, 2), r"at \.x: Pair2\(a=1, b=2\) becomes \[1, 2\]"),
    ({1}, r"at \.x: \{1\} becomes \[1\]"),
    (deque([1]), r"at \.x: deque\(\[1\]\) becomes \[1\]"),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("value", "words"), NO_LIST, ids=str)
def test_a_typed_channel_refuses_what_would_become_a_list_in_an_object(
    holder: Any, value: Any, words: str, pair: Pair
) -> None:
    sent = holder(x=value)
    assert _through(pair, sent)["x"] in ([1, 2], {"deep": [[1, 2]]}, [1])
    with pytest.raises(ValueRefused, match=f"it would arrive changed {words}"):
        _through(pair, sent, holder)
    assert _through(pair, holder(x=[1, {"a": [2]}]), holder) == holder(x=[1, {"a": [2]}])


def test_a_union_that_takes_the_list_first_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueRefused, match=r"at \.x: \(1, 2\) becomes \[1, 2\]"):
        _through(pair, ListOrTuple(x=(1, 2)), ListOrTuple)
    assert _through(pair, ListOrTuple(x=[1, 2]), ListOrTuple).x == [1, 2]


def test_outside_of_objects_the_type_says_what_arrives(pair: Pair) -> None:
    assert _through(pair, (1, 2), list[int]) == [1, 2]
    assert _through(pair, {1}, list[int]) == [1]
    assert _through(pair, {"a": (1, 2)}, dict[str, Any]) == {"a": [1, 2]}
    assert _through(pair, [deque([1])], list[list[int]]) == [[1]]


# --- fields that are written as a text --------------------------------------------------------------------------


class Coded(pydantic.BaseModel):
    data: pydantic.Base64Bytes
    text: pydantic.Base64Str
    url: pydantic.Base64UrlBytes


class Texts(pydantic.BaseModel):
    anything: pydantic.Json
    known: pydantic.Json[list[int]]
    maybe: pydantic.Json | None = None


class Hex(pydantic.BaseModel):
    number: Annotated[
        int,
        pydantic.BeforeValidator(lambda value: int(value, 16)),
        pydantic.PlainSerializer(lambda value: f"{value:x}"),
    ]


class Animal(pydantic.BaseModel):
    name: str


class Dog(Animal):
    data: pydantic.Base64Bytes = b""


class Keeper(pydantic.BaseModel):
    pet: Animal
    more: list[Animal] = []
    coded: Coded | None = None


CODED = {"data": b"//8=", "text": "dGV4dA==", "url": b"__8="}


@pytest.mark.skipif(
    pydantic.VERSION.startswith("2.12."), reason="pydantic 2.12 skips what an annotation says of writing"
)
@pytest.mark.parametrize(
    "value",
    [
        Coded(**CODED),
        Texts(anything='"a text"', known="[1]"),
        Texts(anything='{"a": [null]}', known="[]", maybe="1"),
        Texts(anything="null", known="[1]"),
        Hex(number="ff"),
        Keeper(pet={"name": "x"}, coded=CODED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_field_is_written_as_its_annotation_says(value: Any, pair: Pair) -> None:
    kind = type(value)
    assert _through(pair, value, kind) == value
    assert kind.model_validate(_through(pair, value)) == value


@pytest.mark.skipif(not POLYMORPHIC, reason="pydantic before 2.13")
def test_it_is_so_in_a_subclass_that_the_annotation_does_not_name(pair: Pair) -> None:
    dog = Dog(name="x", data=b"//8=")
    got = _through(pair, Keeper(pet=dog, more=[dog]))
    assert Dog.model_validate(got["pet"]) == Dog.model_validate(got["more"][0]) == dog


@dataclasses.dataclass
class Base:
    x: int


@dataclasses.dataclass
class Derived(Base):
    y: int = 5
    z: int = 6


class OfBase(pydantic.BaseModel):
    item: Base
    items: list[Base] = []
    default: Base = Derived(1)


class Foreign(pydantic.BaseModel):
    a: int = 1


def test_no_field_of_an_object_of_another_class_is_lost(pair: Pair) -> None:
    got = _through(pair, OfBase(item=Derived(1), items=[Derived(2, 7)]))
    assert got == {
        "item": {"x": 1, "y": 5, "z": 6},
        "items": [{"x": 2, "y": 7, "z": 6}],
        "default": {"x": 1, "y": 5, "z": 6},
    }
    made = Keeper.model_construct(pet=Foreign(a=3), more=[Foreign(a=4)], coded=5)
    assert _through(pair, made) == {"pet": {"a": 3}, "more": [{"a": 4}], "coded": 5}


def test_what_a_serializer_leaves_out_stays_out(pair: Pair) -> None:
    class Careful(pydantic.BaseModel):
        item: Base
        pet: Animal

        @pydantic.field_serializer("item")
        def some(self, item: Base) -> dict[str, int]:
            return {"x": item.x}

        @pydantic.field_serializer("pet")
        def name(self, pet: Animal) -> dict[str, str]:
            return {"name": pet.name}

    got = _through(pair, Careful(item=Derived(1), pet=Dog(name="x", data=b"")))
    assert got == {"item": {"x": 1}, "pet": {"name": "x"}}


# --- a deque ----------------------------------------------------------------------------------------------------


class Queue(pydantic.BaseModel):
    items: deque[int]
    models: deque[Animal] = deque()
    last: deque[int] = deque(maxlen=2)


def test_a_deque_travels_as_a_list(pair: Pair) -> None:
    assert _through(pair, deque([1, "a"])) == [1, "a"]
    assert _through(pair, {"q": [deque([Record(1)])]}) == {"q": [[{"x": 1}]]}
    value = Queue(items=[1], models=[{"name": "x"}], last=deque([1, 2], maxlen=2))
    assert _through(pair, value) == {"items": [1], "models": [{"name": "x"}], "last": [1, 2]}
    assert _through(pair, value, Queue) == value
    with pytest.raises(ValueRefused, match=r"a value of type object cannot travel between processes at \.q\[1\]"):
        _through(pair, {"q": deque([1, object()])})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (deque, deque([1, "a"])),
        (deque[int], deque([1])),
        (typing.Deque[int], deque([1])),  # noqa: UP006
        (dict[str, deque[tuple[int, int]]], {"a": deque([(1, 2)])}),
        (deque[Record], deque([Record(1)])),
        (deque[Animal], deque([Animal(name="x")])),
    ],
    ids=str,
)
def test_a_deque_is_rebuilt(kind: Any, value: Any, pair: Pair) -> None:
    got = _through(pair, value, kind)
    assert got == value
    assert type(got) is type(value)


def test_the_items_of_a_deque_are_checked(pair: Pair) -> None:
    with pytest.raises(ValueRefused, match=r"Expected `int`, got `str`"):
        _through(pair, deque(["a"]), deque[int])
    with pytest.raises(ValueRefused, match=r"Expected a value > 0 - at `\$\[1\]`"):
        _through(pair, deque([1, 0]), deque[Annotated[int, annotated_types.Gt(0)]])


# --- attrs ------------------------------------------------------------------------------------------------------


@attrs.define
class Private:
    _a: int
    b: int = 2


@attr.s
class OldPrivate:
    _a = attr.ib()


@attrs.define(slots=False)
class Inherited(Private):
    c: int = 3


@attrs.frozen
class Mangled:
    __a: int


@attrs.define
class Cached:
    a: int
    _cache: dict[str, int] = attrs.field(factory=dict, init=False)
    _size: int = attrs.field(default=0)


@attrs.define
class Derived2:
    a: int
    _double: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.a * 2, takes_self=True))


@attrs.define
class Renamed:
    a: int = attrs.field(alias="other")
    b: int = attrs.field(init=False, default=5)


def _filled() -> Cached:
    made = Cached(1)
    made._cache["x"] = 1
    return made


class HoldsAttrs(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    item: Any


LOST: list[tuple[Any, str]] = [
    (Private(1), "_a"),
    (OldPrivate(1), "_a"),
    (Inherited(1), "_a"),
    (Mangled(1), "_Mangled__a"),
    (_filled(), "_cache"),
    (Cached(1, size=3), "_size"),
    (Derived2(1), "_double"),
]


@pytest.mark.parametrize("packages", ["all", "without ormsgpack"])
@pytest.mark.parametrize(("value", "name"), LOST, ids=lambda value: type(value).__name__)
def test_a_private_field_of_attrs_is_not_lost_silently(
    value: Any, name: str, packages: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packages != "all":
        monkeypatch.setattr(quick, "pack", None)
    kind = type(value)
    kinds = [None] if kind is Derived2 else [None, kind]  # msgspec decodes to no class with such a default
    for sent, place in (
        (value, ""),
        ({"users": [value]}, r" at \.users\[0\]"),
        ({"pad": LONG, "users": [(value,)]}, r" at \.users\[0\]\[0\]"),
        ([LONG, Record(Attrs(Struct(value)))], r" at \[1\]\.x\.x\.x"),
        (HoldsAttrs(item=[LONG, value]), r" at \.item\[1\]"),
        (deque([value, LONG]), r" at \[0\]"),
    ):
        words = rf"a value of type {HERE}.{kind.__name__} cannot travel between processes{place}: its field {name} is"
        for typed in kinds:
            with pytest.raises(ValueRefused, match=words):
                _through(pair, sent, typed)


def test_other_classes_of_attrs_travel(pair: Pair) -> None:
    for value, plain in (
        (Cached(1), {"a": 1}),
        (Renamed(other=1), {"a": 1, "b": 5}),
        (Attrs(LONG), {"x": LONG}),
    ):
        assert _through(pair, value) == plain
        assert _through(pair, value, type(value)) == value


# --- one line ---------------------------------------------------------------------------------------------------


class Three(pydantic.BaseModel):
    a: int
    b: int
    c: int
    d: Annotated[int, pydantic.Field(gt=0)]


class Picky(pydantic.BaseModel):
    a: int

    @pydantic.field_validator("a")
    @classmethod
    def check(cls, value: int) -> int:
        raise ValueError(f"no\nsuch {value} here")


class Fails(pydantic.BaseModel):
    a: int = 1

    @pydantic.field_serializer("a")
    def write(self, value: int) -> int:
        raise KeyError("several\nlines")


class Offered:
    """As NoneBot's messages do."""

    @classmethod
    def __get_validators__(cls) -> Iterator[Any]:
        yield Three.model_validate


ONE_LINE: list[tuple[Any, Any, str]] = [
    ({"a": "x"}, Three, r"a: Input should be a valid integer.*; b: Field required; c: Field required; and 1 more$"),
    ({"a": 1, "b": 2, "c": 3, "d": 0}, Three, r"got dict: d: Input should be greater than 0$"),
    ([{"a": 1, "b": 2, "c": 3, "d": 0}], list[Three], r"d: Input should be greater than 0 - at `\$\[0\]`$"),
    ({"a": 1}, Picky, r"a: Value error, no such 1 here$"),
    (Picky.model_construct(a=1), Picky, r"a: Value error, no such 1 here$"),
    ({"a": "x" * 5000}, Picky, r"a: Input should be a valid integer"),
    ({"a": 1}, Offered, r"b: Field required; c: Field required; d: Field required$"),
    (Fails(), Fails, r"a value of type \S+Fails cannot travel between processes: .*several"),
    (3, Three, r"Input should be a valid dictionary or instance of Three$"),
]


@pytest.mark.parametrize(("value", "kind", "words"), ONE_LINE, ids=lambda value: f"{value!r:.30}")
def test_a_refusal_is_one_line(value: Any, kind: Any, words: str, pair: Pair) -> None:
    with pytest.raises(ValueRefused, match=words) as refused:
        _through(pair, value, kind)
    text = str(refused.value)
    assert "\n" not in text
    assert "http" not in text
    assert len(text) < 700


def test_a_receivers_error_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^a: Input should be a valid integer.* - at `\$\[0\]`$"):
        codec.TypedDecoder(list[Three]).decode(codec.encode([{"a": "x", "b": 1, "c": 1, "d": 1}]))


# --- what cannot be a key, or in a set --------------------------------------------------------------------------


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    a: int = 1


@dataclasses.dataclass(frozen=True)
class FrozenRecord:
    a: int = 1


class ModelKeys(pydantic.BaseModel):
    by: dict[Frozen, int]


class AnyKeys(pydantic.BaseModel):
    by: Any
    more: list[Any] = []


class Sets(pydantic.BaseModel):
    them: set[Frozen]
    inner: list[Sets] = []


UNHASHABLE: list[tuple[Any, str]] = [
    (ModelKeys(by={Frozen(): 1}), rf"a {HERE}.Frozen as a key of a dict cannot travel at \.by"),
    (AnyKeys(by={Frozen(): 1}), rf"a {HERE}.Frozen as a key of a dict cannot travel at \.by"),
    (
        AnyKeys(by={"a": [{FrozenRecord(): 1}]}),
        rf"a {HERE}.FrozenRecord as a key of a dict cannot travel at \.by\.a\[0\]",
    ),
    (AnyKeys(by=1, more=[{(Frozen(), 1): 2}]), r"a tuple as a key of a dict cannot travel at \.more\[0\]"),
    (AnyKeys(by=OrderedDict({Frozen(): 1})), rf"a {HERE}.Frozen as a key of a dict cannot travel at \.by"),
    (Sets(them={Frozen()}), rf"a set of {HERE}.Frozen in a model cannot travel at \.them; a list of them can"),
    (Sets(them=[], inner=[Sets(them=[Frozen()])]), rf"a set of {HERE}.Frozen in a model .* at \.inner\[0\]\.them"),
    (AnyKeys(by=frozenset({FrozenRecord()})), rf"a frozenset of {HERE}.FrozenRecord in a model cannot travel at \.by"),
]


@pytest.mark.parametrize(("value", "words"), UNHASHABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_a_key_or_in_a_set_is_refused_with_the_place(value: Any, words: str, pair: Pair) -> None:
    for kind in (None, type(value)):
        with pytest.raises(ValueRefused, match=rf"^channel 'x': {words}"):
            _through(pair, value, kind)
    with pytest.raises(ValueRefused, match=words.replace(r" at \.", r" at \.deep\[0\]\.")):
        _through(pair, {"pad": LONG, "deep": [value]})


def test_a_model_that_contains_itself_is_refused_in_our_words(pair: Pair) -> None:
    value = AnyKeys(by=1)
    value.more.append(value)
    with pytest.raises(ValueRefused, match=r"nested deeper than 200 levels, or contains itself$"):
        _through(pair, value)
