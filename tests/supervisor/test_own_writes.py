"""What a process says it has written, with real processes: whatever way Python has of changing a file is seen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervisor_kit import DEADLINE

from liteyuki_host._child import writes
from liteyuki_host.supervisor import own_writes
from liteyuki_host.supervisor.own_writes import Evidence, OwnWrites, WriteRecord

HEAD = """
import os, pathlib, shutil, subprocess, sys, threading
from liteyuki_host._child.writes import record_writes
record_writes(os.environ)
assert "LYCOMM_WRITES" not in os.environ

def below(folder, act):
    if os.open not in os.supports_dir_fd:
        sys.exit(99)
    act(os.open(folder, os.O_RDONLY))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("old.py", "plugins/a.py", "made/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# 1\n")
    return tmp_path


class Writer:
    """A process that keeps a record, and what became of it."""

    def __init__(self, folder: Path, own: OwnWrites, *, serves: bool = False) -> None:
        self.record: WriteRecord = own.open(lambda moment: serves)
        self._folder = folder
        self._own = own
        self._began = time.monotonic()

    def run(self, code: str) -> None:
        environ = {**os.environ, **self.record.environment}
        command = [sys.executable, "-c", HEAD + code]
        done = subprocess.run(command, cwd=self._folder, env=environ, check=False, timeout=DEADLINE)
        if done.returncode == 99:
            pytest.skip("no paths relative to descriptors here")
        done.check_returncode()

    def evidence(self) -> Evidence:
        return self._own.evidence()

    def wrote(self, name: str) -> bool | None:
        return self.evidence().served_while_writing(self._folder / name, self._began, time.monotonic())

    def may_have_written(self, name: str) -> bool:
        return self._own.evidence().may_have_written(self._folder / name)


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    one = Writer(folder, OwnWrites(wanted=True))
    yield one
    one.record.finish()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("pathlib.Path('new.py').write_text('')", "new.py"),
        ("open('old.py', 'a').close()", "old.py"),
        ("open('old.py', 'r+b').close()", "old.py"),
        ("open(b'old.py', 'w').close()", "old.py"),
        ("os.close(os.open('.env', os.O_CREAT | os.O_WRONLY))", ".env"),
        ("os.chdir('plugins'); open('a.py', 'w').close()", "plugins/a.py"),
        ("os.replace('old.py', 'new.py')", "new.py"),
        ("os.replace('old.py', 'new.py')", "old.py"),
        ("os.unlink('old.py')", "old.py"),
        ("os.truncate('old.py', 0)", "old.py"),
        ("import sqlite3; sqlite3.connect('data.py').execute('create table a (b)')", "data.py"),
        ("os.link('old.py', 'new.py')", "new.py"),
        ("shutil.copy('old.py', 'new.py')", "new.py"),
        ("shutil.move('old.py', 'plugins/old.py')", "plugins/old.py"),
        ("shutil.rmtree('plugins')", "plugins/a.py"),
        ("os.rename('made', 'moved')", "moved/b.py"),
        ("os.rename('made', 'moved')", "made/b.py"),
        ("t = threading.Thread(target=pathlib.Path('new.py').touch); t.start(); t.join()", "new.py"),
        ("import atexit; atexit.register(pathlib.Path('new.py').touch)", "new.py"),
        ("sys.path.insert(0, ''); import made.b; pathlib.Path('pyproject.toml').touch()", "pyproject.toml"),
        ("below('plugins', lambda fd: os.open('a.py', os.O_WRONLY, dir_fd=fd))", "plugins/a.py"),
        ("below('plugins', lambda fd: os.open(b'../made/b.py', os.O_WRONLY, dir_fd=fd))", "made/b.py"),
        ("os.chdir('plugins'); below('../made', lambda fd: os.open('b.py', os.O_WRONLY, dir_fd=fd))", "made/b.py"),
        ("below('made', lambda fd: open('b.py', 'w', opener=lambda n, f: os.open(n, f, dir_fd=fd)))", "made/b.py"),
        ("below('plugins', lambda fd: os.unlink('a.py', dir_fd=fd))", "plugins/a.py"),
        ("below('plugins', lambda fd: os.rename('old.py', 'b.py', dst_dir_fd=fd))", "plugins/b.py"),
        ("below('plugins', lambda fd: os.rename('a.py', 'c.py', src_dir_fd=fd))", "plugins/a.py"),
        ("below('plugins', lambda fd: os.link('old.py', 'b.py', dst_dir_fd=fd))", "plugins/b.py"),
        ("below('plugins', lambda fd: os.symlink('old.py', 'b.py', dir_fd=fd))", "plugins/b.py"),
        ("below('made', lambda fd: os.rename('../plugins', 'moved', src_dir_fd=fd, dst_dir_fd=fd))", "made/moved/a.py"),
    ],
)
def test_each_way_to_change_a_file_is_seen(writer: Writer, code: str, name: str) -> None:
    writer.run(code)
    assert writer.wrote(name) is False
    assert not writer.may_have_written("other.py")


