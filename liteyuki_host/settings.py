"""The host's settings: what exists, and where each value was written. What it may be: ``settings_values``.

Four layers, the first that has a value wins: arguments of ``Host(...)``, ``LYCOMM_*`` in the environment,
``LYCOMM_*`` in ``.env`` and ``.env.{ENVIRONMENT}`` (the latter wins, as in NoneBot), ``[tool.lycomm]`` in
pyproject.toml. A layer replaces a value as a whole; ``processes`` of two layers are not mixed.

The layers are read here and not by pydantic, so that an error can say in which of them the value stands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from liteyuki_host._child.value_words import in_words
from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.paths import FileProblem, absolute, is_dir
from liteyuki_host.project import find_table, read_env_files, read_pyproject
from liteyuki_host.settings_values import (
    CHILD_VARIABLES,
    LOG_LEVELS,
    GiB,
    KiB,
    ListOf,
    MiB,
    Number,
    OneOf,
    Size,
    did_you_mean,
    environment_table,
    module_name,
    process_name,
    process_table,
    reload_mode,
    switch,
    text,
    text_or_none,
)
from liteyuki_host.supervisor import order
from liteyuki_host.supervisor.spec import ProcessSpec, Reload, Restart, Strategy
from liteyuki_host.wording import one_line, short_repr, shown

PLUGIN_SETTINGS = ("lycomm_commands", "lycomm_restart_command", "lycomm_status_command")
"""Settings of nonebot_plugin_lycomm. They stand in the same ``.env``; the plugin reads and checks them."""

MAX_PROBLEMS = 50
"""Lines of one SettingsError. More is a file that was meant for something else."""

DAY = 86400  # seconds; more than that is a mistake, and too much for a timer would be an OverflowError later

Name = Annotated[str, BeforeValidator(process_name)]
Text = Annotated[str, BeforeValidator(text)]
Switch = Annotated[bool, BeforeValidator(switch)]
Seconds = Annotated[float, BeforeValidator(Number(float, 0, DAY, "seconds"))]
# A bot needs about a second to import NoneBot: with less it would never be ready.
ReadyTimeout = Annotated[float, BeforeValidator(Number(float, 1, DAY, "seconds"))]
# Heartbeats are sent four times per limit and at most four times a second.
WatchSeconds = Annotated[float, BeforeValidator(Number(float, 1, DAY, "seconds", off=True))]
# Less than a minute would be a restart loop; more than a year is a typing error.
Age = Annotated[float, BeforeValidator(Number(float, 60, 365 * DAY, "seconds", off=True))]


class OnFailed(str, Enum):
    """What a host does in which no process runs and none will start by itself."""

    END = "end"
    """It ends: exit code 1 if a process has failed, else 0. A shell, a service manager or a container sees it."""
    STAY = "stay"
    """It stays until it is stopped."""

    def __str__(self) -> str:
        return self.value


class Supervision(BaseModel):
    """How a process is supervised: for all in `Settings`, for one in `ProcessSettings`. Defaults: `ProcessSpec`.

    The descriptions of all settings are what users read: ``python -m tests.docs.write`` puts them, with the defaults,
    units and bounds of the fields, into the README and ``.env.example``. docs/settings.zh-CN.toml translates them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Start and stop. The stop ladder's three rungs are together less than the 10 s in which one Ctrl+C has to end
    # everything; draining comes before them, and only while handlers run.
    ready_timeout: ReadyTimeout = Field(
        default=ProcessSpec.ready_timeout,
        description="longest time from the start of a process until it is ready; after it the start has failed",
    )
    drain_timeout: Seconds = Field(
        default=ProcessSpec.drain_timeout,
        description="longest time for which a planned stop or restart waits until running handlers (functions of "
        'plugins that answer an event) have finished; meanwhile the bot begins nothing new (it "drains"); '
        "no wait if none is running",
    )
    stop_timeout: Seconds = Field(
        default=ProcessSpec.stop_timeout,
        description="time that a process has to end by itself once it is asked to",
    )
    interrupt_timeout: Seconds = Field(
        default=ProcessSpec.interrupt_timeout,
        description="further time to end, after it is sent SIGINT (the signal of Ctrl+C)",
    )
    terminate_timeout: Seconds = Field(
        default=ProcessSpec.terminate_timeout,
        description="further time to end, after it is sent SIGTERM (the system's request to end); then it is killed",
    )

    # Restarts
    restart: Annotated[Restart, BeforeValidator(OneOf(tuple(Restart)))] = Field(
        default=ProcessSpec.restart,
        description="whether a process that ended without being asked to is started again: `always`, `on-failure` (not "
        "when it ended by itself with code 0; before it was ready that is a failure, and is not tried again "
        "either), `never`",
    )
    max_restarts: Annotated[int, BeforeValidator(Number(int, 0, 1000, "restarts"))] = Field(
        default=ProcessSpec.max_restarts,
        description="the most within `restart_window`; if one more is needed, the process has failed and is not "
        "started again",
    )
    restart_window: Annotated[float, BeforeValidator(Number(float, 0.1, DAY, "seconds"))] = Field(
        default=ProcessSpec.restart_window, description="time over which restarts are counted"
    )
    backoff_base: Seconds = Field(
        default=ProcessSpec.backoff_base,
        description="wait before the first restart in a row; doubled for each further one",
    )
    backoff_max: Seconds = Field(
        default=ProcessSpec.backoff_max,
        description="longest wait before a restart, not less than `backoff_base`",
    )

    # Watchdog
    loop_timeout: WatchSeconds = Field(
        default=ProcessSpec.loop_timeout,
        description="how long the bot's event loop (the one thread in which all of its `async` code runs in turn) may "
        "be blocked (by code that waits without `await`) before the bot is replaced; `0`: not watched",
    )
    freeze_timeout: WatchSeconds = Field(
        default=ProcessSpec.freeze_timeout,
        description="how long the whole process may give no sign of life before it is replaced; `0`: not watched",
    )

    # Limits
    memory_limit: Annotated[int, BeforeValidator(Size(32 * MiB, 1024 * GiB, off=True))] = Field(
        default=ProcessSpec.memory_limit,
        description="the most memory of a process and all that it started, such as `512MiB`; with more it is restarted "
        "as by `/restart`; `0`: no limit",
    )
    max_age: Age = Field(
        default=ProcessSpec.max_age,
        description="time after which a process is restarted as by `/restart`, varied by 10 %; `0`: never",
    )

    # Reload
    reload: Annotated[Reload, BeforeValidator(reload_mode)] = Field(
        default=ProcessSpec.reload,
        description="what happens when the project's files change. `off`: nothing. `swap` or `true`: if the new code "
        "can start, the bot is stopped and started anew. `overlap`: the same, but the new one is ready "
        "before the old one is stopped",
    )
    reload_dirs: Annotated[tuple[Path, ...], BeforeValidator(ListOf(text, "folders"))] = Field(
        default=tuple(ProcessSpec.reload_dirs),
        description="folders that are watched; `[]`: the project's",
    )

    # Order
    after: Annotated[tuple[str, ...], BeforeValidator(ListOf(process_name, "process names"))] = Field(
        default=tuple(ProcessSpec.after),
        description="processes that must be ready before this one is started. For all processes: those named here come "
        "first, then all others",
    )
    strategy: Annotated[Strategy, BeforeValidator(OneOf(tuple(Strategy)))] = Field(
        default=ProcessSpec.strategy,
        description="which processes are restarted when one ends without being asked to: `one` (only that one), `all`, "
        "`rest` (that one and those declared after it)",
    )


