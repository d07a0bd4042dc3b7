"""Where settings come from, and what a wrong one looks like."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.settings import PLUGIN_SETTINGS, Settings, load_settings
from liteyuki_host.supervisor.spec import ProcessSpec

DEFAULTS = Settings().model_dump()


class Folder:
    """A host's folder in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def toml(self, text: str) -> Folder:
        (self.path / "pyproject.toml").write_text(text, "utf-8")
        return self

    def env(self, text: str, name: str = ".env") -> Folder:
        (self.path / name).write_text(text, "utf-8")
        return self

    def load(self, environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
        return load_settings(arguments, folder=self.path, environ=environ or {})

    def problems(self, environ: Mapping[str, str] | None = None, **arguments: Any) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            self.load(environ, **arguments)
        return str(caught.value).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# Layers


def test_arguments_beat_the_environment_beats_dotenv_beats_pyproject(folder: Folder) -> None:
    folder.toml("[tool.lycomm]\nready_seconds=1\nstop_seconds=1\ninterrupt_seconds=1\nterminate_seconds=1")
    folder.env("LYCOMM_STOP_TIMEOUT=2\nLYCOMM_INTERRUPT_TIMEOUT=2\nLYCOMM_TERMINATE_TIMEOUT=2")
    environ = {"LYCOMM_INTERRUPT_TIMEOUT": "3", "LYCOMM_TERMINATE_TIMEOUT": "3"}
    settings = folder.load(environ, terminate_timeout=4)
    assert settings.ready_timeout == 1
    assert settings.stop_timeout == 2
    assert settings.interrupt_timeout == 3
    assert settings.terminate_timeout == 4


def test_the_file_of_the_environment_beats_dotenv_as_in_nonebot(folder: Folder) -> None:
    folder.env("LYCOMM_LOG_LEVEL=DEBUG\nLYCOMM_STOP_TIMEOUT=2")
    folder.env("LYCOMM_LOG_LEVEL=ERROR", ".env.prod").env("LYCOMM_LOG_LEVEL=TRACE", ".env.dev")
    assert folder.load().log_level == "ERROR"
    assert folder.load().stop_timeout == 2
    assert folder.load({"ENVIRONMENT": "dev"}).log_level == "TRACE"
    assert folder.load({"ENVIRONMENT": "missing"}).log_level == "DEBUG"
    folder.env("environment=dev")
    assert folder.load().log_level == "TRACE"
    assert folder.load({"ENVIRONMENT": "prod"}).log_level == "ERROR"


def test_names_of_variables_may_be_lower_case_as_in_nonebot(folder: Folder) -> None:
    assert folder.env("lycomm_log_level=debug").load().log_level == "DEBUG"


def test_dotenv_takes_variables_from_the_given_environment_and_a_byte_order_mark(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVEL", "TRACE")  # not the environment that is asked
    folder.env("\ufeffLYCOMM_LOG_LEVEL=${LEVEL}\nN=7\nLYCOMM_STOP_TIMEOUT=${N}${MISSING:-5}")
    settings = folder.load({"LEVEL": "ERROR"})
    assert settings.log_level == "ERROR"
    assert settings.stop_timeout == 75


def test_the_environment_of_this_process_is_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCOMM_STOP_TIMEOUT", "77")
    assert folder.load().stop_timeout == Settings().stop_timeout


@pytest.mark.parametrize("text", ['["a.b", "c"]', "a.b,c", " a.b , c, "])
def test_a_list_in_the_environment_is_json_or_comma_separated(folder: Folder, text: str) -> None:
    assert folder.load({"LYCOMM_PLUGINS": text}).plugins == ["a.b", "c"]


def test_an_empty_list_in_the_environment_is_empty(folder: Folder) -> None:
    assert folder.toml('[tool.lycomm]\nplugins=["a"]').load({"LYCOMM_PLUGINS": ""}).plugins == []


def test_the_plugins_settings_and_the_childs_variables_are_not_ours_to_refuse(folder: Folder) -> None:
    folder.env("LYCOMM_COMMANDS=maybe\nlycomm_restart_command=[]")
    environ = {"LYCOMM_STATUS_COMMAND": "x", "LYCOMM_LINK": "fd:7", "LYCOMM_PROCESS": "nonebot"}
    assert folder.load(environ).model_dump() == DEFAULTS


def test_the_plugins_settings_are_the_fields_of_its_config() -> None:
    # By its file: NoneBot refuses to load a plugin that was imported before, and other tests want to load it.
    file = Path(__file__).parents[2] / "nonebot_plugin_lycomm" / "config.py"
    assert set(runpy.run_path(str(file))["Config"].model_fields) == set(PLUGIN_SETTINGS)


def test_settings_of_other_programs_are_ignored(folder: Folder) -> None:
    folder.toml("[tool.other]\nlycomm=1").env("DRIVER=~none\nnot a line of a dotenv file\nLYCOM_X=1")
    assert folder.load({"PATH": "x"}).model_dump() == DEFAULTS


# Processes


def test_with_nothing_declared_there_is_one_process_in_the_folder(folder: Folder) -> None:
    assert folder.load().process_specs() == {"nonebot": ProcessSpec("nonebot", folder.path)}
    folder.toml("[tool.lycomm.processes]")
    assert list(folder.load().process_specs()) == ["nonebot"]


def test_a_process_has_the_settings_of_all_where_it_has_none_of_its_own(folder: Folder) -> None:
    folder.toml("""
        [tool.lycomm]
        ready_timeout = 11
        stop_timeout = 12
        interrupt_timeout = 13
        terminate_timeout = 14
        backoff_base = 15
        [tool.lycomm.processes.plain]
        [tool.lycomm.processes.own]
        project = "bots/own"
        entry = "main.py"
        python = "envs/own/bin/python"
        env = { PORT = 8081, SUPERUSERS = ["1"], NAME = "小雪", FLAG = true }
        autostart = false
        ready_timeout = 1
        stop_timeout = 0
        interrupt_timeout = 2
        terminate_timeout = 3
        backoff_base = 0.5
    """)
    specs = folder.load().process_specs()
    assert specs == {
        "plain": ProcessSpec("plain", folder.path, None, None, {}, True, 11, 12, 13, 14, 15),
        "own": ProcessSpec(
            "own",
            folder.path / "bots/own",
            "main.py",
            str(folder.path / "envs/own/bin/python"),
            {"PORT": "8081", "SUPERUSERS": '["1"]', "NAME": "小雪", "FLAG": "true"},
            False,
            *(1, 0, 2, 3, 0.5),
        ),
    }


def test_absolute_paths_and_commands_stay_what_they_are(folder: Folder, tmp_path: Path) -> None:
    project, python = tmp_path / "p", tmp_path / "python"
    specs = folder.load(
        processes={"a": {"project": project, "python": python}, "b": {"python": "python3.12"}}
    ).process_specs()
    assert specs["a"].project == project
    assert specs["a"].python == str(python)
    assert specs["b"].python == "python3.12"


def test_a_relative_folder_becomes_absolute(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)
    settings = load_settings({}, folder=Path("."), environ={})
    assert settings.folder == folder.path
    assert settings.process_specs()["nonebot"].project == folder.path


def test_processes_in_the_environment_are_json_and_replace_those_of_a_weaker_layer(folder: Folder) -> None:
    folder.toml("[tool.lycomm.processes.a]\n[tool.lycomm.processes.b]")
    settings = folder.load({"LYCOMM_PROCESSES": '{"c": {"stop_timeout": 3}}'})
    assert {name: spec.stop_timeout for name, spec in settings.process_specs().items()} == {"c": 3}


def test_the_defaults_are_those_of_the_spec_and_end_a_stuck_child_within_ten_seconds() -> None:
    settings = Settings()
    names = [field.name for field in dataclasses.fields(ProcessSpec) if field.name in Settings.model_fields]
    assert len(names) == 5
    spec = ProcessSpec("x", Path())
    assert {name: getattr(spec, name) for name in names} == {name: getattr(settings, name) for name in names}
    assert settings.stop_timeout + settings.interrupt_timeout + settings.terminate_timeout < 10


# Problems: one line each, with the place


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"LYCOMM_STOP_TIMEOUT": "abc"},
            "LYCOMM_STOP_TIMEOUT in the environment: 'abc' is not a number (seconds)",
        ),
        ({"LYCOMM_STOP_TIMEOUT": ""}, "LYCOMM_STOP_TIMEOUT in the environment: '' is not a number (seconds)"),
        (
            {"LYCOMM_STOP_TIMEOUT": "nan"},
            "LYCOMM_STOP_TIMEOUT in the environment: 'nan' is not a number (seconds)",
        ),
        (
            {"LYCOMM_STOP_TIMEOUT": "-1"},
            "LYCOMM_STOP_TIMEOUT in the environment: '-1' is not between 0 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_BACKOFF_BASE": "inf"},
            "LYCOMM_BACKOFF_BASE in the environment: 'inf' is not between 0 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_READY_TIMEOUT": "0"},
            "LYCOMM_READY_TIMEOUT in the environment: '0' is not between 0.1 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_CHANNEL_WINDOW": "0"},
            "LYCOMM_CHANNEL_WINDOW in the environment: '0' is not between 65536 and 268435456 (bytes)",
        ),
        (
            {"LYCOMM_MESSAGE_LIMIT": "1e9"},
            "LYCOMM_MESSAGE_LIMIT in the environment: '1e9' is not a whole number (bytes)",
        ),
        (
            {"LYCOMM_MEMORY_LIMIT": "2.5"},
            "LYCOMM_MEMORY_LIMIT in the environment: '2.5' is not a whole number (bytes)",
        ),
        (
            {"LYCOMM_LOG_LEVEL": "LOUD"},
            "LYCOMM_LOG_LEVEL in the environment: 'LOUD' is not one of "
            "TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR, CRITICAL",
        ),
        ({"LYCOMM_PLUGINS": "a b"}, "LYCOMM_PLUGINS in the environment: 'a b' is not a module name"),
        ({"LYCOMM_PLUGINS": "[1]"}, "LYCOMM_PLUGINS in the environment: 1 is not a module name"),
        (
            {"LYCOMM_PROCESSES": "web"},
            "LYCOMM_PROCESSES in the environment: 'web' is not JSON (Expecting value: line 1 column 1 (char 0))",
        ),
        (
            {"LYCOMM_PROCESSES": '{"web": {"project": "\\ud800"}}'},
            "LYCOMM_PROCESSES.web.project in the environment: '\\ud800' is not a text",
        ),
        (
            {"LYCOMM_PROCESSES": '{"web": {"env": {"A": "\\u0000"}}}'},
            "LYCOMM_PROCESSES.web.env in the environment: A='\\x00' contains what no environment can",
        ),
        ({"LYCOMM_PROCESSES": "[]"}, "LYCOMM_PROCESSES in the environment: [] is not a table of processes"),
        (
            {"LYCOMM_PROCESSES": '{"web": {"stop_timeout": "x"}}'},
            "LYCOMM_PROCESSES.web.stop_timeout in the environment: 'x' is not a number (seconds)",
        ),
        (
            {"LYCOMM_STOP_SECOND": "1"},
            "LYCOMM_STOP_SECOND in the environment: no such setting; did you mean LYCOMM_STOP_TIMEOUT?",
        ),
        (
            {"LYCOMM_COMMAND": "1"},
            "LYCOMM_COMMAND in the environment: no such setting; did you mean LYCOMM_COMMANDS?",
        ),
        ({"LYCOMM_QQ": "1"}, "LYCOMM_QQ in the environment: no such setting"),
    ],
)
def test_a_problem_in_the_environment_is_one_line(folder: Folder, environ: dict[str, str], line: str) -> None:
    assert folder.problems(environ) == [line]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            "stop_timeout = true",
            "stop_timeout in [tool.lycomm] of pyproject.toml: True is not a number (seconds)",
        ),
        ("plugins = 3", "plugins in [tool.lycomm] of pyproject.toml: 3 is not a list of module names"),
        (
            "channel_windw = 3",
            "channel_windw in [tool.lycomm] of pyproject.toml: no such setting; did you mean channel_window?",
        ),
        (
            "commands = false",
            "commands in [tool.lycomm] of pyproject.toml: "
            "a setting of the plugin: write LYCOMM_COMMANDS=... in .env of the bot",
        ),
        ("processes = 3", "processes in [tool.lycomm] of pyproject.toml: 3 is not a table of processes"),
        ("processes.web = 3", "web in [tool.lycomm.processes] of pyproject.toml: 3 is not a table"),
        (
            "processes.web.stop_second = 3",
            "stop_second in [tool.lycomm.processes.web] of pyproject.toml: no such setting; did you mean stop_timeout?",
        ),
        (
            "processes.web.stop_timeout = -3",
            "stop_timeout in [tool.lycomm.processes.web] of pyproject.toml: -3 is not between 0 and 86400 (seconds)",
        ),
        (
            "processes.web.autostart = 'yes'",
            "autostart in [tool.lycomm.processes.web] of pyproject.toml: 'yes' is not true or false",
        ),
        (
            "processes.web.entry = ''",
            "entry in [tool.lycomm.processes.web] of pyproject.toml: '' is not a text",
        ),
        (
            "processes.web.project = 1",
            "project in [tool.lycomm.processes.web] of pyproject.toml: 1 is not a text",
        ),
        (
            "processes.web.env = 1",
            "env in [tool.lycomm.processes.web] of pyproject.toml: 1 is not a table of environment variables",
        ),
        (
            "processes.web.env = {'A=B' = 1}",
            "env in [tool.lycomm.processes.web] of pyproject.toml: 'A=B' is not the name of an environment variable",
        ),
        (
            "processes.web.env = {DAY = 2026-01-01}",
            "env in [tool.lycomm.processes.web] of pyproject.toml: "
            "DAY=datetime.date(2026, 1, 1) is neither text nor JSON",
        ),
        (
            "processes.web.env = {LYCOMM_LINK = 'fd:1'}",
            "env in [tool.lycomm.processes.web] of pyproject.toml: LYCOMM_LINK is set by the host: remove it",
        ),
        (
            "processes.host = {}",
            "host in [tool.lycomm.processes] of pyproject.toml: "
            "'host' is the name of the host itself: call the process something else",
        ),
    ],
)
def test_a_problem_in_pyproject_is_one_line(folder: Folder, toml: str, line: str) -> None:
    folder.toml(f"[tool.lycomm]\n{toml}")
    assert folder.problems() == [line]


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "小雪", "a" * 65, "a\n"])
def test_a_bad_process_name_is_one_line(folder: Folder, name: str) -> None:
    [line] = folder.problems(processes={name: {}})
    assert "is not a process name" in line


