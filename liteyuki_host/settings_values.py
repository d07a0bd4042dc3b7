"""What the value of a setting may be: one check for each kind of value.

A check takes what a layer holds (text in the environment, a TOML or Python value elsewhere) and returns the value
itself, or raises ValueError with the words that follow the setting's name in the error line.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from liteyuki_host.supervisor.spec import Reload
from liteyuki_host.wording import short_repr

CHILD_VARIABLES = ("LYCOMM_LINK", "LYCOMM_PROCESS", "LYCOMM_LEASH", "LYCOMM_LOCK", "LYCOMM_SHARE_PORT")
"""What a host puts into its child's environment. A host may itself be the child of another one."""

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
_SUFFIXES = {"": 1, "kib": KiB, "mib": MiB, "gib": GiB, "kb": 1000, "mb": 1000**2, "gb": 1000**3}


# Numbers and sizes


@dataclass(frozen=True)
class Number:
    """A number from *low* to *high*; where 0 has a meaning of its own (``off``), also 0."""

    kind: type[int | float]
    low: float
    high: float
    unit: str
    off: bool = False

    def __call__(self, value: object) -> float:
        number = self._number(value)
        if number is None:
            what = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"{short_repr(value)} is not {what} ({self.unit})")
        if not (self.low <= number <= self.high or (self.off and number == 0)):
            what = f"{self.low} and {self.high} ({self.unit}){_or_zero(self.off)}"
            raise ValueError(f"{short_repr(value)} is not between {what}")
        return number

    def _number(self, value: object) -> float | None:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            return None
        try:
            number = self.kind(value)
            return number if number == float(value) else None  # 2.5 is no int; NaN equals nothing
        except (ValueError, OverflowError):
            return None


@dataclass(frozen=True)
class Size:
    """Bytes, from *low* to *high*; with ``off`` also 0. As text also in KiB, MiB, GiB, KB, MB or GB."""

    low: int
    high: int
    off: bool = False
    unit: ClassVar[str] = "bytes"

    def __call__(self, value: object) -> int:
        size = self._size(value)
        if size is None:
            raise ValueError(
                f"{short_repr(value)} is not a size: write bytes, or a number with KiB, MiB, GiB, KB, MB or GB"
            )
        if not (self.low <= size <= self.high or (self.off and size == 0)):
            what = f"{_in_units(self.low)} and {_in_units(self.high)}{_or_zero(self.off)}"
            raise ValueError(f"{short_repr(value)} is not between {what}")
        return size

    def _size(self, value: object) -> int | None:
        if isinstance(value, str):
            # The digits are bounded: more of them are no size, and too much for a float.
            match = re.fullmatch(r"\s*(-?[0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*", value)
            factor = _SUFFIXES.get(match[2].lower()) if match else None
            if match is None or factor is None:
                return None
            size = float(match[1]) * factor
            return int(size) if factor > 1 or size.is_integer() else None  # 0.1 GiB is no whole number of bytes
        if isinstance(value, float):
            return int(value) if value.is_integer() else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def _in_units(size: int) -> str:
    for suffix, unit in (("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if size % unit == 0:
            return f"{size // unit} {suffix}"
    return f"{size} bytes"


def _or_zero(off: bool) -> str:
    return ", nor 0 for off" if off else ""


# Words


@dataclass(frozen=True)
class OneOf:
    """One of some words, in upper or lower case."""

    words: Sequence[str]

    def __call__(self, value: object) -> str:
        text = value if isinstance(value, str) else ""
        for word in self.words:
            if text.lower() == word.lower():
                return word
        guess = did_you_mean(text.lower(), {word.lower(): word for word in self.words})
        raise ValueError(f"{short_repr(value)} is not one of {', '.join(self.words)}{guess}")


def reload_mode(value: object) -> str:
    """``true`` is what people write first. It gets the mode in which one account is never served twice."""
    plain = {"true": Reload.SWAP, "false": Reload.OFF}
    return OneOf(tuple(Reload))(plain.get(str(value).lower(), value))


def switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{short_repr(value)} is not true or false")
    return value


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """``; did you mean ...?`` when *name* resembles one of the keys of *known*; their values are what is shown."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {known[close[0]]}?" if close else ""


# Texts and lists of them


def text(value: object) -> str:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str) or not value or not _usable(value):
        raise ValueError(f"{short_repr(value)} is not a text")
    return value


def text_or_none(value: object) -> str | None:
    """An empty text is None: an environment has no other way to say so."""
    return None if value is None or value == "" else text(value)


def module_name(value: object) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise ValueError(f"{short_repr(value)} is not a module name")
    return value


def process_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError(
            f"{short_repr(value)} is not a process name (letters, digits, _ . -; a letter or digit first; at most 64)"
        )
    if value.lower() == "host":
        raise ValueError(f"{value!r} is the name of the host itself: call the process something else")
    return value


@dataclass(frozen=True)
class ListOf:
    """A list; as text JSON or separated by commas."""

    check: Callable[[object], str]
    what: str

    def __call__(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            names = [part.strip() for part in value.split(",") if part.strip()]
            value = _json(value) if value.lstrip().startswith("[") else names
        if not isinstance(value, list | tuple):
            raise ValueError(f"{short_repr(value)} is not a list of {self.what}")
        return tuple(self.check(item) for item in value)


# Tables


def process_table(value: object) -> Mapping[Any, Any]:
    value = _json(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise ValueError(f"{short_repr(value)} is not a table of processes")
    return value


def environment_table(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{short_repr(value)} is not a table of environment variables")
    env: dict[str, str] = {}
    for name, item in value.items():
        if not isinstance(name, str) or not name or "=" in name or not _usable(name):
            raise ValueError(f"{short_repr(name)} is not the name of an environment variable")
        if name.upper() in CHILD_VARIABLES:
            raise ValueError(f"{name} is set by the host: remove it")
        try:
            env[name] = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        except (TypeError, ValueError):
            raise ValueError(f"{name}={short_repr(item)} is neither text nor JSON") from None
        if not _usable(env[name]):
            raise ValueError(f"{name}={short_repr(item)} contains what no environment can")
    return env


def _usable(text: str) -> bool:
    """Whether the operating system takes *text* in a path or an environment."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return False


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{short_repr(text)} is not JSON ({error})") from None
