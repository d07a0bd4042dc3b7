"""What the bot's own interpreter says about a project: its configuration, its driver, what ``[tool.nonebot]`` names."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import nonebot
import pytest

from liteyuki_host._child.configuration import examine_configuration, explaining
from liteyuki_host._child.survey import is_there, survey
from liteyuki_host._child.trouble import CannotRun

TABLE = "[tool.nonebot]\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.upper() in ("PORT", "HOST", "DRIVER", "ENVIRONMENT", "SUPERUSERS", "COMMAND_START", "LOG_LEVEL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(env: str) -> list[str]:
    Path(".env").write_text(env, "utf-8")
    found = examine_configuration().problems
    assert all("\n" not in line for line in found)
    return found


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("~fastap", "there is no driver ~fastap; did you mean ~fastapi?"),
        ("~aiohttp", "driver ~aiohttp needs what is not installed: run `"),
        ("~fastapi+~httpx+~aiohttp", "driver ~aiohttp needs what is not installed: run `"),
        ("~httpx+~websocket", "there is no driver ~websocket; did you mean ~websockets?"),
        ("~none+~none", "driver ~none cannot be combined with another one"),
        ("~xyz", "there is no driver ~xyz; there are ~fastapi, "),
        ("my.driver", "driver my.driver: module 'my' is not installed for this bot"),
        ("os:nothing", "driver os:nothing cannot be loaded: AttributeError"),
        ("~none+", "driver  cannot be loaded: ValueError: Empty module name"),
    ],
)
def test_a_driver_that_is_not_there(monkeypatch: pytest.MonkeyPatch, driver: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "nonebot.drivers.aiohttp", raising=False)
    [line] = problems(f"DRIVER={driver}\n")
    assert line.startswith(f"DRIVER in .env: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SUPERUSERS=[1,\n", """SUPERUSERS in .env: '[1,' is not JSON; write it like SUPERUSERS=["123456789"]"""),
        ("SUPERUSERS=[1]\n", "SUPERUSERS in .env: entry 1: 1: expected text"),
        ("PORT=abc\n", "PORT in .env: 'abc': expected a whole number"),
        ("PORT=0\n", "PORT in .env: '0': expected at least 1"),
        ("PORT=\n", "PORT in .env: '': expected a whole number"),
        ("PORT=70000\n", "PORT in .env: '70000': expected at most 65535"),
        ("HOST=my machine\n", "HOST in .env: 'my machine': expected an IP address like 127.0.0.1"),
        ("SESSION_EXPIRE_TIMEOUT=x\n", "SESSION_EXPIRE_TIMEOUT in .env: 'x': expected a duration: seconds, or hours, "),
        ('NICKNAME={"a": 1}\n', """NICKNAME in .env: {'a': 1}: expected a list like ["a", "b"]"""),
        ("COMMAND_START=/\n", "COMMAND_START in .env: '/' is not JSON"),
        ("API_TIMEOUT=soon\n", "API_TIMEOUT in .env: 'soon': expected a number"),
        (f"NICKNAME={'[' * 100_000}\n", "the configuration in .env cannot be read: RecursionError: "),
    ],
)
def test_a_value_that_nonebot_refuses(text: str, words: str) -> None:
    [line] = problems(text)
    assert line.startswith(words)


def test_what_nonebot_takes_is_no_problem() -> None:
    env = 'DRIVER=~none\nSUPERUSERS=["1"]\nPORT=1\nX=[1,\nA__B={\nA=1\nNICKNAME=[]\nLOG_LEVEL=50\n'
    assert problems(env) == []


def test_where_the_server_would_listen() -> None:
    assert (problems("PORT=7000\nHOST=::1\n"), examine_configuration().listens) == ([], ("::1", 7000))
    assert (problems("DRIVER=~none\n"), examine_configuration().listens) == ([], None)
    assert len(problems("SUPERUSERS=[\nPORT=7001\n")) == 1
    assert examine_configuration().listens == ("127.0.0.1", 7001)


def test_init_tells_what_is_wrong_in_one_line() -> None:
    Path(".env").write_text("SUPERUSERS=[1,\nPORT=abc\n")

    def init(**kwargs: Any) -> None:
        raise ValueError("of many lines")

    with pytest.raises(CannotRun, match=r"^PORT in .env: 'abc': .*; SUPERUSERS in .env: '\[1,' is not JSON; write it"):
        explaining(init)()
    with pytest.raises(CannotRun, match=r"^SUPERUSERS in .env: '\[1,' is not JSON"):  # it is parsed all the same
        explaining(init)(port=1, superusers=set())
    with pytest.raises(ValueError, match="of many lines"):
        explaining(init)(_env_file="mine")
    Path(".env").write_text("PORT=abc\nDRIVER=~fastap\n")
    with pytest.raises(ValueError, match="of many lines"):
        explaining(init)(port=1, driver="~none")

    def short_init(**kwargs: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many"):  # it passes; a wrong value in .env does not
        explaining(short_init)()
    assert explaining(nonebot.init).__name__ == "init"


@pytest.mark.parametrize("adapters", ["5", "[5]", "[{name='x'}]", "{a=5}", "[{module_name=5}]"])
def test_adapters_that_are_none(project: Path, adapters: str) -> None:
    (project / "pyproject.toml").write_text(f"{TABLE}adapters = {adapters}\n")
    [line] = survey("toml")["start"]
    assert line.startswith("[tool.nonebot] adapters: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [("tool = 5\n", "has no table [tool.nonebot]"), ("[", "cannot be read"), (f"x = {'9' * 5000}", "cannot be read")],
)
def test_a_table_that_is_none(project: Path, text: str, words: str) -> None:
    (project / "pyproject.toml").write_text(text)
    [line] = survey("toml")["start"]
    assert words in line
    assert survey("script")["start"] == []


def test_plugins_of_both_forms(project: Path) -> None:
    (project / "pyproject.toml").write_text(f"{TABLE}plugins = ['json', 'not_there', 5, 'json.nothing']\n")
    assert len(survey("toml")["plugins"]) == 3
    text = "[tool.nonebot.plugins]\n'some-package' = ['some_plugin']\n'@local' = ['my_missing_plugin', 'json']\n"
    (project / "pyproject.toml").write_text(text)
    some, mine = survey("toml")["plugins"]
    assert some.endswith("-m pip install some-package`")
    assert mine.startswith("plugin module 'my_missing_plugin' is not installed")


def test_a_module_is_found_without_being_imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project)
    (project / "mypackage" / "sub").mkdir(parents=True)
    for name in ("mypackage/__init__.py", "mypackage/sub/__init__.py", "mypackage/sub/plugin.py", "myfile.py"):
        (project / name).write_text("raise AssertionError('imported')")
    assert is_there("mypackage.sub.plugin")
    assert is_there("myfile")
    assert is_there("nonebot.adapters.onebot.v11")
    for missing in ("mypackage.sub.none", "mypackage.none.plugin", "myfile.none", "none", "nonebot.adapters.none.v1"):
        assert not is_there(missing)
    assert "mypackage" not in sys.modules
    for odd in ("", ".", "a..b", ".x", "\0"):
        is_there(odd)


def test_pydantic_1_makes_an_interpreter_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydantic.VERSION", "1.10.27")
    [line] = survey("script")["unfit"]
    assert line.startswith("pydantic 1.10.27 is installed, and lycomm needs pydantic 2: run `")
