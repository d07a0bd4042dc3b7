"""Values to bytes, with refusals that name the place.

Nearly all values are plain data and take the quick way. Everything else is encoded, and looked through and decoded
again where it may not be safe: a value that could not be decoded, or would arrive as a different value, is refused here
and not first noticed by its receiver.

If encoding fails, the innermost part that fails is looked for (:func:`_culprit`), so that the error can name its place
and type. That costs time only after a failure. The functions keep no state and may be called from any thread.
"""

from __future__ import annotations

import datetime
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from liteyuki_host.comm.codec import models
from liteyuki_host.comm.codec.attributes import loses_a_field, lost_field
from liteyuki_host.comm.codec.decoding import decode_plain
from liteyuki_host.comm.codec.kinds import full_name, is_text_like
from liteyuki_host.comm.codec.places import Part, cannot_travel, find, members, parts
from liteyuki_host.comm.codec.plain import MAX_DEPTH, is_safe, is_shallow, may_be_plain
from liteyuki_host.comm.codec.quick import encode_quickly
from liteyuki_host.comm.codec.reasons import reason
from liteyuki_host.comm.codec.references import is_referred, reference
from liteyuki_host.comm.errors import ValueRefused, ValueTooLarge

__all__ = ["DEFAULT_MESSAGE_LIMIT", "encode", "encode_plain"]

DEFAULT_MESSAGE_LIMIT = 16 * 1024 * 1024  # bytes of one encoded value; a chat image is rarely above 10 MiB


def _encode_other(value: Any) -> Any:
    """Turn what msgspec does not know into what it knows."""
    kind = type(value)
    if is_referred(kind):
        return reference(value)
    if models.is_model(kind):
        return models.dump(value)
    return _encode_simple(kind, value)


def _encode_other_again(value: Any) -> Any:
    """As :func:`_encode_other`, but what cannot travel and is the default of a model's field is left out."""
    kind = type(value)
    if models.is_model(kind):
        return _without_useless_defaults(models.dump(value), models.dump_without_defaults(value))
    return _encode_other(value)


def _encode_simple(kind: type, value: Any) -> Any:
    """Turn an object of a subclass of a plain type, or one that stands for a text, into plain data.

    Raises:
        NotImplementedError: it is neither.
    """
    # The data itself, whatever the class makes of it when it is converted or printed.
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, bytes):
        return bytes(memoryview(value))
    if issubclass(kind, Mapping):
        return dict(value)
    if issubclass(kind, deque):
        return list(value)
    if is_text_like(kind):
        text = os.fspath(value) if issubclass(kind, os.PathLike) else str(value)
        if type(text) is str:
            return text
    raise NotImplementedError(f"a {full_name(kind)} cannot travel")


encode_plain: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode
"""As :func:`encode`, but it checks nothing and raises whatever it meets: for a text, which needs no look."""

_encode_again = msgspec.msgpack.Encoder(enc_hook=_encode_other_again).encode


def encode(value: object, limit: int = DEFAULT_MESSAGE_LIMIT) -> bytes:
    """Encode *value*; at most *limit* bytes.

    Raises:
        ValueRefused: something in it cannot travel, or could not be read by anybody, or it is nested deeper than
            ``MAX_DEPTH``. The text names the place, as in ``at .users[3].photo``, and the type.
        ValueTooLarge: the result would be above *limit*.
    """
    kind: Any = type(value)
    data: Any = value
    if models.is_model(kind):
        try:
            data = models.dump(value)  # once, for all that follows
        except Exception as error:
            raise _refusal(value, error) from error
    payload = encode_quickly(data) if may_be_plain(type(data)) else None
    if payload is None or len(payload) > limit:
        payload = _encode_thoroughly(value, data, limit)
    return payload


def _encode_thoroughly(value: object, data: object, limit: int) -> bytes:
    """Encode what is not plain, or cannot be sent. *data*: what travels in the place of *value*."""
    try:
        try:
            payload = encode_plain(data)
        except NotImplementedError:
            payload = _encode_again(value)
    except Exception as error:
        raise _refusal(value, error) from error
    if len(payload) > limit:
        raise ValueTooLarge(f"the value is {len(payload):,} bytes when encoded, the limit is {limit:,} bytes")
    if not is_safe(data, payload) or loses_a_field(data):
        _check(value, payload)
    return payload


def _check(value: object, payload: bytes) -> None:
    """Refuse what has been encoded, but cannot be decoded or would be something else then."""
    find(value, _refuse_what_changes)
    try:
        plain = decode_plain(payload)
    except RecursionError:
        plain = None
    except Exception as error:
        raise ValueRefused(f"the value could be read by nobody: {reason(error)}") from error
    if (plain is None and payload != b"\xc0") or not is_shallow(plain):
        raise ValueRefused(f"the value is nested deeper than {MAX_DEPTH} levels")


