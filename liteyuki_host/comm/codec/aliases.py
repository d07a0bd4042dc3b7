"""The names by which pydantic's classes read their fields.

pydantic writes a field by the alias for writing, or by its name. A class that reads the field by another name would not
find it in the data, and would silently take the default. So what pydantic has written is walked through beside the
model, and fields are moved to where their class reads them.
"""

from __future__ import annotations

import datetime
import functools
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from liteyuki_host.comm.codec.kinds import declared
from liteyuki_host.comm.codec.plain import is_flat

__all__ = ["FieldsLost", "Unwritable", "one_level", "readable"]

_Path = tuple[str | int, ...]

_LISTS = (list, tuple, deque, set, frozenset)

MAX_INDEX = 1000
"""Highest index of an ``AliasPath`` for which a list is filled up. Nobody writes a higher one for a field by hand."""


class Unwritable(ValueError):
    """A class reads a field where it cannot be written without changing something else. The text says where."""


class FieldsLost(Exception):
    """pydantic has written a dataclass as what the annotation names, without the fields of its real class."""


class _Found(Exception):
    """There is an object that has to be looked at."""


class _Names(NamedTuple):
    """How a class writes and reads its fields."""

    written: dict[str, str]  # the key of each field in what pydantic writes, by the field's name
    read: dict[str, _Path]  # where the class reads a field, by that key; only where the two differ
    is_root: bool  # a RootModel: written as what it holds
    is_opaque: bool  # the class writes whatever it wants


def readable(model: Any, data: Any, *, whole: bool) -> Any:
    """*data*, which pydantic made of *model* with the aliases for writing, with the names that its classes read.

    Models and dataclasses are found wherever they are in *model*. Nothing is changed in place.

    Args:
        whole: whether every field of a dataclass has to be in *data*.

    Raises:
        Unwritable: the names that a class reads exclude each other.
        FieldsLost: a dataclass lacks fields there.
    """
    return _renamed(model, data, whole) if _may_need_renaming(model) else data


def _may_need_renaming(model: Any) -> bool:
    """Whether anything in *model* is written and read by different names, or may have lost fields.

    Hardly any model is. msgspec finds that out in 4 us for an event of OneBot, the walk below would take 14 us.
    """
    try:
        msgspec.to_builtins(_held(model), builtin_types=_LEAVES, enc_hook=_held)
    except Exception:  # _Found, or what msgspec says of a value that it cannot go through
        return True
    return False


_LEAVES = (bytes, bytearray, memoryview, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)


def _held(value: Any) -> Any:
    """What *value*, which msgspec does not know, holds."""
    kind: Any = type(value)
    needs_renaming = _needs_renaming(kind)
    if needs_renaming:
        raise _Found
    if needs_renaming is not None:
        extra = value.__pydantic_extra__
        return {**value.__dict__, **extra} if extra else value.__dict__
    if issubclass(kind, Mapping):
        return list(value.values())
    return list(value) if issubclass(kind, _LISTS) else None


@functools.lru_cache(maxsize=4096)
def _needs_renaming(kind: Any) -> bool | None:
    """Whether objects of *kind* may need it; None when they are no models."""
    if declared(kind, "__pydantic_serializer__") is None:
        return None
    names = _names_of(kind)
    return names is None or bool(names.read) or _mentions_dataclass(kind.__pydantic_core_schema__)


def _mentions_dataclass(schema: Any) -> bool:
    """Whether a part of one of pydantic's descriptions of classes is a dataclass."""
    if isinstance(schema, Mapping):
        return schema.get("type") == "dataclass" or any(map(_mentions_dataclass, schema.values()))
    return isinstance(schema, (list, tuple)) and any(map(_mentions_dataclass, schema))


def _renamed(value: Any, data: Any, whole: bool) -> Any:
    kind: Any = type(value)
    rename = _renaming(kind)
    return data if rename is None or value is data else rename(value, data, whole)


