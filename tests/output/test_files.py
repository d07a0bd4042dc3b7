"""Log files: loguru rotates, nobody waits for the disk."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from loguru import logger
from output_kit import DEADLINE, block, printing

from liteyuki_host import log
from liteyuki_host.output import files as files_module
from liteyuki_host.output.backlog import LIMIT
from liteyuki_host.output.files import LogFiles
from liteyuki_host.supervisor.process_output import Output

if sys.platform != "win32":
    import resource

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the log tells."""
    written: list[str] = []
    sink = logger.add(lambda message: written.append(message.strip()), format="{level} {message}", level="INFO")
    yield written
    logger.remove(sink)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_process_and_the_host_have_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles(tmp_path / "logs", rotation=1 << 20, retention=3)
    monkeypatch.setattr(sys, "stdout", None)
    sink = log.configure("INFO", files)
    for name in ("one", "two"):
        with printing(Output(name, show=(files.show,)), "print('\\x1b[31mhello\\x1b[0m'); print('world')"):
            pass
    logger.warning("重启")
    logger.debug("below the level")
    logger.remove(sink)
    assert names(tmp_path / "logs") == ["host.log", "one.log", "two.log"]
    for name in ("one", "two"):
        text = (tmp_path / "logs" / f"{name}.log").read_text("utf-8")
        assert re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| (hello|world)\n){2}", text)
    host = (tmp_path / "logs" / "host.log").read_text("utf-8")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[WARNING\] host \| 重启\n", host)


def test_full_files_are_put_aside_and_the_oldest_removed(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    (tmp_path / "bot.cn.log").write_text("another process's file")
    (tmp_path / "bot.notes.log").write_text("somebody's file")
    for number in range(50):
        files.show(block("bot", *(f"{number}-{line} {'x' * 90}" for line in range(10))))
        assert files.flush(DEADLINE)
    assert files.close(DEADLINE)
    found = names(tmp_path)
    assert {"bot.log", "bot.cn.log", "bot.notes.log"} < set(found)
    aside = [name for name in found if re.fullmatch(r"bot\.\d{4}-[\d_-]+(\.\d+)?\.log", name)]
    assert len(aside) == 2
    assert len(found) == 5
    for name in [*aside, "bot.log"]:
        assert 0 < (tmp_path / name).stat().st_size <= 10_000
        assert int((tmp_path / name).read_text().split(" | ")[1].split("-")[0]) > 20, "the newest are kept"
    assert "49-9 " in (tmp_path / "bot.log").read_text()


def test_an_earlier_runs_file_is_continued(tmp_path: Path) -> None:
    for number in range(2):
        files = LogFiles(tmp_path, rotation=10_000, retention=2)
        files.show(block("bot", f"run {number}"))
        assert files.close(DEADLINE)
    assert [line.split(" | ")[1] for line in (tmp_path / "bot.log").read_text().splitlines()] == ["run 0", "run 1"]


def text_of(path: Path) -> list[str]:
    """The lines without their times."""
    return [line[20:].removeprefix("| ") for line in path.read_text("utf-8").splitlines()]


def note(count: int, why: str) -> str:
    return f"[WARNING] host | {count} lines are missing here: they could not be written ({why})"


def show(files: LogFiles, *lines: str, process: str = "bot") -> None:
    files.show(block(process, *lines))
    assert files.flush(DEADLINE)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is a try, and each error is told."""
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(files_module, "QUIET_SECONDS", 0.0)


# Files that cannot be written for a while.


@pytest.mark.usefixtures("at_once")
def test_a_folder_that_is_no_folder_is_told_once(tmp_path: Path, told: list[str]) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file, not a folder")
    files = LogFiles(folder, rotation=10_000, retention=2)
    for number in range(3):
        show(files, f"{number}")
        show(files, f"{number}", process="other")
    folder.unlink()
    show(files, "here again")
    assert files.close(DEADLINE)
    assert text_of(folder / "bot.log") == [note(3, "File exists"), "here again"]
    assert text_of(folder / "other.log") == [note(3, "File exists")]  # at the next opportunity
    errors = [line for line in told if line.startswith("ERROR")]
    (line,) = errors
    assert re.fullmatch(
        r"ERROR log file .*logs/bot\.log cannot be written: File exists; the host goes on without it and tries again "
        r"every 0 s",
        line,
    )
    assert f"INFO log file {folder / 'bot'}.log is written again: 3 lines are missing in it" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.usefixtures("at_once")
def test_a_full_device_is_told_once(tmp_path: Path, told: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bot.log").symlink_to("/dev/full")
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(3):
        show(files, f"{number}")
    assert files.close(DEADLINE)
    assert told == [
        f"ERROR log file {tmp_path / 'bot'}.log cannot be written: No space left on device; the host goes on without "
        "it and tries again every 0 s"
    ]
    assert "Logging error" not in capfd.readouterr().err


@posix_only
@pytest.mark.usefixtures("at_once")
def test_what_does_not_fit_is_not_written_in_part(tmp_path: Path) -> None:
    """The system's own limit, of the size of a file: a write is cut short there as it is on a full disk."""
    files = LogFiles(tmp_path, rotation=1 << 20, retention=2)
    show(files, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "bot.log").stat().st_size + 100, hard))
    try:
        for number in range(3):
            show(files, f"{number} " + "x" * 200, f"{number} second line")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "bot.log") == ["before", note(6, "File too large"), "after"]


