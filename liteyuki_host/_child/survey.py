"""``python -m liteyuki_host._child.survey``: what the bot's own interpreter can say about a project without loading it.

Run by the host for ``lycomm check``, in the project's folder. Nothing of the project is imported: NoneBot and the
driver are, since only they know what they need. The answer is one line of JSON on standard output, see `SURVEY`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from liteyuki_host._child.missing import missing_module
from liteyuki_host._child.trouble import CannotRun, explain
from liteyuki_host._version import __version__
from liteyuki_host.wording import one_line, short_repr

MAX_LINES = 50
"""Of one kind; a project has at most some dozen plugins."""

SURVEY: dict[str, Any] = {
    "version": __version__,  # of the lycomm that answers
    "protocol": 0,  # of the link, as it speaks it
    "unfit": [],  # this interpreter can run no bot of ours, whatever the project is
    "start": [],  # the bot cannot start; one of a script's may not count, since the script can pass its own settings
    "replaced": [],  # settings for which a bot would take another value, unless it makes theirs a good one
    "mistyped": [],  # names in .env that look like a setting of NoneBot, unless a plugin has a setting of that name
    "plugins": [],  # what a bot would do without
    "notes": [],
    "listens": None,  # [host, port] as configured; None: no server, or unknown
}


def survey(kind: str) -> dict[str, Any]:
    """Look at the project in the current folder.

    Args:
        kind: ``script`` or ``toml``, as in ``ProjectPlan``. What ``[tool.nonebot]`` says counts for ``toml`` only: a
            script decides itself what it loads.
    """
    from liteyuki_host.comm.gil import without_the_gil
    from liteyuki_host.comm.protocol.messages import PROTOCOL_VERSION
    from liteyuki_host.requirements import unfit_pydantic

    found = {**SURVEY, "protocol": PROTOCOL_VERSION}
    problem = unfit_pydantic() or _no_nonebot()
    if problem is not None:
        return {**found, "unfit": [problem]}
    from liteyuki_host._child.configuration import examine_configuration

    examined = examine_configuration()
    found.update(start=examined.problems, notes=examined.notes, listens=examined.listens)
    found["replaced"], found["mistyped"] = examined.replaced, examined.mistyped
    if kind == "toml":
        table = _Table.read()
        found["start"] = [*examined.problems, *table.problems]
        found["plugins"] = table.plugins
        found["notes"] = [*examined.notes, *table.notes]
    no_gil = without_the_gil()
    if no_gil is not None:
        found["notes"] = [no_gil, *found["notes"]]
    for kind_of_line in ("start", "plugins", "notes"):
        found[kind_of_line] = [one_line(line) for line in found[kind_of_line][:MAX_LINES]]
    return found


def _no_nonebot() -> str | None:
    try:
        import nonebot  # noqa: F401
    except ModuleNotFoundError as exc:
        if exc.name == "nonebot":
            return missing_module("nonebot", "nonebot2[fastapi]")
        return f"NoneBot cannot be imported: {missing_module(exc.name)}" if exc.name else str(exc)
    except Exception as exc:
        return one_line(f"NoneBot cannot be imported: {explain(exc)}")
    return None


class _Table:
    """``[tool.nonebot]``, and whether what it names is there."""

    def __init__(self, table: dict[str, Any]) -> None:
        from liteyuki_host._child.run_project import refused_entries

        self.problems = [*refused_entries(table), *self._meant_otherwise(table), *self._adapters(table)]
        self.plugins = list(self._plugins(table))
        self.notes = list(self._folders(table))

    @classmethod
    def read(cls) -> _Table:
        from liteyuki_host._child.run_project import read_table

        try:
            return cls(read_table(Path("pyproject.toml")))
        except CannotRun as exc:
            table = cls({})
            table.problems = [str(exc)]
            return table

    def _adapters(self, table: dict[str, Any]) -> Iterator[str]:
        from liteyuki_host._child.run_project import declared_adapters

        adapters = declared_adapters(table)
        while True:
            try:
                package, module = next(adapters)
            except StopIteration:
                return
            except CannotRun as exc:
                yield str(exc)
                return
            if not is_there(module):
                yield f"adapter {missing_module(module, package)}"

    def _meant_otherwise(self, table: dict[str, Any]) -> Iterator[str]:
        """What NoneBot takes as something that nobody writes: each letter of a text as a plugin, an empty name."""
        plugins, builtin = table.get("plugins", []), table.get("builtin_plugins", [])
        for names in plugins.values() if isinstance(plugins, dict) else [plugins]:
            if isinstance(names, str | dict) and names is not plugins:
                yield f"[tool.nonebot] plugins: {short_repr(names)} is not a list of modules"
            elif "" in _texts(names):
                yield f"[tool.nonebot] plugins: {short_repr('')} is not the name of a module"
        if isinstance(builtin, str | dict):
            yield f"[tool.nonebot] builtin_plugins: {short_repr(builtin)} is not a list of names"

    def _plugins(self, table: dict[str, Any]) -> Iterator[str]:
        declared = table.get("plugins", [])
        groups: Any = declared.items() if isinstance(declared, dict) else [(None, declared)]
        for package, names in groups:
            for name in _texts(names):
                if name and not is_there(name):
                    yield f"plugin {missing_module(name, None if package == '@local' else package)}"
        for name in _texts(table.get("builtin_plugins", [])):
            if not is_there(f"nonebot.plugins.{name}"):
                yield f"builtin plugin {short_repr(name)} does not exist in this NoneBot"

    def _folders(self, table: dict[str, Any]) -> Iterator[str]:
        for folder in _texts(table.get("plugin_dirs", [])):
            if not folder:
                yield (
                    f"plugin_dirs in [tool.nonebot]: {short_repr(folder)} loads every module beside pyproject.toml: "
                    'write "." if you mean that, or remove it'
                )
            elif not os.path.isdir(folder):
                yield one_line(
                    f"plugin_dirs in [tool.nonebot]: folder {folder} does not exist; no plugin is loaded from it"
                )


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def is_there(module: str) -> bool:
    """Whether *module* can be found. Nothing is imported for it; where that cannot be said, it counts as there."""
    names = module.split(".")
    path: Any = None
    try:
        for depth in range(1, len(names) + 1):
            name = ".".join(names[:depth])
            loaded = sys.modules.get(name)
            if loaded is not None:
                path = getattr(loaded, "__path__", None)
                continue
            spec = importlib.util.find_spec(name) if depth == 1 else _find_in(name, path)
            if spec is None:
                return False
            path = spec.submodule_search_locations
            if path is None and depth < len(names):
                return False
    except (ImportError, ValueError, AttributeError):
        return True
    return True


def _find_in(name: str, path: Any) -> Any:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, path) if find is not None else None
        if spec is not None:
            return spec
    return None


def _end_with_the_asker() -> None:
    """End this process when the one that holds the other end of standard input has ended."""
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # what is imported finds no input, as ever
    os.close(nothing)

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, name="lycomm-survey", daemon=True).start()


def main() -> None:
    """Print the survey. What others print meanwhile goes nowhere."""
    parser = argparse.ArgumentParser(prog="python -m liteyuki_host._child.survey", description=__doc__)
    parser.add_argument("--kind", required=True, choices=["script", "toml"])
    options = parser.parse_args()
    _end_with_the_asker()
    with os.fdopen(os.dup(1), "wb") as answer:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nothing, descriptor)
        folder = os.getcwd()
        if folder not in sys.path:  # left out in Python's safe mode; the launcher adds it too
            sys.path.insert(0, folder)
        answer.write(json.dumps(survey(options.kind)).encode() + b"\n")
        answer.flush()
        os._exit(0)  # whatever threads an import may have started


if __name__ == "__main__":
    main()
