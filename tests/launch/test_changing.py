"""A bot that misses packages while its environment is being changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from liteyuki_host._child.changing import CHANGING_SECONDS, RAN_BEFORE, is_changing


@pytest.mark.parametrize(
    ("age", "name", "ran_before", "changing"),
    [
        (1.0, "site-packages", "1", True),
        (1.0, "dist-packages", "1", True),
        (CHANGING_SECONDS + 5, "site-packages", "1", False),
        (1.0, "plugins", "1", False),
        (1.0, "site-packages", "", False),  # it may never have been complete: that is final at once
    ],
)
def test_packages_were_installed_a_moment_ago(
    tmp_path: Path, age: float, name: str, ran_before: str, changing: bool
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    os.utime(folder, (time.time() - age,) * 2)
    assert is_changing({RAN_BEFORE: ran_before}, [str(tmp_path / "gone" / "site-packages"), str(folder)]) is changing
