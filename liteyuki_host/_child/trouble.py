"""What went wrong in the user's project, in one line that names the culprit and the remedy."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

MAX_WORDS = 500
"""Characters of one line. Validation errors repeat whole configurations."""


class CannotRun(Exception):
    """The project cannot be run as it is; the text is that line."""


def explain(exc: BaseException, folder: Path | None = None) -> str:
    """
    Args:
        folder: the project's; of the traceback's places the innermost one in here is named.
    """
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return missing_module(exc.name)
    if isinstance(exc, SyntaxError):
        return f"{exc.filename} line {exc.lineno}: {exc.msg}"
    words = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    place = _place(exc, folder or Path.cwd())
    return f"{words} ({place})" if place else words


def locate(exc: BaseException, folder: Path, otherwise: str | None = None) -> str:
    """The same as one line that begins with the place: ``plugins/weather.py line 12: SyntaxError: invalid syntax``.

    Args:
        folder: the project's; the place is the innermost one in here.
        otherwise: what the line begins with when no place is.
    """
    place = _place(exc, folder)
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        words = _missing(exc.name, folder)
    elif isinstance(exc, SyntaxError):
        words = f"{type(exc).__name__}: {exc.msg}"
        inside = _relative(exc.filename, folder)
        if inside is not None:
            place = f"{inside} line {exc.lineno}"
        elif exc.filename:
            words += f" ({exc.filename} line {exc.lineno})"
    else:
        words = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    line = " ".join(": ".join(filter(None, [place or otherwise, words])).split())
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 4]} ..."


def _missing(name: str, folder: Path) -> str:
    top = name.partition(".")[0]
    if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
        return f"there is no module {name!r} in this project"
    return missing_module(name)


def missing_module(name: str, package: str | None = None) -> str:
    """
    Args:
        package: what to install, where the project says so; otherwise it is guessed from the module's name.
    """
    parts = name.split(".")
    if package is None:
        package = f"nonebot-adapter-{parts[2]}" if parts[:2] == ["nonebot", "adapters"] and parts[2:] else parts[0]
    install = f"`{sys.executable} -m pip install {package.replace('_', '-')}`"
    return f"module {name!r} is not installed for this bot: correct its name, or run {install}"


def show_traceback(exc: BaseException, script: Path) -> None:
    """As Python shows it for ``python bot.py``: without the frames that are ours."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != str(script):
        tb = tb.tb_next
    traceback.print_exception(type(exc), exc, tb)


def _place(exc: BaseException, folder: Path) -> str | None:
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        inside = _relative(frame.filename, folder)
        if inside is not None:
            return f"{inside} line {frame.lineno}"
    return None


def _relative(file: str | None, folder: Path) -> Path | None:
    """None: it is no file of the project's own."""
    if not file or file.startswith("<"):
        return None
    path, folder = Path(os.path.realpath(file)), Path(os.path.realpath(folder))  # the project may be a link
    if folder in path.parents and "site-packages" not in path.parts:
        return path.relative_to(folder)
    return None
