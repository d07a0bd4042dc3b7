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
    (project / "pyproject.toml").write_text(f"{TABLE}plugins = ['json', 'not_there', 'json.nothing']\n")
    assert len(survey("toml")["plugins"]) == 2
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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("LOUD", "one of TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR, CRITICAL, or a number"),
        ("info", "INFO"),
        (" Debug ", "DEBUG"),
        ("'warning'", "WARNING"),
        ("1.5", "one of TRACE"),
        ("true", "one of TRACE"),
        ("null", "one of TRACE"),
        ("", "one of TRACE"),
        ('["INFO"]', "one of TRACE"),
        ("x\\ny" * 200, "one of TRACE"),
    ],
)
def test_a_log_level_that_is_none(value: str, expected: str) -> None:
    assert problems(f"DRIVER=~none\nLOG_LEVEL={value}\n") == []
    [line] = survey("script")["replaced"]
    assert line.startswith("LOG_LEVEL in .env: ")
    assert f": expected {expected}" in line
    assert line.endswith("; INFO is used instead")


@pytest.mark.parametrize("value", ["INFO", "TRACE", "0", "-5", "25", '"SUCCESS"'])
def test_a_log_level_that_nonebot_takes(value: str) -> None:
    assert problems(f"DRIVER=~none\nLOG_LEVEL={value}\n") == []
    assert survey("script")["replaced"] == []


def test_a_wrong_log_level_is_told_beside_other_mistakes() -> None:
    Path(".env").write_text("DRIVER=~none\nLOG_LEVEL=LOUD\nPORT=abc\n")
    found = survey("script")
    assert [len(found["start"]), len(found["replaced"])] == [1, 1]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("API_TIMEOUT=-1", "API_TIMEOUT in .env: -1.0: with most adapters"),
        ("API_TIMEOUT=0", "API_TIMEOUT in .env: 0.0: with"),
        ("API_TIMEOUT=nan", "API_TIMEOUT in .env: nan: with"),
        ("SESSION_EXPIRE_TIMEOUT=-PT5S", "SESSION_EXPIRE_TIMEOUT in .env: no user could answer in time"),
        ("SESSION_EXPIRE_TIMEOUT=00:00:00", "SESSION_EXPIRE_TIMEOUT in .env: no user"),
    ],
)
def test_a_time_after_which_all_is_given_up_at_once_is_a_note(text: str, start: str) -> None:
    assert problems(f"DRIVER=~none\n{text}\n") == []
    [note] = survey("script")["notes"]
    assert note.startswith(start)


def test_usual_times_are_no_note() -> None:
    assert problems("DRIVER=~none\nAPI_TIMEOUT=0.1\nSESSION_EXPIRE_TIMEOUT=00:02:00\n") == []
    assert survey("script")["notes"] == []
    problems("DRIVER=~none\nAPI_TIMEOUT=null\n")
    assert survey("script")["notes"] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plugins = ['']", "plugins: '' is not the name of a module"),
        ("plugins = [5]", "plugins: 5 is not the name of a module"),
        ("plugins = 'abc'", "plugins: 'abc' is not a list of modules"),
        ("plugins = 5", "plugins: 5 is not a list of modules"),
        ("plugins = { x = [''] }", "plugins: '' is not the name of a module"),
        ("plugins = { x = 'abc' }", "plugins: 'abc' is not a list of modules"),
        ("plugins = { x = 5 }", "plugins: 5 is not a list of modules"),
        ("plugins = { x = [[]] }", "plugins: [] is not the name of a module"),
        ("plugins = { x = { a = 1 } }", "plugins: {'a': 1} is not a list of modules"),
        ("plugin_dirs = 'plugins'", "plugin_dirs: 'plugins' is not a list of folders"),
        ("plugin_dirs = [5]", "plugin_dirs: 5 is not the name of a folder"),
        ("plugin_dirs = [{}]", "plugin_dirs: {} is not the name of a folder"),
        ('plugin_dirs = ["x\\u0000"]', "plugin_dirs: 'x\\x00' is not the name of a folder"),
        ("builtin_plugins = 5", "builtin_plugins: 5 is not a list of names"),
        ("builtin_plugins = 'echo'", "builtin_plugins: 'echo' is not a list of names"),
        ("adapters = ['']", "adapters: '' has no module_name"),
        ("adapters = [{ module_name = '' }]", "adapters: {'module_name': ''} has no module_name"),
    ],
)
def test_entries_that_are_none(project: Path, text: str, line: str) -> None:
    (project / "pyproject.toml").write_text(f"{TABLE}{text}\n")
    found = survey("toml")
    assert [*found["start"], *found["plugins"]] == [f"[tool.nonebot] {line}"]


def test_an_empty_folder_is_the_projects_own(project: Path) -> None:
    (project / "pyproject.toml").write_text(f"{TABLE}plugin_dirs = ['']\n")
    found = survey("toml")
    assert found["start"] == []
    assert found["notes"][0].startswith("plugin_dirs in [tool.nonebot]: '' loads every module beside pyproject.toml")