@pytest.mark.parametrize("name", ["a", "0", "A_b.c-9", "a" * 64, "hosts"])
def test_good_process_names(folder: Folder, name: str) -> None:
    assert list(folder.load(processes={name: {}}).process_specs()) == [name]


def test_problems_in_dotenv_name_the_file(folder: Folder) -> None:
    folder.env("LYCOMM_STOP_TIMEOUT=abc\nLYCOMM_LINK=fd:7").env("LYCOMM_READY_TIMEOUT=abc", ".env.prod")
    assert folder.problems() == [
        "LYCOMM_LINK in .env: the host sets it for its children: remove it",
        "LYCOMM_READY_TIMEOUT in .env.prod: 'abc' is not a number (seconds)",
        "LYCOMM_STOP_TIMEOUT in .env: 'abc' is not a number (seconds)",
    ]


def test_all_problems_of_all_layers_are_reported_at_once(folder: Folder) -> None:
    folder.toml("[tool.lycomm]\nx = 1\nprocesses.a.x = 1\nprocesses.b.stop_timeout = -1").env("LYCOMM_Y=1")
    problems = folder.problems({"LYCOMM_LOG_LEVEL": "?"}, z=1, backoff_base=None)
    assert [problem.split(":")[0] for problem in problems] == [
        "x in [tool.lycomm] of pyproject.toml",
        "LYCOMM_Y in .env",
        "z in Host(...)",
        "LYCOMM_LOG_LEVEL in the environment",
        "backoff_base in Host(...)",
        "x in [tool.lycomm.processes.a] of pyproject.toml",
        "stop_timeout in [tool.lycomm.processes.b] of pyproject.toml",
    ]


