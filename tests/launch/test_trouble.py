from __future__ import annotations

import os
from pathlib import Path

import pytest

from liteyuki_host._child.run_project import declared_adapters
from liteyuki_host._child.trouble import MAX_WORDS, CannotRun, explain, locate, show_traceback


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


def test_an_error_of_many_lines_becomes_one(tmp_path: Path) -> None:
    assert explain(ValueError("two\n  lines"), tmp_path) == "ValueError: two lines"
    assert len(explain(ValueError("x" * 9999), tmp_path)) == MAX_WORDS


def test_who_finds_no_keyboard_is_told_of_the_setting(tmp_path: Path) -> None:
    assert "set terminal = true" in explain(EOFError(), tmp_path)


def test_a_module_of_the_project_is_nobodys_package(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    with pytest.raises(ModuleNotFoundError) as caught:
        exec("import plugins.weather_x")
    for words in (explain(caught.value, tmp_path), locate(caught.value, tmp_path)):
        assert "in this project" in words
        assert "pip install" not in words


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
    assert list(declared_adapters({"adapters": declared})) == adapters


@pytest.mark.parametrize("adapter", ["nonebot.adapters.onebot.v11", {"name": "x"}])
def test_an_adapter_without_a_module_is_refused(adapter: object) -> None:
    with pytest.raises(CannotRun, match="has no module_name"):
        list(declared_adapters({"adapters": [adapter]}))


def error_in(file: Path, code: str) -> BaseException:
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
    try:
        exec(compile(code, str(file), "exec"), {})
    except BaseException as exc:
        return exc
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("\nx = (", "mine/x.py line 2: SyntaxError: '(' was never closed"),
        ("import json\njson.loads('{')", "mine/x.py line 2: JSONDecodeError: Expecting property name"),
        ("raise KeyError", "mine/x.py line 1: KeyError"),
        ("import mine.gone", "mine/x.py line 1: there is no module 'mine.gone' in this project"),
        ("\nimport gone_x", "mine/x.py line 2: module 'gone_x' is not installed for this bot"),
        ("raise ValueError('two\\n  lines')", "mine/x.py line 1: ValueError: two lines"),
        ("eval('1 +')", "mine/x.py line 1: SyntaxError: invalid syntax (<string> line 1)"),
    ],
)
def test_the_place_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, line: str) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    monkeypatch.syspath_prepend(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    (link / "mine").mkdir()
    (link / "mine" / "__init__.py").touch()
    exc = error_in(link / "mine" / "x.py", code)
    for folder in (link, tmp_path / "real"):
        assert locate(exc, folder).startswith(line.replace("/", os.sep))


def test_an_error_elsewhere_begins_with_what_is_known(tmp_path: Path) -> None:
    exc = error_in(tmp_path / "site-packages" / "x.py", "1 / 0")
    assert locate(exc, tmp_path, "plugin x") == "plugin x: ZeroDivisionError: division by zero"
    assert locate(exc, tmp_path) == "ZeroDivisionError: division by zero"


def test_a_line_has_an_end(tmp_path: Path) -> None:
    words = locate(ValueError("x" * 9999), tmp_path)
    assert len(words) == MAX_WORDS
    assert words.endswith(" ...")
