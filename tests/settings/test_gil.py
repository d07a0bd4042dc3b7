"""A Python without the GIL, which lycomm does not support yet: one line, wherever it is met.

The stand-in is an ordinary Python that says of itself that it has none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from liteyuki_host.comm.gil import without_the_gil

LINE = "this Python runs without the GIL (a free-threaded build), which lycomm does not support"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "sitecustomize.py").write_text("import sys\nsys._is_gil_enabled = lambda: False\n")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.nonebot]\nplugins = ['nonebot_plugin_lycomm']\n")
    (folder / ".env").write_text("DRIVER=~none\n")
    (folder / "main.py").write_text(
        "import nonebot\nnonebot.init(driver='~none')\nnonebot.load_plugin('nonebot_plugin_lycomm')\n"
    )
    return folder


def lycomm(project: Path, *arguments: str) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}
    environ["PYTHONPATH"] = str(project.parent / "packages")
    command = [sys.executable, "-m", "liteyuki_host", *arguments]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize("enabled", [True, None], ids=["enabled", "before Python 3.13"])
def test_nothing_is_said_of_a_gil(monkeypatch: pytest.MonkeyPatch, enabled: bool | None) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", None if enabled is None else lambda: enabled, raising=False)
    assert without_the_gil() is None


def test_its_absence_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    line = without_the_gil()
    assert line is not None
    assert line.startswith(LINE)
    assert "\n" not in line


def test_check_names_host_and_bot(project: Path) -> None:
    lines = [line for line in lycomm(project, "check", "--no-import").splitlines() if LINE in line]
    assert [line.partition(": ")[0] for line in lines] == ["host", "nonebot"], lines


@pytest.mark.slow
def test_host_and_bot_say_it_at_their_start(project: Path) -> None:
    output = lycomm(project, "run", "main.py")
    lines = [line for line in output.splitlines() if LINE in line]
    assert [line.split("] ")[1].partition(" |")[0] for line in lines] == ["host", "nonebot"], output
