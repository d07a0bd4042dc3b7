"""Paths that the system refuses and values that no parser takes: each is one line that names the place."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from liteyuki_host import Host
from liteyuki_host.cli import main
from liteyuki_host.comm.errors import ProcessFailed, SettingsError
from liteyuki_host.paths import FILE_LIMIT, FileProblem, absolute, is_dir, is_file, read_text
from liteyuki_host.project import inspect_project, read_env_files
from liteyuki_host.settings import load_settings
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.wording import LINE_LIMIT, one_line, short_repr, shown

LONG_NAME = "a" * 300
LONG_PATH = "b/" * 3000
LOOP = "loop/x"
BEHIND_A_FILE = "file/x"
SURROGATE = "\udcff"
LINES = "two\nlines\u2028three"

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")

ODD = {
    "a long name": LONG_NAME,
    "a long path": LONG_PATH,
    "a circle of links": LOOP,
    "a file for a folder": BEHIND_A_FILE,
    "bytes that are no UTF-8": SURROGATE,
    "line breaks": LINES,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bot.py").write_text("import nonebot\nnonebot.run()\n")
    (tmp_path / "file").touch()
    with contextlib.suppress(OSError, NotImplementedError):  # not every Windows user may make links
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    code = main(["check", *arguments])
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert all(line.startswith("lycomm: ") and len(line) <= LINE_LIMIT + 20 for line in lines), lines
    return code, lines


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may enter everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# Paths in settings


@pytest.mark.parametrize("name", ODD)
def test_an_odd_project_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(ProcessFailed) as caught:
        inspect_project(ProcessSpec("web", folder / ODD[name]), host_main=None)
    line = str(caught.value)
    assert line.startswith("project folder ")
    assert line.endswith("correct project in [tool.lycomm.processes.web]")
    assert len(line.splitlines()) == 1
    assert len(line) < LINE_LIMIT


@pytest.mark.parametrize("name", ODD)
def test_an_odd_entry_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(ProcessFailed) as caught:
        inspect_project(ProcessSpec("web", folder, entry=ODD[name]), host_main=None)
    assert len(str(caught.value).splitlines()) == 1
    assert shown(ODD[name])[:100] in str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_interpreter_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(ProcessFailed, match=r"^interpreter .* does not exist or cannot be run: correct python in"):
        inspect_project(ProcessSpec("web", folder, python=str(folder / ODD[name])), host_main=None)


@pytest.mark.parametrize("name", [name for name in ODD if name not in ("bytes that are no UTF-8", "line breaks")])
@pytest.mark.parametrize(
    ("file", "text", "code", "words"),
    [
        ("pyproject.toml", "[tool.lycomm.processes.a]\nproject = '{}'", 1, "correct project in"),
        ("pyproject.toml", "[tool.lycomm.processes.a]\nentry = '{}'", 1, "{}"),
        ("pyproject.toml", "[tool.lycomm.processes.a]\npython = 'x/{}'", 1, "correct python in"),
        ("pyproject.toml", "[tool.lycomm]\nreload_dirs = ['{}']", 2, "reload_dirs in [tool.lycomm] of pyproject.toml"),
        (".env", "LYCOMM_RELOAD_DIRS={}", 2, "LYCOMM_RELOAD_DIRS in .env"),
    ],
    ids=["project", "entry", "python", "reload_dirs", "reload_dirs in .env"],
)
def test_check_survives_odd_paths(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, file: str, text: str, code: int, words: str
) -> None:
    (folder / file).write_text(text.format(ODD[name]))
    got, lines = check(capsys)
    assert (got, len(lines)) == (code, 1)
    assert words.format(ODD[name][:100]) in lines[0]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_folder_of_the_host_is_one_line(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    code, [line] = check(capsys, "--project", ODD[name])
    assert code == 2
    assert shown(ODD[name])[:100] in line


@pytest.mark.parametrize("name", ODD)
def test_an_odd_script_on_the_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, name: str
) -> None:
    code, [line] = check(capsys, ODD[name])
    assert code == 2
    assert shown(ODD[name])[:100] in line


def test_a_host_in_an_odd_folder_is_a_settings_error(folder: Path) -> None:
    for name in (*ODD.values(), "null\0byte"):
        with pytest.raises(SettingsError):
            Host(name)


def test_an_environment_with_a_long_name_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_text(f"ENVIRONMENT={LONG_NAME}\n")
    code, [line] = check(capsys)
    assert code == 2
    assert ".env.aaa" in line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_folder_that_may_not_be_entered_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = folder / "closed"
    (closed / "bot").mkdir(parents=True)
    (closed / "bot" / "bot.py").touch()
    closed.chmod(0)
    for parent in (folder, *folder.parents):
        if parent.name.startswith(("test_", "popen-", "pytest-")):  # pytest's own folders, which are for one user
            parent.chmod(0o755)
    texts = {
        "project = 'closed'": "may not be entered by this user",
        "project = 'closed/bot'": "Permission denied",
        "entry = 'closed/bot.py'": "Permission denied",
        "reload_dirs = ['closed/bot']": "Permission denied",
    }
    try:
        for text, words in texts.items():
            (folder / "pyproject.toml").write_text(f"[tool.lycomm.processes.a]\n{text}")
            with as_somebody_else():
                code, [line] = check(capsys)
            assert code in (1, 2)
            assert words in line
        with as_somebody_else():
            code, [line] = check(capsys, "--project", "closed/bot")
        assert code == 2
    finally:
        closed.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that somebody is in")
def test_a_current_folder_that_is_gone_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, [line] = check(capsys)
    assert (code, line) == (
        2,
        "lycomm: the current folder cannot be used: No such file or directory; change to another one",
    )
    code, [line] = check(capsys, "--project", str(folder), "bot.py")
    assert (code, line.startswith("lycomm: the current folder cannot be used")) == (2, True)
    with pytest.raises(SettingsError, match="the current folder"):
        Host()
    assert load_settings({}, folder=folder, environ={}).folder == folder


# Values


@pytest.mark.parametrize(
    "text",
    [
        f"[tool.other]\nx = {'9' * 5000}",
        f"x = {'[' * 100_000}",
        "x = '\udcff'",
        f"[{'a.' * 5000}b]\n[{'a.' * 5000}b]",
        "a\0b = 1",
        "x = 99999-99-99",
    ],
    ids=["digits", "nesting", "surrogate", "a long key twice", "null byte", "date"],
)
def test_toml_that_no_parser_takes_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (folder / "pyproject.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, [line] = check(capsys)
    assert code == 2
    assert line.startswith(f"lycomm: {folder / 'pyproject.toml'} ")


@pytest.mark.parametrize(
    "text", ["stop_timeout = 0x{}", "processes.a.env.N = 0x{}", "log_level = 0x{}", "processes = 0x{}", "after = 0x{}"]
)
def test_a_number_that_cannot_be_shown_is_told_by_its_type(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.lycomm]\n{text.format('f' * 5000)}")
    code, [line] = check(capsys)
    assert code == 2
    assert "<int>" in line
    (folder / "pyproject.toml").write_text(f"[tool]\nlycomm = 0x{'f' * 5000}")
    assert check(capsys) == (2, ["lycomm: lycomm in [tool] of pyproject.toml: <int> is not a table"])


def test_more_problems_than_anybody_reads_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".env").write_text("".join(f"LYCOMM_WRONG_{n}=1\n" for n in range(200)))
    code, lines = check(capsys)
    assert (code, len(lines)) == (2, 51)
    assert lines[-1] == "lycomm: and 150 more problems of this kind"


def test_a_file_without_end_is_not_read_to_its_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "pyproject.toml").open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    code, [line] = check(capsys)
    assert code == 2
    assert line.endswith("is larger than 16 MiB: it cannot be what its name says")


@pytest.mark.parametrize(
    "source", [b"# coding: rot13\n", b"# coding: no\0such\n", b"# coding: base64\n", b"(" * 5000, b"-" * 100_000 + b"1"]
)
def test_a_script_that_no_parser_takes_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], source: bytes
) -> None:
    (folder / "bot.py").write_bytes(source)
    code, [line] = check(capsys)
    assert code == 1
    assert f"{folder / 'bot.py'}" in line


# What stands where a file is expected


def put(path: Path, kind: str) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)  # the current folder's: a socket's path has at most 107 bytes
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)


@posix_only
@pytest.mark.parametrize("file", ["pyproject.toml", ".env", ".env.prod", ".env.dev"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "folder", "/dev/zero", "/dev/tty"])
def test_what_is_no_file_is_one_line_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str, kind: str
) -> None:
    if file == ".env.dev":
        monkeypatch.setenv("ENVIRONMENT", "dev")
    put(folder / file, kind)
    if kind == "folder" and file != "pyproject.toml":  # a virtual environment, mostly; NoneBot takes no notice of it
        assert read_env_files(folder, os.environ) == [(".env", {}), (file if file != ".env" else ".env.prod", {})]
        return
    code, [line] = check(capsys)
    assert code == 2
    words = {"FIFO": "a FIFO (named pipe)", "socket": "a socket", "folder": "a folder"}.get(kind, "a device")
    assert line == f"lycomm: {folder / file} cannot be read: it is {words}, not a file; put a file in its place"


@posix_only
@pytest.mark.parametrize("file", ["pyproject.toml", ".env", ".env.prod"])
def test_the_null_device_is_an_empty_file(folder: Path, file: str) -> None:
    put(folder / file, os.devnull)
    assert load_settings({}, folder=folder, environ={}).processes == {}
    assert inspect_project(ProcessSpec("web", folder), host_main=None, environ={}).kind == "script"
    assert read_text(folder / file) == ""


@posix_only
@pytest.mark.parametrize("kind", ["FIFO", "socket", "folder", "/dev/zero"])
def test_reading_waits_for_nobody(folder: Path, kind: str) -> None:
    """Also where it is put there after the file was looked at."""
    put(folder / "odd", kind)
    with pytest.raises(FileProblem, match="cannot be read"):
        read_text(folder / "odd")


@posix_only
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_an_entry_that_is_no_file_is_one_line(folder: Path, kind: str) -> None:
    put(folder / "main.py", kind)
    with pytest.raises(ProcessFailed, match=r"^entry main.py in .* is no file: correct it in"):
        inspect_project(ProcessSpec("web", folder, entry="main.py"), host_main=None)


# The parts


def test_what_is_not_there_is_no_problem(folder: Path) -> None:
    for path in (folder / "x", folder / "file" / "x"):
        assert not is_file(path)
        assert not is_dir(path)
    assert is_file(folder / "file")
    assert is_dir(folder)
    assert absolute(Path("x")) == folder / "x"
    with pytest.raises(FileProblem, match="null"):
        is_file(Path("a\0b"))
    with pytest.raises(FileProblem, match="cannot be read"):
        read_text(folder)


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    assert one_line("plain 机器人 é🤖") == "plain 机器人 é🤖"
    assert one_line("a\nb\x1b[31mc\u2028d\udcff\x85") == r"a\nb\x1b[31mc\u2028d\udcff\x85"
    long = one_line("x" * 10_000_000)
    assert len(long) == LINE_LIMIT - 1
    assert " ... " in long

    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    assert short_repr(10**5000) == "<int>"
    assert "Bad" in short_repr(Bad())
