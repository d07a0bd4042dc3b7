"""``lycomm check``: what would be started, without starting it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liteyuki_host.cli.lines import FAILED, STOPPED, fail
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.project import ProjectPlan, inspect_project
from liteyuki_host.settings import load_settings


def check(folder: Path, arguments: Mapping[str, Any]) -> int:
    """Print what would be started in *folder*, and a line on stderr for each process that cannot be.

    Args:
        arguments: settings that beat all others.

    Returns the exit code. Raises SettingsError.
    """
    settings = load_settings(arguments, folder=folder, environ=os.environ)
    code = STOPPED
    for name, spec in settings.process_specs().items():
        try:
            plan = inspect_project(spec, host_main=None)
        except ProcessFailed as error:
            code = fail(f"{name}: {error}", FAILED)
        else:
            when = "" if spec.autostart else ", only when asked (autostart = false)"
            print(f"{name}: {_describe(plan)}{when}")
    return code


def _describe(plan: ProjectPlan) -> str:
    what = "[tool.nonebot]" if plan.script is None else os.path.relpath(plan.script, plan.folder)
    return f"{what} in {plan.folder} with {plan.python}"