def _refuse_what_changes(part: Part) -> None:
    value, kind = part.value, type(part.value)
    if kind is msgspec.msgpack.Ext:
        raise ValueRefused(cannot_travel(value, part.place))
    if kind is msgspec.Raw:
        try:
            decode_plain(memoryview(value))  # type: ignore[arg-type]
        except Exception:
            raise ValueRefused(f"{cannot_travel(value, part.place)}; this one holds no MessagePack value") from None
    elif issubclass(kind, Mapping):
        _refuse_keys(list(value), part)  # type: ignore[call-overload]
    elif (lost := lost_field(value)) is not None:
        raise ValueRefused(
            f"{cannot_travel(value, part.place)}: its field {lost} is private, and would be lost; send "
            "attrs.asdict() of it, or a dataclass"
        )
    else:
        _refuse_lost_seconds(value, part)


def _refuse_lost_seconds(value: object, part: Part) -> None:
    """Refuse a time of day that would lose a part of its offset. *part*: where it is."""
    if type(value) is datetime.time:
        offset = value.utcoffset()
        if offset is not None and offset % datetime.timedelta(minutes=1):
            raise ValueRefused(f"a time of day whose offset from UTC has seconds cannot travel{part.at}")


def _refuse_unhashable(part: Part) -> None:
    """Refuse what pydantic would have to write as a key, or into a set, and writes as a dict."""
    kind = type(part.value)
    if issubclass(kind, Mapping):
        _refuse_keys(list(part.value), part)  # type: ignore[call-overload]
    elif issubclass(kind, (set, frozenset)):
        for item in list(part.value):  # type: ignore[call-overload]
            if members(item) is not None:
                raise ValueRefused(
                    f"a {full_name(kind)} of {full_name(type(item))} in a model cannot travel{part.at}; a list of them "
                    "can"
                )


def _refuse_keys(keys: list[Any], part: Part) -> None:
    """Refuse keys of a dict that cannot be keys at the other side, or would be one key there."""
    if all(type(key) is str for key in keys):
        return
    arrived: dict[Any, Any] = {}
    for key in keys:
        try:
            other = next(iter(decode_plain(_encode_again({key: None}))))
        except Exception:
            raise ValueRefused(
                f"a {full_name(type(key))} as a key of a dict cannot travel{part.at}; a key is a text, a number, "
                "or a tuple of them"
            ) from None
        find(key, lambda inner: _refuse_lost_seconds(inner.value, part))
        if other in arrived:
            one = arrived[other]
            raise ValueRefused(
                f"two keys of a dict, a {full_name(type(one))} and a {full_name(type(key))}, would be one key, "
                f"{other!r:.40}, where they arrive{part.at}"
            )
        arrived[other] = key


def _without_useless_defaults(full: Any, slim: Any) -> Any:
    """*full*, without what cannot travel and is missing in *slim*."""
    if type(full) is dict and type(slim) is dict:
        return {
            name: _without_useless_defaults(item, slim[name]) if name in slim else item
            for name, item in full.items()
            if name in slim or _encodes(item)
        }
    if type(full) is list and type(slim) is list and len(full) == len(slim):
        return [_without_useless_defaults(one, other) for one, other in zip(full, slim, strict=True)]
    return full


def _encodes(value: object) -> bool:
    """Whether *value* can be encoded at all. Encodes it to find out."""
    try:
        _encode_again(value)
    except Exception:
        return False
    return True


def _refusal(value: object, error: Exception) -> ValueRefused:
    """The error that says which part of *value* cannot travel and why, after encoding it has failed with *error*."""
    if isinstance(error, RecursionError) or "Circular reference" in str(error):  # the latter is pydantic's
        return ValueRefused(f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(error, TypeError) and "unhashable" in str(error):
        try:
            find(value, _refuse_unhashable)
        except ValueRefused as refused:
            return refused
        except Exception:  # a mapping of the user's own that fails when it is read; the next words are for it
            pass
    part = _culprit(Part("", value))
    if issubclass(type(part.value), int) and isinstance(error, OverflowError):
        return ValueRefused(f"an integer of more than 64 bits cannot travel{part.at}")
    if isinstance(error, UnicodeEncodeError):
        return ValueRefused(f"a text with a lone surrogate (half of a character) cannot travel{part.at}")
    words = cannot_travel(part.value, part.place)
    if isinstance(error, NotImplementedError):
        return ValueRefused(f"{words}; send plain data (numbers, texts, bytes, lists, dicts), a dataclass, or a model")
    return ValueRefused(f"{words}: {reason(error)}")


def _culprit(part: Part, depth: int = MAX_DEPTH) -> Part:
    """The innermost part that does not encode. Only looked for after a failure."""
    if depth:
        try:
            inners = list(parts(part, dumped=_encode_other_again))
        except Exception:  # a mapping of the user's own that fails when it is read
            return part
        for inner in inners:
            if not _encodes(inner.value):
                return _culprit(inner, depth - 1)
    return part
