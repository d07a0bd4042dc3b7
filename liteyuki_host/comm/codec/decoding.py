"""Bytes to plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from liteyuki_host.comm.codec.reasons import reason
from liteyuki_host.comm.codec.references import decode_extension
from liteyuki_host.comm.errors import ValueUnreadable
from liteyuki_host.comm.protocol.frames import Flag

__all__ = ["decode", "decode_payload", "decode_plain"]

decode_plain: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(ext_hook=decode_extension).decode
"""As :func:`decode`, but it raises whatever it meets: for who takes any exception the same way."""


def decode(payload: bytes | memoryview) -> Any:
    """Decode a payload to plain data.

    Raises:
        ValueUnreadable: it is not what ``encode`` makes.
    """
    try:
        return decode_plain(payload)
    except Exception as error:
        raise unreadable(error) from error


def decode_payload(payload: bytes, flags: int) -> Any:
    """A message's payload as plain data, whatever its flags say. Raises ValueUnreadable as :func:`decode` does."""
    return payload if flags & Flag.RAW else decode(payload)


def unreadable(error: Exception) -> ValueUnreadable:
    """One line on why a payload could not be decoded."""
    if isinstance(error, RecursionError):
        return ValueUnreadable("the value is nested too deeply to be read")
    return ValueUnreadable(f"the value cannot be read: {reason(error)}")