@pytest.mark.usefixtures("at_once")
def test_a_full_disk_is_written_again_once_there_is_room(small_disk: Path, told: list[str]) -> None:
    files = LogFiles(small_disk / "logs", rotation=1 << 20, retention=2)
    sent = 0
    show(files, "before")
    fill(small_disk / "filler")
    for _ in range(100):  # the last page of the file may still have room for a few
        show(files, "x" * 300)
        sent += 1
    assert any(line.startswith("ERROR") and "No space left on device" in line for line in told)
    (small_disk / "filler").unlink()
    show(files, "after")
    assert files.close(DEADLINE)
    lines = text_of(small_disk / "logs" / "bot.log")
    assert (lines[0], lines[-1]) == ("before", "after")
    missing = sum(int(line.split()[3]) for line in lines if line.startswith("[WARNING]"))
    assert missing > 0
    assert lines.count("x" * 300) + missing == sent
    assert len(lines) == lines.count("x" * 300) + sum(line.startswith("[WARNING]") for line in lines) + 2
    assert any("is written again: " in line for line in told)


def test_a_file_that_cannot_be_written_is_not_tried_all_the_time(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "bot.log").mkdir()
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    show(files, "0")
    (tmp_path / "bot.log").rmdir()
    show(files, "1")  # within the second
    assert not (tmp_path / "bot.log").exists()
    assert files.close(DEADLINE)
    assert len(told) == 1


@pytest.mark.usefixtures("at_once")
def test_the_files_of_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "bot.log").mkdir()
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(3):
        show(files, f"{number}")
        show(files, f"{number}", process="other")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "other.log") == ["0", "1", "2"]


def test_a_disk_that_is_full_now_and_then_is_told_now_and_then(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.0)
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(20):
        (tmp_path / "bot.log").unlink(missing_ok=True)
        (tmp_path / "bot.log").mkdir()
        show(files, f"{number}")
        (tmp_path / "bot.log").rmdir()
        show(files, f"{number} again")
    assert files.close(DEADLINE)
    assert len(told) == 2, told


@posix_only
@pytest.mark.usefixtures("at_once")
def test_two_hundred_failures_leave_nothing_open(tmp_path: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(200):
        if number % 2:
            show(files, "x" * 300)
        (tmp_path / "bot.log").unlink(missing_ok=True)
        (tmp_path / "bot.log").symlink_to("/dev/full" if number % 2 else tmp_path / "no such folder" / "bot.log")
        show(files, f"{number}")
    assert files.close(DEADLINE)
    gc.collect()
    assert process.num_fds() <= before


# Files that somebody takes away.


@posix_only
@pytest.mark.parametrize("how", ["moved", "deleted", "folder moved", "folder deleted", "replaced"])
def test_a_file_that_was_taken_away_is_begun_anew_at_once(how: str, tmp_path: Path, told: list[str]) -> None:
    """As logrotate and people do. It used to be written on where nobody looks, until the host ended."""
    folder = tmp_path / "logs"
    path = folder / "bot.log"
    files = LogFiles(folder, rotation=10_000, retention=2)
    show(files, "before")
    if how == "moved":
        path.rename(folder / "bot.log.1")
    elif how == "deleted":
        path.unlink()
    elif how == "folder moved":
        folder.rename(tmp_path / "old")
    elif how == "folder deleted":
        shutil.rmtree(folder)
    else:
        path.rename(folder / "bot.log.1")
        path.write_text("1234567890123456789 | somebody has made a new one\n")
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(path) == (["somebody has made a new one"] if how == "replaced" else []) + ["after"]
    if how in ("moved", "replaced"):
        assert text_of(folder / "bot.log.1") == ["before"]
    assert told == []


@posix_only
@pytest.mark.usefixtures("at_once")
def test_a_file_that_was_replaced_by_a_folder_is_waited_for(tmp_path: Path, told: list[str]) -> None:
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    show(files, "before")
    (tmp_path / "bot.log").unlink()
    (tmp_path / "bot.log").mkdir()
    show(files, "lost")
    (tmp_path / "bot.log").rmdir()
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "bot.log") == [note(1, "it is a folder, not a file"), "after"]
    assert len(told) == 2


