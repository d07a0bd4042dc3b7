"""Values that a setting may have, made from the check of its field: a new setting is tried without a new line."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from liteyuki_host.settings_values import ListOf, Number, OneOf, Size, reload_mode
from liteyuki_host.supervisor.spec import Reload


def another_value(field: FieldInfo) -> Any:
    """A value that is not the default, as it is written in TOML."""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return next(value for value in _values(field) if value != default)


def least_value(field: FieldInfo) -> Any:
    """The least value of a number, mostly 0, the last word of several, an empty list: mostly false in a condition."""
    return _values(field)[-1]


def _values(field: FieldInfo) -> list[Any]:
    (check,) = (each.func for each in field.metadata if isinstance(each, BeforeValidator))
    if isinstance(check, Number | Size):
        least = [0] if check.off else []
        values = [check.low + 7, check.low + 8, check.low, *least]
        return [float(value) for value in values] if isinstance(field.default, float) else [int(v) for v in values]
    if isinstance(check, OneOf) or check is reload_mode:
        return [
            str(word) for word in ((Reload.SWAP, Reload.OVERLAP, Reload.OFF) if check is reload_mode else check.words)
        ]
    if isinstance(check, ListOf):
        return [["first"], []]
    raise NotImplementedError(f"a kind of setting that has no values here: {check}")
