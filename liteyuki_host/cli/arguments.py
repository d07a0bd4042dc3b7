"""What the command line says about settings, as arguments of ``Host(...)``: they beat every other place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liteyuki_host.comm.command import lycomm
from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.paths import FileProblem, absolute, is_dir, is_file
from liteyuki_host.settings import ProcessSettings, Settings, load_settings
from liteyuki_host.supervisor.spec import Reload
from liteyuki_host.wording import shown


def settings_arguments(
    folder: Path, *, script: str | None = None, reload: bool = False, log_level: str | None = None
) -> dict[str, Any]:
    """Return the arguments of a host in *folder*.

    Args:
        script: entry of the only process, relative to the current folder. None: as the settings say.
        reload: whether a change of code restarts a bot, for every process and whatever its settings say.
        log_level: None: as the settings say.

    Raises:
        SettingsError: the settings are wrong, or *script* does not fit them.
    """
    arguments: dict[str, Any] = {} if log_level is None else {"log_level": log_level}
    if reload:
        arguments["reload"] = Reload.SWAP
    if script is None and not reload:
        return arguments
    settings = load_settings(arguments, folder=folder, environ=os.environ)
    changes: dict[str, dict[str, Any]] = {name: {} for name in settings.processes}
    if script is not None:
        changes = {_process_of(script, settings): {"entry": os.path.abspath(script)}}
    if reload:
        changes = {name: {**change, "reload": Reload.SWAP} for name, change in changes.items()}
    if changes:  # a layer replaces all processes: what was written of them is repeated
        arguments["processes"] = {
            name: {**_written(settings.processes, name), **change} for name, change in changes.items()
        }
    return arguments


def _written(processes: Mapping[str, ProcessSettings], name: str) -> dict[str, Any]:
    """What the settings say of a process, in the form in which they say it."""
    return processes[name].model_dump(mode="json", exclude_unset=True) if name in processes else {}


def _process_of(script: str, settings: Settings) -> str:
    """The process whose entry *script* is to be."""
    try:
        path = absolute(Path(script))
        if is_dir(path):
            raise SettingsError(
                f"{shown(script)} is a folder; to run the bot in it: `{lycomm('run', '--project', shown(script))}`"
            )
        if not is_file(path):
            raise SettingsError(f"there is no file {shown(script)} in {shown(absolute(Path()))}")
    except FileProblem as error:
        raise SettingsError(str(error)) from None
    name, *more = settings.process_specs().items()
    if more:
        names = ", ".join(settings.processes)
        raise SettingsError(
            f"{script} can be the entry of one process only, and the settings declare several ({names}): "
            "write it as `entry` into [tool.lycomm.processes.NAME], or leave it out"
        )
    process, spec = name
    if spec.entry is not None and os.path.realpath(spec.project / spec.entry) != os.path.realpath(script):
        raise SettingsError(
            f"the settings say that the process {process} runs {spec.entry}, not {script}: "
            f"correct `entry` in [tool.lycomm.processes.{process}], or leave one of the two out"
        )
    return process
