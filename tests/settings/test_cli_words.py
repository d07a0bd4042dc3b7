"""Scripts, ``--reload`` and typing errors on the command line of ``lycomm``."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from liteyuki_host.cli import main
from liteyuki_host.cli.arguments import settings_arguments
from liteyuki_host.comm.command import lycomm
from liteyuki_host.comm.errors import SettingsError
from liteyuki_host.settings import ProcessSettings, Settings, Supervision, load_settings
from tests.settings.field_values import another_value
from tests.settings.test_cli import lycomm as run

pytestmark = pytest.mark.slow

BOT = 'import nonebot\n\nnonebot.init(driver="~none")\nnonebot.run()\n'
HOST = "from liteyuki_host import Host\n\nHost().run()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LYCOMM_"):
            monkeypatch.delenv(name)
    return tmp_path


def settings_of(folder: Path, **words: Any) -> Settings:
    return load_settings(settings_arguments(folder, **words), folder=folder, environ={})


# A script


@pytest.mark.parametrize("script", ["bot.py", "main.py", "src/my bot.py"])
def test_a_script_is_the_entry_of_the_default_process(folder: Path, script: str) -> None:
    (folder / script).parent.mkdir(exist_ok=True)
    (folder / script).write_text(BOT)
    (spec,) = settings_of(folder, script=script).process_specs().values()
    assert (spec.name, spec.project, spec.entry) == ("nonebot", folder, str(folder / script))
    done = run("check", script, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"nonebot: {script} in {folder} with {sys.executable}")


def test_a_script_is_relative_to_the_current_folder_and_not_to_the_projects(folder: Path) -> None:
    (folder / "mybot").mkdir()
    (folder / "mybot" / "main.py").write_text(BOT)
    (spec,) = settings_of(folder / "mybot", script="mybot/main.py").process_specs().values()
    assert (spec.project, spec.entry) == (folder / "mybot", str(folder / "mybot" / "main.py"))
    with pytest.raises(SettingsError, match=re.escape(f"there is no file main.py in {folder}")):
        settings_arguments(folder / "mybot", script="main.py")


def test_the_only_declared_process_keeps_what_was_written_of_it(folder: Path) -> None:
    for name in ("bots", "bots/qq", "first"):
        (folder / name).mkdir()
    (folder / "bots" / "qq" / "main.py").write_text(BOT)
    values = {name: another_value(field) for name, field in Supervision.model_fields.items()}
    (folder / "pyproject.toml").write_text(
        "[tool.lycomm]\nmemory_limit = '64MiB'\n[tool.lycomm.processes.qq]\n"
        "project = 'bots/qq'\npython = 'python3'\nenv = { PORT = 8081, SUPERUSERS = ['1'], NAME = 'a b' }\n"
        "autostart = false\nterminal = false\n"
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items() if name != "after")
        + "after = []\n"
    )
    before = settings_of(folder).processes["qq"]
    assert before.model_fields_set == ProcessSettings.model_fields.keys() - {"entry"}, "every setting is tried"
    after = settings_of(folder, script="bots/qq/main.py")
    entry = str(folder / "bots" / "qq" / "main.py")
    assert after.processes == {"qq": before.model_copy(update={"entry": entry})}
    assert after.memory_limit == 64 * 1024**2
    again = settings_of(folder, script="bots/qq/main.py", reload=True).processes["qq"]
    assert again == before.model_copy(update={"entry": entry, "reload": "swap"})


def test_a_script_that_the_settings_name_already_is_fine(folder: Path) -> None:
    (folder / "main.py").write_text(BOT)
    (folder / "pyproject.toml").write_text("[tool.lycomm.processes.qq]\nentry = 'main.py'\n")
    assert list(settings_of(folder, script="./main.py").processes) == ["qq"]


TWO = "[tool.lycomm.processes.qq]\n[tool.lycomm.processes.web]\n"
OTHER = "[tool.lycomm.processes.qq]\nentry = 'other.py'\n"


@pytest.mark.parametrize("verb", ["run", "check"])
@pytest.mark.parametrize(
    ("script", "declared", "code", "line"),
    [
        ("gone.py", "", 2, "there is no file gone.py in {folder}"),
        ("mybot", "", 2, "mybot is a folder; to run the bot in it: `{lycomm} run --project mybot`"),
        ("bot.py", TWO, 2, "bot.py can be the entry of one process only, and the settings declare several (qq, web): "),
        ("bot.py", OTHER, 2, "the settings say that the process qq runs other.py, not bot.py: "),
        ("host.py", "", 1, "entry {folder}/host.py starts a host, not a bot: name the script that calls nonebot.run()"),
        ("broken.py", "", 1, "{folder}/broken.py line 1: "),
        ("bot.py", "[tool.lycomm]\nlog_levl = 1\n", 2, "log_levl in [tool.lycomm] of pyproject.toml: no such setting"),
    ],
)
def test_a_script_that_cannot_be_the_bot_is_one_line(
    folder: Path, verb: str, script: str, declared: str, code: int, line: str
) -> None:
    (folder / "mybot").mkdir()
    (folder / "bot.py").write_text(BOT)
    (folder / "host.py").write_text(HOST)
    (folder / "broken.py").write_text("def\n")
    (folder / "pyproject.toml").write_text(declared)
    done = run(verb, script, folder=folder)
    assert (done.returncode, done.stdout) == (code, "")
    (said,) = done.stderr.splitlines()
    # `check` names the process too, since it goes on to the next one.
    beginning = line.format(folder=folder, lycomm=lycomm())
    assert said.removeprefix("lycomm: ").removeprefix("nonebot: ").startswith(beginning)


# --reload


def test_reload_beats_what_is_set_for_all_and_for_one(folder: Path) -> None:
    (folder / ".env").write_text("LYCOMM_RELOAD=off\n")
    (folder / "pyproject.toml").write_text(
        "[tool.lycomm.processes.a]\nreload = 'off'\n[tool.lycomm.processes.b]\n"
        "[tool.lycomm.processes.c]\nmax_age = 60\n"
    )
    assert [spec.reload for spec in settings_of(folder).process_specs().values()] == ["off"] * 3
    specs = settings_of(folder, reload=True).process_specs()
    assert {name: spec.reload for name, spec in specs.items()} == dict.fromkeys("abc", "swap")
    assert specs["c"].max_age == 60


def test_without_script_and_reload_the_settings_are_not_touched(folder: Path) -> None:
    assert settings_arguments(folder) == {}
    assert settings_arguments(folder, log_level="DEBUG") == {"log_level": "DEBUG"}
    assert "reload" in Supervision.model_fields


# Typing errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bot.py"], "bot.py is no command; to run that script: `{} run bot.py`"),
        (["bot.py", "--reload"], "bot.py is no command; to run that script: `{} run bot.py --reload`"),
        (["gone.py"], "gone.py is no command; to run that script: `{} run gone.py`"),
        (["startbot"], "startbot is no command; to run that script: `{} run startbot`"),
        (["mybot"], "mybot is no command; to run the bot in that folder: `{} run --project mybot`"),
        (["start"], "there is no command 'start'; did you mean `{} run`?"),
        (["Run"], "there is no command 'Run'; did you mean `{} run`?"),
        (["rnu"], "there is no command 'rnu'; did you mean `{} run`?"),
        (["chek"], "there is no command 'chek'; did you mean `{} check`?"),
        (["setings"], "there is no command 'setings'; did you mean `{} settings`?"),
        (["help"], "there is no command 'help'; did you mean `{} --help`?"),
        (["stop"], "there is no command 'stop': press Ctrl+C where the host runs, or send it SIGTERM"),
        (["restart"], "there is no command 'restart': a superuser of the bot writes /lycomm restart to it in a chat"),
        (["ps"], "there is no command 'ps': a superuser of the bot writes /lycomm status to it in a chat"),
        (["xyzzy"], "there is no command 'xyzzy'; there are run, check, settings, explained by `{} --help`"),
        ([""], "there is no command ''; there are run, check, settings, explained by `{} --help`"),
    ],
)
def test_a_first_word_that_is_no_command_is_one_helpful_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (folder / "mybot").mkdir()
    (folder / "startbot").touch()
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"lycomm: {said.format(lycomm())}\n")


# lycomm settings


def test_settings_prints_the_file_of_all_settings(folder: Path) -> None:
    done = run("settings", folder=folder, PYTHONIOENCODING="ascii")
    root = Path(__file__).parents[2]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (root / ".env.example").read_text("utf-8")
