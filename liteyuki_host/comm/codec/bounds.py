"""Bounds in annotations that msgspec does not know: those of ``annotated_types``, as pydantic's users write them.

``Annotated[int, msgspec.Meta(gt=0)]`` is msgspec's own and checked by its decoder. ``Annotated[int, Gt(0)]`` and
``Annotated[int, Field(gt=0)]`` are checked here, after it. Neither package is imported: bounds are recognised by the
names of their classes and packages.

:func:`bounds_of` walks an annotation once and builds a tree of check objects that mirrors it, with branches only where
there are bounds. To check a value is to call the root with the value and its place, such as ``$.users[3].age``. Checks
run on values that msgspec has decoded for the same annotation, so their types are known. The first value outside its
bounds raises ValueUnreadable with its place. A tree is not changed after it was built.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from liteyuki_host.comm.codec.kinds import declared
from liteyuki_host.comm.codec.reasons import reason
from liteyuki_host.comm.errors import ValueUnreadable

__all__ = ["Check", "bounds_of"]

Check = Callable[[Any, str], None]
"""Raises ValueUnreadable when a value, at a place, is outside its bounds."""

_Test = tuple[Callable[[Any], bool], str]

_UNIONS = (typing.Union, types.UnionType)


def bounds_of(kind: Any) -> Check | None:
    """What checks the bounds in *kind* and in the parts of it; None when there are none.

    Raises:
        Exception: an annotation of a field cannot be evaluated.
    """
    return _check_of(kind, {})


def _check_of(kind: Any, known: dict[Any, _Fields]) -> Check | None:
    """Build the check of one annotation; None when it has no bounds.

    Args:
        known: the classes met so far in this walk, so that one that contains itself does not recurse for ever.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if getattr(origin, "__name__", "") in ("NotRequired", "Required", "ReadOnly"):  # of a TypedDict
        return _check_of(arguments[0], known)
    if origin is Annotated:
        inner = _check_of(arguments[0], known)
        tests = list(_tests(arguments[1:]))
        return _Bounds(tests, inner) if tests else inner
    if origin in _UNIONS:
        branches = [(_class_of(argument), _check_of(argument, known)) for argument in arguments]
        return _Union(branches) if any(check for _, check in branches) else None
    if isinstance(origin, type):
        if issubclass(origin, dict) or origin.__name__ in ("Mapping", "MutableMapping"):
            key, item = (_check_of(argument, known) for argument in arguments)
            return _Dict(key, item) if key or item else None
        if origin is tuple and arguments[-1:] != (...,):
            checks = [_check_of(argument, known) for argument in arguments]
            return _Tuple(checks) if any(checks) else None
        if arguments and issubclass(origin, Iterable):
            item = _check_of(arguments[0], known)
            return _Each(item) if item else None
    named = origin if isinstance(origin, type) else kind
    return _fields_of(named, known) if isinstance(named, type) else None


class _Bounds:
    """The bounds of one ``Annotated``: its own tests, and then those of the type inside."""

    def __init__(self, tests: list[_Test], inner: Check | None) -> None:
        self._tests = tests
        self._inner = inner

    def __call__(self, value: Any, place: str) -> None:
        for holds, words in self._tests:
            try:
                good = holds(value)
            except Exception as error:  # a bound that this value cannot be compared with, or the user's own function
                raise ValueUnreadable(f"{words} cannot be checked ({reason(error)}) - at `{place}`") from error
            if not good:
                raise ValueUnreadable(f"Expected {words} - at `{place}`")
        if self._inner is not None:
            self._inner(value, place)


class _Union:
    """The branches of a union. A value is good if one branch of its class takes it, or if no branch is of its class."""

    def __init__(self, branches: list[tuple[type, Check | None]]) -> None:
        self._branches = branches

    def __call__(self, value: Any, place: str) -> None:
        failure: ValueUnreadable | None = None
        for kind, check in self._branches:
            if isinstance(value, kind):
                if check is None:
                    return
                try:
                    check(value, place)
                    return
                except ValueUnreadable as error:
                    failure = error
        if failure is not None:
            raise failure


class _Dict:
    """The keys and values of a mapping; None for the half without bounds."""

    def __init__(self, key: Check | None, item: Check | None) -> None:
        self._key = key
        self._item = item

    def __call__(self, value: Any, place: str) -> None:
        for key, item in value.items():
            if self._key is not None:
                self._key(key, f"key in {place}")
            if self._item is not None:
                self._item(item, f"{place}[...]")


class _Tuple:
    """The items of a tuple of fixed length, each with a check of its own or None."""

    def __init__(self, checks: list[Check | None]) -> None:
        self._checks = checks

    def __call__(self, value: Any, place: str) -> None:
        for index, (check, item) in enumerate(zip(self._checks, value, strict=True)):
            if check is not None:
                check(item, f"{place}[{index}]")


class _Each:
    """The items of a list, a set or a tuple of any length, all with the same check."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def __call__(self, value: Any, place: str) -> None:
        for index, item in enumerate(value):
            self._check(item, f"{place}[{index}]")


class _Fields:
    """The fields of a class. Made before its fields' checks, as a class may contain itself."""

    def __init__(self, mapping: bool) -> None:
        self._mapping = mapping
        self.checks: dict[str, Check] = {}

    def __call__(self, value: Any, place: str) -> None:
        for name, check in self.checks.items():
            if not self._mapping:
                check(getattr(value, name), f"{place}.{name}")
            elif name in value:
                check(value[name], f"{place}.{name}")


