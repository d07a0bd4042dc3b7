"""`.env.example`, which is generated from the settings, is one that users can copy and understand."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from liteyuki_host.settings import PLUGIN_SETTINGS, ProcessSettings, Settings, Supervision, load_settings
from liteyuki_host.settings_values import OneOf
from liteyuki_host.supervisor.spec import Reload
from tests.docs.settings_texts import Setting, all_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".env.example").read_text("utf-8")
LINES = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", TEXT, re.MULTILINE))
OF_NONEBOT = {"DRIVER", "HOST", "PORT", "SUPERUSERS"}
HAN = "[\u4e00-\u9fff]"


def test_it_lists_every_setting_and_no_other() -> None:
    expected = {f"LYCOMM_{name.upper()}" for name in Settings.model_fields}
    assert set(LINES) == OF_NONEBOT | {name.upper() for name in PLUGIN_SETTINGS} | expected


def test_with_every_line_uncommented_everything_is_at_its_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(re.sub(r"^# (?=[A-Z_]+=)", "", TEXT, flags=re.MULTILINE), "utf-8")
    assert load_settings({}, folder=tmp_path, environ={}).model_dump() == Settings().model_dump()


def test_the_defaults_of_nonebot_and_of_the_plugin_are_theirs() -> None:
    from nonebot.config import Config

    nonebot = Config(_env_file=None)
    assert LINES["DRIVER"] == nonebot.driver
    assert LINES["HOST"] == str(nonebot.host)
    assert LINES["PORT"] == str(nonebot.port)
    assert set(json.loads(LINES["SUPERUSERS"])) == nonebot.superusers

    # By its file: NoneBot refuses to load a plugin that was imported before, and other tests want to load it.
    plugin = runpy.run_path(str(ROOT / "nonebot_plugin_lycomm" / "config.py"))["Config"]()
    shown = {name: json.loads(LINES[name.upper()]) for name in PLUGIN_SETTINGS}
    assert shown == plugin.model_dump()


def explanation_of(name: str) -> list[str]:
    """The comment above a setting in English and in Chinese, each on one line."""
    before = TEXT[: TEXT.index(f"\n# {name}=")]
    comment = re.sub(r"\n#", "", before[before.rindex("\n\n") :]).strip("# \n")
    return re.split(r"\s/ ", comment)


@pytest.mark.parametrize("name", sorted(LINES))
def test_each_is_explained_in_both_languages(name: str) -> None:
    english, chinese = explanation_of(name)
    assert re.search("[a-z]{4}", english)
    assert not re.search(HAN, english)
    assert re.search(HAN, chinese)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("MEMORY_LIMIT", "32 MiB to 1024 GiB"),  # a size
        ("MAX_RESTARTS", "0 to 1000"),  # a whole number
        ("READY_TIMEOUT", "at least 1"),  # seconds, at most a day as nearly all
        ("RESTART_WINDOW", "at least 0.1"),
        ("MAX_AGE", "60 to 31536000"),
        ("LOG_LEVEL", "TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR, CRITICAL"),  # words
    ],
)
def test_the_bounds_of_a_setting_are_shown(name: str, bounds: str) -> None:
    english, chinese = explanation_of(f"LYCOMM_{name}")
    assert re.search(rf"[( ]{bounds}\)$", english)
    assert re.search(rf"[( ]{bounds.replace('at least', '至少').replace(' to ', ' 到 ')}\)$", chinese)


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_what_turns_a_setting_off_is_explained(setting: Setting) -> None:
    if getattr(setting.check, "off", False):
        for text in (setting.english, setting.chinese):
            assert "`0`" in text


@pytest.mark.parametrize("name", ["restart", "reload", "strategy", "on_failed"])
def test_each_word_that_may_be_written_is_explained(name: str) -> None:
    setting = next(each for each in all_settings() if each.name == name)
    assert isinstance(setting.check, OneOf) or name == "reload"
    words = Reload if name == "reload" else getattr(setting.check, "words", ())
    for text in (setting.english, setting.chinese):
        assert [word for word in words if f"`{word}`" not in text] == []


def test_the_table_of_a_process_is_one_that_can_be_copied(tmp_path: Path) -> None:
    lines = TEXT[TEXT.index("#   [tool.lycomm.processes.web]") :].splitlines()
    (tmp_path / "pyproject.toml").write_text("\n".join(line.removeprefix("#") for line in lines), "utf-8")
    (process,) = load_settings({}, folder=tmp_path, environ={}).processes.values()
    only_here = ProcessSettings.model_fields.keys() - Supervision.model_fields
    assert only_here <= process.model_fields_set
    assert process.model_fields_set - only_here, "one example of the others"
    for line, above in zip(lines[2:], lines[1:], strict=False):
        assert line.startswith("#   # ") or re.search(r"[a-z]{4}|[\u4e00-\u9fff]", above), f"not explained: {line}"
