"""Values to bytes and back: MessagePack by msgspec, nothing executable, refusals that name the place.

A payload is opaque to everything between the two ends. ``bytes`` values travel as they are, marked by a flag beside the
payload, because encoding 64 KiB costs more than sending it.

- ``quick``: plain data to a payload in one pass; ``plain``: which values need no thorough look
- ``encoding``: a value to a payload, or the refusal; ``models``: what pydantic models and NoneBot's messages are;
  ``aliases``: by which names their classes read fields; ``attributes``: what msgspec leaves out of attrs' objects
- ``places``: where in a value something is; ``reasons``: what an exception says, in one line
- ``decoding``, ``typed``: a payload to plain data, or to the type of a ``Channel[T]``; ``bounds``: those in its
  annotations; ``differences``: whether a typed value arrives as it was sent
- ``references``: channels, which travel by name
"""

from __future__ import annotations

from liteyuki_host.comm.codec.decoding import decode, decode_payload, decode_plain
from liteyuki_host.comm.codec.differences import shown
from liteyuki_host.comm.codec.encoding import DEFAULT_MESSAGE_LIMIT, encode, encode_plain
from liteyuki_host.comm.codec.plain import MAX_DEPTH, is_number, may_be_plain
from liteyuki_host.comm.codec.quick import encode_quickly
from liteyuki_host.comm.codec.references import referring
from liteyuki_host.comm.codec.typed import TypedDecoder

__all__ = [
    "DEFAULT_MESSAGE_LIMIT",
    "MAX_DEPTH",
    "TypedDecoder",
    "decode",
    "decode_payload",
    "decode_plain",
    "encode",
    "encode_plain",
    "encode_quickly",
    "is_number",
    "may_be_plain",
    "referring",
    "shown",
]
