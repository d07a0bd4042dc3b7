"""``samples.py`` by mypy and by pyright: each finds the errors that are there, and no others."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = Path(__file__).with_name("samples.py")
CHECK_SECONDS = 240  # a first run of mypy, on a machine that is overloaded


def run(*command: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False
    )
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return ended.stdout


def mypy(cache: Path) -> dict[int, str]:
    # Without `packages` of the project's own configuration, which a file beside it contradicts.
    configuration = cache / "mypy.ini"
    configuration.write_text("[mypy]\nstrict = true\n")
    output = run("mypy", "--config-file", str(configuration), "--cache-dir", str(cache), str(SAMPLES))
    found = re.findall(r"samples\.py:(\d+): error: (.*)", output)
    assert found, output
    return {int(line): text for line, text in found}


def pyright(cache: Path) -> dict[int, str]:
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(SAMPLES))
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in json.loads(output)["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.slow
@pytest.mark.timeout(CHECK_SECONDS + 10)
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_errors_are_where_they_belong(checker: object, tmp_path: Path) -> None:
    name = getattr(checker, "__name__", "")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; it is in the extra `dev`")
    expected = {n for n, line in enumerate(SAMPLES.read_text().splitlines(), 1) if line.endswith("# error")}
    found = (mypy if checker is mypy else pyright)(tmp_path)
    missing = sorted(expected - found.keys())
    surplus = {line: text for line, text in found.items() if line not in expected}
    assert (missing, surplus) == ([], {})
