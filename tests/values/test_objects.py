"""Objects that would arrive as something else, or in part: rebuilt, or refused in one line with the place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pydantic
import pytest

from liteyuki_host.comm import codec
from liteyuki_host.comm.errors import ValueRefused
from liteyuki_host.comm.testing import Pair
from tests.values.sending import through as _through

HERE = __name__


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