def test_a_bad_value_that_a_stronger_layer_replaces_does_no_harm(folder: Folder) -> None:
    assert folder.env("LYCOMM_STOP_TIMEOUT=abc").load(stop_timeout=3).stop_timeout == 3


def test_a_long_value_does_not_fill_the_screen(folder: Folder) -> None:
    [line] = folder.problems({"LYCOMM_STOP_TIMEOUT": "x" * 100_000})
    assert len(line) < 120


def test_a_dotenv_line_of_ours_that_says_nothing_is_a_problem(folder: Folder) -> None:
    folder.env("A=1\nLYCOMM_STOP_TIMEOUT 5\n")
    assert folder.problems() == [f"{folder.path / '.env'} line 2: not of the form LYCOMM_NAME=value"]


@pytest.mark.parametrize("name", [".env", ".env.prod", "pyproject.toml"])
def test_a_file_that_is_not_utf8_is_named_with_the_place_and_the_remedy(folder: Folder, name: str) -> None:
    path = folder.path / name
    path.write_bytes("# ok\n# 机器人\n".encode("gbk"))
    assert folder.problems() == [f"{path} is not UTF-8 (byte 7, line 2): save it as UTF-8"]


def test_pyproject_that_is_not_toml_or_not_a_table_is_one_line(folder: Folder) -> None:
    [line] = folder.toml("[tool.lycomm]\nplugins = [\n").problems()
    assert line.startswith(f"{folder.path / 'pyproject.toml'} is not valid TOML: ")
    [line] = folder.toml("\ufeff[tool.lycomm]\n").problems()
    assert line == f"{folder.path / 'pyproject.toml'} begins with a byte order mark: save it as UTF-8 without BOM"
    assert folder.toml("[tool]\nlycomm = 3").problems() == ["lycomm in [tool] of pyproject.toml: 3 is not a table"]
    assert folder.toml("tool = 3").load().model_dump() == DEFAULTS


def test_a_broken_file_does_not_hide_the_other_problems(folder: Folder) -> None:
    folder.toml("[").env("LYCOMM_X=1")
    assert len(folder.problems(stop_timeout=-1)) == 3


def test_a_folder_that_does_not_exist_is_one_line(folder: Folder) -> None:
    folder.path = folder.path / "missing"
    assert folder.problems() == [f"folder {folder.path} does not exist"]
