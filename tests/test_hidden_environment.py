"""What a failing test prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAILING = {
    "a comparison": "def test() -> None:\n    assert dict(os.environ) == {'A': 1}\n",
    "a look-up": "def test() -> None:\n    assert os.environ.get('SECRET_OF_THE_TEST') is None\n",
    "an argument": "def run(env):\n    raise ValueError('broken')\n\n"
    "def test() -> None:\n    run({'SECRET_OF_THE_TEST': os.environ['SECRET_OF_THE_TEST']})\n",
}


@pytest.mark.parametrize("how", FAILING)
def test_a_failure_does_not_print_the_environment(how: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("hidden_environment.py"), tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(f"import os\n\n\n{FAILING[how]}", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-vv", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "SECRET_OF_THE_TEST": "abcdefghijklmnop", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "1 failed" in done.stdout
    assert "not shown" in done.stdout
    assert "ijklmnop" not in done.stdout
