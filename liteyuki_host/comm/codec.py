"""Values to bytes and back: MessagePack by msgspec, nothing executable, refusals that name the place.

A payload is opaque to everything between the two ends. ``bytes`` values travel as they are, marked by a
flag beside the payload, because encoding 64 KiB costs more than sending it.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from .errors import ValueRefused, ValueTooLarge
from .protocol.frames import Flag

__all__ = [
    "DEFAULT_MESSAGE_LIMIT",
    "MAX_DEPTH",
    "UNCHECKED_SIZE",
    "TypedDecoder",
    "acceptable",
    "decode",
    "decode_error",
    "decode_payload",
    "decode_plain",
    "encode",
    "encode_plain",
    "referring",
]

T = TypeVar("T")

DEFAULT_MESSAGE_LIMIT = 16 * 1024 * 1024  # bytes of one encoded value; a chat image is rarely above 10 MiB
MAX_DEPTH = 200  # nested containers; far above any message, far below what would exhaust the stack of either end

_CHANNEL_EXTENSION = 1  # MessagePack extension code of a channel travelling by name; never reuse a code

# How a name in a payload becomes a channel again, and a channel its name. Set once, by the module that defines
# channels: the codec must not import it, or a pure function would drag the whole process state along.
_channel_type: type | None = None
_channel_name: Callable[[Any], str] | None = None
_channel_from_name: Callable[[str], Any] | None = None


def referring(kind: type, to_name: Callable[[Any], str], from_name: Callable[[str], Any]) -> None:
    """Let objects of *kind* travel as a reference: by name there, and found by that name here."""
    global _channel_type, _channel_name, _channel_from_name
    _channel_type, _channel_name, _channel_from_name = kind, to_name, from_name


_PLAIN: tuple[type[Any], ...] = (int, float, bytes)


def _encode_other(value: Any) -> Any:
    """What msgspec does not know: channels, pydantic models, and subclasses of plain types."""
    if _channel_type is not None and isinstance(value, _channel_type):
        assert _channel_name is not None
        return msgspec.msgpack.Ext(_CHANNEL_EXTENSION, _channel_name(value).encode())
    if not isinstance(value, type):
        dump = getattr(value, "model_dump", None)  # pydantic 2, without importing it
        if dump is not None:
            return dump()
        if hasattr(value, "__fields__") and hasattr(value, "dict"):  # pydantic 1, which NoneBot still allows
            return value.dict()
        if isinstance(value, str):
            return str.__str__(value)  # the text itself, whatever its class prints
        for plain in _PLAIN:
            if isinstance(value, plain):
                return plain(value)
    raise NotImplementedError(f"a {_type_name(type(value))} cannot travel")


def _decode_extension(code: int, data: memoryview) -> Any:
    if code == _CHANNEL_EXTENSION and _channel_from_name is not None:
        return _channel_from_name(bytes(data).decode())
    raise ValueError(f"extension code {code} is not one of ours")


_encode = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
_plain_decoder = msgspec.msgpack.Decoder()
_decode: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(ext_hook=_decode_extension).decode

decode_plain = _decode
"""As :func:`decode`, but what is nested too deeply raises RecursionError: for who takes any error the same way."""


encode_plain = _encode
"""As :func:`encode`, but it checks nothing: neither size nor depth. What is refused, it refuses in other words."""

UNCHECKED_SIZE = MAX_DEPTH
"""Bytes up to which an encoded value needs no check: too short to be nested too deeply, and within every limit."""


def encode(value: object, limit: int = DEFAULT_MESSAGE_LIMIT) -> bytes:
    """Encode *value*; at most *limit* bytes.

    Raises:
        ValueRefused: something in it cannot travel, or it is nested deeper than :data:`MAX_DEPTH`. The text
            names the place, as in ``at .users[3].photo``.
        ValueTooLarge: the result would be above *limit*.
    """
    try:
        payload = _encode(value)
    except (TypeError, ValueError, NotImplementedError, OverflowError, RecursionError, AttributeError) as error:
        raise _refusal(value, error) from error
    size = len(payload)
    if size > min(UNCHECKED_SIZE, limit) and not acceptable(payload, limit):
        if size > limit:
            raise ValueTooLarge(f"the value is {size:,} bytes when encoded, the limit is {limit:,} bytes")
        raise ValueRefused(f"the value is nested deeper than {MAX_DEPTH} levels")
    return payload


def acceptable(payload: bytes, limit: int) -> bool:
    """Whether an encoded value is neither larger than *limit* bytes nor nested too deeply."""
    return len(payload) <= limit and (len(payload.translate(None, _NOT_OPENING)) <= MAX_DEPTH or not _too_deep(payload))


def decode(payload: bytes | memoryview) -> Any:
    """Decode a payload to plain data.

    Raises:
        ValueError: it is not what :func:`encode` makes; ``decode_error`` puts that into words.
    """
    try:
        return _decode(payload)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error


def decode_payload(payload: bytes, flags: int) -> Any:
    """A payload as plain data, whatever its flags say. Raises ValueError as :func:`decode` does."""
    if flags & Flag.RAW:
        return payload
    try:
        return _decode(payload)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error


def decode_error(error: Exception) -> str:
    """One line on why a payload could not be decoded."""
    return f"{type(error).__name__}: {error}"


class TypedDecoder(Generic[T]):
    """Decodes payloads to one type, and so also checks them: the check at ``send`` is this decoder."""

    def __init__(self, kind: Any) -> None:
        self.kind_name = _type_name(kind)
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(
            kind, dec_hook=_decode_model, ext_hook=_decode_extension
        )

    def decode(self, payload: bytes) -> T:
        """Raises ValueError, with the place, when the payload is not of this type."""
        return self._decoder.decode(payload)


def _decode_model(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None) or getattr(kind, "parse_obj", None)
    if validate is not None:
        return validate(value)
    plain = typing.get_origin(kind) or kind  # of Channel[str]
    if _channel_type is not None and isinstance(plain, type) and issubclass(plain, _channel_type):
        if isinstance(value, _channel_type):
            return value
        raise ValueError(f"Expected a channel, got `{_type_name(type(value))}`")
    raise ValueError(f"values of type {_type_name(kind)} cannot be rebuilt from a message")


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and not getattr(kind, "__args__", None):
        return kind.__qualname__
    return str(kind).replace("typing.", "")


# Every level costs at least one byte that opens a container (MessagePack: fixmap, fixarray, array and map 16/32).
# Counting the bytes that could be one takes 1 ns a byte and spares nearly every message the walk below.
_OPENING = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_NOT_OPENING = bytes(byte for byte in range(256) if byte not in _OPENING)


def _too_deep(payload: bytes) -> bool:
    """Whether a payload has more than :data:`MAX_DEPTH` levels. Asked of the plain data that the other end will see,
    as the value may be made of any classes."""
    try:
        return not _shallow(_plain_decoder.decode(payload))
    except RecursionError:
        return True


def _shallow(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether plain data has at most *depth* levels of containers."""
    kind = type(value)
    if kind is dict:
        items: Any = value.values()  # type: ignore[attr-defined]
    elif kind is list:
        items = value
    else:
        return True
    if depth == 0:
        return False
    return all(_shallow(item, depth - 1) for item in items)


