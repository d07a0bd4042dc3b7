"""What an exception says, in one line: for errors that quote it."""

from __future__ import annotations

from typing import Any

from liteyuki_host.comm.codec.kinds import declared

__all__ = ["reason"]

MAX_LENGTH = 500
"""Characters of a quoted text. pydantic lists each value that a Literal may have, for example."""

MAX_PROBLEMS = 3
"""Problems of one pydantic error that are quoted; the rest is counted."""


def reason(error: BaseException) -> str:
    """The text of *error* in one line of at most ``MAX_LENGTH`` characters; the name of its type when it has none.

    pydantic's validation errors, which take several lines and a URL for each problem, become ``place: problem``.
    """
    try:
        words = _of_validation(error) or str(error)
    except Exception:  # out of a __str__ of the user's own
        words = ""
    line = " ".join(words.split())
    if len(line) > MAX_LENGTH:
        line = line[: MAX_LENGTH - 3] + "..."
    return line or type(error).__name__


def _of_validation(error: Any) -> str:
    """The problems that a validation error of pydantic, of version 2 or 1, lists; nothing for other exceptions."""
    kind = type(error)
    if kind.__name__ != "ValidationError" or not callable(declared(kind, "errors")):
        return ""
    with_input = declared(kind, "error_count") is not None
    problems = error.errors(include_url=False, include_context=False) if with_input else error.errors()
    lines = [_problem(problem) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return "; ".join(lines)


def _problem(problem: dict[str, Any]) -> str:
    place = ".".join(str(step) for step in problem["loc"])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
