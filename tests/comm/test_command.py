"""Commands that messages print: each line is given to a real shell and does what it says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

import liteyuki_host
from liteyuki_host.comm import command

SCRIPTS = Path(sys.executable).parent
SYSTEM_PATH = os.pathsep.join(folder for folder in ("/usr/bin", "/bin") if os.path.isdir(folder))
VERSION = f"lycomm {liteyuki_host.__version__}\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lines are given to a POSIX shell")


def shown(python: Path, code: str, folder: Path, path: str = SYSTEM_PATH) -> str:
    """The line that *python* shows, with *path* as PATH."""
    call = [str(python), "-c", f"from liteyuki_host.comm.command import *; print({code})"]
    return run(call, folder, path).removesuffix("\n")


def run(call: str | list[str], folder: Path, path: str = SYSTEM_PATH) -> str:
    environ = {"PATH": path, "HOME": str(folder), "PYTHONUTF8": "1"}
    done = subprocess.run(
        call, cwd=folder, env=environ, shell=isinstance(call, str), capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_line_works_where_the_environment_is_not_activated(tmp_path: Path) -> None:
    line = shown(Path(sys.executable), "lycomm('--version')", tmp_path)
    assert shlex.split(line) == [str(SCRIPTS / "lycomm"), "--version"]
    assert run(line, tmp_path) == VERSION


def test_the_line_is_short_where_the_command_is_on_the_path(tmp_path: Path) -> None:
    path = f"{SCRIPTS}{os.pathsep}{SYSTEM_PATH}"
    line = shown(Path(sys.executable), "lycomm('--version')", tmp_path, path)
    assert line == "lycomm --version"
    assert run(line, tmp_path, path) == VERSION


def test_another_lycomm_on_the_path_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "lycomm").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "lycomm").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{SYSTEM_PATH}"
    line = shown(Path(sys.executable), "lycomm('--version')", tmp_path, path)
    assert run(line, tmp_path, path) == VERSION


def test_an_environment_without_the_script_and_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "my bot's $HOME"
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    paths = [path for path in sys.path if path] + [str(Path(liteyuki_host.__file__).parents[1])]
    (packages / "ours.pth").write_text("\n".join(paths), "utf-8")
    line = shown(folder / "bin" / "python", "lycomm('--version')", tmp_path)
    assert shlex.split(line) == [str(folder / "bin" / "python"), "-m", "liteyuki_host", "--version"]
    assert run(line, tmp_path) == VERSION


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("bot.py", ["run"]), ("main.py", ["run", "main.py"]), ("src/the bot.py", ["run", "src/the bot.py"])],
)
def test_the_script_that_runs_is_named_unless_it_is_found_anyway(
    tmp_path: Path, script: str, arguments: list[str]
) -> None:
    (tmp_path / script).parent.mkdir(exist_ok=True)
    (tmp_path / script).write_text("from liteyuki_host.comm.command import *; print(run_this_bot())")
    line = run([sys.executable, script], tmp_path)
    assert shlex.split(line)[1:] == arguments


@pytest.mark.parametrize("call", [["-c", "{code}"], ["-m", "module"], ["{tmp_path}/elsewhere/bot.py"]])
def test_what_is_no_script_of_this_folder_is_not_named(tmp_path: Path, call: list[str]) -> None:
    code = "from liteyuki_host.comm.command import *; print(run_this_bot())"
    for file in ("here/module.py", "elsewhere/bot.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(code)
    words = [word.format(code=code, tmp_path=tmp_path) for word in call]
    line = run([sys.executable, *words], tmp_path / "here")
    assert shlex.split(line)[1:] == ["run"]


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "nonebot-plugin-lycomm==9.9"),
        ({"url": "file://{folder}/my%20copy", "dir_info": {"editable": True}}, "{folder}/my copy"),
        ({"url": "file://{folder}/gone.whl", "archive_info": {}}, "nonebot-plugin-lycomm==9.9"),
        ({"url": "https://example.com/lycomm.whl", "archive_info": {}}, "https://example.com/lycomm.whl"),
        (
            {"url": "https://example.com/lycomm", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://example.com/lycomm@abc",
        ),
        ("no JSON", "nonebot-plugin-lycomm"),
    ],
    ids=["index", "checkout", "wheel that is gone", "address", "repository", "damaged"],
)
def test_lycomm_is_installed_from_where_this_one_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: Any, requirement: str
) -> None:
    (tmp_path / "my copy").mkdir()
    info = tmp_path / "nonebot_plugin_lycomm-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nonebot-plugin-lycomm\nVersion: 9.9\n")
    if origin is not None:
        text = origin if isinstance(origin, str) else json.dumps(origin)
        (info / "direct_url.json").write_text(text.replace("{folder}", str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    line = command.pip_install_lycomm("/a b/python")
    assert shlex.split(line) == ["/a b/python", "-m", "pip", "install", requirement.format(folder=tmp_path)]


def test_windows_gets_double_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.os, "name", "nt")
    assert command.shell_line("C:\\my bots\\lycomm.exe", "run") == '"C:\\my bots\\lycomm.exe" run'
