"""Wrong values of settings are told by what can be written instead, and never in the words of pydantic."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import (
    AnyHttpUrl,
    BaseModel,
    Field,
    FilePath,
    IPvAnyAddress,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core.core_schema import ErrorType

from liteyuki_host._child.trouble import explain, locate
from liteyuki_host._child.value_words import wrong_values


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Nested(BaseModel):
    key: str


KINDS: list[tuple[Any, Any, str]] = [
    (int, "a", "'a': expected a whole number"),
    (int, 1.5, "1.5: expected a whole number"),
    (float, "a", "'a': expected a number"),
    (bool, "maybe", "'maybe': expected true or false"),
    (str, 1, "1: expected text"),
    (list[str], "a", """'a': expected a list like ["a", "b"]"""),
    (set[int], ["1", "b"], "entry 2: 'b': expected a whole number"),
    (dict[str, int], "a", """'a': expected a table like {"a": 1}"""),
    (int | bool, "a", "'a': expected a whole number or true or false"),
    (list[int] | None, "a", """'a': expected a list like ["a", "b"]"""),
    (Literal["a", "b"], "c", "'c': expected one of 'a' or 'b'"),
    (Colour, "green", "'green': expected one of 'red' or 'blue'"),
    (datetime.timedelta, "x", "'x': expected a duration: seconds, or hours, minutes and seconds like 00:02:00"),
    (datetime.datetime, "x", "'x': expected a date and time like 2026-01-31 12:00:00"),
    (datetime.date, "x", "'x': expected a date like 2026-01-31"),
    (AnyHttpUrl, "x", "'x': expected an address like https://example.com"),
    (IPvAnyAddress, "x", "'x': expected an IP address like 127.0.0.1"),
    (FilePath, "/nowhere", "'/nowhere': expected the path of a file that is there"),
    (Annotated[int, Field(ge=1, le=9)], "0", "'0': expected at least 1"),
    (Annotated[str, Field(min_length=3)], "a", "'a': expected at least 3 characters"),
    (Annotated[str, Field(pattern="^x+$")], "a", "'a': expected text of the form ^x+$"),
    (Nested, "a", """'a': expected a table like {"a": 1}"""),
]


@pytest.mark.parametrize(("kind", "value", "words"), KINDS, ids=[f"{kind} {value!r}" for kind, value, _ in KINDS])
def test_a_kind_of_value_is_told_in_plain_words(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, kind]).validate_python({"setting": value})
    # A dict's values have the place that the fields of a model have.
    assert list(wrong_values(caught.value.errors())) == [(("setting",), words)]


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_kind_of_error_is_told_in_the_words_of_pydantic(kind: str) -> None:
    error = {"type": kind, "loc": ("a",), "msg": "Input should be", "input": 1, "ctx": {"error": "no such city"}}
    [(names, words)] = wrong_values([error])
    assert names == ("a",)
    assert "Input should" not in words
    if kind in ("value_error", "assertion_error"):
        assert words == "1: no such city"
    elif kind not in ("missing", "extra_forbidden"):
        assert words.startswith("1: expected ")


class Config(BaseModel):
    weather_limit: int
    weather_key: str
    weather_city: str = "x"

    @field_validator("weather_city")
    @classmethod
    def known(cls, city: str) -> str:
        if city == "nowhere":
            raise ValueError("there is no such city")
        return city


def get_plugin_config(values: dict[str, Any]) -> Config:
    """As NoneBot's, by name."""
    return Config.model_validate(values)


def test_a_plugins_settings_are_told_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ENVIRONMENT=dev\nWEATHER_LIMIT=many\nWEATHER_CITY=nowhere\n")
    (tmp_path / ".env.dev").write_text("WEATHER_LIMIT=few\n")
    with pytest.raises(ValidationError) as caught:
        get_plugin_config({"weather_limit": "few", "weather_city": "nowhere"})
    words = (
        "WEATHER_LIMIT in .env.dev: 'few': expected a whole number; WEATHER_KEY is missing: add it to .env; "
        "WEATHER_CITY in .env: 'nowhere': there is no such city"
    )
    assert explain(caught.value) == words
    assert locate(caught.value, tmp_path, "plugin weather") == f"plugin weather: {words}"


def test_wrong_data_of_something_else_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValidationError) as caught:
        Nested.model_validate({"key": 1})
    assert explain(caught.value).startswith("ValidationError: 1 validation error for Nested")
