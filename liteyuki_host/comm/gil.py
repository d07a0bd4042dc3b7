"""Whether this Python has the global interpreter lock (GIL), on which lycomm relies.

What relies on it is listed in docs/architecture.md. Free-threaded builds (3.13t, 3.14t) are not supported until a run
of the whole test suite on one is green.
"""

from __future__ import annotations

import sys

__all__ = ["without_the_gil"]


def without_the_gil() -> str | None:
    """Say in one line that this interpreter runs without the GIL, with the remedy; None: it has the GIL.

    The answer may change once: an extension module that does not know free threading turns the GIL on when it is
    imported. So ask when everything is imported.
    """
    enabled = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    if enabled is None or enabled():
        return None
    return (
        "this Python runs without the GIL (a free-threaded build), which lycomm does not support: messages may be lost "
        "and links may break; set PYTHON_GIL=1 in the environment, or use the ordinary build of this Python"
    )
