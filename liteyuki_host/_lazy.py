"""Names of a package that are imported on their first use (PEP 562)."""

from __future__ import annotations

# Nothing that takes time is imported up here: `liteyuki_host` itself imports this module first of all.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["resolve"]


def resolve(package: str, homes: Mapping[str, str], name: str) -> Any:
    """Import the module that has *name*, and return the object. For the ``__getattr__`` of a package.

    Args:
        package: name of the package, ``__name__`` there.
        homes: by public name, the module that has it, relative to the package: ``.channel.channel``.

    Raises:
        AttributeError: the package has no such name; in Python's own words.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(homes[name], package), name)
