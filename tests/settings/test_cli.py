"""The ``lycomm`` command, as a program where that matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import liteyuki_host
from liteyuki_host.cli import main
from liteyuki_host.comm.errors import ProcessFailed, SettingsError

pytestmark = pytest.mark.slow

PYTHON = os.path.normpath(sys.executable)  # a shell's "../venv/bin/python" does not reach the program as such


def lycomm(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}
    return subprocess.run(
        [PYTHON, "-m", "liteyuki_host", *arguments],
        cwd=folder,
        env={**environ, **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )


# As a program


def test_help_is_in_both_languages_whatever_the_encoding_of_the_console(tmp_path: Path) -> None:
    done = lycomm("--help", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stderr == ""
    for words in ("usage: lycomm", "run ", "check ", "settings ", "启动宿主和机器人", "检查配置", "全部配置项"):
        assert words in done.stdout
    done = lycomm("run", "--help", folder=tmp_path)
    for words in (
        "--project DIR",
        "--log-level LEVEL",
        "宿主日志的最低级别",
        "default: the setting, else INFO",
        "[SCRIPT]",
        "机器人的启动脚本",
        "-r, --reload",
        "代码改变时",
    ):
        assert words in done.stdout


def test_version(tmp_path: Path) -> None:
    assert lycomm("--version", folder=tmp_path).stdout == f"lycomm {liteyuki_host.__version__}\n"


def test_check_in_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    done = lycomm("check", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"lycomm: nonebot: {tmp_path} has neither a bot.py of a bot nor [tool.nonebot] in pyproject.toml: "
        "start lycomm in the folder of the bot, or name its script by entry in [tool.lycomm.processes.nonebot]\n"
    )


def test_check_says_what_would_be_started_and_what_cannot(tmp_path: Path) -> None:
    for name, port in (("script", 20101), ("table", 20102)):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".env").write_text(f"DRIVER=~none\nPORT={port}\n")
    (tmp_path / "script" / "bot.py").write_text("import nonebot\nnonebot.init()\nnonebot.run()\n")
    (tmp_path / "table" / "pyproject.toml").write_text("[tool.nonebot]")
    declared = "".join(
        f"[tool.lycomm.processes.{name}]\nproject = '{name}'\n" for name in ("script", "table", "missing")
    )
    (tmp_path / "pyproject.toml").write_text(declared.replace("'table'", "'table'\nautostart = false"))
    done = lycomm("check", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"script: bot.py in {tmp_path / 'script'} with {PYTHON}",
        f"table: [tool.nonebot] in {tmp_path / 'table'} with {PYTHON}, only when asked (autostart = false)",
    ]
    [line] = done.stderr.splitlines()
    assert line.startswith(f"lycomm: missing: project folder {tmp_path / 'missing'} does not exist")


def test_check_of_another_folder_that_is_good(tmp_path: Path) -> None:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "bot.py").write_text('import nonebot\nnonebot.init(driver="~none")\nnonebot.run()\n')
    done = lycomm("check", "--project", "bot", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"nonebot: bot.py in {tmp_path / 'bot'} with {PYTHON}\n"


def test_wrong_settings_are_one_line_each_and_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LYCOMM_STOP_TIMEOUT=abc\n")
    done = lycomm("check", folder=tmp_path, LYCOMM_LOG_LEVL="INFO")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "lycomm: LYCOMM_LOG_LEVL in the environment: no such setting; did you mean LYCOMM_LOG_LEVEL?",
        "lycomm: LYCOMM_STOP_TIMEOUT in .env: 'abc' is not a number (seconds)",
    ]


def test_check_tells_what_could_never_run_together_too(tmp_path: Path) -> None:
    (tmp_path / "bot.py").touch()
    (tmp_path / "pyproject.toml").write_text("""
        [tool.lycomm]
        backoff_max = 0.5
        [tool.lycomm.processes.web]
        after = ["db"]
        reload_dirs = ["src"]
        [tool.lycomm.processes.db]
        after = ["web"]
    """)
    done = lycomm("check", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "lycomm: backoff_max in [tool.lycomm] of pyproject.toml: "
        "backoff_max (0.5 s) is less than backoff_base (1 s): raise the one or lower the other",
        "lycomm: reload_dirs in [tool.lycomm.processes.web] of pyproject.toml: "
        f"folder {tmp_path / 'src'} does not exist: create it or take it off the list",
        "lycomm: processes in [tool.lycomm] of pyproject.toml: processes wait for each other: "
        "web -> db -> web (each is after the next): remove one after",
    ]


# In this process, with a host that only notes what it is asked


class FakeHost:
    made: list[tuple[Path, dict[str, Any]]]
    error: BaseException | None

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.made.append((folder, settings))

    def run(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> type[FakeHost]:
    FakeHost.made, FakeHost.error = [], None
    monkeypatch.setitem(vars(liteyuki_host), "Host", FakeHost)
    return FakeHost


@pytest.mark.parametrize(
    ("arguments", "folder", "settings"),
    [
        ([], ".", {}),
        (["run"], ".", {}),
        (["--project", "x"], "x", {}),
        (["run", "--log-level", "debug"], ".", {"log_level": "DEBUG"}),
        (["--log-level=ERROR", "--project=x"], "x", {"log_level": "ERROR"}),
        (["run", "--reload"], ".", {"reload": "swap"}),
        (["-r"], ".", {"reload": "swap"}),
    ],
)
def test_run_is_what_happens_without_a_verb(
    host: type[FakeHost],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    folder: str,
    settings: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    assert host.made == [(Path(folder), settings)]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SettingsError("a is wrong\nb is wrong"), 2, "lycomm: a is wrong\nlycomm: b is wrong\n"),
        (ProcessFailed("no bot.py"), 1, "lycomm: no bot.py\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_lines_on_stderr(
    host: type[FakeHost], capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    host.error = error
    assert main([]) == code
    assert capsys.readouterr() == ("", text)


def test_a_program_that_calls_it_keeps_its_ctrl_c(host: type[FakeHost]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["run"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--log-level", "LOUD"],
        ["check", "--log-level", "INFO"],
        ["check", "--reload"],
        ["run", "a.py", "b.py"],
        ["settings", "x"],
    ],
)
def test_wrong_usage_exits_with_2(
    host: type[FakeHost], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert host.made == []
