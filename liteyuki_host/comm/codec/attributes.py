"""Objects of attrs' classes: msgspec encodes them without their private fields, and says nothing about it."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from liteyuki_host.comm.codec.kinds import declared
from liteyuki_host.comm.codec.plain import MAX_DEPTH, is_flat

__all__ = ["loses_a_field", "lost_field"]


def lost_field(value: object) -> str | None:
    """The private field that *value* would arrive without; None when there is none, or it holds its default."""
    kind: Any = type(value)
    for name, field in _private_fields(kind):
        if hasattr(value, name) and not _holds_default(getattr(value, name), field.default):
            return name
    return None


def loses_a_field(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a field is lost anywhere in *value*, which has been encoded. Keys and models are not looked into."""
    kind: Any = type(value)
    if is_flat(kind) or not depth or "attr" not in sys.modules:
        return False
    inner: Any
    if issubclass(kind, Mapping):
        inner = list(value.values())
    elif issubclass(kind, (list, tuple, deque, set, frozenset)):
        inner = list(value)
    else:
        if lost_field(value) is not None:
            return True
        inner = [getattr(value, name, None) for name in _fields(kind)]
    return any(loses_a_field(item, depth - 1) for item in inner if not is_flat(type(item)))


@functools.lru_cache(maxsize=1024)
def _private_fields(kind: type) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field) for field in _attributes(kind) if field.name.startswith("_"))


@functools.lru_cache(maxsize=1024)
def _fields(kind: type) -> tuple[str, ...]:
    """The fields of a class that msgspec encodes by itself."""
    names = declared(kind, "__dataclass_fields__") or declared(kind, "__struct_fields__")
    return tuple(names or [field.name for field in _attributes(kind)])


def _attributes(kind: type) -> Any:
    """What attrs says of the fields of its classes; nothing for others, and for what msgspec takes for dataclasses."""
    if declared(kind, "__dataclass_fields__") is not None:
        return ()
    return declared(kind, "__attrs_attrs__") or ()


def _holds_default(item: object, default: Any) -> bool:
    try:
        factory = declared(type(default), "factory") and default.factory
        if factory:
            return not default.takes_self and bool(factory() == item)
        return bool(default == item)
    except Exception:  # the user's own factory or comparison
        return False
