"""Whether what arrives is what was sent: asked at the sender, of typed channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from liteyuki_host.comm.codec.encoding import encode_plain
from liteyuki_host.comm.codec.kinds import full_name
from liteyuki_host.comm.codec.places import members, step
from liteyuki_host.comm.codec.plain import MAX_DEPTH

__all__ = ["difference", "shown"]


def difference(arrived: object, sent: object) -> str | None:
    """Where *arrived* is something else than *sent*, as the end of a sentence; None when it is the same.

    Equal is the same. So is what only cannot be compared (NaN, classes without an ``==`` of their own), and an object
    for a dict that has its fields. Outside of objects so is whatever plain data makes of the value: a dict for an
    object, a list for a tuple or a set, a text for what is written as one. Private attributes of models are not looked
    at.
    """
    return _difference(arrived, sent, "", MAX_DEPTH, inside=False)


def _difference(arrived: Any, sent: Any, place: str, depth: int, *, inside: bool) -> str | None:
    """The same at *place*; *inside* an object, which should hold what it has held."""
    if depth == 0 or _equal(arrived, sent):
        return None
    kind, other_kind = type(arrived), type(sent)
    own, other = members(arrived), members(sent)
    if kind is other_kind and own is not None and other is not None:
        return _of_named(own, other, place, depth)
    if other is not None and (own is not None or inside):
        return f"{_at(place)}: a {full_name(other_kind)} becomes a {full_name(kind)}"
    if own is not None:
        return None  # plain data: the sender has described the object
    if isinstance(arrived, dict) and isinstance(sent, dict) and len(arrived) == len(sent):
        pairs: Iterable[tuple[str, object, object]] = (
            (step(key), own_item, item) for (key, own_item), item in zip(arrived.items(), sent.values(), strict=True)
        )
    elif _are_sequences(arrived, sent, alike=inside):
        pairs = ((f"[{index}]", *both) for index, both in enumerate(zip(arrived, sent, strict=True)))
    elif (kind is other_kind or not inside) and _plain(arrived) == _plain(sent) != b"":
        return None
    else:
        return f"{_at(place)}: {shown(sent)} becomes {shown(arrived)}"
    for way, own_item, item in pairs:
        changed = _difference(own_item, item, place + way, depth - 1, inside=inside)
        if changed is not None:
            return changed
    return None


def _are_sequences(arrived: Any, sent: Any, *, alike: bool) -> bool:
    """Whether both can be compared item by item; *alike*: and are the same kind of sequence."""
    one, other = (next((base for base in (list, tuple, deque) if isinstance(v, base)), None) for v in (arrived, sent))
    return one is not None and other is not None and len(arrived) == len(sent) and (one is other or not alike)


def _of_named(arrived: dict[str, Any], sent: dict[str, Any], place: str, depth: int) -> str | None:
    for name in {**sent, **arrived}:
        if name not in arrived:
            return f"{_at(place)}: its {name} is lost"
        if name not in sent:
            return f"{_at(place)}: it gets a {name}"
        changed = _difference(arrived[name], sent[name], f"{place}.{name}", depth - 1, inside=True)
        if changed is not None:
            return changed
    return None


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # a class may compare in ways of its own
        return False


def _plain(value: object) -> bytes:
    try:
        return encode_plain(value)
    except Exception:
        return b""


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def shown(value: object) -> str:
    """*value* in at most 60 characters; its type where it has no short text, or its ``repr()`` fails."""
    try:
        return f"{value!r:.60}" if members(value) is None else f"a {full_name(type(value))}"
    except Exception:
        return f"a {full_name(type(value))}"
