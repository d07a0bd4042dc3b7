"""These tests are about Windows. Elsewhere they are skipped; `run.py` beside this file runs them on Wine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

if sys.platform != "win32":
    # The modules import what exists on Windows only, so they are not even collected.
    collect_ignore_glob = ["test_windows_*.py"]


@pytest.fixture
def children() -> Path:
    return HERE / "children"
