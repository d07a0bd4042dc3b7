"""`.env.example` and the settings models say the same."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterable
from pathlib import Path

import pytest

from liteyuki_host.settings import (
    DAY,
    LOG_LEVELS,
    PLUGIN_SETTINGS,
    ProcessSettings,
    Settings,
    Supervision,
    load_settings,
)
from liteyuki_host.settings_values import GiB, KiB, MiB, Size
from liteyuki_host.supervisor.spec import Reload, Restart, Strategy
from tests.settings.fields import check_of, unit_of

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


def explanation_of(name: str) -> str:
    before = TEXT[: TEXT.index(f"\n# {name}=")]
    return before[before.rindex("\n\n") :]


@pytest.mark.parametrize("name", sorted(LINES))
def test_each_is_explained_in_both_languages(name: str) -> None:
    explanation = explanation_of(name)
    assert " / " in explanation, "English / 中文"
    assert re.search("[a-z]{4}", explanation)
    assert re.search("[\u4e00-\u9fff]", explanation)


NUMBERS = {name: check for name, field in Settings.model_fields.items() if (check := check_of(field))}
CHINESE = {"seconds": "秒", "bytes": "字节", "restarts": "次", "files": "个"}


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_is_explained_with_its_unit_and_its_bounds(name: str) -> None:
    check = NUMBERS[name]
    description = Settings.model_fields[name].description or ""
    english, chinese = re.split(r"\s/ ", explanation_of(f"LYCOMM_{name.upper()}"))
    assert check.unit in english.lower()
    assert CHINESE[check.unit] in chinese
    assert check.unit in description.split()
    if isinstance(check, Size):
        bounds = [in_units(check.low), in_units(check.high)]
    else:  # the head of the file has the usual ones
        bounds = [str(bound) for bound in (check.low, check.high) if bound not in (0, DAY)]
    if check.off:
        bounds.append("0")
    for text in (english, chinese, description):
        numbers = re.findall(r"[\d.]*\d(?: [KMG]iB)?", text)
        assert [bound for bound in bounds if bound not in numbers] == [], text


def in_units(size: int) -> str:
    unit, suffix = next((unit, name) for unit, name in ((GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")) if size % unit == 0)
    return f"{size // unit} {suffix}"


@pytest.mark.parametrize(
    ("name", "words"),
    [("restart", Restart), ("reload", Reload), ("strategy", Strategy), ("log_level", LOG_LEVELS)],
)
def test_each_word_that_may_be_written_is_explained(name: str, words: Iterable[str]) -> None:
    for text in (explanation_of(f"LYCOMM_{name.upper()}"), Settings.model_fields[name].description or ""):
        assert [word for word in words if not re.search(rf"\b{word}\b", text)] == []


def test_the_table_of_a_process_is_one_that_can_be_copied(tmp_path: Path) -> None:
    lines = TEXT[TEXT.index("#   [tool.lycomm.processes.web]") :].splitlines()
    (tmp_path / "pyproject.toml").write_text("\n".join(line.removeprefix("#") for line in lines), "utf-8")
    (process,) = load_settings({}, folder=tmp_path, environ={}).processes.values()
    only_here = ProcessSettings.model_fields.keys() - Supervision.model_fields
    assert only_here <= process.model_fields_set
    assert process.model_fields_set - only_here, "one example of the others"
    for line in lines[1:]:
        assert re.fullmatch(r"#   \w+ = .*? # .*[a-z]{4}.* / .*[\u4e00-\u9fff].*", line), line


@pytest.mark.parametrize("model", [Settings, ProcessSettings])
def test_every_field_is_documented(model: type[Settings | ProcessSettings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert bool(unit_of(field)) == (type(field.default) in (int, float)), name
