"""Names of channels and topics."""

from __future__ import annotations

__all__ = ["MAX_NAME_SIZE", "check_name"]

MAX_NAME_SIZE = 200
"""Characters of a channel or topic name."""


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
