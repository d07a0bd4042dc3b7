"""Values that need no thorough look, and how to recognise them quickly."""

from __future__ import annotations

import datetime
import math
import re
from itertools import chain
from typing import Any

from msgspec import to_builtins
from msgspec.msgpack import decode, encode

__all__ = [
    "MAX_DEPTH",
    "NOT_OPENING",
    "OPENING",
    "SMALL",
    "is_flat",
    "is_number",
    "is_safe",
    "is_shallow",
    "may_be_plain",
]

MAX_DEPTH = 200  # nested containers; far above any message, far below what would exhaust the stack of either end

is_flat = frozenset({str, int, float, bool, type(None), bytes}).__contains__
"""Whether values of exactly this type hold no others and arrive as they are."""

may_be_plain = frozenset({str, int, float, bool, type(None), dict, list}).__contains__
"""Whether values of exactly this type are worth a quick look before the thorough one."""

SMALL = MAX_DEPTH
"""Bytes of an encoded value that cannot be nested too deeply, as every level takes one at least."""

_BYTES = (bytes, bytearray, memoryview)
"""Left as they are; ``to_builtins`` would make a text of them."""

_BYTES_AND_TIMES = (*_BYTES, datetime.time)

_TIME = re.compile(rb":\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)").search
"""Finds what a time of day with an offset is encoded as, among other texts like it."""

# Every level costs at least one byte that opens a container (MessagePack: fixmap, fixarray, array and map 16/32).
# Counting the bytes that could be one takes 1 ns a byte and spares nearly every message a walk.
OPENING = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
NOT_OPENING = bytes(byte for byte in range(256) if byte not in OPENING)


def is_safe(value: object, payload: bytes) -> bool:
    """Whether *value*, which *payload* has been made of, can surely be decoded by everybody, and is not too deep.

    False says nothing: it may travel all the same, and has to be looked at thoroughly. This is part of every ``send``
    of a dict or list, so it asks msgspec: what that can turn into built-in types without our help, it can also read
    back, while a key that would be no key, ``Raw`` or ``Ext`` is an error. Different keys that become equal are one
    key then, and what that encodes to is another payload.
    """
    try:
        if len(payload) <= SMALL:
            return bool(to_builtins(value) == value)
        plain = to_builtins(value, builtin_types=_BYTES)
        if encode(plain) != payload and encode(decode(payload)) != payload:
            return False  # the second also holds for date-times with a zone, which are no text
        if _TIME(payload) and to_builtins(value, builtin_types=_BYTES_AND_TIMES) != plain:
            return False  # there are times of day: some cannot travel, and the thorough look knows which
    except Exception:  # whatever it is, the thorough look finds the words
        return False
    return len(payload.translate(None, NOT_OPENING)) <= MAX_DEPTH


def is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether plain data has at most *depth* levels of containers, a tuple as a key included."""
    kind = type(value)
    if kind is dict:
        items = chain(value.keys(), value.values())
    elif kind is list or kind is tuple:
        items = value
    else:
        return True
    if depth == 0:
        return False
    return all(is_flat(type(item)) or is_shallow(item, depth - 1) for item in items)


def is_number(value: object) -> bool:
    """Whether *value* can be counted with: an int of at most 64 bits or a finite float, and not a bool."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**64
    return isinstance(value, float) and math.isfinite(value)
