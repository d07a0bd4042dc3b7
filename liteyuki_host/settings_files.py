"""The files that the settings of a running host stand in: what has changed in them since it has started."""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from liteyuki_host.boundary import in_thread
from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.paths import FileProblem
from liteyuki_host.project import find_table, read_env_files, read_pyproject, same_file
from liteyuki_host.settings import PLUGIN_SETTINGS, Settings
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.wording import one_line

PYPROJECT = "pyproject.toml"


class SettingsFiles:
    """``.env``, ``.env.{ENVIRONMENT}`` and ``pyproject.toml`` of a running host. Implements `HostFiles`.

    Nothing that is read here takes effect: the host goes on with the settings that it has started with. No value of a
    setting is logged, since it may be a secret; what a `SettingsError` says is.
    """

    def __init__(self, running: Settings, load: Callable[[], Settings], environ: Mapping[str, str]) -> None:
        """
        Args:
            running: what the host runs with.
            load: reads the settings as the next start of this host would.
            environ: what the host was started with.
        """
        self._load = load
        self._running = running
        self._environ = environ
        self._one_at_a_time = asyncio.Lock()
        self._accepted: object = None  # what the files held of the host's settings when they were last found good
        self._differ = False  # it has been logged that they differ from those that the host runs with
        self._told: str | None = None  # the last problem that was logged here

    async def check(self, spec: ProcessSpec, *, may_refuse: bool) -> str | None:
        async with self._one_at_a_time:  # so that each change is logged once, and the last one last
            return await in_thread(self._check, spec, may_refuse)

    def _check(self, spec: ProcessSpec, may_refuse: bool) -> str | None:
        problem = self._problem()
        if problem is None:
            self._told = None
        elif may_refuse and self._is_in_our_folder(spec):
            return problem
        elif problem != self._told:
            self._told = problem
            logger.warning(f"settings of the host: {problem}; it runs on, and would not start again with that")
        return None

    def _problem(self) -> str | None:
        try:
            held = self._of_the_host()
        except FileProblem as error:
            if is_shortage(error):
                raise
            held = None  # loading puts it into words, together with all else that is wrong
        if held is None or held != self._accepted:
            try:
                settings = self._load()
            except SettingsError as error:
                return one_line("; ".join(str(error).splitlines()))
            self._accepted = held
            self._tell_difference(settings)
        return None

    def _tell_difference(self, settings: Settings) -> None:
        names = changed_settings(self._running, settings)
        if names:
            logger.info(
                f"settings of the host changed ({', '.join(names)}); they count from the next start of the host"
            )
        elif self._differ:
            logger.info("settings of the host are again those that it runs with")
        self._differ = bool(names)

    def _of_the_host(self) -> object:
        """What decides the host's settings. Raises FileProblem."""
        folder = self._running.folder
        variables = [
            (name, key, value)
            for name, values in read_env_files(folder, self._environ)
            for key, value in values.items()
            if _is_of_the_host(key)
        ]
        return variables, find_table(read_pyproject(folder), "tool", "lycomm")

    def for_bot(self, spec: ProcessSpec) -> Mapping[Path, object] | None:
        if not self._is_in_our_folder(spec):
            return None
        folder = self._running.folder
        ours = {name for name, _ in read_env_files(folder, self._environ)}
        # The bot may have another ENVIRONMENT than the host, and so another file.
        theirs = dict(read_env_files(folder, {**self._environ, **spec.env}))
        found: dict[str, object] = {PYPROJECT: _without_our_table(read_pyproject(folder))}
        for name in ours:
            # A tuple: where a name stands twice, in upper and lower case, the order counts.
            found[name] = tuple(item for item in theirs.get(name, {}).items() if not _is_of_the_host(item[0]))
        return {Path(os.path.abspath(spec.project), name): held for name, held in found.items()}

    def _is_in_our_folder(self, spec: ProcessSpec) -> bool:
        return same_file(spec.project, self._running.folder)


def changed_settings(running: Settings, now: Settings) -> list[str]:
    """The names of the settings in which *now* differs, as they are written where they stand; values never."""
    names = []
    for setting in Settings.model_fields:
        if getattr(running, setting) == getattr(now, setting):
            continue
        name = now.written_name(setting) or running.written_name(setting) or setting
        processes = _changed_processes(running, now) if setting == "processes" else [""]
        names += [f"{name}.{process}" if process else name for process in processes]
    return [one_line(name, 100) for name in names]


def _changed_processes(running: Settings, now: Settings) -> list[str]:
    """Those that are declared otherwise, and in force otherwise: not for a default that is written out."""

    def of(settings: Settings, name: str) -> tuple[object, object]:
        process = settings.processes.get(name)
        written = None if process is None else process.model_dump(exclude_unset=True)
        return written, settings.process_specs().get(name)

    both = {**running.processes, **now.processes}
    return [name for name in both if all(map(operator.ne, of(running, name), of(now, name)))]


def _is_of_the_host(key: str) -> bool:
    return key.lower().startswith("lycomm_") and key.lower() not in PLUGIN_SETTINGS


def _without_our_table(pyproject: Mapping[str, Any]) -> Mapping[str, Any]:
    tool = pyproject.get("tool")
    if not isinstance(tool, dict):
        return pyproject
    others = {name: table for name, table in tool.items() if name != "lycomm"}
    rest = {name: table for name, table in pyproject.items() if name != "tool"}
    return {**rest, "tool": others} if others else rest
