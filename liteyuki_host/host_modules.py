"""Imports the modules that the operator has written for the main process."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from liteyuki_host.comm.errors import HostError

__all__ = ["load_module"]


def load_module(module: str, folder: Path) -> ModuleType:
    """Import *module*, once. Names in *folder* are found, as under ``python bot.py``, and stay so.

    Raises:
        HostError: it cannot be imported; one line with the file and line that failed.
    """
    folder = folder.absolute()
    if str(folder) not in sys.path:  # the `lycomm` command has its own folder there, and not the project's
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    except Exception as error:
        top = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name in (top, module):
            where = f"put {top}.py into {folder}"
            raise HostError(f"there is no module {module!r} for the host: correct its name, or {where}") from error
        raise HostError(f"module {module!r} of the host cannot be loaded: {_where(error)}") from error


def _where(error: BaseException) -> str:
    """The error and the place in the operator's code that it came from, in one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename} line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    place = f" ({own[-1].filename} line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
