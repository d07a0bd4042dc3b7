"""Names of channels and topics."""

from __future__ import annotations

__all__ = ["KEPT_NAMES", "MAX_NAME_SIZE", "RecentNames", "check_name"]

MAX_NAME_SIZE = 200
"""Characters of a channel or topic name."""

KEPT_NAMES = 20_000
"""Names of channels that stay known for one process although nothing uses them: those that it has declared last. Far
more than anybody writes by hand, and about half a kilobyte each in the host."""


def check_name(name: object, what: str) -> str:
    """A usable channel or topic name.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"a {what} name is a text, not {type(name).__name__}")
    if not name or len(name) > MAX_NAME_SIZE or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise ValueError(f"a {what} name has 1 to {MAX_NAME_SIZE} printable characters, this one is {name!r:.80}")
    return name


class RecentNames:
    """The names that were added last, :data:`KEPT_NAMES` of them. For one thread at a time."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}  # in the order in which they were added last

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def add(self, name: str) -> str | None:
        """Add *name*, or make it the latest; returns the one that had to go for it."""
        self._names.pop(name, None)
        self._names[name] = None
        if len(self._names) <= KEPT_NAMES:
            return None
        oldest = next(iter(self._names))
        del self._names[oldest]
        return oldest

    def clear(self) -> None:
        """Remove all."""
        self._names.clear()
