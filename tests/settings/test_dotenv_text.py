"""Dotenv files that NoneBot would read for minutes, or as nothing at all: each is refused in one line, and at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from liteyuki_host.cli import main
from liteyuki_host.comm.errors import ProcessFailed, SettingsError
from liteyuki_host.dotenv_text import MAX_CHARACTERS, MAX_LINES, variables
from liteyuki_host.paths import FileProblem, read_text
from liteyuki_host.project import inspect_project, read_env_files
from liteyuki_host.settings import load_settings
from liteyuki_host.supervisor.spec import ProcessSpec

DOUBLING = "A0=xxxxxxxx\n" + "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(40))
QUADRATIC = {
    "many lines": ("".join(f"A{n}=x\n" for n in range(20_000)), "has more than 2000 lines, which NoneBot would"),
    "many comments": ("#\n" * 100_000, "has more than 2000 lines"),
    "many lines of an old Mac": ("A=1\r" * 20_000, "has more than 2000 lines"),
    "a long file": (f"A='{'x' * MAX_CHARACTERS}'\n", "has more than 256 KiB: keep only settings in it"),
    "a value that doubles": (DOUBLING, "line 18: A17 becomes too long when its ${...} are filled in"),
    "a value that squares": (f"A='{'x' * 100_000}'\nB={'${A}' * 60_000}", "has more than 256 KiB"),
    "one long value, often": (f"A='{'x' * 100_000}'\nB={'${A}' * 20}", "line 2: B becomes too long"),
    "long values in many lines": (f"A='{'x' * 1000}'\n" + "B=${A}\n" * 1900, "becomes too long"),
    "a long default, often": ("B=${NO:-" + "x" * 1000 + "}\n" + "C=${B}${B}\n" * 1000, "becomes too long"),
    "references that are not closed": (f"\nA='{'${a' * 10_000}'\n", "line 2: A has too many ${...} in it, which"),
    "references with a colon": (f"A='{'${' * 20_000}:}}'\n", "line 1: A has too many ${...} in it"),
    "blanks": (f"B=1\nA=b{' ' * 100_000}x\n", "line 2 has more than 1000 blanks in a row, which NoneBot would take"),
    "tabs": (f"A=b{chr(9) * 100_000}x\n", "line 1 has more than 1000 blanks in a row"),
    "blanks of other scripts": (f"A=b{chr(0x3000) * 100_000}x\n", "line 1 has more than 1000 blanks in a row"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.nonebot]\n")
    return tmp_path


@pytest.mark.parametrize("name", [".env", ".env.prod"])
@pytest.mark.parametrize("kind", QUADRATIC)
def test_a_file_that_takes_too_long_is_refused_at_once(
    folder: Path, kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = QUADRATIC[kind]
    (folder / name).write_bytes(text.encode())
    before = time.process_time()
    with pytest.raises(SettingsError) as wrong:
        load_settings({}, folder=folder, environ={})
    with pytest.raises(ProcessFailed) as failed:
        inspect_project(ProcessSpec("web", folder), host_main=None, environ={})
    assert main(["check", "--project", str(folder)]) == 2
    assert time.process_time() - before < 5
    [line] = str(wrong.value).splitlines()
    assert line == str(failed.value)
    assert line.startswith(f"{folder / name} ")
    assert words in line
    assert capsys.readouterr().err.splitlines() == [f"lycomm: {line}"]


def test_the_project_of_a_process_is_refused_before_its_interpreter_is_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bot").mkdir()
    (folder / "pyproject.toml").write_text("[tool.lycomm.processes.web]\nproject = 'bot'\n")
    (folder / "bot" / "pyproject.toml").write_text("[tool.nonebot]\n")
    (folder / "bot" / ".env").write_text(DOUBLING)
    assert main(["check", "--project", str(folder)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lycomm: web: {folder / 'bot' / '.env'} line 18: A17 becomes too long")


def test_what_the_environment_fills_in_counts_too() -> None:
    with pytest.raises(FileProblem, match="line 1: A becomes too long"):
        variables("A=" + "${BIG}" * 20, Path(".env"), {"BIG": "x" * 100_000})


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"A{n}=x{n}\n" for n in range(MAX_LINES)),
        f"A='{'x' * (MAX_CHARACTERS - 10)}'\n",
        "A=1\r\n\r\n" * (MAX_LINES // 2),
        "A=xxxxxxxxxxxxxxxx\n" + "".join(f"A{n}=${{A}}-${{OS}}\n" for n in range(MAX_LINES - 1)),
        f"A={' ' * 500}x{' ' * 500}y # z\n",
        "A=${B}${B:-x}${\n",
    ],
    ids=["lines", "characters", "CRLF", "references", "blanks", "an open reference"],
)
def test_what_is_within_the_bounds_is_read_as_nonebot_reads_it(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dotenv import dotenv_values

    monkeypatch.setenv("OS", "os")
    path = tmp_path / ".env"
    path.write_bytes(text.encode())
    expected = dotenv_values(path, encoding="utf-8")
    assert variables(text, path, os.environ) == {key: value or "" for key, value in expected.items()}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-16"])
@pytest.mark.parametrize("name", [".env", ".env.dev", "pyproject.toml"])
def test_utf_16_is_not_taken_for_a_file_without_settings(
    folder: Path, encoding: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "[tool.nonebot]\n" if name.endswith("toml") else "DRIVER=~none\nSUPERUSERS=[\n"
    (folder / name).write_bytes(text.encode(encoding))
    environ: Mapping[str, str] = {"ENVIRONMENT": "dev"}
    with pytest.raises(SettingsError) as wrong:
        load_settings({}, folder=folder, environ=environ)
    [line] = str(wrong.value).splitlines()
    assert line == (
        f"{folder / name} line 1 has a null byte, as text in UTF-16 has: save it as UTF-8 and remove what is left"
    )
    with pytest.raises(ProcessFailed, match="as text in UTF-16"):
        inspect_project(ProcessSpec("web", folder), host_main=None, environ=environ)
    if name == ".env":
        assert main(["check", "--project", str(folder)]) == 2
        assert capsys.readouterr().err == f"lycomm: {line}\n"


def test_a_null_byte_anywhere_is_told_with_its_line(folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=1\nB=x\0y\n")
    with pytest.raises(FileProblem, match=r"\.env line 2 has a null byte"):
        read_env_files(folder, {})
    (folder / ".env").write_bytes("A=机器人\n".encode())
    assert read_text(folder / ".env") == "A=机器人\n"
