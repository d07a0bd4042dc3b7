"""`.env.example` and the settings models say the same."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from liteyuki_host.settings import PLUGIN_SETTINGS, ProcessSettings, Settings, load_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".env.example").read_text("utf-8")
LINES = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", TEXT, re.MULTILINE))
OF_NONEBOT = {"DRIVER", "HOST", "PORT", "SUPERUSERS"}


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


@pytest.mark.parametrize("name", sorted(LINES))
def test_each_is_explained_in_both_languages_with_its_unit(name: str) -> None:
    before = TEXT[: TEXT.index(f"\n# {name}=")]
    explanation = before[before.rindex("\n\n") :]
    assert " / " in explanation, "English / 中文"
    assert re.search("[a-z]{4}", explanation)
    assert re.search("[\u4e00-\u9fff]", explanation)
    field = Settings.model_fields.get(name.removeprefix("LYCOMM_").lower())
    for unit, chinese in (("seconds", "秒"), ("bytes", "字节")):
        if field is not None and unit in (field.description or "").split():
            assert unit in explanation.lower()
            assert chinese in explanation


def test_the_keys_of_a_process_are_those_of_the_model() -> None:
    shown = re.findall(r"^#   ([a-z_]+) = (\S+)", TEXT, re.MULTILINE)
    assert [name for name, _ in shown] == list(ProcessSettings.model_fields)
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert {name: float(value) for name, value in shown if name in defaults} == {
        name: defaults[name] for name in ProcessSettings.model_fields if name in defaults
    }


@pytest.mark.parametrize("model", [Settings, ProcessSettings])
def test_every_field_is_documented_and_every_time_and_size_has_its_unit(
    model: type[Settings | ProcessSettings],
) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        if isinstance(field.default, float) or name.endswith(("_seconds", "_delay")):
            assert "seconds" in field.description, name
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            assert "bytes" in field.description, name
