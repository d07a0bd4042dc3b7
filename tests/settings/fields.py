"""What the check of a setting knows."""

from __future__ import annotations

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from liteyuki_host.settings_values import Number, Size


def check_of(field: FieldInfo) -> Number | Size | None:
    """The check of a setting that is a number."""
    checks = [each.func for each in field.metadata if isinstance(each, BeforeValidator)]
    return next((check for check in checks if isinstance(check, Number | Size)), None)


def unit_of(field: FieldInfo) -> str:
    """Its unit; empty for what is no number."""
    check = check_of(field)
    return check.unit if check else ""
