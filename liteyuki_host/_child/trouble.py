"""What went wrong in the user's project, in one line that names the culprit and the remedy."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path


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
        path = Path(frame.filename)
        if folder in path.parents and "site-packages" not in path.parts:
            return f"{path.relative_to(folder)} line {frame.lineno}"
    return None
