"""The host's settings: what exists, what is allowed, and where each value was written.

Four layers, the first that has a value wins: arguments of ``Host(...)``, ``LYCOMM_*`` in the environment,
``LYCOMM_*`` in ``.env`` and ``.env.{ENVIRONMENT}`` (the latter wins, as in NoneBot), ``[tool.lycomm]`` in
pyproject.toml. A layer replaces a value as a whole; ``processes`` of two layers are not mixed.

The layers are read here and not by pydantic, so that an error can say in which of them the value stands.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr  # a value in an error line must not fill the screen
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from .comm.errors import SettingsError
from .project import FileProblem, find_table, read_env_files, read_pyproject
from .supervisor.spec import ProcessSpec

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")

PLUGIN_SETTINGS = ("lycomm_commands", "lycomm_restart_command", "lycomm_status_command")
"""Settings of nonebot_plugin_lycomm. They stand in the same ``.env``; the plugin reads and checks them."""

CHILD_VARIABLES = ("LYCOMM_LINK", "LYCOMM_PROCESS")
"""What a host puts into its child's environment. A host may itself be the child of another one."""

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
DAY = 86400  # seconds; more than that is a mistake, and too much for a timer would be an OverflowError later


# Checks. Each takes what a layer holds (text in the environment, a TOML or Python value elsewhere) and raises
# ValueError with the words that follow the setting's name in the error line.


@dataclass(frozen=True)
class _Number:
    kind: type[int | float]
    low: float
    high: float
    unit: str

    def __call__(self, value: object) -> float:
        number = self._number(value)
        if number is None:
            what = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"{short_repr(value)} is not {what} ({self.unit})")
        if not self.low <= number <= self.high:
            raise ValueError(f"{short_repr(value)} is not between {self.low} and {self.high} ({self.unit})")
        return number

    def _number(self, value: object) -> float | None:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            return None
        try:
            number = self.kind(value)
            return number if number == float(value) else None  # 2.5 is no int; NaN equals nothing
        except (ValueError, OverflowError):
            return None


def _log_level(value: object) -> str:
    if not isinstance(value, str) or value.upper() not in LOG_LEVELS:
        raise ValueError(f"{short_repr(value)} is not one of {', '.join(LOG_LEVELS)}")
    return value.upper()


def _plugins(value: object) -> list[str]:
    if isinstance(value, str):
        names = [part.strip() for part in value.split(",") if part.strip()]
        value = _json(value) if value.lstrip().startswith("[") else names
    if not isinstance(value, list | tuple):
        raise ValueError(f"{short_repr(value)} is not a list of module names")
    for name in value:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{short_repr(name)} is not a module name")
    return list(value)


def _processes(value: object) -> Mapping[Any, Any]:
    value = _json(value) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        raise ValueError(f"{short_repr(value)} is not a table of processes")
    return value


def _process_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError(
            f"{short_repr(value)} is not a process name (letters, digits, _ . -; a letter or digit first; at most 64)"
        )
    if value.lower() == "host":
        raise ValueError(f"{value!r} is the name of the host itself: call the process something else")
    return value


def _text(value: object) -> str:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str) or not value or not _usable(value):
        raise ValueError(f"{short_repr(value)} is not a text")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{short_repr(value)} is not true or false")
    return value


