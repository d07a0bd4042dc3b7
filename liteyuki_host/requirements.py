"""What lycomm needs of the environment that it runs in, told in one line where Python itself would show a traceback.

Nothing of the environment is imported at the top: this runs before everything else.
"""

from __future__ import annotations

import sys
from types import TracebackType


class UnfitEnvironment(ImportError):
    """The packages beside lycomm are not those that it needs. The text is one line with the remedy."""


def unfit_pydantic() -> str | None:
    """Why this interpreter's pydantic will not do; None: it does."""
    try:
        from pydantic import VERSION
    except ImportError:  # then NoneBot is missing too, and its absence is told better
        return None
    from liteyuki_host.comm import pydantic_version

    return pydantic_version.unfit(VERSION)


def require() -> None:
    """Raise UnfitEnvironment where the host cannot be imported.

    A program that does not catch it, such as a ``bot.py`` with ``from liteyuki_host import Host``, ends with the line
    alone and code 1.
    """
    words = unfit_pydantic()
    if words is None:
        return
    shown_before = sys.excepthook

    def one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, UnfitEnvironment):
            sys.stderr.write(f"lycomm: {error}\n")
        else:
            shown_before(kind, error, traceback)

    sys.excepthook = one_line
    raise UnfitEnvironment(words)
