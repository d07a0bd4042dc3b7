"""Channels as values: they travel by name, in a MessagePack extension of their own.

The module that defines channels registers itself here. Importing it would drag the whole state of the process along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["decode_extension", "is_referred", "reference", "referring"]

_CHANNEL_EXTENSION = 1  # MessagePack extension code of a channel travelling by name; never reuse a code

_referred: type | None = None
_to_name: Callable[[Any], str]
_from_name: Callable[[str], Any]


def referring(kind: type, to_name: Callable[[Any], str], from_name: Callable[[str], Any]) -> None:
    """Let objects of *kind* travel as a reference: by name there, and found by that name here."""
    global _referred, _to_name, _from_name
    _referred, _to_name, _from_name = kind, to_name, from_name


def is_referred(kind: Any) -> bool:
    """Whether objects of the type *kind* travel by name."""
    return _referred is not None and isinstance(kind, type) and issubclass(kind, _referred)


def reference(value: Any) -> msgspec.msgpack.Ext:
    """What travels in the place of *value*."""
    return msgspec.msgpack.Ext(_CHANNEL_EXTENSION, _to_name(value).encode())


def decode_extension(code: int, data: memoryview) -> Any:
    """What a MessagePack extension stands for.

    Raises:
        ValueError: *code* is not one of lycomm's, or *data* is no name.
    """
    if code == _CHANNEL_EXTENSION and _referred is not None:
        return _from_name(bytes(data).decode())
    raise ValueError(f"MessagePack extension {code} is not one that lycomm knows")