def one_level(model: Any, data: Any) -> Any:
    """*data*, which pydantic made of *model*, by the names that its class reads.

    What *model* holds, other than flat values, is in it as it is.
    """
    kind: Any = type(model)
    names = _names_of(kind)
    if names is None or names.is_opaque or not (names.is_root or isinstance(data, dict)):
        return data
    if names.is_root:
        return model.root
    own = getattr(declared(kind, "__pydantic_decorators__"), "field_serializers", None) or {}
    serialized = {name for serializer in own.values() for name in serializer.info.fields}
    fields = {**vars(model), **(model.__pydantic_extra__ or {})}
    held = {
        names.written.get(name, name): item
        for name, item in fields.items()
        if not is_flat(type(item)) and name not in serialized and "*" not in serialized
    }
    return _moved({key: held.get(key, item) for key, item in data.items()}, names.read)


_Rename = Callable[[Any, Any, bool], Any]
"""What :func:`readable` does with objects of one class."""


@functools.lru_cache(maxsize=4096)
def _renaming(kind: Any) -> _Rename | None:
    """None for objects that hold no others."""
    if is_flat(kind):
        return None
    names = _names_of(kind)
    if names is not None:
        if names.is_opaque:
            return None
        return _of_root if names.is_root else functools.partial(_of_fields, names)
    fields = declared(kind, "__dataclass_fields__")
    if fields is not None:
        return functools.partial(_of_dataclass, tuple(fields))
    if issubclass(kind, Mapping):
        return _of_mapping
    return _of_list if issubclass(kind, _LISTS) else None


def _of_root(value: Any, data: Any, whole: bool) -> Any:
    return _renamed(value.root, data, whole)


def _of_fields(names: _Names, value: Any, data: Any, whole: bool) -> Any:
    if not isinstance(data, dict):
        return data  # its author writes it in a form of his own
    written, read = names.written, names.read
    fields = getattr(value, "__dict__", None)
    if fields is None:  # a dataclass with slots
        fields = {name: getattr(value, name) for name in written if hasattr(value, name)}
    changed = _changed(data, fields, written, whole)
    extra = getattr(value, "__pydantic_extra__", None)
    if extra:
        changed |= _changed(data, extra, {}, whole)
        for key in read:
            if key in extra:
                raise Unwritable(f"{key!r} is the name of a field and of something extra")
    if changed:
        data = {**data, **changed}
    return _moved(data, read) if read else data


def _of_dataclass(fields: tuple[str, ...], value: Any, data: Any, whole: bool) -> Any:
    if not isinstance(data, dict):
        return data
    items = getattr(value, "__dict__", None)
    if items is None:
        items = {name: getattr(value, name) for name in fields if hasattr(value, name)}
    if whole and not items.keys() <= data.keys():
        raise FieldsLost(type(value).__qualname__)
    changed = _changed(data, items, {}, whole)
    return {**data, **changed} if changed else data


def _of_mapping(value: Any, data: Any, whole: bool) -> Any:
    if not isinstance(data, dict) or len(data) != len(value) or all(map(is_flat, map(type, value.values()))):
        return data
    changed = _changed(data, dict(zip(data, value.values(), strict=False)), {}, whole)
    return {**data, **changed} if changed else data


def _of_list(value: Any, data: Any, whole: bool) -> Any:
    if not isinstance(data, _LISTS) or len(data) != len(value) or all(map(is_flat, map(type, value))):
        return data
    changed = None
    for index, (item, old) in enumerate(zip(value, data, strict=False)):
        kind: Any = type(item)
        rename = _renaming(kind)
        if rename is None or item is old:
            continue
        new = rename(item, old, whole)
        if new is not old:
            changed = changed or list(data)
            changed[index] = new
    return changed or data


