"""Files of a project that take the place of a package: with a ``json.py`` in the folder, ``import json`` loads that.

Python looks into the folder of the program first, and a bot needs that for its own modules. A file whose name happens
to be that of a package which NoneBot or lycomm imports keeps the bot from starting, in a traceback that says nothing of
it. Many such files harm nobody, so one is only named if things go better without it.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from liteyuki_host.supervisor.interpreter import ask
from liteyuki_host.wording import shown

if TYPE_CHECKING:
    from liteyuki_host.project import ProjectPlan

SECONDS = 30.0
"""For one try to import NoneBot and the driver, which takes about a second, on a cold disk several."""

LIST_SECONDS = 10.0
"""For the interpreter to list what may hide something, without importing any of it."""

MAX_SUSPECTS = 10
"""Files of one folder that are tried, each for about a second."""

MARK = "lycomm:"

_SUSPECTS = f"""
import sys
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]
    import importlib.machinery, importlib.util, os
    here = os.path.realpath(os.getcwd())
    sys.path[:] = [place for place in sys.path if os.path.realpath(place) != here]
    print({MARK!r})
    for entry in sorted(os.listdir(here)):
        path = os.path.join(here, entry)
        if os.path.isdir(path):
            name, path = entry, os.path.join(path, "__init__.py")
            if not os.path.isfile(path):
                continue
        else:
            endings = importlib.machinery.all_suffixes()
            name = next((entry[: -len(end)] for end in endings if entry.endswith(end)), "")
        if not name.isidentifier():
            continue
        try:
            spec = importlib.util.find_spec(name)
        except Exception:
            continue
        if spec is not None and spec.origin and os.path.realpath(spec.origin) != os.path.realpath(path):
            print(entry, name, int(name in sys.stdlib_module_names), sep="/")
"""
"""Lists what has the name of something else that can be imported: entry, name, and whether that is Python's own."""

_TRY = f"""
import os, sys
kind, *elsewhere = sys.argv[1:]
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    sys.path[0] = os.getcwd()

class Elsewhere:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or name not in elsewhere:
            return None
        before, here = sys.path[:], os.path.realpath(os.getcwd())
        sys.path[:] = [place for place in before if os.path.realpath(place) != here]
        try:
            specs = (finder.find_spec(name, None, target) for finder in sys.meta_path if finder is not Elsewhere)
            return next((spec for spec in specs if spec is not None), None)
        finally:
            sys.path[:] = before

sys.meta_path.insert(0, Elsewhere)
import runpy
import liteyuki_host.launch
import liteyuki_host._child.survey
found = liteyuki_host._child.survey.survey(kind)
if not found["unfit"]:
    import liteyuki_host._child.guard, liteyuki_host._child.keyboard, liteyuki_host._child.trial_run
    import liteyuki_host._child.driver, liteyuki_host._child.run_project, liteyuki_host._child.replacing
    import liteyuki_host._child.signals, liteyuki_host.comm.transport
    import anyio, anyio.to_thread
    anyio.run(anyio.to_thread.run_sync, int)
    if "uvicorn" in sys.modules:
        import uvicorn
        uvicorn.Config(print, log_config=None).load()
sys.__stdout__.write("\\n" + {MARK!r} + "\\n" + repr((found["unfit"], found["start"])) + "\\n")
sys.__stdout__.flush()
os._exit(0)
"""
"""Imports and uses what every bot needs, and surveys the project. Arguments: its kind, and what is not to be taken from
the folder. A thread and uvicorn's configuration stand for what is imported only while a bot starts."""


@dataclass(frozen=True)
class _Suspect:
    entry: str
    name: str
    of_python: bool

    def line(self, folder: Path) -> str:
        what = "Python's own module" if self.of_python else "the package"
        kind = "file" if "." in self.entry else "folder"
        return f"{shown(folder / self.entry)} hides {what} {self.name}: give the {kind} another name"


def hidden_packages(plan: ProjectPlan, environment: Mapping[str, str]) -> list[str]:
    """Find what in the project's folder keeps its bots from starting by its name alone; one line for each.

    Takes no time in a folder without Python files besides bot.py, 0.1 s if none has the name of a package, about two
    seconds if some have and none does harm, else one more for each. Blocks; not for the event loop. A shortage, and an
    interpreter that does not answer, count as nothing found.

    Args:
        environment: the bot's; ``PYTHONPATH`` for one decides what is found.
    """
    try:
        suspects = _suspects(plan, environment) if _has_modules(plan.folder) else []
        if not suspects:
            return []
        names = {suspect.name for suspect in suspects}
        undisturbed = _try(plan, environment, names)
        if _try(plan, environment, ()) == undisturbed:
            return []
        return [
            suspect.line(plan.folder)
            for suspect in suspects
            if len(names) == 1 or _try(plan, environment, names - {suspect.name}) != undisturbed
        ]
    except (OSError, RuntimeError, MemoryError, subprocess.TimeoutExpired):
        return []


def _has_modules(folder: Path) -> bool:
    endings = tuple(importlib.machinery.all_suffixes())
    with os.scandir(folder) as entries:
        return any(
            os.path.isfile(os.path.join(entry.path, "__init__.py")) or entry.name.endswith(endings)
            for entry in entries
            if entry.name != "bot.py"
        )


def _suspects(plan: ProjectPlan, environment: Mapping[str, str]) -> Sequence[_Suspect]:
    answer = ask(plan.python, _SUSPECTS, folder=plan.folder, environment=environment, seconds=LIST_SECONDS)
    found = [line.split("/") for line in answer.after(MARK)]
    return [_Suspect(row[0], row[1], row[2] == "1") for row in found if len(row) == 3][:MAX_SUSPECTS]


def _try(plan: ProjectPlan, environment: Mapping[str, str], elsewhere: Collection[str]) -> object:
    """What the survey says with *elsewhere* not taken from the folder; None: it could not even be asked."""
    arguments = [plan.kind, *sorted(elsewhere)]
    answer = ask(plan.python, _TRY, folder=plan.folder, environment=environment, seconds=SECONDS, arguments=arguments)
    lines = answer.after(MARK)
    try:
        return ast.literal_eval(lines[0]) if lines else None
    except (ValueError, SyntaxError):
        return None