def _env(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{short_repr(value)} is not a table of environment variables")
    env: dict[str, str] = {}
    for name, item in value.items():
        if not isinstance(name, str) or not name or "=" in name or not _usable(name):
            raise ValueError(f"{short_repr(name)} is not the name of an environment variable")
        if name.upper() in CHILD_VARIABLES:
            raise ValueError(f"{name} is set by the host: remove it")
        try:
            env[name] = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        except (TypeError, ValueError):
            raise ValueError(f"{name}={short_repr(item)} is neither text nor JSON") from None
        if not _usable(env[name]):
            raise ValueError(f"{name}={short_repr(item)} contains what no environment can")
    return env


def _usable(text: str) -> bool:
    """Whether the operating system takes *text* in a path or an environment."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return False


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{short_repr(text)} is not JSON ({error})") from None


Seconds = Annotated[float, BeforeValidator(_Number(float, 0, DAY, "seconds"))]
ReadyTimeout = Annotated[float, BeforeValidator(_Number(float, 0.1, DAY, "seconds"))]
Text = Annotated[str, BeforeValidator(_text)]
ProcessName = Annotated[str, BeforeValidator(_process_name)]


class ProcessSettings(BaseModel):
    """One ``[tool.lycomm.processes.NAME]``. Seconds that are None are those of `Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Text = Field(default=".", description="folder of the NoneBot project, relative to the host's folder")
    entry: Text | None = Field(
        default=None,
        description="script that calls nonebot.run(), relative to project; None: bot.py, else [tool.nonebot]",
    )
    python: Text | None = Field(
        default=None,
        description="interpreter, a command on PATH or a path relative to the host's folder; "
        "None: project's .venv or venv, else the host's",
    )
    env: Annotated[dict[str, str], BeforeValidator(_env)] = Field(
        default={},
        description="environment variables for this process; numbers, lists and tables are passed as JSON",
    )
    autostart: Annotated[bool, BeforeValidator(_switch)] = Field(default=True, description="start it with the host")
    ready_timeout: ReadyTimeout | None = Field(default=None, description="seconds, for this process")
    stop_timeout: Seconds | None = Field(default=None, description="seconds, for this process")
    interrupt_timeout: Seconds | None = Field(default=None, description="seconds, for this process")
    terminate_timeout: Seconds | None = Field(default=None, description="seconds, for this process")
    backoff_base: Seconds | None = Field(default=None, description="seconds, for this process")


class Settings(BaseModel):
    """All settings of a host, checked. Made by `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    plugins: Annotated[list[str], BeforeValidator(_plugins)] = Field(
        default=[], description="modules loaded into the host, in this order"
    )
    log_level: Annotated[str, BeforeValidator(_log_level)] = Field(
        default="INFO", description=f"least level of the host's log lines: {', '.join(LOG_LEVELS)}"
    )
    channel_window: Annotated[int, BeforeValidator(_Number(int, 64 * KiB, 256 * MiB, "bytes"))] = Field(
        default=4 * MiB,
        description="bytes under way in each direction of a channel before senders wait; 64 KiB to 256 MiB",
    )
    message_limit: Annotated[int, BeforeValidator(_Number(int, KiB, 256 * MiB, "bytes"))] = Field(
        default=16 * MiB, description="bytes of one message or value, encoded; 1 KiB to 256 MiB"
    )
    memory_limit: Annotated[int, BeforeValidator(_Number(int, 64 * KiB, 64 * GiB, "bytes"))] = Field(
        default=256 * MiB,
        description="bytes of all keys and values of the shared memory, encoded; 64 KiB to 64 GiB",
    )
    ready_timeout: ReadyTimeout = Field(
        default=60.0,
        description="seconds from the start of a process until it is ready; longer is a failed start",
    )
    # The stop ladder's three rungs. Together less than the 10 s in which one Ctrl+C has to end everything.
    stop_timeout: Seconds = Field(
        default=6.0, description="seconds a process gets to end by itself after the host's stop message"
    )
    interrupt_timeout: Seconds = Field(default=1.5, description="seconds after that, once it has got SIGINT")
    terminate_timeout: Seconds = Field(
        default=1.5, description="seconds after that, once it has got SIGTERM; then it is killed"
    )
    backoff_base: Seconds = Field(
        default=1.0, description="seconds between the unasked end of a process and its next start"
    )
    processes: Annotated[dict[ProcessName, ProcessSettings], BeforeValidator(_processes)] = Field(
        default={}, description="the bots by name; empty: one, nonebot, in the host's folder"
    )

    @property
    def folder(self) -> Path:
        """Absolute; where the settings were read, and what relative paths in them are relative to."""
        return self._folder

    def process_specs(self) -> dict[str, ProcessSpec]:
        """The declared processes, with the defaults filled in. Nothing is checked against the disk."""
        declared = self.processes or {"nonebot": ProcessSettings()}
        return {name: self._spec(name, process) for name, process in declared.items()}

    def _spec(self, name: str, process: ProcessSettings) -> ProcessSpec:
        python = process.python
        if python is not None and Path(python).name != python:  # more than a command's name
            python = str(self._folder / os.path.expanduser(python))
        return ProcessSpec(
            name=name,
            # Not resolved: a link to the current release is followed anew at each start.
            project=self._folder / os.path.expanduser(process.project),
            entry=process.entry,
            python=python,
            env=process.env,
            autostart=process.autostart,
            ready_timeout=_first(process.ready_timeout, self.ready_timeout),
            stop_timeout=_first(process.stop_timeout, self.stop_timeout),
            interrupt_timeout=_first(process.interrupt_timeout, self.interrupt_timeout),
            terminate_timeout=_first(process.terminate_timeout, self.terminate_timeout),
            backoff_base=_first(process.backoff_base, self.backoff_base),
        )


def _first(own: float | None, default: float) -> float:
    return default if own is None else own


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
    folder = folder.absolute()
    problems: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, _Source] = {}
    if not folder.is_dir():
        problems.append(f"folder {folder} does not exist")
    for source, layer in _layers(arguments, folder, environ, problems):
        for name, value in layer.items():
            if name in Settings.model_fields:
                values[name], sources[name] = value, source
            elif not (source.variables and f"lycomm_{name}" in PLUGIN_SETTINGS):
                problems.append(f"{source.spell(name)}: {_unknown(source, name)}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as errors:
        problems += [_explain(error, sources) for error in errors.errors(include_url=False)]
    if problems:
        raise SettingsError("\n".join(problems))
    settings._folder = folder
    return settings


def _layers(
    arguments: Mapping[str, Any], folder: Path, environ: Mapping[str, str], problems: list[str]
) -> Iterator[_Layer]:
    """Every layer, the weakest first. A file that cannot be used is a problem and an absent layer."""
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
    not_for_children = {key: value for key, value in environ.items() if key.upper() not in CHILD_VARIABLES}
    yield _Source("the environment", variables=True), _ours(not_for_children)
    yield _Source("Host(...)"), arguments


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
    known = list(Settings.model_fields)
    if source.variables:
        known += [setting.removeprefix("lycomm_") for setting in PLUGIN_SETTINGS]
    return "no such setting" + _did_you_mean(name, {setting: source.name(setting) for setting in known})


def _did_you_mean(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {known[close[0]]}?" if close else ""


def _explain(error: Any, sources: Mapping[str, _Source]) -> str:
    """One line for one error of pydantic's list."""
    path = [str(part) for part in error["loc"] if part != "[key]"]  # [key]: the name of a process is wrong
    where = sources[path[0]].spell(*path)
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        known = {key: key for key in ProcessSettings.model_fields}
        return f"{where}: no such setting{_did_you_mean(path[-1], known)}"
    if error["type"] == "model_type":
        return f"{where}: {short_repr(error['input'])} is not a table"
    return f"{where}: {short_repr(error['input'])}: {error['msg']}"