class ProcessSettings(Supervision):
    """One ``[tool.lycomm.processes.NAME]``.

    What it inherits from `Supervision` counts only where it was written and is not None. `Settings.process_specs`
    has what is in force.
    """

    project: Text = Field(default=".", description="folder of the NoneBot project")
    entry: Text | None = Field(
        default=None,
        description="script that calls `nonebot.run()`; without it `bot.py`, else `[tool.nonebot]`",
    )
    python: Text | None = Field(
        default=None,
        description="interpreter; without it the project's `.venv` or `venv`, else the host's",
    )
    env: Annotated[dict[str, str], BeforeValidator(environment_table)] = Field(
        default={},
        description="environment variables for this process",
    )
    autostart: Switch = Field(default=True, description="start it with the host")
    terminal: Switch = Field(
        default=False,
        description="give it the host's terminal, for one process: `breakpoint()`, `input()` and the console adapter "
        "work; its output is then not captured, and `ready_timeout` and `loop_timeout` are off unless they "
        "stand beside it",
    )

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_written(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None or name not in cls.model_fields}


class Settings(Supervision):
    """All settings of a host, checked. Made by `load_settings`."""

    _folder: Path = PrivateAttr(default_factory=Path)
    _written: dict[str, str] = PrivateAttr(default_factory=dict)

    plugins: Annotated[list[str], BeforeValidator(ListOf(module_name, "module names"))] = Field(
        default=[], description="modules loaded into the host process, in this order"
    )
    processes: Annotated[dict[Name, ProcessSettings], BeforeValidator(process_table)] = Field(
        default={},
        description="the bots by name, as JSON; `{}` is one bot, `nonebot`, in this folder; easier to write "
        "as tables in `pyproject.toml`",
    )

    on_failed: Annotated[OnFailed, BeforeValidator(OneOf(tuple(OnFailed)))] = Field(
        default=OnFailed.END,
        description="what the host does when no process runs and none will start by itself: `end` (exit code 1 after a "
        "failure, else 0), `stay`",
    )

    # Communication
    channel_window: Annotated[int, BeforeValidator(Size(64 * KiB, 256 * MiB))] = Field(
        default=4 * MiB,
        description="the most that may be sent and not yet received, in each direction of a channel; beyond it senders "
        "wait",
    )
    message_limit: Annotated[int, BeforeValidator(Size(KiB, 256 * MiB))] = Field(
        default=16 * MiB, description="the most that one message or value may have"
    )
    shared_memory_limit: Annotated[int, BeforeValidator(Size(64 * KiB, 64 * GiB))] = Field(
        default=256 * MiB,
        description="the most that the whole shared memory may hold",
    )

    # Logs
    log_level: Annotated[str, BeforeValidator(OneOf(LOG_LEVELS))] = Field(
        default="INFO", description="lowest level of the host's log lines that are shown"
    )
    log_dir: Annotated[str | None, BeforeValidator(text_or_none)] = Field(
        default=None, description="folder for log files; without it no files"
    )
    log_rotation: Annotated[int, BeforeValidator(Size(64 * KiB, GiB))] = Field(
        default=10 * MiB, description="size of a log file at which a new one is begun"
    )
    log_retention: Annotated[int, BeforeValidator(Number(int, 0, 1000, "files"))] = Field(
        default=5, description="old log files that are kept of each process"
    )
    output_buffer: Annotated[int, BeforeValidator(Size(64 * KiB, 256 * MiB))] = Field(
        default=MiB,
        description="how much of each process's last output the host keeps in memory",
    )

    @property
    def folder(self) -> Path:
        """Absolute; where the settings were read, and what relative paths in them are relative to."""
        return self._folder

    def written_name(self, setting: str) -> str | None:
        """``LYCOMM_NAME`` or ``name``, as it is written where its value comes from; None: it has its default."""
        return self._written.get(setting)

    @property
    def log_folder(self) -> Path | None:
        """`log_dir`, absolute; None: no log files."""
        return None if self.log_dir is None else self._absolute(self.log_dir)

    def process_specs(self) -> dict[str, ProcessSpec]:
        """The declared processes, with the defaults filled in. Nothing is checked against the disk."""
        declared = self.processes or {"nonebot": ProcessSettings()}
        return {name: self._spec(name, process) for name, process in declared.items()}

    def _spec(self, name: str, process: ProcessSettings) -> ProcessSpec:
        python = process.python
        if python is not None and Path(python).name != python:  # more than a command's name
            python = str(self._absolute(python))
        supervision = {setting: self._in_force(process, setting) for setting in Supervision.model_fields}
        supervision["reload_dirs"] = tuple(self._absolute(folder) for folder in supervision["reload_dirs"])
        if "after" not in process.model_fields_set and name in self.after:
            supervision["after"] = ()  # the first ones cannot come after themselves
        if process.terminal:
            # Whoever waits for a key that nobody presses, in a debugger for instance, is not stuck.
            patient = {"ready_timeout": float(DAY), "loop_timeout": 0.0}
            supervision |= {name: value for name, value in patient.items() if name not in process.model_fields_set}
        return ProcessSpec(
            name=name,
            # Not resolved: a link to the current release is followed anew at each start.
            project=self._absolute(process.project),
            entry=process.entry,
            python=python,
            env=process.env,
            autostart=process.autostart,
            terminal=process.terminal,
            **supervision,
        )

    def _in_force(self, process: Supervision, setting: str) -> Any:
        """A setting's own value in *process*, else that of all."""
        return getattr(process if setting in process.model_fields_set else self, setting)

    def _absolute(self, path: str | Path) -> Path:
        return self._folder / os.path.expanduser(path)


