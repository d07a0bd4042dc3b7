"""What a project folder holds, and what is said when it cannot be started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.project import ProjectPlan, inspect_project, read_env_files
from liteyuki_host.supervisor.spec import ProcessSpec

BOT = "import nonebot\nnonebot.init()\nnonebot.run()\n"
HOST = "from liteyuki_host import Host\nHost().run()\n"
TOML = '[tool.nonebot]\nplugins = ["a"]\n'
OURS = Path(sys.executable)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, "utf-8")


def inspect(
    folder: Path, host_main: Path | None = None, environ: Mapping[str, str] | None = None, **options: Any
) -> ProjectPlan:
    return inspect_project(
        ProcessSpec("web", folder, **options), host_main=host_main, environ={} if environ is None else environ
    )


def problem(folder: Path, **options: Any) -> str:
    with pytest.raises(ProcessFailed) as caught:
        inspect(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_venv(folder: Path, version: str = "") -> Path:
    """The part of a virtual environment that is looked at."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version or sys.version.split()[0]}\n")
    return python


# How it is started


def test_a_bots_own_script_comes_first(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT, pyproject_toml=TOML)
    assert inspect(tmp_path) == ProjectPlan(tmp_path, OURS, "script", tmp_path / "bot.py")


def test_without_a_script_the_toml_table_is_used(tmp_path: Path) -> None:
    write(tmp_path, pyproject_toml=TOML)
    assert inspect(tmp_path) == ProjectPlan(tmp_path, OURS, "toml", None)


def test_an_entry_is_the_script_whatever_else_there_is(tmp_path: Path) -> None:
    write(tmp_path, bot_py=HOST, pyproject_toml="[", main_py=BOT)
    assert inspect(tmp_path, entry="main.py").script == tmp_path / "main.py"


def test_the_file_that_started_the_host_is_not_the_bot(tmp_path: Path) -> None:
    write(tmp_path, bot_py="import my_start\n", pyproject_toml=TOML)
    assert inspect(tmp_path).kind == "script"
    assert inspect(tmp_path, host_main=tmp_path / "bot.py").kind == "toml"
    assert inspect(tmp_path, host_main=tmp_path / "missing.py").kind == "script"


@pytest.mark.parametrize(
    "text",
    [
        HOST,
        "import liteyuki_host",
        "import os, liteyuki_host as lycomm",
        "from liteyuki_host.host import Host",
        "from liteyuki_host import *",
        "def main():\n    from liteyuki_host.cli import main",
    ],
)
def test_a_script_that_imports_the_host_is_not_the_bot(tmp_path: Path, text: str) -> None:
    write(tmp_path, bot_py=text, pyproject_toml=TOML)
    assert inspect(tmp_path).kind == "toml"


@pytest.mark.parametrize(
    "text",
    [
        BOT,
        "from liteyuki_host.comm import Channel",
        "from liteyuki_host import comm",
        "import liteyuki_host.comm.storage",
        "import liteyuki_host_of_somebody_else",
        "from .liteyuki_host import name",
        "text = 'import liteyuki_host'",
    ],
)
def test_a_script_that_uses_the_shared_half_is_a_bot(tmp_path: Path, text: str) -> None:
    write(tmp_path, bot_py=text, pyproject_toml=TOML)
    assert inspect(tmp_path).kind == "script"


