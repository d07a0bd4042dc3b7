"""Where settings come from, and what a wrong one looks like."""

from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.settings import DAY, PLUGIN_SETTINGS, ProcessSettings, Settings, Supervision, load_settings
from liteyuki_host.settings_values import GiB, MiB
from liteyuki_host.supervisor.spec import ProcessSpec, Reload, Restart, Strategy
from tests.settings.field_values import another_value, least_value

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
    folder.toml("[tool.lycomm]\nready_timeout=1\nstop_timeout=1\ninterrupt_timeout=1\nterminate_timeout=1")
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


OF_ALL = {name: another_value(field) for name, field in Supervision.model_fields.items()}
OWN = {name: least_value(field) for name, field in Supervision.model_fields.items()}


def toml(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def in_spec(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """What ProcessSpec has for *values*."""
    folders = tuple(folder / name for name in values["reload_dirs"])
    return {**values, "reload_dirs": folders, "after": tuple(values["after"])}


def test_a_process_has_the_settings_of_all_where_it_has_none_of_its_own(folder: Folder) -> None:
    assert not [name for name in OF_ALL if OF_ALL[name] == OWN[name]]
    (folder.path / "first").mkdir()
    folder.toml(f"""
        [tool.lycomm]
        {toml(OF_ALL)}
        [tool.lycomm.processes.first]
        [tool.lycomm.processes.plain]
        [tool.lycomm.processes.own]
        project = "bots/own"
        entry = "main.py"
        python = "envs/own/bin/python"
        env = {{ PORT = 8081, SUPERUSERS = ["1"], NAME = "小雪", FLAG = true }}
        autostart = false
        terminal = true
        {toml(OWN)}
    """)
    of_all = in_spec(folder.path, OF_ALL)
    assert folder.load().process_specs() == {
        "first": ProcessSpec("first", folder.path, **{**of_all, "after": ()}),  # not after itself
        "plain": ProcessSpec("plain", folder.path, **of_all),
        "own": ProcessSpec(
            "own",
            folder.path / "bots/own",
            "main.py",
            str(folder.path / "envs/own/bin/python"),
            {"PORT": "8081", "SUPERUSERS": '["1"]', "NAME": "小雪", "FLAG": "true"},
            False,
            True,
            **in_spec(folder.path, OWN),
        ),
    }


def test_who_has_the_terminal_may_wait_for_a_key_for_ever(folder: Folder) -> None:
    folder.toml("""
        [tool.lycomm]
        ready_timeout = 5
        loop_timeout = 5
        [tool.lycomm.processes.plain]
        [tool.lycomm.processes.shown]
        terminal = true
    """)
    specs = folder.load().process_specs()
    assert (specs["plain"].ready_timeout, specs["plain"].loop_timeout) == (5, 5)
    assert (specs["shown"].ready_timeout, specs["shown"].loop_timeout) == (DAY, 0)
    own = {"shown": {"terminal": True, "ready_timeout": 7, "loop_timeout": 8}}
    spec = folder.load(processes=own).process_specs()["shown"]
    assert (spec.ready_timeout, spec.loop_timeout) == (7, 8)


@pytest.mark.parametrize("name", OF_ALL)
def test_each_setting_of_all_can_be_text_in_the_environment(folder: Folder, name: str) -> None:
    (folder.path / "first").mkdir()
    value = OF_ALL[name]
    text = ",".join(value) if isinstance(value, list) else str(value)
    settings = folder.load({f"LYCOMM_{name.upper()}": text}, processes={"first": {}, "second": {}})
    assert getattr(settings.process_specs()["second"], name) == in_spec(folder.path, OF_ALL)[name]


def test_none_for_one_process_is_the_setting_of_all(folder: Folder) -> None:
    processes = {"web": dict.fromkeys(OF_ALL, None)}
    specs = folder.load({"LYCOMM_STOP_TIMEOUT": "5"}, processes=processes).process_specs()
    assert specs == {"web": ProcessSpec("web", folder.path, stop_timeout=5)}


def test_words_are_the_members_of_their_enumerations(folder: Folder) -> None:
    spec = folder.load({"LYCOMM_RESTART": "ALWAYS", "LYCOMM_STRATEGY": "Rest"}).process_specs()["nonebot"]
    assert (spec.restart, spec.strategy) == (Restart.ALWAYS, Strategy.REST)
    assert isinstance(spec.restart, Restart)
    assert isinstance(spec.strategy, Strategy)


@pytest.mark.parametrize(
    ("value", "mode"),
    [("true", "swap"), ("True", "swap"), (True, "swap"), ("FALSE", "off"), (False, "off"), ("overlap", "overlap")],
)
def test_reload_also_takes_true_and_false(folder: Folder, value: str | bool, mode: str) -> None:
    spec = folder.load(reload=value).process_specs()["nonebot"]
    assert spec.reload is Reload(mode)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("536870912", 512 * MiB),
        ("512MiB", 512 * MiB),
        (" 512 mib ", 512 * MiB),
        ("65536KiB", 64 * MiB),
        ("1.5GiB", 1536 * MiB),
        ("64000KB", 64_000_000),
        ("64MB", 64_000_000),
        ("1GB", 1_000_000_000),
        ("0", 0),
        ("0 MiB", 0),
        (1e9, 1_000_000_000),
        (32 * MiB, 32 * MiB),
        ("1024GiB", 1024 * GiB),
    ],
)
def test_sizes_may_have_a_unit(folder: Folder, value: object, size: int) -> None:
    assert folder.load(memory_limit=value).memory_limit == size
    folder.toml(f"[tool.lycomm.processes.web]\nmemory_limit = {json.dumps(value)}")
    assert folder.load().process_specs()["web"].memory_limit == size


