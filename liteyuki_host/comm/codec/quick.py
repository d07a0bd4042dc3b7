"""Plain data to bytes in one pass: nearly all messages.

msgspec encodes much that nobody could decode, or that would arrive as something else, and asks nobody about it: keys
that are objects, keys that become equal, ``Raw``, ``Ext``. Finding that takes further passes, which cost more than the
encoding. ormsgpack can be told to take exact built-in types only, and texts as keys only. What it takes needs no
further look, and both packages make the same bytes of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from liteyuki_host.comm.codec.attributes import loses_a_field
from liteyuki_host.comm.codec.plain import MAX_DEPTH, NOT_OPENING, OPENING, SMALL, is_flat, is_safe, is_shallow

__all__ = ["encode_quickly"]

try:
    import ormsgpack

    pack = ormsgpack.packb
    _STRICT = (
        ormsgpack.OPT_PASSTHROUGH_BIG_INT
        | ormsgpack.OPT_PASSTHROUGH_DATACLASS
        | ormsgpack.OPT_PASSTHROUGH_DATETIME
        | ormsgpack.OPT_PASSTHROUGH_ENUM
        | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
        | ormsgpack.OPT_PASSTHROUGH_UUID
    )
except (ImportError, AttributeError):  # no wheel for this machine, or a version without one of the options
    pack = None  # type: ignore[assignment]
    _STRICT = 0

# `pack` is ormsgpack's encoder; None where that package cannot be used, and msgspec encodes instead.

FEW = 4
"""Items up to which a dict or list is looked through here, at 0.06 us an item: ormsgpack takes 0.3 us more than msgspec
for any value."""

_encode = msgspec.msgpack.Encoder().encode  # without a hook: plain data needs none, and the rest is not for here

# ormsgpack has one type that it cannot be told to refuse, its own `Ext`, whose header is one of these bytes. As they
# are also parts of numbers and texts, msgspec decides where they occur: it does not take that type.
_EXTENSION = bytes([0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)])
_ORDINARY = bytes(byte for byte in NOT_OPENING if byte not in _EXTENSION)


def encode_quickly(value: Any) -> bytes | None:
    """Encode plain data: exact built-in types, with texts as keys, nested at most ``MAX_DEPTH`` levels.

    Returns None for everything else, and where it cannot tell: ``encode`` decides then. Never raises.
    """
    kind = type(value)
    try:
        if kind is dict:
            if len(value) <= FEW:
                for key in value:
                    if type(key) is not str or not (type(item := value[key]) is str or is_flat(type(item))):
                        break
                else:
                    return _encode(value)
        elif kind is list:
            if len(value) <= FEW:
                for item in value:
                    if not is_flat(type(item)):
                        break
                else:
                    return _encode(value)
        elif is_flat(kind):
            return _encode(value)
        if pack is None:
            payload = _encode(value)
            return payload if is_safe(value, payload) and not loses_a_field(value) else None
        payload = pack(value, None, _STRICT)
        if len(payload) <= SMALL:  # encoding it again is faster than searching it
            return payload if _encode(value) == payload else None
        marks = payload.translate(None, _ORDINARY)
        if len(marks) > MAX_DEPTH and not is_shallow(value):
            return None
        if marks.strip(OPENING) and _encode(value) != payload:  # some of them could begin an extension
            return None
        return payload
    except Exception:  # whatever it is, `encode` finds the words
        return None
