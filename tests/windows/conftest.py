"""These tests are about Windows. Elsewhere they are skipped; `run.py` beside this file runs them on Wine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from liteyuki_host.supervisor.job_object import JobObject

HERE = Path(__file__).parent

if sys.platform != "win32":
    # The modules import what exists on Windows only, so they are not even collected.
    collect_ignore_glob = ["test_windows_*.py"]


@pytest.fixture
def children() -> Path:
    """Where the small programs are that the tests start."""
    return HERE / "children"


@pytest.fixture
def job() -> Iterator[JobObject]:
    """Ends what is still in it after the test."""
    from liteyuki_host.supervisor.job_object import JobObject

    job = JobObject.create()
    yield job
    job.close()