def test_a_default_after_spares_those_it_names_and_gives_way_to_a_process_own(folder: Folder) -> None:
    processes = {"db": {}, "cache": {}, "web": {}, "tool": {"after": ["web"]}}
    specs = folder.load({"LYCOMM_AFTER": "db, cache"}, processes=processes).process_specs()
    assert {name: spec.after for name, spec in specs.items()} == {
        "db": (),
        "cache": (),
        "web": ("db", "cache"),
        "tool": ("web",),
    }


def test_the_folder_of_log_files_is_relative_to_the_hosts_and_empty_is_none(folder: Folder) -> None:
    folder.toml('[tool.lycomm]\nlog_dir = "logs"')
    assert folder.load().log_folder == folder.path / "logs"
    assert folder.load({"LYCOMM_LOG_DIR": ""}).log_folder is None
    assert folder.load(log_dir=None).log_folder is None
    assert folder.load(log_dir=folder.path / "x").log_folder == folder.path / "x"


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


def test_the_defaults_are_those_of_the_spec_and_each_of_its_fields_can_be_set() -> None:
    settings, spec = Settings(), ProcessSpec("x", Path())
    names = {field.name for field in dataclasses.fields(ProcessSpec)}
    assert names - {"name"} == set(ProcessSettings.model_fields)
    assert set(Supervision.model_fields) <= set(Settings.model_fields)
    assert {name: getattr(spec, name) for name in Supervision.model_fields} == {
        name: getattr(settings, name) for name in Supervision.model_fields
    }


