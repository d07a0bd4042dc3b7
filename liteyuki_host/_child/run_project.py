"""Runs the user's NoneBot project the way it would run without us."""

from __future__ import annotations

import builtins
import importlib
import re
import sys
import types
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from loguru import logger

from liteyuki_host._child.missing import missing_module
from liteyuki_host._child.trouble import CannotRun, explain
from liteyuki_host.paths import FileProblem, read_text
from liteyuki_host.wording import short_repr, why

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def run_script(script: Path) -> None:
    """``python SCRIPT``, in this process. Returns when the script has ended; raises what it raises."""
    main = _become_main(str(script))
    main.__file__ = str(script)
    main.__loader__ = SourceFileLoader("__main__", str(script))
    _look_first_in(script.parent)
    exec(_compile(script), main.__dict__)


def _compile(script: Path) -> types.CodeType:
    try:
        return compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    # A syntax error is told with its line by the caller. The others: null bytes in older Pythons, an encoding that is
    # none, what is nested too deeply, and a file that has gone since the host looked at it.
    except SyntaxError:
        raise
    except (OSError, ValueError, LookupError, RecursionError, MemoryError, OverflowError) as exc:
        raise CannotRun(f"{script} cannot be run: {why(exc)}") from exc


def run_toml() -> None:
    """What ``nb run`` does in a folder without a bot.py: adapters and plugins of ``[tool.nonebot]``, then run."""
    _become_main("-c")
    _look_first_in(Path.cwd())
    import nonebot

    table = read_table(Path("pyproject.toml"))
    refused = list(refused_entries(table))
    if refused:
        raise CannotRun("; ".join(refused))
    adapters = [_import_adapter(package, module) for package, module in declared_adapters(table)]
    nonebot.init()
    driver = nonebot.get_driver()
    for adapter in adapters:
        driver.register_adapter(adapter)
    try:
        nonebot.load_builtin_plugins(*table.get("builtin_plugins", []))
        nonebot.load_from_toml("pyproject.toml")
    except (AssertionError, AttributeError, TypeError, ValueError) as exc:
        raise CannotRun(f"[tool.nonebot] in pyproject.toml: {exc}") from exc
    except RuntimeError as exc:
        twice = re.match("Plugin already exists: (.*)! ", str(exc))
        if twice is None:
            raise
        raise CannotRun(
            f"[tool.nonebot] in pyproject.toml: two plugins have the name {short_repr(twice[1])}, which is the last "
            "part of the module's name: remove one"
        ) from exc
    nonebot.run()


def _look_first_in(folder: Path) -> None:
    """Let imports find the project's own modules first: the script's folder with ``python bot.py``, the project's with
    ``nb run``.

    Also where Python is told not to put any folder of the user's on its path: ``PYTHONSAFEPATH``, ``python -P`` or
    ``-I``, and the embeddable Python for Windows. A bot without its own modules is no bot.
    """
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(folder))  # the first entry is the standard library
    else:
        sys.path[0] = str(folder)  # in place of the current folder, for `python -m`


def _become_main(argv0: str) -> types.ModuleType:
    """Put an empty ``__main__`` in our place.

    Processes that the project starts by multiprocessing's "spawn" run the file of their parent's ``__main__``
    again, under another name: that has to be the project's script or, where it has none, nothing. Never us.
    """
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    main.__spec__ = None
    sys.modules["__main__"] = main
    if "__mp_main__" in sys.modules:  # multiprocessing's alias, if something has imported it already
        sys.modules["__mp_main__"] = main
    sys.argv[:] = [argv0]
    return main


def read_table(path: Path) -> dict[str, Any]:
    """``[tool.nonebot]`` of that file. Raises CannotRun."""
    try:
        data = tomllib.loads(read_text(path.absolute()))
    except FileProblem as exc:
        raise CannotRun(str(exc)) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise CannotRun(f"{path.absolute()} cannot be read: {why(exc)}") from exc
    tool = data.get("tool")
    table = tool.get("nonebot") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise CannotRun(f"{path.absolute()} has no table [tool.nonebot]")
    return table


def refused_entries(table: dict[str, Any]) -> Iterator[str]:
    """What NoneBot would end for, with a traceback, among plugins and their folders. What it can do without is left."""
    plugins, folders, builtin = (table.get(key, []) for key in ("plugins", "plugin_dirs", "builtin_plugins"))
    groups = plugins.values() if isinstance(plugins, dict) else [plugins]
    if not isinstance(plugins, list | dict):
        yield f"[tool.nonebot] plugins: {short_repr(plugins)} is not a list of modules"
        groups = []
    for names in groups:
        if not isinstance(names, list | dict | str):
            yield f"[tool.nonebot] plugins: {short_repr(names)} is not a list of modules"
            continue
        for name in names:
            if not isinstance(name, str):
                yield f"[tool.nonebot] plugins: {short_repr(name)} is not the name of a module"
    if not isinstance(folders, list):
        yield f"[tool.nonebot] plugin_dirs: {short_repr(folders)} is not a list of folders"
        folders = []
    for folder in folders:
        if not isinstance(folder, str) or "\0" in folder:
            yield f"[tool.nonebot] plugin_dirs: {short_repr(folder)} is not the name of a folder"
    if not isinstance(builtin, list | str | dict):
        yield f"[tool.nonebot] builtin_plugins: {short_repr(builtin)} is not a list of names"


def declared_adapters(table: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
    """Package to install (where the project says so) and module of each adapter, of both formats. Raises CannotRun."""
    declared = table.get("adapters", [])
    groups: Any = declared.items() if isinstance(declared, dict) else [(None, declared)]
    for package, adapters in groups:
        if not isinstance(adapters, list):
            raise CannotRun(f"[tool.nonebot] adapters: {short_repr(adapters)} is not a list of tables")
        for adapter in adapters:
            module = adapter.get("module_name") if isinstance(adapter, dict) else None
            if not isinstance(module, str) or not module:
                raise CannotRun(f"[tool.nonebot] adapters: {short_repr(adapter)} has no module_name")
            yield (None if package == "@local" else package), module


def _import_adapter(package: str | None, module_name: str) -> Any:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise CannotRun(f"adapter {missing_module(module_name, package)}") from exc
        raise CannotRun(f"adapter {module_name}: {explain(exc)}") from exc
    except Exception as exc:
        logger.opt(exception=exc).error(f"adapter {module_name} cannot be imported")
        raise CannotRun(f"adapter {module_name}: {explain(exc)}") from exc
    try:
        return module.Adapter
    except AttributeError:
        raise CannotRun(f"adapter {module_name} of [tool.nonebot] has no class Adapter") from None
