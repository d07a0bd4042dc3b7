"""Values as the view of the shared memory keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

__all__ = ["MISSING", "Expiring", "Missing", "Packed", "pack", "shown"]


class Packed(bytes):
    """A container in the view, still encoded. A type of its own, so that one comparison tells it from a value."""

    __slots__ = ()


class Expiring:
    """A value with an end in the view; reads compare the clock and then treat it like ``value``."""

    __slots__ = ("deadline", "value")

    def __init__(self, value: object, deadline: float) -> None:
        self.value = value
        self.deadline = deadline


_decoder = msgspec.msgpack.Decoder()


class Missing:
    """The type of :data:`MISSING`. No value that can be stored, so that nobody writes it by mistake."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""Stands for a key that is not there, where None would be a value."""


# What makes an encoded value one of the view, by its first byte. Nil, a boolean, a small or sized number and a text are
# immutable, so that the object itself may be handed out. 0xC1 begins no value.
_PACK: list[Callable[[bytes], object]] = [
    _decoder.decode
    if first < 0x80 or first >= 0xE0 or 0xA0 <= first <= 0xC3 or 0xCA <= first <= 0xD3 or 0xD9 <= first <= 0xDB
    else Packed
    for first in range(256)
]


def pack(payload: bytes) -> object:
    """An encoded value as the view keeps it.

    What cannot be decoded stays encoded: it is an error for whoever reads it, and for nobody else.
    """
    try:
        return _PACK[payload[0]](payload)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        return Packed(payload)


def shown(payload: bytes, deadline: float | None) -> object:
    value = pack(payload)
    return value if deadline is None else Expiring(value, deadline)