def test_one_ctrl_c_ends_a_stuck_child_within_ten_seconds_when_nothing_is_drained() -> None:
    settings = Settings()
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
            "LYCOMM_READY_TIMEOUT in the environment: '0' is not between 1 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_CHANNEL_WINDOW": "0"},
            "LYCOMM_CHANNEL_WINDOW in the environment: '0' is not between 64 KiB and 256 MiB",
        ),
        (
            {"LYCOMM_MESSAGE_LIMIT": "1e9"},
            "LYCOMM_MESSAGE_LIMIT in the environment: '1e9' is not a size: "
            "write bytes, or a number with KiB, MiB, GiB, KB, MB or GB",
        ),
        (
            {"LYCOMM_MEMORY_LIMIT": "2.5"},
            "LYCOMM_MEMORY_LIMIT in the environment: '2.5' is not a size: "
            "write bytes, or a number with KiB, MiB, GiB, KB, MB or GB",
        ),
        (
            {"LYCOMM_MEMORY_LIMIT": "10MiB"},
            "LYCOMM_MEMORY_LIMIT in the environment: '10MiB' is not between 32 MiB and 1024 GiB, nor 0 for off",
        ),
        (
            {"LYCOMM_SHARED_MEMORY_LIMIT": "0"},
            "LYCOMM_SHARED_MEMORY_LIMIT in the environment: '0' is not between 64 KiB and 64 GiB",
        ),
        (
            {"LYCOMM_LOG_ROTATION": "2GiB"},
            "LYCOMM_LOG_ROTATION in the environment: '2GiB' is not between 64 KiB and 1 GiB",
        ),
        (
            {"LYCOMM_LOG_RETENTION": "1001"},
            "LYCOMM_LOG_RETENTION in the environment: '1001' is not between 0 and 1000 (files)",
        ),
        (
            {"LYCOMM_OUTPUT_BUFFER": "1KB"},
            "LYCOMM_OUTPUT_BUFFER in the environment: '1KB' is not between 64 KiB and 256 MiB",
        ),
        ({"LYCOMM_LOG_DIR": "\0"}, "LYCOMM_LOG_DIR in the environment: '\\x00' is not a text"),
        (
            {"LYCOMM_DRAIN_TIMEOUT": "-0.1"},
            "LYCOMM_DRAIN_TIMEOUT in the environment: '-0.1' is not between 0 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_MAX_RESTARTS": "1.5"},
            "LYCOMM_MAX_RESTARTS in the environment: '1.5' is not a whole number (restarts)",
        ),
        (
            {"LYCOMM_MAX_RESTARTS": "-1"},
            "LYCOMM_MAX_RESTARTS in the environment: '-1' is not between 0 and 1000 (restarts)",
        ),
        (
            {"LYCOMM_RESTART_WINDOW": "0"},
            "LYCOMM_RESTART_WINDOW in the environment: '0' is not between 0.1 and 86400 (seconds)",
        ),
        (
            {"LYCOMM_LOOP_TIMEOUT": "0.9"},
            "LYCOMM_LOOP_TIMEOUT in the environment: '0.9' is not between 1 and 86400 (seconds), nor 0 for off",
        ),
        (
            {"LYCOMM_FREEZE_TIMEOUT": "0.9"},
            "LYCOMM_FREEZE_TIMEOUT in the environment: '0.9' is not between 1 and 86400 (seconds), nor 0 for off",
        ),
        (
            {"LYCOMM_MAX_AGE": "31536001"},
            "LYCOMM_MAX_AGE in the environment: '31536001' is not between 60 and 31536000 (seconds), nor 0 for off",
        ),
        (
            {"LYCOMM_RESTART": "onfailure"},
            "LYCOMM_RESTART in the environment: 'onfailure' is not one of always, on-failure, never; "
            "did you mean on-failure?",
        ),
        (
            {"LYCOMM_STRATEGY": "any"},
            "LYCOMM_STRATEGY in the environment: 'any' is not one of one, all, rest",
        ),
        (
            {"LYCOMM_RELOAD": "Swop"},
            "LYCOMM_RELOAD in the environment: 'Swop' is not one of off, swap, overlap; did you mean swap?",
        ),
        (
            {"LYCOMM_RELOAD_DIRS": "src"},
            "LYCOMM_RELOAD_DIRS in the environment: folder FOLDER/src does not exist: "
            "create it or take it off the list",
        ),
        ({"LYCOMM_RELOAD_DIRS": '[""]'}, "LYCOMM_RELOAD_DIRS in the environment: '' is not a text"),
        (
            {"LYCOMM_AFTER": "nonebott"},
            "LYCOMM_AFTER in the environment: there is no process nonebott; did you mean nonebot?",
        ),
        (
            {"LYCOMM_BACKOFF_BASE": "61"},
            "LYCOMM_BACKOFF_BASE in the environment: backoff_max (60 s) is less than backoff_base (61 s): "
            "raise the one or lower the other",
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
    assert folder.problems(environ) == [line.replace("FOLDER", str(folder.path))]


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
            "processes.web.terminal = 1",
            "terminal in [tool.lycomm.processes.web] of pyproject.toml: 1 is not true or false",
        ),
        (
            "processes = { one = { terminal = true }, plain = {}, two = { terminal = true } }",
            "terminal in [tool.lycomm.processes.two] of pyproject.toml: "
            "one has the terminal already, and only one process can have it",
        ),
        (
            "processes.web.terminal = true\nreload = 'overlap'",
            "terminal in [tool.lycomm.processes.web] of pyproject.toml: "
            'does not go with reload = "overlap", which runs two bots for a moment: use "swap"',
        ),
        (
            "terminal = true",
            "terminal in [tool.lycomm] of pyproject.toml: "
            "a setting of one process: write it in [tool.lycomm.processes.NAME]",
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
            "processes.web.reload = 1",
            "reload in [tool.lycomm.processes.web] of pyproject.toml: 1 is not one of off, swap, overlap",
        ),
        (
            "reload_dirs = 1",
            "reload_dirs in [tool.lycomm] of pyproject.toml: 1 is not a list of folders",
        ),
        (
            "processes.web.reload_dirs = ['bots']",
            "reload_dirs in [tool.lycomm.processes.web] of pyproject.toml: folder FOLDER/bots does not exist: "
            "create it or take it off the list",
        ),
        (
            "processes.web.memory_limit = true",
            "memory_limit in [tool.lycomm.processes.web] of pyproject.toml: True is not a size: "
            "write bytes, or a number with KiB, MiB, GiB, KB, MB or GB",
        ),
        (
            "processes.web.memory_limit = inf",
            "memory_limit in [tool.lycomm.processes.web] of pyproject.toml: inf is not a size: "
            "write bytes, or a number with KiB, MiB, GiB, KB, MB or GB",
        ),
        (
            "processes.web.after = ['a b']",
            "after in [tool.lycomm.processes.web] of pyproject.toml: 'a b' is not a process name "
            "(letters, digits, _ . -; a letter or digit first; at most 64)",
        ),
        (
            "processes.web.after = ['db']",
            "processes in [tool.lycomm] of pyproject.toml: "
            "process web is after db, which is not declared: correct after",
        ),
        (
            "processes.web.after = ['db']\nprocesses.db.after = ['web']",
            "processes in [tool.lycomm] of pyproject.toml: processes wait for each other: "
            "web -> db -> web (each is after the next): remove one after",
        ),
        (
            "after = ['web']\nprocesses.web.after = ['db']\nprocesses.db = {}",
            "processes in [tool.lycomm] of pyproject.toml: processes wait for each other: "
            "web -> db -> web (each is after the next): remove one after",
        ),
        (
            "after = ['dbs']\nprocesses.web = {}\nprocesses.db = {}\nprocesses.tool = {}",
            "after in [tool.lycomm] of pyproject.toml: there is no process dbs; did you mean db?",
        ),
        (
            "backoff_max = 0.5",
            "backoff_max in [tool.lycomm] of pyproject.toml: backoff_max (0.5 s) is less than backoff_base (1 s): "
            "raise the one or lower the other",
        ),
        (
            "backoff_base = 20\nprocesses.web.backoff_max = 19.5",
            "backoff_max in [tool.lycomm.processes.web] of pyproject.toml: backoff_max (19.5 s) is less than "
            "backoff_base (20 s): raise the one or lower the other",
        ),
        (
            "backoff_max = 20\nprocesses.web.backoff_base = 21",
            "backoff_base in [tool.lycomm.processes.web] of pyproject.toml: backoff_max (20 s) is less than "
            "backoff_base (21 s): raise the one or lower the other",
        ),
        (
            "processes.web = {backoff_base = 3, backoff_max = 2}\nprocesses.db = {}",
            "backoff_max in [tool.lycomm.processes.web] of pyproject.toml: backoff_max (2 s) is less than "
            "backoff_base (3 s): raise the one or lower the other",
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
    assert folder.problems() == [line.replace("FOLDER", str(folder.path))]


def test_equal_backoffs_and_a_default_that_a_process_corrects_are_no_problem(folder: Folder) -> None:
    folder.toml("[tool.lycomm]\nbackoff_base = 5\nbackoff_max = 5\nprocesses.web = {backoff_base = 0}")
    assert folder.load().process_specs()["web"].backoff_base == 0


def test_default_backoffs_that_cannot_be_are_told_once_not_for_each_process(folder: Folder) -> None:
    folder.toml("[tool.lycomm]\nbackoff_base = 90\nprocesses.a = {}\nprocesses.b = {}")
    [line] = folder.problems()
    assert line.startswith("backoff_base in [tool.lycomm] of pyproject.toml")


def test_what_contradicts_is_told_with_the_other_problems(folder: Folder) -> None:
    folder.toml("[tool.lycomm]\nx = 1\nbackoff_max = 0\nprocesses.a.after = ['b']\nprocesses.a.reload_dirs = ['c']")
    assert [line.split(":")[0] for line in folder.problems()] == [
        "x in [tool.lycomm] of pyproject.toml",
        "backoff_max in [tool.lycomm] of pyproject.toml",
        "reload_dirs in [tool.lycomm.processes.a] of pyproject.toml",
        "processes in [tool.lycomm] of pyproject.toml",
    ]


def test_a_problem_between_processes_names_the_layer_that_declares_them(folder: Folder) -> None:
    processes = '{"a": {"after": ["a"]}}'
    assert folder.problems({"LYCOMM_PROCESSES": processes}) == [
        "LYCOMM_PROCESSES in the environment: process a cannot be after itself: remove it from after"
    ]


@pytest.mark.parametrize("size", ["", "MiB", "1e3", "64 M", "1,5GiB", "٣KiB", "9" * 100_000 + "KiB", "64MiB x"])
def test_what_is_no_size_is_one_short_line(folder: Folder, size: str) -> None:
    [line] = folder.problems(memory_limit=size)
    assert "is not a size" in line
    assert len(line) < 150


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
        "backoff_base in Host(...)",
        "x in [tool.lycomm.processes.a] of pyproject.toml",
        "stop_timeout in [tool.lycomm.processes.b] of pyproject.toml",
        "LYCOMM_LOG_LEVEL in the environment",
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