def _fields_of(kind: type, known: dict[Any, _Fields]) -> Check | None:
    """Fields of what msgspec decodes by itself; a model checks its own."""
    if kind in known:
        return known[kind]
    mapping = _is_typed_dict(kind)
    named = issubclass(kind, tuple) and hasattr(kind, "_fields")
    if not (mapping or named or dataclasses.is_dataclass(kind) or declared(kind, "__struct_fields__") is not None):
        return None
    fields = known[kind] = _Fields(mapping)
    for name, annotation in typing.get_type_hints(kind, include_extras=True).items():
        if typing.get_origin(annotation) is not typing.ClassVar:
            check = _check_of(annotation, known)
            if check is not None:
                fields.checks[name] = check
    return fields if fields.checks else None


def _is_typed_dict(kind: Any) -> bool:
    """``typing`` does not know those of ``typing_extensions``."""
    return isinstance(kind, type) and declared(kind, "__required_keys__") is not None


def _class_of(kind: Any) -> type:
    """The class whose objects a branch of a union is about."""
    if typing.get_origin(kind) is Annotated:
        return _class_of(typing.get_args(kind)[0])
    plain = typing.get_origin(kind) or kind
    if plain is float:
        return (int, float)  # type: ignore[return-value]
    if _is_typed_dict(plain):
        return dict
    return plain if isinstance(plain, type) else object


def _tests(metadata: Iterable[Any]) -> Iterable[_Test]:
    """The bounds in what stands behind an annotation's type."""
    max_digits = decimal_places = None
    for name, entry in _entries(metadata):
        if name == "_PydanticGeneralMetadata":  # one test for both, as what one allows depends on the other
            max_digits = getattr(entry, "max_digits", max_digits)
            decimal_places = getattr(entry, "decimal_places", decimal_places)
        yield from _test(name, entry)
    if max_digits is not None or decimal_places is not None:
        yield _digits(max_digits, decimal_places)


def _entries(metadata: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    """Bounds one by one, each with the name of its class, out of what bundles them."""
    for entry in metadata:
        kind = type(entry)
        package = kind.__module__.partition(".")[0]
        if typing.get_origin(entry) is Annotated:  # LowerCase and its like
            yield from _entries(entry.__metadata__)
        elif package == "pydantic" and isinstance(getattr(entry, "metadata", None), list):
            yield from _entries(entry.metadata)  # of Field(gt=0)
        elif package in ("pydantic", "annotated_types"):
            if kind.__name__ != "Predicate" and isinstance(entry, Iterable):
                yield from _entries(entry)  # Interval, Len, StringConstraints
            else:
                yield kind.__name__, entry


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or f"{function!r:.60}"


def _test(name: str, entry: Any) -> Iterable[_Test]:
    """The test of one bound, with its words for the error; nothing for one that is not known here.

    Args:
        name: of the bound's class.
        entry: the bound.
    """
    if name == "Predicate":
        yield entry.func, f"what {_name(entry.func)} accepts"
    elif name == "Gt":
        yield lambda value: value > entry.gt, f"a value > {entry.gt!r}"
    elif name == "Ge":
        yield lambda value: value >= entry.ge, f"a value >= {entry.ge!r}"
    elif name == "Lt":
        yield lambda value: value < entry.lt, f"a value < {entry.lt!r}"
    elif name == "Le":
        yield lambda value: value <= entry.le, f"a value <= {entry.le!r}"
    elif name == "MultipleOf":
        yield lambda value: value % entry.multiple_of == 0, f"a multiple of {entry.multiple_of!r}"
    elif name == "MinLen":
        yield lambda value: len(value) >= entry.min_length, f"a length >= {entry.min_length}"
    elif name == "MaxLen":
        yield lambda value: len(value) <= entry.max_length, f"a length <= {entry.max_length}"
    elif name == "Timezone":
        yield from _zone(entry.tz)
    elif name == "Not":
        yield entry, f"what {_name(entry.func)} does not accept"
    elif name == "AllowInfNan" and not entry.allow_inf_nan:
        yield math.isfinite, "a finite number"
    elif name == "_PydanticGeneralMetadata" and getattr(entry, "pattern", None) is not None:
        pattern = re.compile(entry.pattern)
        yield lambda value: pattern.search(value) is not None, f"a text that matches {pattern.pattern!r}"


def _digits(max_digits: int | None, decimal_places: int | None) -> _Test:
    """The test of a Decimal's length. As for pydantic, zeros at its end do not count against it."""
    words = []
    if max_digits is not None:
        words.append(f"at most {max_digits} digits")
    if decimal_places is not None:
        words.append(f"at most {decimal_places} decimal places")
    most = math.inf if max_digits is None else max_digits
    most_places = math.inf if decimal_places is None else decimal_places

    def holds(value: decimal.Decimal) -> bool:
        if not value.is_finite():
            return False
        written, short = _length(value), _length(value.normalize())
        digits, places, whole = (min(pair) for pair in zip(written, short, strict=True))
        return (
            digits <= most and places <= most_places and (decimal_places is None or whole <= max(0, most - most_places))
        )

    return holds, " and ".join(words)


def _length(value: decimal.Decimal) -> tuple[int, int, int]:
    """Digits, decimal places, and digits before the point."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # of a finite number
    places = max(0, -exponent)
    count = max(len(digits) + max(0, exponent), places)
    return count, places, count - places


def _zone(wanted: Any) -> Iterable[_Test]:
    """A time zone by its name or its offset is not looked at: an arrived date-time has only its offset."""
    if wanted is None:
        yield lambda value: value.tzinfo is None, "a date-time without a time zone"
    else:
        yield lambda value: value.tzinfo is not None, "a date-time with a time zone"
