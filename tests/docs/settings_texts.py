"""The tables of settings in both READMEs, and ``.env.example``, made from the fields of the models.

The English text of a setting is the description of its field, the Chinese one stands in docs/settings.zh-CN.toml.
Defaults, units and bounds are taken from the field. ``python -m tests.docs.write`` writes the files, and
tests/docs/test_docs_facts.py compares them.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from liteyuki_host.settings import DAY, ProcessSettings, Settings, Supervision
from liteyuki_host.settings_values import GiB, KiB, MiB, Number, OneOf, Size
from tests.docs.pages import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WIDTH = 120  # columns of a line in .env.example

SECTIONS = {
    "channel_window": ("**Communication**", "**通信**"),
    "log_level": ("**Logs**", "**日志**"),
    "ready_timeout": ("**Start and stop**", "**启动和停止**"),
    "restart": ("**Restarts**", "**重启**"),
    "loop_timeout": ("**Watchdog** (replaces a bot that hangs)", "**看门狗** (替换卡住的机器人)"),
    "memory_limit": ("**Limits**", "**限制**"),
    "reload": ("**Reload**", "**重新加载**"),
    "after": ("**Order**", "**顺序**"),
}
"""The heading above a setting, in English and Chinese: that one and those after it belong together."""

UNITS = {"": "", "seconds": "秒", "bytes": "字节", "files": "个", "restarts": "次"}

CHINESE = "docs/settings.zh-CN.toml"

HEADINGS = {
    "plugin": "# The plugin nonebot_plugin_lycomm, in the bot / 插件 nonebot_plugin_lycomm, 在机器人进程中",
    "host": "# The host / 宿主",
    "supervision": "# All processes; each of these may also be set for one process, see the end of this file\n"
    "# 所有进程; 下列各项也可以只对一个进程设置, 见本文件末尾",
    "process": "# Several bots, or settings of one bot, in pyproject.toml / 多个机器人, 或只对一个机器人的设置, "
    "写在 pyproject.toml 中:",
}
"""The parts of ``.env.example`` that are generated; what stands above the first heading is not."""

EXAMPLES = {"entry": '"bot.py"', "python": '"python3"', "env": "{ PORT = 8081 }"}
"""What ``.env.example`` shows for the keys of one process whose default is nothing."""


@dataclass(frozen=True)
class Setting:
    """One field of a model, with its texts."""

    group: str
    """``plugin``, ``host``, ``supervision`` or ``process``."""
    name: str
    """The name of the field."""
    field: FieldInfo
    chinese: str

    @property
    def english(self) -> str:
        return self.field.description or ""

    @property
    def shown_name(self) -> str:
        """The name in a table and in ``.env``."""
        if self.group == "process":
            return self.name
        return self.name.upper() if self.group == "plugin" else f"LYCOMM_{self.name.upper()}"

    @property
    def default(self) -> str:
        """The default as it is written: in ``.env``, or, of a key of one process, in TOML."""
        value = self.field.default
        if value is None:
            return ""
        if isinstance(value, Enum):
            return str(value)
        if isinstance(self.check, Size):
            return in_units(value).replace(" ", "")
        if isinstance(value, float):
            return f"{value:g}"
        if isinstance(value, str) and self.group != "process":
            return value
        return json.dumps(value, ensure_ascii=False)

    @property
    def check(self) -> Number | Size | OneOf | None:
        """What is checked of a number or a word."""
        checks = [each.func for each in self.field.metadata if isinstance(each, BeforeValidator)]
        return next((check for check in checks if isinstance(check, Number | Size | OneOf)), None)

    @property
    def unit(self) -> str:
        """The unit of a number, otherwise empty."""
        return "" if self.check is None or isinstance(self.check, OneOf) else self.check.unit

    def bounds(self, *, chinese: bool) -> str:
        """Unit and bounds of a number, ``(seconds, at least 1)``, or the words that the description leaves out."""
        check = self.check
        if isinstance(check, OneOf):
            unexplained = [str(word) for word in check.words if f"`{word}`" not in self.english]
            return f" ({', '.join(unexplained)})" if unexplained else ""
        if check is None:
            return ""
        parts = [UNITS[check.unit] if chinese else check.unit]
        low, high = (
            (in_units(check.low), in_units(check.high))
            if isinstance(check, Size)
            else (f"{check.low:g}", f"{check.high:.0f}")
        )
        if isinstance(check, Number) and check.high == DAY:  # the usual bound, named at the head of the file
            parts += [f"至少 {low}" if chinese else f"at least {low}"] if check.low else []
        else:
            parts.append(f"{low} 到 {high}" if chinese else f"{low} to {high}")
        return f" ({', '.join(parts)})"


def in_units(size: int) -> str:
    """*size* bytes in the largest unit of which it is a whole number: ``4 MiB``."""
    for suffix, unit in (("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if size and size % unit == 0:
            return f"{size // unit} {suffix}"
    return str(size)


def all_settings() -> list[Setting]:
    """All settings in the order of their models."""
    chinese = _chinese()
    return [
        Setting(group, name, field, chinese.get(group, {}).get(name, ""))
        for group, fields in _fields().items()
        for name, field in fields.items()
    ]


def problems_of_texts() -> list[str]:
    """The settings without a text in one of the languages, and the texts without a setting: one line each."""
    lines = [f"{each.name}: its field has no description" for each in all_settings() if not each.english]
    fields, chinese = _fields(), _chinese()
    for group in HEADINGS:
        there = chinese.get(group, {}).keys()
        lines += [f"{name}: no line in [{group}] of {CHINESE}" for name in fields[group] if name not in there]
        lines += [f"{name} in [{group}] of {CHINESE}: no such setting" for name in there if name not in fields[group]]
    return lines


def _fields() -> dict[str, Mapping[str, FieldInfo]]:
    # By its file: NoneBot refuses to load a plugin that was imported before, and other tests want to load it.
    plugin = runpy.run_path(str(ROOT / "nonebot_plugin_lycomm" / "config.py"))["Config"]
    of_all = Supervision.model_fields
    return {
        "plugin": plugin.model_fields,
        "host": {name: field for name, field in Settings.model_fields.items() if name not in of_all},
        "supervision": of_all,
        "process": {name: field for name, field in ProcessSettings.model_fields.items() if name not in of_all},
    }


def _chinese() -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = tomllib.loads((ROOT / CHINESE).read_text("utf-8"))
    return texts


def with_tables(text: str, *, chinese: bool) -> str:
    """A README with the tables between its markers ``<!-- settings: GROUP -->`` and ``<!-- end of settings -->``."""
    for group in HEADINGS:
        rows = []
        for setting in all_settings():
            if setting.group == group:
                if setting.name in SECTIONS:
                    rows.append(f"| {SECTIONS[setting.name][chinese]} | | | | |")
                rows.append(_row(setting, chinese))
        key = "key" if group == "process" else "setting"
        titles = (
            ("键" if group == "process" else "配置项", "必填", "默认值", "单位", "说明")
            if chinese
            else (key, "required", "default", "unit", "meaning")
        )
        table = "\n".join([f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}", *rows])
        text = _between(text, f"<!-- settings: {group} -->\n\n", "\n\n<!-- end of settings -->", table)
    return text


def _between(text: str, start: str, end: str, new: str) -> str:
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the README has no place for a table: {start.strip()}, an empty line, {end.strip()}")
    return head + found + new + closed + tail


def _row(setting: Setting, chinese: bool) -> str:
    cells = [
        f"`{setting.shown_name}`",
        "否" if chinese else "no",
        f"`{setting.default}`" if setting.default else "",
        UNITS[setting.unit] if chinese else setting.unit,
        (setting.chinese if chinese else setting.english).replace("|", "\\|"),
    ]
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def with_settings(text: str) -> str:
    """``.env.example`` with everything from the plugin's heading on made anew."""
    parts = [text[: text.index(HEADINGS["plugin"])].rstrip("\n")]
    for group, heading in HEADINGS.items():
        lines = [heading, "#", "#   [tool.lycomm.processes.web]"] if group == "process" else [heading]
        for setting in all_settings():
            if setting.group != group:
                continue
            if group == "process":
                lines += _commented(setting, "#   # ")
                lines.append(f"#   {setting.name} = {EXAMPLES.get(setting.name, setting.default)}")
                continue
            if setting.name in SECTIONS:
                lines += ["", f"# {' / '.join(_plain(name) for name in SECTIONS[setting.name])}"]
            lines += ["", *_commented(setting, "# "), f"# {setting.shown_name}={setting.default}"]
        if group == "process":
            lines.append('#   # And every setting of "All processes" above / 以及上面 "所有进程" 的各项')
            lines.append('#   memory_limit = "512MiB"')
        parts.append("\n".join(lines))
    return "\n\n\n".join(parts) + "\n"