def test_nothing_of_the_project_is_run_or_written(tmp_path: Path) -> None:
    write(tmp_path, bot_py="open('ran', 'w'); 1 / 0")
    inspect(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bot.py"]


def test_warnings_of_the_script_are_left_to_the_child(tmp_path: Path) -> None:
    write(tmp_path, bot_py="'\\d' is 'x'\n")  # the test run turns warnings into errors
    assert inspect(tmp_path).kind == "script"


def test_a_script_in_another_encoding_that_says_so_is_good(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_bytes("# coding: gbk\nname = '机器人'\n".encode("gbk"))
    assert inspect(tmp_path).kind == "script"


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bot_py=BOT)
    monkeypatch.chdir(tmp_path)
    assert inspect(Path(".")).folder == tmp_path


# The interpreter


@pytest.mark.parametrize("name", [".venv", "venv"])
def test_the_projects_own_virtual_environment_is_used(tmp_path: Path, name: str) -> None:
    write(tmp_path, bot_py=BOT)
    python = make_venv(tmp_path / name)
    assert inspect(tmp_path).python == python


def test_dot_venv_comes_before_venv_and_a_given_interpreter_before_both(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    make_venv(tmp_path / "venv")
    python = make_venv(tmp_path / ".venv")
    assert inspect(tmp_path).python == python
    assert inspect(tmp_path, python=sys.executable).python == OURS


def test_a_folder_that_is_no_virtual_environment_of_this_system_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    make_venv(tmp_path / ".venv")
    (tmp_path / ".venv" / "pyvenv.cfg").unlink()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()  # its interpreter is in another system's folder
    assert inspect(tmp_path).python == OURS


class Compiled:
    """What Nuitka puts into the modules that it has compiled."""

    def __init__(self, standalone: bool) -> None:
        self.standalone = standalone


@pytest.mark.parametrize("how", ["sys.frozen", "Nuitka", "embedded"])
def test_a_host_without_a_python_of_its_own_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    write(tmp_path, bot_py=BOT)
    if how == "sys.frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif how == "Nuitka":
        monkeypatch.setattr(sys.modules["__main__"], "__compiled__", Compiled(standalone=True), raising=False)
    else:
        monkeypatch.setattr(sys, "executable", "")
    words = problem(tmp_path)
    assert words.startswith("this host is a program without a Python of its own for the bot")
    assert words.endswith(f"{tmp_path}, or name an interpreter by python in [tool.lycomm.processes.web]")
    assert inspect(tmp_path, python=str(OURS)).python == OURS
    venv = make_venv(tmp_path / ".venv")
    assert inspect(tmp_path).python == venv


def test_a_compiled_host_on_an_installed_python_uses_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bot_py=BOT)
    monkeypatch.setattr(sys.modules["__main__"], "__compiled__", Compiled(standalone=False), raising=False)
    assert inspect(tmp_path).python == OURS


def test_the_link_of_a_virtual_environment_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    python = make_venv(tmp_path / ".venv")
    python.unlink()
    try:
        python.symlink_to(sys.executable)
    except OSError:
        pytest.skip("this system's users may not make links")
    assert inspect(tmp_path).python == python


def test_a_bare_name_is_looked_up_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bot_py=BOT)
    monkeypatch.setenv("PATH", str(OURS.parent))
    assert inspect(tmp_path, python=OURS.name).python == OURS


# What cannot be started


def test_a_folder_that_does_not_exist_or_is_a_file(tmp_path: Path) -> None:
    assert problem(tmp_path / "x") == (
        f"project folder {tmp_path / 'x'} does not exist: correct project in [tool.lycomm.processes.web]"
    )
    write(tmp_path, x="")
    assert problem(tmp_path / "x") == (
        f"project {tmp_path / 'x'} is a file: give its folder as project in [tool.lycomm.processes.web]"
    )


@pytest.mark.parametrize(
    "files", [{}, {"pyproject_toml": "[project]"}, {"pyproject_toml": "[tool.other]"}, {"bot_py": HOST}]
)
def test_a_folder_without_a_bot(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, **files)
    assert problem(tmp_path) == (
        f"{tmp_path} has neither a bot.py of a bot nor [tool.nonebot] in pyproject.toml: "
        "start lycomm in the folder of the bot, or name its script by entry in [tool.lycomm.processes.web]"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[tool.nonebot]]\n", "tool.nonebot is [{}], not a table: write it with the heading [tool.nonebot]"),
        ("[tool]\nnonebot = 1\n", "tool.nonebot is 1, not a table"),
        ("tool.nonebot = true\n", "tool.nonebot is True, not a table"),
        ("[tool]\nnonebot = ['~none']\n", "tool.nonebot is ['~none'], not a table"),
        ("tool = 'x'\n", "tool is 'x', not a table: write it with the heading [tool]"),
        ("[[tool]]\nnonebot = {}\n", "tool is [{'nonebot': {}}], not a table"),
    ],
)
def test_a_nonebot_that_is_no_table_is_not_called_missing(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, pyproject_toml=text)
    assert problem(tmp_path).startswith(f"{tmp_path / 'pyproject.toml'}: {words}")
    write(tmp_path, bot_py=BOT)
    assert inspect(tmp_path).kind == "script"


def test_an_entry_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    assert problem(tmp_path, entry="main.py") == (
        f"entry main.py does not exist in {tmp_path}: correct it in [tool.lycomm.processes.web]"
    )


