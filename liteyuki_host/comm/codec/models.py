"""Objects whose class describes its own data: pydantic models, and what NoneBot's messages offer pydantic.

pydantic is not imported: a bot may have either version, and the host's shared core has none. What counts is what the
class defines.
"""

from __future__ import annotations

import copy
import datetime
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from liteyuki_host.comm.codec.aliases import FieldsLost, one_level, readable
from liteyuki_host.comm.codec.kinds import declared
from liteyuki_host.comm.codec.reasons import reason

__all__ = ["dump", "dump_without_defaults", "is_model", "rebuild", "state", "validators"]


def is_model(kind: Any) -> bool:
    """Whether objects of *kind* are pydantic models, of version 2 or 1."""
    return _is_model_2(kind) or _is_model_1(kind)


def dump(model: Any) -> Any:
    """The model's fields as data, in the form that its class takes back.

    Nested models give what they are, not what the field's annotation promises; fields are called by the names that
    validation expects; computed fields are left out, as validation does not expect them.

    Raises:
        Unwritable: the class reads a field where it cannot be written.
        Exception: out of a serializer of the class.
    """
    return _dumped(model, exclude_defaults=False)


def dump_without_defaults(model: Any) -> Any:
    """As :func:`dump`, without the fields that hold their default."""
    return _dumped(model, exclude_defaults=True)


def rebuild(kind: type, data: Any) -> Any:
    """A model of *kind* from what :func:`dump` made of one.

    Raises:
        ValueError: the class refuses the data; the text is the class's own.
    """
    failure: Exception | None = None
    for attempt in _attempts(kind):
        try:
            return attempt(data)
        except Exception as error:
            failure = failure or error
    assert failure is not None  # there is an attempt at least
    raise ValueError(reason(failure)) from failure


def state(model: Any) -> dict[str, Any]:
    """The model's fields by name, with the extra ones, but without what a leading underscore makes private."""
    kind: Any = type(model)
    extra = getattr(model, "__pydantic_extra__", None) if _is_model_2(kind) else None
    return {name: item for name, item in {**vars(model), **(extra or {})}.items() if not name.startswith("_")}


def validators(kind: type) -> list[Callable[[Any], Any]]:
    """What turns data into a *kind*, if the class offers that as NoneBot's messages and segments do; else nothing."""
    offered = declared(kind, "__get_validators__")
    return list(offered()) if callable(offered) else []


@functools.lru_cache(maxsize=1024)
def _is_model_2(kind: Any) -> bool:
    return declared(kind, "__pydantic_serializer__") is not None and callable(declared(kind, "model_validate"))


@functools.lru_cache(maxsize=1024)
def _is_model_1(kind: Any) -> bool:
    return isinstance(declared(kind, "__fields__"), Mapping) and callable(declared(kind, "parse_obj"))


def _dumped(model: Any, *, exclude_defaults: bool) -> Any:
    kind: Any = type(model)
    if not _is_model_2(kind):
        return model.dict(by_alias=True, exclude_defaults=exclude_defaults)
    if _is_polymorphic(kind):
        try:
            # Warnings are errors, as they tell of a value that is not of the field's type: of a model that is none of
            # the annotated class nothing would be written. Only models and pydantic's own dataclasses are polymorphic.
            data = _to_python(model, exclude_defaults, polymorphic_serialization=True, warnings="error")
            return readable(model, data, whole=not exclude_defaults)
        except (FieldsLost, ValueError):
            pass
    # pydantic 2.12 leaves out what a field's annotation says of writing here, as that of Base64Bytes does.
    try:
        data = _to_python(model, exclude_defaults, serialize_as_any=True, warnings=False)
    except ValueError as error:
        # pydantic before 2.12 says so of a model that holds another one of the same class.
        if "Circular reference" not in str(error):
            raise
        return one_level(model, _to_python(model, exclude_defaults, warnings=False))
    return readable(model, data, whole=False)


@functools.lru_cache(maxsize=1024)
def _is_polymorphic(kind: Any) -> bool:
    """Whether models can be written as what they are, and all else as the annotation says: from pydantic 2.13 on."""
    return "polymorphic_serialization" in inspect.signature(kind.__pydantic_serializer__.to_python).parameters


def _to_python(model: Any, exclude_defaults: bool, **how: Any) -> Any:
    return type(model).__pydantic_serializer__.to_python(
        model, mode="python", by_alias=True, exclude_defaults=exclude_defaults, round_trip=True, **how
    )


def _attempts(kind: Any) -> list[Callable[[Any], Any]]:
    if not _is_model_2(kind):
        return [kind.parse_obj]
    return [
        kind.model_validate,
        lambda data: _validate_mended(kind, data),
        # A strict model takes a text for a Decimal and a list for a tuple only if it is told not to be, or from JSON.
        lambda data: kind.model_validate(data, strict=False),
        lambda data: kind.model_validate_json(_as_json(data)),
    ]


def _validate_mended(kind: Any, data: Any) -> Any:
    """Validate *data* without what a class writes and does not read: a None that is a default against its annotation, a
    date-time as a text where date-times and numbers are read, what a text of JSON says. Adapters have the first two."""
    data = copy.deepcopy(data)
    for _ in range(MAX_MENDINGS):
        try:
            return kind.model_validate(data)
        except Exception as error:
            if not callable(declared(type(error), "errors")):
                raise
            problems = error.errors(include_url=False)  # type: ignore[attr-defined]
            mended = [_mend(data, problem["loc"], problem["type"]) for problem in problems]
            if not any(mended):
                raise
    raise ValueError("the class goes on refusing its own data")


MAX_MENDINGS = 10
"""Times that data is mended: each shows what an inner model says about the next level."""


def _mend(data: Any, place: tuple[str | int, ...], problem: str) -> bool:
    """Change what is at *place*, if that may help."""
    for step in place[:-1]:
        try:
            data = data[step]
        except (LookupError, TypeError):
            return False
    try:
        item = data[place[-1]]
    except (LookupError, TypeError):
        return False
    if problem == "json_type":  # of a field that is a text of JSON, and was written as what it says
        data[place[-1]] = msgspec.json.encode(item).decode()
        return True
    if item is None and isinstance(data, dict):
        del data[place[-1]]
        return True
    if isinstance(item, str):
        try:
            data[place[-1]] = datetime.datetime.fromisoformat(item)
        except (ValueError, TypeError):
            return False
        return True
    return False


def _as_json(data: Any) -> bytes:
    if _has_bytes(data):
        raise ValueError("bytes have no form in JSON that a model would read back")
    return msgspec.json.encode(data)


def _has_bytes(data: Any) -> bool:
    if isinstance(data, dict):
        return any(_has_bytes(item) for item in data.values())
    return any(_has_bytes(item) for item in data) if isinstance(data, list) else isinstance(data, bytes)
