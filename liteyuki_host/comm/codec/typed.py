"""The type of a ``Channel[T]``: whether a value is one, and how it becomes one again."""

from __future__ import annotations

import typing
from collections import deque
from typing import Any, Generic, TypeVar

import msgspec

from liteyuki_host.comm.codec import models
from liteyuki_host.comm.codec.bounds import Check, bounds_of
from liteyuki_host.comm.codec.decoding import unreadable
from liteyuki_host.comm.codec.differences import difference
from liteyuki_host.comm.codec.kinds import full_name, is_text_like, type_text
from liteyuki_host.comm.codec.reasons import reason
from liteyuki_host.comm.codec.references import decode_extension, is_referred
from liteyuki_host.comm.errors import ValueRefused, ValueUnreadable

__all__ = ["TypedDecoder"]

T = TypeVar("T")


class TypedDecoder(Generic[T]):
    """Decodes payloads to one type, and so also checks them: what is sent is decoded at the sender first.

    Raises:
        ValueRefused: *kind* is nothing that a value can be checked against.
    """

    def __init__(self, kind: Any) -> None:
        self.kind_name = type_text(kind)
        try:
            self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(
                kind, dec_hook=_rebuild, ext_hook=decode_extension
            )
            self._bounds: Check | None = bounds_of(kind)
        except Exception as error:  # msgspec's, and whatever an annotation raises when it is evaluated
            raise ValueRefused(
                f"{self.kind_name} is no type that values can be checked against: {reason(error)}"
            ) from error

    def decode(self, payload: bytes) -> T:
        """Decode a payload.

        Raises:
            ValueUnreadable: (a ValueError) it is not of this type; the text has the place.
        """
        try:
            value = self._decoder.decode(payload)
            if self._bounds is not None:
                self._bounds(value, "$")
            return value
        except (msgspec.ValidationError, ValueUnreadable) as error:
            raise ValueUnreadable(reason(error)) from error
        except Exception as error:
            raise unreadable(error) from error

    def check(self, value: object, payload: bytes) -> None:
        """Refuse *value*, encoded as *payload*, if it would not arrive as what it is.

        Raises:
            ValueRefused: it is of another type, or its class makes something else of its own data.
        """
        try:
            arrived = self.decode(payload)
        except ValueUnreadable as error:
            raise ValueRefused(f"got {full_name(type(value))}: {error}") from error
        changed = difference(arrived, value)
        if changed is not None:
            raise ValueRefused(
                f"got {full_name(type(value))}: it would arrive changed{changed}. Its class makes that of its own "
                "data; a channel without a type carries it as plain data"
            )


def _rebuild(kind: Any, value: Any) -> Any:
    """Make a *kind*, which msgspec does not know, of data."""
    try:
        return _rebuilt(kind, value)
    except Exception as error:  # the class's own as well; msgspec adds the place to a ValueError
        raise ValueError(reason(error)) from error


def _rebuilt(kind: Any, value: Any) -> Any:
    plain = typing.get_origin(kind) or kind  # of Channel[str]
    if is_referred(plain):
        if is_referred(type(value)):
            return value
        raise ValueError(f"Expected a channel, got `{type_text(type(value))}`")
    if isinstance(plain, type):
        if models.is_model(plain):
            return models.rebuild(plain, value)
        if plain is deque:
            (item,) = typing.get_args(kind) or (Any,)
            return deque(msgspec.convert(value, list[item], dec_hook=_rebuild))  # type: ignore[valid-type]
        validators = models.validators(plain)
        if validators:
            for validate in validators:
                value = validate(value)
            return value
        if type(value) is str and is_text_like(plain):
            return plain(value)
    raise ValueError(f"values of type {type_text(kind)} cannot be rebuilt from a message")
