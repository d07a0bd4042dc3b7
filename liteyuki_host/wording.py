"""Values, paths and errors of others as parts of one line for an operator, whatever they contain."""

from __future__ import annotations

import os
import reprlib
import unicodedata

LINE_LIMIT = 1000
"""Characters of one line. Two paths of usual length and an explanation are about 400."""

PATH_LIMIT = 300
"""Characters of one path in a line. The system allows 4,096."""

_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, halves of surrogate pairs, line and paragraph separators."""


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """*text* as one line of at most *limit* characters: control characters escaped, the middle cut out if need be."""
    if len(text) > 2 * limit:  # escaping a text of many megabytes would take long
        text = text[:limit] + text[-limit:]
    line = "".join(_escaped(char) for char in text)
    if len(line) <= limit:
        return line
    half = (limit - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def shown(path: str | os.PathLike[str]) -> str:
    """A path as a part of a line: as `one_line`, at most ``PATH_LIMIT`` characters."""
    return one_line(os.fspath(path), PATH_LIMIT)


def short_repr(value: object) -> str:
    """A value as a part of a line, about 30 characters of it; of what has no usable ``repr`` the type."""
    try:
        return reprlib.repr(value)
    except Exception:  # a whole number of 5,000 digits is a ValueError, and any class may have a repr() that fails
        return f"<{type(value).__name__}>"


def why(error: BaseException) -> str:
    """The system's words for *error*, without the path that Python adds to them."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def _escaped(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) not in _UNPRINTABLE:
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