def _refusal(value: object, error: Exception) -> ValueRefused:
    if isinstance(error, RecursionError):
        return ValueRefused(f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")
    place, culprit = _find_culprit(value)
    where = f" at {place}" if place else ""
    if isinstance(error, OverflowError):
        return ValueRefused(f"an integer of more than 64 bits cannot travel{where}")
    if isinstance(error, UnicodeEncodeError):
        return ValueRefused(f"a text with a lone surrogate (half of a character) cannot travel{where}")
    kind = _type_name(type(culprit))
    return ValueRefused(
        f"a value of type {kind} cannot travel between processes{where}; "
        "send plain data (numbers, texts, bytes, lists, dicts), a dataclass, or a model"
    )


def _find_culprit(value: object, path: str = "", depth: int = MAX_DEPTH) -> tuple[str, object]:
    """The place of the innermost part that does not encode. Only walked after a failure."""
    children: list[tuple[str, object]] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not _encodes(key):
                return f"{path}[key {key!r}]" if isinstance(key, (str, int)) else f"{path}[a key]", key
            children.append((f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]", item))
    elif isinstance(value, (list, tuple)):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, (set, frozenset)):
        children = [(f"{path}[an element]", item) for item in value]
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        children = [(f"{path}.{name}", getattr(value, name, None)) for name in value.__dataclass_fields__]
    elif isinstance(value, msgspec.Struct):
        children = [(f"{path}.{name}", getattr(value, name, None)) for name in value.__struct_fields__]
    elif hasattr(value, "model_dump") and not isinstance(value, type):
        dumped = value.model_dump()
        if isinstance(dumped, Mapping):
            return _find_culprit(dumped, path, depth)
    if depth:
        for place, item in children:
            if not _encodes(item):
                return _find_culprit(item, place, depth - 1)
    return path, value


def _encodes(value: object) -> bool:
    try:
        _encode(value)
    except Exception:
        return False
    return True


def is_number(value: object) -> bool:
    """Whether *value* can be counted with: an int of at most 64 bits or a finite float, and not a bool."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**64
    return isinstance(value, float) and math.isfinite(value)
