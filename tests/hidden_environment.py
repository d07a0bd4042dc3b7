"""A failing test never prints the environment, which may hold secrets: hooks of pytest, for ``conftest``."""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest

HIDDEN = "(not shown: it has a part of the environment)"
SECRET = re.compile("SECRET|TOKEN|KEY|PASS|CREDENTIAL", re.IGNORECASE)
"""Names of variables whose value is not shown by itself either."""
LEAST = 8  # characters of a value; a shorter one is no secret


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, None, None]:
    """Put `HIDDEN` in place of each line of a failure that shows a variable with its value, or a secret."""
    report = yield  # type: ignore[misc]
    variables = [(name, repr(value)[: LEAST + 1]) for name, value in os.environ.items() if len(value) >= LEAST]
    hidden = [value if SECRET.search(name) else f"{name!r}: {value}" for name, value in variables]

    def shows(text: str) -> bool:
        return any(part in text for part in hidden)

    for traceback, *_ in getattr(report.longrepr, "chain", ()):
        for entry in getattr(traceback, "reprentries", ()):
            if hasattr(entry, "lines"):
                entry.lines = [HIDDEN if shows(line) else line for line in entry.lines]
            arguments = getattr(entry, "reprfuncargs", None)
            if arguments is not None:
                arguments.args = [(name, HIDDEN if shows(str(value)) else value) for name, value in arguments.args]
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and shows(crash.message):
        crash.message = HIDDEN
    return report