def _commented(setting: Setting, prefix: str) -> list[str]:
    """What a setting means, in both languages: on one line where there is room, else each on lines of its own."""
    english, chinese = setting.english, setting.chinese
    if setting.group != "process":  # other settings by the names that they have in this file
        english, chinese = (re.sub(r"`(\w+)`", _as_variable, text) for text in (english, chinese))
    english = _plain(english) + setting.bounds(chinese=False)
    chinese = _plain(chinese) + setting.bounds(chinese=True)
    english = english[0].upper() + english[1:]
    both = f"{prefix}{english} / {chinese}"
    if len(both) <= WIDTH:
        return [both]
    wrap = textwrap.TextWrapper(WIDTH - len(prefix), break_on_hyphens=False, break_long_words=False).wrap
    return [prefix + line for text in (english, f"/ {chinese}") for line in wrap(text)]


def _as_variable(code: re.Match[str]) -> str:
    return f"LYCOMM_{code[1].upper()}" if code[1] in Settings.model_fields else code[0]


def _plain(text: str) -> str:
    """*text* without the marks of Markdown."""
    return text.replace("**", "").replace("`", "")


def generated(name: str) -> str:
    """The file *name* of `GENERATED` as it has to be, from the one that is there."""
    text = (ROOT / name).read_text("utf-8")
    return GENERATED[name](text)


GENERATED: dict[str, Callable[[str], str]] = {
    "README.md": partial(with_tables, chinese=False),
    "README.zh-CN.md": partial(with_tables, chinese=True),
    ".env.example": with_settings,
}
"""Every file with generated parts, and how they are made anew."""