@posix_only
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("read", [False, True], ids=["not read", "read"])
def test_a_fifo_in_the_place_of_a_file_blocks_nothing(tmp_path: Path, told: list[str], read: bool) -> None:
    os.mkfifo(tmp_path / "bot.log")
    reader = os.open(tmp_path / "bot.log", os.O_RDONLY | os.O_NONBLOCK) if read else None
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    show(files, "lost")
    assert "log file" in told[0]
    assert "bot.log cannot be written: it is a FIFO (named pipe), not a file; the host goes on" in told[0]
    (tmp_path / "bot.log").unlink()
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "bot.log") == [note(1, "it is a FIFO (named pipe), not a file"), "after"]
    if reader is not None:
        os.close(reader)


@posix_only
def test_the_null_device_takes_all_lines(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "bot.log").symlink_to(os.devnull)
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for _ in range(3):
        show(files, "x" * 9_000)
    assert files.close(DEADLINE)
    assert told == []
    assert names(tmp_path) == ["bot.log"]


@posix_only
def test_a_file_that_was_cut_is_continued(tmp_path: Path) -> None:
    """What logrotate calls copytruncate."""
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    show(files, "before")
    os.truncate(tmp_path / "bot.log", 0)
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "bot.log") == ["after"]


@posix_only
@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write everything")
@pytest.mark.usefixtures("at_once")
def test_a_folder_that_may_not_be_written_any_more_is_waited_for(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs", rotation=10_000, retention=2)
    show(files, "before")
    (tmp_path / "logs" / "bot.log").unlink()
    (tmp_path / "logs").chmod(0o500)
    show(files, "lost")
    (tmp_path / "logs").chmod(0o700)
    show(files, "after")
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "logs" / "bot.log") == [note(1, "Permission denied"), "after"]


@posix_only
def test_old_files_that_cannot_be_removed_do_not_stop_the_log(tmp_path: Path, told: list[str]) -> None:
    for day in range(4):  # a folder of that name cannot be removed as a file
        (tmp_path / f"bot.2020-01-0{day + 1}_00-00-00_000000.log").mkdir()
    files = LogFiles(tmp_path, rotation=1_000, retention=1)
    for number in range(20):
        show(files, f"{number} " + "x" * 200)
    assert files.close(DEADLINE)
    assert text_of(tmp_path / "bot.log")[-1].startswith("19 ")
    assert told == []


@posix_only
def test_silent_files_are_closed(tmp_path: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(2):
        files.show(block("bot", f"{number}"))
        assert files.flush(DEADLINE)
        assert process.num_fds() == before + 1
        (thread,) = (each for each in threading.enumerate() if each.name == "lycomm-log-files")
        thread.join(DEADLINE)
        assert process.num_fds() == before
    assert (tmp_path / "bot.log").read_text().count("\n") == 2


def test_lines_that_come_too_fast_are_counted(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, rotation=1 << 30, retention=2)
    count = 4 * LIMIT // 10_000
    for number in range(count):
        files.show(block("bot", f"{number} " + "x" * 9_990))
    assert files.close(DEADLINE)
    lines = (tmp_path / "bot.log").read_text().splitlines()
    notes = [line for line in lines if "[WARNING] host" in line]
    missing = sum(int(line.split(" | ")[1].split()[0].replace(",", "")) for line in notes)
    assert missing > 0
    assert len(lines) - len(notes) + missing == count
    assert f" | {count - 1} xxx" in lines[-1]