def test_an_entry_that_would_start_a_second_host(tmp_path: Path) -> None:
    write(tmp_path, bot_py=HOST, main_py="")
    script = tmp_path / "bot.py"
    line = f"entry {script} starts a host, not a bot: name the script that calls nonebot.run()"
    assert problem(tmp_path, entry="bot.py") == line
    assert "starts a host" in problem(tmp_path, entry="main.py", host_main=tmp_path / "main.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nonebot\n\nnonebot.init(\n", " line 3: '(' was never closed"),
        ("a = 1\nb = = 2\n", " line 2: invalid syntax"),
        ("return\n", " line 1: 'return' outside function"),
        ("a = 1\0", "null bytes"),
    ],
)
@pytest.mark.parametrize("entry", [None, "bot.py"])
def test_a_syntax_error_is_named_with_its_line(tmp_path: Path, text: str, words: str, entry: str | None) -> None:
    write(tmp_path, bot_py=text)
    line = problem(tmp_path, entry=entry)
    assert line.startswith(str(tmp_path / "bot.py"))
    assert words in line


def test_a_script_that_is_not_utf8_and_does_not_say_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_bytes("name = '机器人'\n".encode("gbk"))
    assert problem(tmp_path).startswith(str(tmp_path / "bot.py"))


def test_syntax_of_another_python_version_is_left_to_the_child(tmp_path: Path) -> None:
    """A host on 3.10 must not refuse a bot on 3.14 that uses what 3.14 can."""
    write(tmp_path, bot_py="nonebot.init(\n")
    make_venv(tmp_path / ".venv", version="3.99.1")
    assert inspect(tmp_path).kind == "script"
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version_info = {}.{}.0.final.0".format(*sys.version_info))
    assert "line 1" in problem(tmp_path)


def test_a_pyproject_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.nonebot]\nplugins = = 1\n")
    assert problem(tmp_path) == f"{path} is not valid TOML: Invalid value (at line 2, column 11)"
    path.write_bytes("[tool.nonebot]\n# 机器人".encode("gbk"))
    assert problem(tmp_path) == f"{path} is not UTF-8 (byte 17, line 2): save it as UTF-8"


def test_an_interpreter_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    python = tmp_path / "no" / "python"
    assert problem(tmp_path, python=str(python)) == (
        f"interpreter {python} does not exist or cannot be run: correct python in [tool.lycomm.processes.web]"
    )


def test_a_virtual_environment_whose_interpreter_is_gone(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    python = make_venv(tmp_path / ".venv")
    python.unlink()
    assert problem(tmp_path) == (
        f"virtual environment {tmp_path / '.venv'} has lost its interpreter {python}: create it anew"
    )


@pytest.mark.parametrize(
    ("name", "environ", "env"),
    [
        (".env", {}, {}),
        (".env.prod", {}, {}),
        (".env.dev", {"ENVIRONMENT": "dev"}, {}),
        (".env.dev", {"ENVIRONMENT": "test"}, {"ENVIRONMENT": "dev"}),
    ],
)
def test_a_dotenv_that_is_not_utf8(tmp_path: Path, name: str, environ: dict[str, str], env: dict[str, str]) -> None:
    write(tmp_path, bot_py=BOT)
    (tmp_path / name).write_bytes('\nNICKNAME=["机器人"]'.encode("gbk"))
    line = problem(tmp_path, environ=environ, env=env)
    assert line == f"{tmp_path / name} is not UTF-8 (byte 12, line 2): save it as UTF-8"


def test_a_dotenv_of_another_environment_is_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path, bot_py=BOT)
    (tmp_path / ".env.dev").write_bytes(b"\xff")
    assert inspect(tmp_path).kind == "script"


def test_dotenv_files_are_read_as_nonebot_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dotenv import dotenv_values

    lines = ["A=1", "export B = 'x y'", 'C="a\\nb" # c', "D", "E=${A}-${OS}-${NO:-d}", "A=2", "F=${A}"]
    lines += ["=", "bad line", "G='''", "H=小雪"]
    (tmp_path / ".env").write_text("\n".join(lines), "utf-8")
    monkeypatch.setenv("OS", "os")
    [(_, values), _] = read_env_files(tmp_path, {"OS": "os"})
    expected = dotenv_values(tmp_path / ".env", encoding="utf-8")
    assert values == {key: value or "" for key, value in expected.items()}
