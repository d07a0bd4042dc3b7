"""What to do about a module that cannot be imported, in one line.

``pip install`` of a name that nobody has checked may install a stranger's package. So it is never the advice for a name
that belongs to the project or to Python itself, nor for one that looks like a misspelling of such a name.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from liteyuki_host._child.typing_errors import one_doubled, one_missing, two_swapped

REMOVED = {
    *("aifc", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "crypt", "distutils", "formatter"),
    *("imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd", "sndhdr"),
    *("spwd", "sunau", "symbol", "telnetlib", "uu", "xdrlib"),
}
"""Modules of the standard library that Python 3.10 to 3.13 have dropped (each "What's New", section Removed)."""

SURE_LENGTH = 6
"""Letters from which on a name with one letter too few is taken for a misspelling. Shorter ones are too often the name
of a package of their own: ``jose`` is not ``json``, ``typer`` not ``types``."""


def missing_module(name: str, package: str | None = None, folder: Path | None = None) -> str:
    """
    Args:
        name: as in the import, with dots.
        package: what to install, where the project says so; otherwise it is guessed from the module's name.
        folder: the project's, by default the current one.
    """
    folder = folder or Path.cwd()
    top = name.partition(".")[0]
    if package is None:
        words = (
            _no_module_name(name)
            or _of_the_project(name, top, folder)
            or _of_python(name, top)
            or _misspelled(name, top, folder)
        )
        if words is not None:
            return words
    guess = ""
    if package is None:
        parts = name.split(".")
        package = f"nonebot-adapter-{parts[2]}" if parts[:2] == ["nonebot", "adapters"] and parts[2:] else parts[0]
        guess = " (the package's name is a guess: look it up first)"
    install = f"`{sys.executable} -m pip install {package.replace('_', '-')}`"
    return f"module {name!r} is not installed for this bot: correct its name, or run {install}{guess}"


def _no_module_name(name: str) -> str | None:
    """About a name that no ``import`` takes, mostly a package's: ``nonebot-plugin-status``."""
    if all(part.isidentifier() for part in name.split(".")):
        return None
    adapter = name.removeprefix("nonebot-adapter-")
    meant = name.replace("-", "_") if adapter == name else f"nonebot.adapters.{adapter.replace('-', '.')}"
    if all(part.isidentifier() for part in meant.split(".")):
        return f"{name!r} is the name of a package, and a module is wanted: did you mean {meant!r}?"
    return f"{name!r:.100} is not the name of a module: correct it"


def _of_the_project(name: str, top: str, folder: Path) -> str | None:
    path = _own_modules(folder).get(top)
    if path is None or _loaded_from_elsewhere(top, path):
        return None
    if top != name:
        return f"there is no module {name!r} in this project, where {path} is what Python uses for {top!r}"
    return (
        f"module {name!r} is in this project, but Python does not look for modules in {path.parent}: "
        f'set env = {{ PYTHONPATH = "{path.parent.as_posix()}" }} for this process in [tool.lycomm.processes]'
    )


def _of_python(name: str, top: str) -> str | None:
    version = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    if top in REMOVED - sys.stdlib_module_names:
        return f"{version} has no module {top!r} any more: update the package or plugin that imports it"
    if top not in sys.stdlib_module_names:
        return None
    if top != name:
        return f"there is no module {name!r} in the standard library of {version}: correct its name"
    return f"module {name!r} of the standard library is missing in this {version}: this system or this build has it not"


def _misspelled(name: str, top: str, folder: Path) -> str | None:
    for known, where in ((_own_modules(folder), "which is in this project"), (sys.stdlib_module_names, "of Python")):
        meant = next((other for other in known if _looks_like(top, other)), None)
        if meant is not None:
            return f"there is no module {name!r}: did you mean {meant!r}, {where}?"
    return None


def _looks_like(written: str, meant: str) -> bool:
    """Whether *written* is *meant* with one typing error: letter case, two letters swapped, one doubled or missing."""
    if written.lower() == meant.lower():
        return written != meant
    if two_swapped(written, meant) or one_doubled(written, meant):
        return True
    return len(written) >= SURE_LENGTH and one_missing(written, meant)


def _own_modules(folder: Path) -> dict[str, Path]:
    """The top-level modules and packages in the project's folder, its ``src`` and the script's folder, by name."""
    own: dict[str, Path] = {}
    for place in (folder, folder / "src", *_script_folder()):
        for path in _listed(place):
            if path.is_dir():
                name = path.name
            else:
                endings = importlib.machinery.all_suffixes()
                name = next((path.name.removesuffix(end) for end in endings if path.name.endswith(end)), "")
            if name.isidentifier():
                own.setdefault(name, path)
    return own


def _script_folder() -> Iterable[Path]:
    return (Path(sys.argv[0]).parent,) if sys.argv and sys.argv[0].endswith(".py") else ()


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:  # there is none
        return


def _loaded_from_elsewhere(top: str, path: Path) -> bool:
    """Whether *top* is imported, and not from *path*: a folder of that name then has nothing to do with it."""
    module = sys.modules.get(top)
    if module is None:
        return False
    ours = Path(os.path.realpath(path))
    files = [Path(os.path.realpath(file)) for file in (getattr(module, "__file__", None), *_path_of(module)) if file]
    return not any(file == ours or ours in file.parents for file in files)


def _path_of(module: ModuleType) -> Iterable[str]:
    return getattr(module, "__path__", ())
