from __future__ import annotations

import sys
from pathlib import Path

import pytest

from liteyuki_host._child.project import _adapters
from liteyuki_host._child.trouble import CannotRun, explain, missing_module, show_traceback


@pytest.mark.parametrize(
    ("module", "package", "install"),
    [
        ("nonebot.adapters.onebot.v11", None, "nonebot-adapter-onebot"),
        ("nonebot.adapters.onebot.v11", "my-own-package", "my-own-package"),
        ("nonebot_plugin_x.sub", None, "nonebot-plugin-x"),
    ],
)
def test_what_to_install_for_a_missing_module(module: str, package: str | None, install: str) -> None:
    words = missing_module(module, package)
    assert repr(module) in words
    assert f"`{sys.executable} -m pip install {install}`" in words


def test_a_syntax_error_names_file_and_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("x = 1\ndef broken(:\n", "plugins/mine.py", "exec")
    assert explain(caught.value).startswith("plugins/mine.py line 2: ")


def test_another_error_names_the_innermost_place_in_the_project(tmp_path: Path) -> None:
    script = tmp_path / "bot.py"
    code = compile("import json\ndef f():\n    json.loads('{')\nf()\n", str(script), "exec")
    with pytest.raises(ValueError, match="Expecting") as caught:
        exec(code, {})
    assert explain(caught.value, tmp_path).endswith("(bot.py line 3)")
    assert explain(caught.value, tmp_path / "elsewhere").startswith("JSONDecodeError: Expecting")
    assert not explain(caught.value, tmp_path / "elsewhere").endswith("line 3)")


def test_the_traceback_begins_with_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "bot.py"
    script.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile(script.read_bytes(), str(script), "exec"), {})
    show_traceback(caught.value, script)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["Traceback (most recent call last):", f'  File "{script}", line 1, in <module>']
    assert lines[-1] == "ZeroDivisionError: division by zero"


V11 = {"name": "OneBot V11", "module_name": "nonebot.adapters.onebot.v11"}


@pytest.mark.parametrize(
    ("declared", "adapters"),
    [
        ({"nonebot-adapter-onebot": [V11]}, [("nonebot-adapter-onebot", "nonebot.adapters.onebot.v11")]),
        ({"@local": [V11]}, [(None, "nonebot.adapters.onebot.v11")]),
        ([V11], [(None, "nonebot.adapters.onebot.v11")]),
        ([], []),
        ({}, []),
    ],
    ids=["table", "local", "list", "empty list", "empty table"],
)
def test_both_formats_of_declared_adapters(declared: object, adapters: list[tuple[str | None, str]]) -> None:
    assert list(_adapters({"adapters": declared})) == adapters


@pytest.mark.parametrize("adapter", ["nonebot.adapters.onebot.v11", {"name": "x"}])
def test_an_adapter_without_a_module_is_refused(adapter: object) -> None:
    with pytest.raises(CannotRun, match="has no module_name"):
        list(_adapters({"adapters": [adapter]}))
