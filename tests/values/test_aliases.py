"""Fields of pydantic's classes travel by the names that their class reads."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections import deque
from typing import Any, Generic, TypeVar

import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, ConfigDict, Field

from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.testing import Pair
from tests.values.sending import through as _through

T = TypeVar("T")
HERE = __name__


class Text(pydantic.BaseModel):
    a: int = Field(5, validation_alias="v")


class Needed(pydantic.BaseModel):
    a: int = Field(validation_alias="v")


class Choices(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasChoices("x", "y"))


class PathFirst(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasChoices(AliasPath("deep", 0), "y"))


class Path(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasPath("deep", "inner", 0))
    b: int = Field(2, validation_alias=AliasPath("deep", "inner", 2))
    c: list[int] = Field([], validation_alias=AliasPath("deep", "other"))


class PathInChoices(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasChoices(AliasPath("p", 0), AliasPath("q", 0)))


class PathOfOne(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasPath("v"))


class BothWays(pydantic.BaseModel):
    a: int = Field(1, validation_alias="in", serialization_alias="out")


class WrittenIsRead(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasChoices("x", "y"), serialization_alias="y")


class Swapped(pydantic.BaseModel):
    a: int = Field(1, validation_alias="b")
    b: int = Field(2, validation_alias="a")


class ByNameToo(pydantic.BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(1, validation_alias="v")
    deep: int = Field(2, validation_alias=AliasPath("list", 0))


class ByGenerator(pydantic.BaseModel):
    model_config = ConfigDict(
        alias_generator=pydantic.AliasGenerator(validation_alias=str.upper, serialization_alias=str.title)
    )
    a: int = 1
    longer: int = 2


class More(pydantic.BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = Field(1, validation_alias="v")


class Computed(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = Field(1, validation_alias="v")

    @pydantic.computed_field(alias="v")  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.a * 2


class Wrapped(pydantic.BaseModel):
    a: int = Field(1, validation_alias="v")

    @pydantic.model_serializer(mode="wrap")
    def whole(self, handler: Any) -> Any:
        return {**handler(self), "more": 1}


class Root(pydantic.RootModel[list[Text]]):
    pass


class Child(Text):
    b: int = Field(0, validation_alias="w")


@pydantic.dataclasses.dataclass
class Record:
    a: int = Field(1, validation_alias="v")


@pydantic.dataclasses.dataclass(slots=True)
class Slotted:
    a: Text = Field(default_factory=Text, validation_alias="v")


@dataclasses.dataclass
class Plain:
    inner: Text


class Box(pydantic.BaseModel, Generic[T]):
    content: T = Field(validation_alias="c")


class Holder(pydantic.BaseModel):
    one: Text | None = None
    many: list[Text] = []
    named: dict[str, Text] = {}
    pair: tuple[Text, int] = Field((Text(), 0), validation_alias="two")
    queue: deque[Text] = deque()
    record: Record | None = None
    slotted: Slotted | None = None
    plain: Plain | None = None
    root: Root | None = None
    anything: Any = None
    boxed: Box[Text] | None = None


SAME: list[tuple[pydantic.BaseModel, Any]] = [
    (Text(v=9), {"v": 9}),
    (Needed(v=9), {"v": 9}),
    (Choices(x=9), {"x": 9}),
    (Choices(y=9), {"x": 9}),
    (PathFirst(y=9), {"y": 9}),
    (
        Path.model_validate({"deep": {"inner": [7, 8, 9], "other": [1]}}),
        {"deep": {"inner": [7, None, 9], "other": [1]}},
    ),
    (PathInChoices(q=[9]), {"p": [9]}),
    (PathOfOne(v=9), {"v": 9}),
    (BothWays.model_validate({"in": 9}), {"in": 9}),
    (WrittenIsRead(x=9), {"y": 9}),
    (Swapped(a=8, b=9), {"a": 8, "b": 9}),
    (ByNameToo(v=8, list=[9]), {"a": 8, "deep": 9}),
    (ByGenerator(A=8, LONGER=9), {"A": 8, "LONGER": 9}),
    (More(v=8, other=9), {"v": 8, "other": 9}),
    (Computed(v=9), {"v": 9}),
    (Wrapped(v=9), {"v": 9, "more": 1}),
    (Root([{"v": 9}]), [{"v": 9}]),
    (Child(v=8, w=9), {"v": 8, "w": 9}),
    (Box[Text](c=Text(v=9)), {"c": {"v": 9}}),
    (Box[list[Box[int]]](c=[Box[int](c=9)]), {"c": [{"c": 9}]}),
    (Holder(one={"v": 9}), None),
    (Holder(many=[{"v": 8}, {"v": 9}], named={"n": {"v": 9}}, two=({"v": 8}, 9), queue=[{"v": 9}]), None),
    (Holder(record={"v": 9}), None),
    (Holder(slotted={"v": {"v": 9}}), None),
    (Holder(plain={"inner": {"v": 9}}), None),
    (Holder(root=[{"v": 9}], boxed={"c": {"v": 9}}), None),
]


@pytest.mark.parametrize(("value", "plain"), SAME, ids=lambda value: type(value).__name__)
def test_the_class_reads_what_arrives(value: Any, plain: Any, pair: Pair) -> None:
    kind = type(value)
    for got in (_through(pair, value), _through(pair, {"pad": "x" * 1000, "v": [value]})["v"][0]):
        assert plain is None or got == plain
        assert kind.model_validate(got) == value
    assert _through(pair, value, kind) == value


def test_it_is_so_for_a_subclass_that_the_annotation_does_not_name(pair: Pair) -> None:
    assert _through(pair, More(v=8, other=Text(v=9))) == {"v": 8, "other": {"v": 9}}
    got = _through(pair, Holder(one=Child(v=8, w=9), anything=[{"deep": Choices(x=7)}]))
    assert got["one"] == {"v": 8, "w": 9}
    assert got["anything"] == [{"deep": {"x": 7}}]


@pytest.mark.skipif(
    "by_name" not in inspect.signature(pydantic.BaseModel.model_validate).parameters, reason="pydantic before 2.11"
)
def test_a_class_that_reads_no_alias_is_written_by_names(pair: Pair) -> None:
    class ByName(pydantic.BaseModel):
        model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)
        a: int = Field(1, alias="v")

    value = ByName(a=9)
    assert _through(pair, value) == {"a": 9}
    assert _through(pair, value, ByName) == value


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic 1 does not run on Python 3.14")
def test_a_model_of_pydantic_1_is_written_by_its_aliases(pair: Pair) -> None:
    from pydantic import v1

    class Old(v1.BaseModel):
        a: int = v1.Field(1, alias="v")
        inner: list[Old] = []

    Old.update_forward_refs(Old=Old)
    value = Old(v=8, inner=[Old(v=9)])
    assert _through(pair, value) == {"v": 8, "inner": [{"v": 9, "inner": []}]}
    assert _through(pair, value, Old) == value


def test_a_serializer_that_makes_everything_by_itself_is_left_alone(pair: Pair) -> None:
    class Whole(pydantic.BaseModel):
        a: int = Field(1, validation_alias="v")

        @pydantic.model_serializer
        def whole(self) -> dict[str, int]:
            return {"a": self.a, "v": 3}

    assert _through(pair, Whole(v=9)) == {"a": 9, "v": 3}


class Negative(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasPath("list", -1))


class HugeIndex(pydantic.BaseModel):
    a: int = Field(1, validation_alias=AliasPath("list", 10**9))


class TwoViews(pydantic.BaseModel):
    whole: list[int] = Field([], validation_alias="list")
    first: int = Field(0, validation_alias=AliasPath("list", 0))


class TwoShapes(pydantic.BaseModel):
    a: int = Field(0, validation_alias=AliasPath("x", 0))
    b: int = Field(0, validation_alias=AliasPath("x", "y"))


class OneName(pydantic.BaseModel):
    a: int = Field(0, validation_alias="x")
    b: int = Field(0, validation_alias="x")


def _two_names() -> OneName:
    made = OneName(x=1)
    made.b = 2
    return made


def _hidden_extra() -> More:
    return More.model_validate({"v": 1, "a": 2})


UNWRITABLE: list[tuple[Any, str]] = [
    (Negative(list=[9]), "one of its fields is read from index -1 of a list"),
    (HugeIndex(), "one of its fields is read from index 1000000000 of a list"),
    (TwoViews(list=[8, 9]), "one of its fields is read from 'list', and another one from inside of that"),
    (TwoShapes(x=[9]), "two of its fields are read from 'x' in ways that exclude each other"),
    (_two_names(), "two of its fields are read from 'x', and differ"),
    (_hidden_extra(), "'a' is the name of a field and of something extra"),
]


@pytest.mark.parametrize(("value", "words"), UNWRITABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_written_as_it_is_read_is_refused(value: Any, words: str, pair: Pair) -> None:
    name = f"{HERE}.{type(value).__name__}"
    for kind in (None, type(value)):
        with pytest.raises(ValueRefused, match=rf"^channel 'x': a value of type {name} cannot travel .*: {words}"):
            _through(pair, value, kind)
    with pytest.raises(ValueRefused, match=rf"type {name} cannot travel between processes at \.a\[0\]\.anything: "):
        _through(pair, {"a": [Holder(anything=value)]})


def test_two_fields_of_one_name_that_are_equal_travel(pair: Pair) -> None:
    assert _through(pair, OneName(x=3)) == {"x": 3}
