"""Files of a project that take the place of a package: real interpreters find them, and harmless ones are not named."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor import hiding
from liteyuki_host.supervisor.hiding import hidden_packages

BROKEN = "raise ValueError('mine')\n"
COMPATIBLE_TYPES = """
import os
with open(os.path.join(os.path.dirname(os.__file__), "types.py")) as file:
    exec(file.read())
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
]  # each file with the name of a package costs an import of NoneBot


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.nonebot]\n")
    (tmp_path / ".env").write_text("DRIVER=~fastapi\n")
    return tmp_path


def hidden(folder: Path, python: Path | None = None, **environment: str) -> list[str]:
    plan = ProjectPlan(folder, python or Path(sys.executable), "toml", None)
    environ: Mapping[str, str] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    lines = hidden_packages(plan, environ)
    assert all(line.startswith(f"{folder}{os.sep}") for line in lines)
    return [line.removeprefix(f"{folder}{os.sep}") for line in lines]


@pytest.mark.parametrize("text", ["", BROKEN], ids=["empty", "broken"])
@pytest.mark.parametrize("name", ["nonebot", "liteyuki_host", "pydantic", "fastapi", "anyio"])
def test_a_file_with_the_name_of_a_package(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)
    assert hidden(folder) == [f"{name}.py hides the package {name}: give the file another name"]


@pytest.mark.parametrize("name", ["json", "random", "typing", "argparse", "signal", "re"])
def test_a_file_with_the_name_of_a_module_of_python(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text("x = 1\n")
    assert hidden(folder) == [f"{name}.py hides Python's own module {name}: give the file another name"]


@pytest.mark.parametrize("name", ["queue", "uvicorn"])
def test_what_is_needed_only_while_a_bot_starts(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text("")
    assert len(hidden(folder)) == 1


def test_a_folder_with_the_name_of_a_package(folder: Path) -> None:
    (folder / "nonebot").mkdir()
    (folder / "nonebot" / "x.py").write_text("")
    assert hidden(folder) == []  # Python prefers the installed one
    (folder / "nonebot" / "__init__.py").write_text("")
    assert hidden(folder) == ["nonebot hides the package nonebot: give the folder another name"]


def test_a_compiled_file(folder: Path) -> None:
    name = f"json{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    (folder / name).write_bytes(b"no library")
    assert hidden(folder) == [f"{name} hides Python's own module json: give the file another name"]


def test_only_those_that_do_harm_are_named(folder: Path) -> None:
    for name in ("antigravity", "os", "time", "mine", "my-file"):
        (folder / f"{name}.py").write_text(BROKEN)
    (folder / "types.py").write_text(COMPATIBLE_TYPES)
    assert hidden(folder) == []
    (folder / "json.py").write_text("")
    (folder / "random.py").write_text("")
    assert [line.partition(" ")[0] for line in hidden(folder)] == ["json.py", "random.py"]


def test_what_is_wrong_by_itself_is_not_laid_at_a_files_door(folder: Path) -> None:
    (folder / ".env").write_text("DRIVER=~fastap\nSUPERUSERS=[\n")
    (folder / "antigravity.py").write_text("")
    assert hidden(folder) == []
    (folder / "json.py").write_text("")
    assert len(hidden(folder)) == 1


def test_nothing_is_hidden_where_python_does_not_look_into_the_folder(folder: Path) -> None:
    (folder / "json.py").write_text("")
    if sys.version_info >= (3, 11):
        assert hidden(folder, PYTHONSAFEPATH="1") == []


@pytest.mark.skipif(sys.platform == "win32", reason="a script as interpreter")
@pytest.mark.parametrize("script", ["exit 0", "exec sleep 60", "yes", "kill -9 $$", 'echo "lycomm:"; yes /'])
def test_an_interpreter_that_does_not_answer_has_found_nothing(
    folder: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiding, "LIST_SECONDS", 1.0)
    monkeypatch.setattr(hiding, "SECONDS", 1.0)
    (folder / "json.py").write_text("")
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert hidden(folder, python) == []
    assert hidden(folder, folder / "nothing") == []


def test_a_usual_project_costs_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*args: object, **kwargs: object) -> None:
        raise AssertionError("an interpreter was asked")

    monkeypatch.setattr(hiding, "ask", no_process)
    (folder / "bot.py").write_text("")
    (folder / "src" / "plugins").mkdir(parents=True)
    (folder / "src" / "plugins" / "json.py").write_text("")
    assert hidden(folder) == []
