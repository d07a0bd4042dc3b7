"""Where in a value something is: its parts, each with the way to it as its author would write it."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from liteyuki_host.comm.codec import models
from liteyuki_host.comm.codec.aliases import Unwritable
from liteyuki_host.comm.codec.kinds import declared, full_name
from liteyuki_host.comm.codec.plain import MAX_DEPTH, is_flat

__all__ = ["Part", "cannot_travel", "find", "members", "parts", "step"]


class Part(NamedTuple):
    """A part of a value: the way to it, as in ``.users[3].photo``, and what is there."""

    place: str
    value: object

    @property
    def at(self) -> str:
        """The place as the end of a sentence; nothing for the value itself."""
        return f" at {self.place}" if self.place else ""


def cannot_travel(value: object, place: str) -> str:
    """The sentence that refuses *value*, with its real type."""
    return f"a value of type {full_name(type(value))} cannot travel between processes{Part(place, value).at}"


def step(key: object) -> str:
    """The way from a dict to the item under *key*. Nothing of a user's class is called for it."""
    kind = type(key)
    if kind is str:
        text = str(key)
        return f".{text}" if text.isidentifier() else f"[{text!r:.60}]"
    if kind in (int, float, bool, bytes, type(None)):
        return f"[{key!r:.60}]"
    return f"[a {full_name(kind)}]"


def members(value: object) -> dict[str, Any] | None:
    """The named parts of an object that travels as its parts (a dataclass, a Struct, a model), else None."""
    kind = type(value)
    names = declared(kind, "__dataclass_fields__") or declared(kind, "__struct_fields__")
    if names is not None:
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    attributes = declared(kind, "__attrs_attrs__")
    if attributes is not None:
        return {a.name: getattr(value, a.name) for a in attributes if hasattr(value, a.name)}
    return models.state(value) if models.is_model(kind) else None


def parts(whole: Part, dumped: Callable[[Any], Any], *, flat: bool = True) -> Iterator[Part]:
    """What *whole* directly holds.

    Args:
        dumped: turns a model into the data that travels in its place.
        flat: whether to tell of flat values and of keys, too.
    """
    place, value = whole
    kind = type(value)
    if models.is_model(kind):
        try:
            value = dumped(value)
        except (TypeError, Unwritable):  # TypeError: pydantic makes a dict of what has to be a key, or in a set
            value = models.state(value)
        except Exception:  # out of its own serializers: the model itself is the place
            return
        kind = type(value)
    # Copies, as another thread may change what is looked through.
    if issubclass(kind, Mapping):
        for key, item in list(value.items()):  # type: ignore[attr-defined]
            if flat:
                yield Part(f"{place}[key {key!r:.60}]" if type(key) in (str, int) else f"{place}[a key]", key)
            if flat or not is_flat(type(item)):
                yield Part(place + step(key), item)
    elif issubclass(kind, (list, tuple, deque)):
        for index, item in enumerate(list(value)):  # type: ignore[call-overload]
            if flat or not is_flat(type(item)):
                yield Part(f"{place}[{index}]", item)
    elif issubclass(kind, (set, frozenset)):
        for item in list(value):  # type: ignore[call-overload]
            if flat or not is_flat(type(item)):
                yield Part(f"{place}[an element]", item)
    elif issubclass(kind, enum.Enum):
        yield Part(f"{place}.value", value.value)  # type: ignore[attr-defined]
    elif (named := members(value)) is not None:
        own = getattr(value, "__dict__", named)  # msgspec leaves out what is only a default of the class, or unset
        for name, item in named.items():
            if item is not msgspec.UNSET and name in own:
                yield Part(f"{place}.{name}", item)


def find(value: object, visit: Callable[[Part], None]) -> None:
    """Call *visit* with every part of *value* that is not flat; it raises when it has found what it looks for."""

    def walk(part: Part, depth: int) -> None:
        visit(part)
        if depth:
            for inner in parts(part, dumped=models.dump, flat=False):
                walk(inner, depth - 1)

    walk(Part("", value), MAX_DEPTH + 1)