@pytest.mark.parametrize(
    "code",
    [
        "below('plugins', lambda fd: os.unlink('a.py', dir_fd=fd))",
        "below('plugins', lambda fd: os.rename('a.py', 'old.py', src_dir_fd=fd, dst_dir_fd=fd))",
        "shutil.rmtree('plugins')",
    ],
)
def test_a_file_of_that_name_in_the_current_folder_is_not_meant(writer: Writer, folder: Path, code: str) -> None:
    (folder / "a.py").touch()
    writer.run(code)
    assert writer.wrote("a.py") is None
    assert writer.wrote("old.py") is None
    assert not writer.may_have_written("a.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_fork_says_what_it_writes(writer: Writer) -> None:
    writer.run("pid = os.fork()\nif pid: os.waitpid(pid, 0)\nelse: pathlib.Path('new.py').touch(); os._exit(0)")
    assert writer.wrote("new.py") is False


@pytest.mark.parametrize(
    "code",
    [
        "open('old.py').read()",
        "pathlib.Path('data.json').write_text('')",
        "pathlib.Path('old.py.tmp').write_text('')",
        "pathlib.Path('a').touch(); os.replace('a', 'b'); below('.', lambda fd: os.rename('b', 'c', src_dir_fd=fd))",
        "sys.path.insert(0, ''); import made.b",
        "os.stat('old.py'); os.listdir('.')",
    ],
)
def test_what_is_no_change_of_code_is_no_write(writer: Writer, code: str) -> None:
    writer.run(code)
    assert not writer.record.keys
    assert writer.wrote("old.py") is None
    assert not writer.may_have_written("old.py")


def test_a_write_that_fails_fails_as_ever(writer: Writer) -> None:
    writer.run(
        "try: open('nowhere/new.py', 'w')\nexcept FileNotFoundError: pass\n"
        "try: open(object(), 'w')\nexcept TypeError: pass\n"
        "open(os.dup(1), 'w').close()\n"
    )
    assert writer.wrote("old.py") is None


@pytest.mark.parametrize("code", ["subprocess.run([sys.executable, '-c', ''])", "os.system('exit')"])
def test_a_program_may_have_written_anything(writer: Writer, code: str) -> None:
    writer.run(code)
    assert writer.wrote("old.py") is None
    assert writer.may_have_written("old.py")


def test_a_file_that_it_once_opened_it_may_have_written_later(writer: Writer) -> None:
    writer.run("open('old.py', 'w').close()")
    evidence = writer._own.evidence()
    later = time.monotonic() + 1
    assert evidence.served_while_writing(writer._folder / "old.py", later, later) is None
    assert evidence.may_have_written(writer._folder / "old.py")
    assert not evidence.may_have_written(writer._folder / "plugins" / "a.py")


@pytest.mark.parametrize("last", [True, False])
def test_the_last_of_several_writers_counts(folder: Path, last: bool) -> None:
    own = OwnWrites(wanted=True)
    writers = [Writer(folder, own, serves=serves) for serves in (not last, last)]
    for one in writers:
        one.run("open('old.py', 'w').close()")
        one.record.finish()
    assert writers[0].wrote("old.py") is last


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")
def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """The host knows the project by the link to its current release, and a bot writes through a link to a file."""
    (folder / "current").symlink_to(folder)
    (folder / "linked.py").symlink_to("old.py")
    one = Writer(folder, OwnWrites(wanted=True))
    one.run("pathlib.Path('linked.py').write_text('# 2')")
    for name in ("linked.py", "old.py", "current/old.py", "current/linked.py"):
        assert one.wrote(name) is False
    one.record.finish()


def test_a_record_leaves_no_file(writer: Writer) -> None:
    path = Path(writer.record.environment[writes.VARIABLE])
    assert path.exists()
    writer.record.finish()
    assert not path.exists()


def test_a_record_is_bounded(writer: Writer) -> None:
    path = Path(writer.record.environment[writes.VARIABLE])
    many = writes.MAX_LINES + 50
    writer.run(f"for n in range({many}): os.truncate(1, 0) if False else sys.audit('os.remove', f'{{n}}.py', -1)")
    assert not path.exists()
    assert writer.may_have_written("old.py")
    assert len(writer.record.keys) == writes.MAX_LINES


def test_a_file_that_is_written_all_the_time_is_a_line_now_and_then(writer: Writer) -> None:
    writer.run("for n in range(10_000): sys.audit('os.remove', 'old.py', -1)")
    assert writer.wrote("old.py") is False
    assert len(writer.record.writes) < 100


def test_a_line_stands_for_the_writes_soon_after_it(writer: Writer, folder: Path) -> None:
    writer.run("sys.audit('os.remove', 'old.py', -1)")
    assert writer.wrote("old.py") is False
    at, evidence = writer.record.writes[-1][0], writer.evidence()
    for since, until, expected in ((0.9, 3, False), (1.1, 3, None), (0.9, 30, None)):  # the last: a save long after
        moments = (at + since * writes.REPEAT_SECONDS, at + until * writes.REPEAT_SECONDS)
        assert evidence.served_while_writing(folder / "old.py", *moments) is expected


def test_without_space_the_bot_starts_without_a_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_writes.tempfile, "mkstemp", refuse)
    one = Writer(folder, OwnWrites(wanted=True))
    assert one.record.environment == {}
    assert one.may_have_written("old.py")
    one.record.finish()


def test_where_nothing_is_reloaded_nothing_is_recorded(folder: Path) -> None:
    one = Writer(folder, OwnWrites(wanted=False))
    assert one.record.environment == {}
    assert not one.may_have_written("old.py")
    one.record.finish()


def test_what_ended_long_ago_is_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnWrites(wanted=True)
    one = Writer(folder, own)
    one.run("open('old.py', 'w').close()")
    one.record.finish()
    assert one.may_have_written("old.py")
    monkeypatch.setattr(own_writes, "KEEP_SECONDS", 0.0)
    assert not one.may_have_written("old.py")
    assert not own._records


def test_a_line_that_is_none_means_that_not_all_is_known(writer: Writer) -> None:
    writer.run("sys.audit('os.remove', 'a\\nb.py', -1)")
    assert writer.may_have_written("old.py")
