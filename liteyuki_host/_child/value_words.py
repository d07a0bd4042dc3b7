"""What is wrong with a setting's value, in words that need no knowledge of Python or pydantic.

pydantic tells "Input should be a valid integer, unable to parse string as an integer". Here it is what an operator can
write instead: "expected a whole number".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liteyuki_host.wording import one_line, short_repr

_EXACT = {
    "missing": "is missing",
    "extra_forbidden": "there is no such setting",
    "finite_number": "expected a number that is not infinite",
    "none_required": "expected nothing",
    "path_not_file": "expected the path of a file that is there",
    "path_not_directory": "expected the path of a folder that is there",
    "path_exists": "expected a path where nothing is yet",
    "string_pattern_mismatch": "expected text of the form {pattern}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "too_short": "expected at least {min_length} entries",
    "too_long": "expected at most {max_length} entries",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "multiple_of": "expected a multiple of {multiple_of}",
    "enum": "expected one of {expected}",
    "literal_error": "expected one of {expected}",
}
"""By the type of pydantic's error; in braces what the error tells besides."""

_BY_BEGINNING: dict[str | tuple[str, ...], str] = {
    "int": "a whole number",
    ("float", "decimal", "complex"): "a number",
    "bool": "true or false",
    ("string", "bytes", "str_type"): "text",
    ("list", "tuple", "set", "frozen_set", "iterable", "arguments"): 'a list like ["a", "b"]',
    ("dict", "mapping", "model", "dataclass", "typed_dict"): 'a table like {"a": 1}',
    "json": "JSON",
    "time_delta": "a duration: seconds, or hours, minutes and seconds like 00:02:00",
    "datetime": "a date and time like 2026-01-31 12:00:00",
    "date": "a date like 2026-01-31",
    "time": "a time like 12:00:00",
    "timezone": "a time zone",
    "url": "an address like https://example.com",
    "ip_": "an IP address like 127.0.0.1",
    "uuid": "a UUID",
    "path": "a path",
    ("union", "is_instance", "is_subclass", "callable"): "another kind of value",
}
"""By how the type of pydantic's error begins; the first one that fits counts."""


def wrong_values(errors: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each setting that is wrong: the parts of its name, and words about its value; not more than ten.

    Args:
        errors: what ``ValidationError.errors()`` of a configuration returns.
    """
    found: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for error in errors:
        names, item = _place(error)
        found.setdefault((names, item), []).append(in_words(error))
    for (names, item), words in list(found.items())[:10]:
        yield names, one_line(item + _either(words))


def _place(error: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The name of the setting, and which of its entries it is about. After the field pydantic also names the part of a
    union that it has tried, or the validator; that is of no use to an operator."""
    loc = error["loc"]
    names = tuple(part for part in loc[:1] if isinstance(part, str))
    inside = [str(part + 1) for part in loc[1:] if isinstance(part, int)]
    if error["type"] in ("missing", "extra_forbidden"):
        names = tuple(str(part) for part in loc)
        return names, ""
    value = short_repr(error.get("input"))
    return names, f"entry {'.'.join(inside)}: {value}: " if inside else f"{value}: "


def _either(words: Sequence[str]) -> str:
    """Of a union each kind by itself was wrong."""
    each = list(dict.fromkeys(words))
    kinds = [word.removeprefix("expected ") for word in each if word.startswith("expected ")]
    return f"expected {' or '.join(kinds)}" if len(kinds) == len(each) else "; ".join(each)


def in_words(error: Mapping[str, Any]) -> str:
    """Say what one entry of ``ValidationError.errors()`` expects: ``expected a whole number``."""
    kind, context = str(error["type"]), error.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):  # the author's own words
        return str(context.get("error") or error["msg"])
    if kind in _EXACT:
        try:
            return _EXACT[kind].format(**context)
        except KeyError:
            return "expected another value"
    for beginnings, words in _BY_BEGINNING.items():
        if kind.startswith(beginnings):
            return f"expected {words}"
    return "expected another value"
