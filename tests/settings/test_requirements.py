"""pydantic 1 beside lycomm, which NoneBot still runs on: one line, wherever it is met.

The stand-in has the version number of pydantic 1 and nothing else; nothing else is asked before the line is told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import liteyuki_host
from liteyuki_host.requirements import UnfitEnvironment, require, unfit_pydantic

LINE = "pydantic 1.10.27 is installed, and lycomm needs pydantic 2: run `"


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    package = tmp_path / "packages" / "pydantic"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('VERSION = "1.10.27"\n')
    return package.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.nonebot]\n")
    (folder / ".env").write_text("DRIVER=~none\n")
    (folder / "host.py").write_text("from liteyuki_host import Host\nHost().run()\n")
    (folder / "caught.py").write_text(
        "try:\n    from liteyuki_host import Host\nexcept ImportError as error:\n    print(error)\n"
    )
    return folder


def python(*arguments: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "command", [["-m", "liteyuki_host", "run"], ["-m", "liteyuki_host", "check"], ["host.py"]], ids=" ".join
)
def test_a_host_says_it_in_one_line(project: Path, stand_in: Path, command: list[str]) -> None:
    done = python(*command, folder=project, path=stand_in)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"lycomm: {LINE}")


def test_what_needs_no_pydantic_works(project: Path, stand_in: Path) -> None:
    done = python("-m", "liteyuki_host", "--version", folder=project, path=stand_in)
    assert (done.returncode, done.stdout) == (0, f"lycomm {liteyuki_host.__version__}\n")
    done = python("caught.py", folder=project, path=stand_in)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(LINE)


def test_of_a_bot_check_says_it_before_the_start(project: Path, stand_in: Path) -> None:
    with (project / "pyproject.toml").open("a") as file:
        file.write(f"[tool.lycomm.processes.web.env]\nPYTHONPATH = '{stand_in}'\n")
    done = python("-m", "liteyuki_host", "check", folder=project)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"lycomm: web: {LINE}")


def test_other_errors_are_shown_as_ever(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, traceback: shown.append(kind))
    require()
    monkeypatch.setattr("pydantic.VERSION", "1.10.27")
    with pytest.raises(UnfitEnvironment) as caught:
        require()
    sys.excepthook(ValueError, ValueError(), None)
    sys.excepthook(UnfitEnvironment, caught.value, None)
    assert shown == [ValueError]
    assert capsys.readouterr().err.startswith(f"lycomm: {LINE}")
    monkeypatch.undo()
    assert unfit_pydantic() is None
