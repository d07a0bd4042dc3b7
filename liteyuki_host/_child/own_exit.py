"""Whose decision a ``SystemExit`` is: the driver's, whose start has failed, or that of the bot's own code.

The launcher and uvicorn have exit codes with a meaning for the host (:mod:`.codes`). A project may end by the same
numbers, and means something else.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from liteyuki_host._child.trouble import place_inside

DRIVERS = ("uvicorn",)
"""Packages that end the process by a ``SystemExit`` of their own."""

QUITTER = "_sitebuiltins"
"""Python's module of ``exit()`` and ``quit()``, which raise in the name of their caller."""


def place_of_exit(exc: SystemExit, folder: Path) -> str | None:
    """The place that has raised it: ``bot.py line 7``, in other packages with the whole path. None: the driver has.

    Args:
        folder: the project's; of the places that lead to it, the innermost one in here is named.
    """
    raised_in = ""
    places: list[tuple[str, int]] = []
    for frame, line in traceback.walk_tb(exc.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module != QUITTER:
            raised_in = module
            places.append((frame.f_code.co_filename, line))
    if raised_in.partition(".")[0] in DRIVERS:
        return None
    for file, line in reversed(places):
        place = place_inside(file, line, folder)
        if place is not None:
            return place
    return f"{places[-1][0]} line {places[-1][1]}" if places else "its entry"