def _changed(data: dict[Any, Any], items: Mapping[Any, Any], keys: Mapping[Any, Any], whole: bool) -> dict[Any, Any]:
    """The items of *data* that need other names, with those. *items*: what they were made of, by name; *keys*: the keys
    of the names, where they differ."""
    changed = {}
    for name, item in items.items():
        kind: Any = type(item)
        rename = None if is_flat(kind) else _renaming(kind)
        if rename is not None:
            key = keys.get(name, name)
            if key in data:
                old = data[key]
                new = rename(item, old, whole)
                if new is not old:
                    changed[key] = new
    return changed


def _moved(data: dict[Any, Any], read: dict[str, _Path]) -> dict[Any, Any]:
    """*data* with each field where its class reads it."""
    moved: dict[Any, Any] = {}
    deep: dict[Any, Any] = {}
    for key, item in data.items():
        path = read.get(key, (key,))
        if len(path) > 1:
            _put(deep, path, item)
        elif path[0] in moved and moved[path[0]] != item:
            raise Unwritable(f"two of its fields are read from {path[0]!r}, and differ")
        else:
            moved[path[0]] = item
    for key in deep:
        if key in moved:
            raise Unwritable(f"one of its fields is read from {key!r}, and another one from inside of that")
    return {**moved, **deep}


def _put(data: Any, path: _Path, item: Any) -> None:
    """Put *item* where an ``AliasPath`` looks for it, with the dicts and lists on the way."""
    for index, step in enumerate(path):
        last = index == len(path) - 1
        fresh: Any = item if last else [] if isinstance(path[index + 1], int) else {}
        if isinstance(step, int) and isinstance(data, list):
            if not 0 <= step <= MAX_INDEX:
                raise Unwritable(f"one of its fields is read from index {step} of a list")
            data.extend([None] * (step + 1 - len(data)))
            there = data[step] is not None
        elif isinstance(step, str) and isinstance(data, dict):
            there = step in data
        else:
            raise Unwritable(f"two of its fields are read from {path[0]!r} in ways that exclude each other")
        if not there:
            data[step] = fresh
        elif last:
            raise Unwritable(f"two of its fields are read from {path[0]!r} in ways that exclude each other")
        data = data[step]


@functools.lru_cache(maxsize=1024)
def _names_of(kind: Any) -> _Names | None:
    """None when *kind* is no class of pydantic's."""
    if declared(kind, "__pydantic_serializer__") is None:
        return None
    fields = declared(kind, "__pydantic_fields__")
    if fields is None:
        fields = declared(kind, "model_fields")  # of models before pydantic 2.10
    if not isinstance(fields, Mapping):
        return None
    config = declared(kind, "model_config") or declared(kind, "__pydantic_config__") or {}
    written = {name: field.serialization_alias or name for name, field in fields.items()}
    read = {}
    for name, field in fields.items():
        path = _read_from(name, field.validation_alias, written[name], config)
        if path != (written[name],):
            read[written[name]] = path
    return _Names(written, read, bool(declared(kind, "__pydantic_root_model__")), is_opaque=_writes_by_itself(kind))


def _read_from(name: str, alias: Any, written: str, config: Mapping[str, Any]) -> _Path:
    """Where a class finds a field: *written*, if it looks there, else the first name or path of its own."""
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    if alias is None or config.get("validate_by_alias") is False:
        return (name,)
    paths: list[_Path] = [
        (choice,) if isinstance(choice, str) else tuple(choice.path) for choice in getattr(alias, "choices", [alias])
    ]
    if by_name:
        paths.append((name,))
    plain = [path for path in paths if len(path) == 1]
    return (written,) if (written,) in plain else (plain or paths)[0]


def _writes_by_itself(kind: Any) -> bool:
    """Whether the class has a model serializer that makes everything by itself."""
    decorators = declared(kind, "__pydantic_decorators__")
    serializers = getattr(decorators, "model_serializers", None) or {}
    return any(serializer.info.mode == "plain" for serializer in serializers.values())
