"""``lycomm check``: what would be started and what keeps it from starting, without starting it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from loguru import logger

from liteyuki_host.cli.lines import FAILED, STOPPED, fail
from liteyuki_host.examination import Finding, Level, examine
from liteyuki_host.settings import load_settings


def check(folder: Path, arguments: Mapping[str, Any], *, load: bool = True) -> int:
    """Examine the host and the bots that are declared in *folder*, and print what is found.

    On standard output stand what would be started and the notes, on standard error what cannot start.

    Args:
        arguments: settings that beat all others.
        load: also import the bots, in throw-away processes.

    Returns:
        the exit code: 1 if something cannot start, else 0.

    Raises:
        SettingsError: with one line for each wrong setting.
    """
    settings = load_settings(arguments, folder=folder, environ=os.environ)
    logger.disable("liteyuki_host")  # the lines of a host that runs; what matters here is among the findings
    try:
        findings = anyio.run(partial(examine, settings, load=load), backend="asyncio")
    finally:
        logger.enable("liteyuki_host")
    code = STOPPED
    for finding in findings:
        if finding.level is Level.FAULT:
            sys.stdout.flush()
            code = fail(f"{finding.process}: {finding.text}", FAILED)
        else:
            print(_line(finding))
    return code


def _line(finding: Finding) -> str:
    note = "note: " if finding.level is Level.NOTE else ""
    return f"{finding.process}: {note}{finding.text}"