# The layers.


@dataclass(frozen=True)
class _Source:
    """A place where settings are written, and how their names are spelled there."""

    place: str
    variables: bool = False  # LYCOMM_NAME instead of name
    table: str = ""  # of a TOML file

    def spell(self, *path: str) -> str:
        """How the user wrote *path* (a setting's name, then keys inside its value), and where."""
        # A name may be anything, but one problem stays one line.
        keys = [key if key.isprintable() and len(key) <= 64 else short_repr(key) for key in path]
        if self.table:
            return f"{keys[-1]} in [{'.'.join([self.table, *keys[:-1]])}] of {self.place}"
        return f"{'.'.join([self.name(keys[0]), *keys[1:]])} in {self.place}"

    def name(self, setting: str) -> str:
        return f"LYCOMM_{setting.upper()}" if self.variables else setting


_Layer = tuple[_Source, Mapping[str, Any]]


def load_settings(arguments: Mapping[str, Any], *, folder: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check the settings of a host that runs in *folder*.

    Args:
        arguments: what ``Host(...)`` was given, the strongest layer.
        environ: the environment, the second.

    Raises:
        SettingsError: with one line for each problem: where it stands, what is wrong, what to do.
    """
    problems: list[str] = []
    files: Path | None = None
    try:
        files = folder = absolute(folder)
        if not is_dir(folder):
            problems.append(f"folder {shown(folder)} does not exist")
    except FileProblem as error:
        files = None
        problems.append(str(error))
    values: dict[str, Any] = {}
    sources: dict[str, _Source] = {}
    for source, layer in _layers(arguments, files, environ, problems):
        for name, value in layer.items():
            if name in Settings.model_fields:
                values[name], sources[name] = value, source
            elif not (source.variables and f"lycomm_{name}" in PLUGIN_SETTINGS):
                problems.append(f"{source.spell(name)}: {_unknown(source, name)}")
    try:
        settings = Settings.model_validate(values)
        settings._folder = folder
        settings._written = {name: source.name(name) for name, source in sources.items()}
        problems += _impossible(settings, sources)
    except ValidationError as errors:
        problems += [_explain(error, sources) for error in errors.errors(include_url=False)]
    if problems:
        raise SettingsError("\n".join(_lines(problems)))
    return settings


def _lines(problems: list[str]) -> list[str]:
    """Each problem once and as one line, and no more of them than an operator reads."""
    lines = list(dict.fromkeys(map(one_line, problems)))
    if len(lines) <= MAX_PROBLEMS:
        return lines
    return [*lines[:MAX_PROBLEMS], f"and {len(lines) - MAX_PROBLEMS} more problems of this kind"]


def _impossible(settings: Settings, sources: Mapping[str, _Source]) -> Iterator[str]:
    """What every value by itself allows and all together do not; and folders that are not there."""
    yield from _impossible_in(settings, settings, (), sources)
    for name, process in settings.processes.items():
        yield from _impossible_in(settings, process, ("processes", name), sources)
    specs = settings.process_specs()
    yield from _terminal_problems(specs, sources)
    unknown = [name for name in settings.after if name not in specs]
    for name in unknown:
        guess = did_you_mean(name, {known: known for known in specs})
        yield f"{sources['after'].spell('after')}: there is no process {name}{guess}"
    if not unknown:  # or each process that has it from there would say so again
        yield from (f"{sources['processes'].spell('processes')}: {line}" for line in order.problems(specs))


def _impossible_in(
    settings: Settings, level: Supervision, path: tuple[str, ...], sources: Mapping[str, _Source]
) -> Iterator[str]:
    """The same of one level: the settings of all, or those of the process at *path*."""

    def place(name: str) -> str:
        keys = (*path, name)
        return sources[keys[0]].spell(*keys)

    written = level.model_fields_set
    base, most = (settings._in_force(level, name) for name in ("backoff_base", "backoff_max"))
    if most < base and written & {"backoff_base", "backoff_max"}:
        yield (
            f"{place('backoff_max' if 'backoff_max' in written else 'backoff_base')}: "
            f"backoff_max ({most:g} s) is less than backoff_base ({base:g} s): raise the one or lower the other"
        )
    for folder in map(settings._absolute, level.reload_dirs):
        try:
            if not is_dir(folder):
                missing = f"folder {shown(folder)} does not exist: create it or take it off the list"
                yield f"{place('reload_dirs')}: {missing}"
        except FileProblem as error:
            yield f"{place('reload_dirs')}: {error}"


def _terminal_problems(specs: Mapping[str, ProcessSpec], sources: Mapping[str, _Source]) -> Iterator[str]:
    """Two bots on one terminal take each other's keys and overwrite each other's screen."""
    first, *others = [name for name, spec in specs.items() if spec.terminal] or [""]
    for name in others:
        place = sources["processes"].spell("processes", name, "terminal")
        yield f"{place}: {first} has the terminal already, and only one process can have it"
    if first and specs[first].reload is Reload.OVERLAP:
        place = sources["processes"].spell("processes", first, "terminal")
        yield f'{place}: does not go with reload = "overlap", which runs two bots for a moment: use "swap"'


def _layers(
    arguments: Mapping[str, Any], folder: Path | None, environ: Mapping[str, str], problems: list[str]
) -> Iterator[_Layer]:
    """Every layer, the weakest first. A file that cannot be used is a problem and an absent layer.

    Args:
        folder: None when no file in it can be looked at.
    """
    if folder is not None:
        yield from _files(folder, environ, problems)
    not_for_children = {key: value for key, value in environ.items() if key.upper() not in CHILD_VARIABLES}
    yield _Source("the environment", variables=True), _ours(not_for_children)
    yield _Source("Host(...)"), arguments


def _files(folder: Path, environ: Mapping[str, str], problems: list[str]) -> Iterator[_Layer]:
    try:
        table = find_table(read_pyproject(folder), "tool", "lycomm")
        if isinstance(table, dict):
            yield _Source("pyproject.toml", table="tool.lycomm"), table
        elif table is not None:
            problems.append(f"lycomm in [tool] of pyproject.toml: {short_repr(table)} is not a table")
    except FileProblem as error:
        problems.append(str(error))
    try:
        for name, variables in read_env_files(folder, environ):
            yield _Source(name, variables=True), _ours(variables)
    except FileProblem as error:
        problems.append(str(error))


def _ours(variables: Mapping[str, str]) -> dict[str, str]:
    """The ``LYCOMM_*`` among *variables*, by setting name. Upper or lower case, as in NoneBot."""
    return {
        key.lower().removeprefix("lycomm_"): value
        for key, value in variables.items()
        if key.lower().startswith("lycomm_")
    }


def _unknown(source: _Source, name: str) -> str:
    if f"LYCOMM_{name.upper()}" in CHILD_VARIABLES:
        return "the host sets it for its children: remove it"
    for plugin_setting in (name, f"lycomm_{name}"):
        if plugin_setting in PLUGIN_SETTINGS:
            return f"a setting of the plugin: write {plugin_setting.upper()}=... in .env of the bot"
    if name in ProcessSettings.model_fields:
        return "a setting of one process: write it in [tool.lycomm.processes.NAME]"
    known = list(Settings.model_fields)
    if source.variables:
        known += [setting.removeprefix("lycomm_") for setting in PLUGIN_SETTINGS]
    return "no such setting" + did_you_mean(name, {setting: source.name(setting) for setting in known})


def _explain(error: Any, sources: Mapping[str, _Source]) -> str:
    """One line for one error of pydantic's list."""
    path = [str(part) for part in error["loc"] if part != "[key]"]  # [key]: the name of a process is wrong
    where = sources[path[0]].spell(*path)
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        known = {key: key for key in ProcessSettings.model_fields}
        return f"{where}: no such setting{did_you_mean(path[-1], known)}"
    if error["type"] == "model_type":
        return f"{where}: {short_repr(error['input'])} is not a table"
    return f"{where}: {short_repr(error['input'])}: {in_words(error)}"
