"""What a type says about itself. Types are asked, never objects: a mock or a proxy answers to any name."""

from __future__ import annotations

import os
import typing
from typing import Any

__all__ = ["declared", "full_name", "is_text_like", "type_text"]


def declared(kind: type, name: str) -> Any:
    """The attribute *name* that *kind* or a base of it defines, bound to *kind* as usual; None when none does.

    A metaclass that invents attributes is not asked.
    """
    for base in kind.__mro__:
        if name in base.__dict__:
            return getattr(kind, name)
    return None


def full_name(kind: type) -> str:
    """The type's name with its module, as in ``numpy.bool_``; without it for built-in types."""
    module, name = kind.__module__, kind.__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def type_text(kind: Any) -> str:
    """A type or annotation as its author would write it."""
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__qualname__
    return str(kind).replace("typing.", "")


def is_text_like(kind: type) -> bool:
    """Whether objects of *kind* travel as a text from which *kind* makes them again: paths, IP addresses, URLs."""
    package = kind.__module__.partition(".")[0]
    return (
        issubclass(kind, os.PathLike)
        or package == "ipaddress"
        or (package in ("pydantic", "pydantic_core") and declared(kind, "unicode_string") is not None)
    )
