"""Log files: loguru rotates, nobody waits for the disk."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from loguru import logger
from output_kit import DEADLINE, block, printing

from liteyuki_host import log
from liteyuki_host.output.backlog import LIMIT
from liteyuki_host.output.files import LogFiles
from liteyuki_host.supervisor.output import Output

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture
def errors() -> Iterator[list[str]]:
    written: list[str] = []
    sink = logger.add(lambda message: written.append(message.strip()), format="{message}", level="ERROR")
    yield written
    logger.remove(sink)


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


def test_a_folder_that_cannot_be_written_is_told_once_and_forgotten(tmp_path: Path, errors: list[str]) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file, not a folder")
    files = LogFiles(folder, rotation=10_000, retention=2)
    for number in range(3):
        files.show(block("bot", f"{number}"))
        assert files.flush(DEADLINE)
    assert files.close(DEADLINE)
    (line,) = errors
    assert re.fullmatch(r"log files cannot be written in .*logs: .+; the host goes on without them", line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told_once_and_forgotten(
    tmp_path: Path, errors: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bot.log").symlink_to("/dev/full")
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(3):
        files.show(block("bot", f"{number}"))
        assert files.flush(DEADLINE)
    assert files.close(DEADLINE)
    assert errors == [
        f"log files cannot be written in {tmp_path}: No space left on device; the host goes on without them"
    ]
    assert "Logging error" not in capfd.readouterr().err


@posix_only
def test_silent_files_are_closed(tmp_path: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    files = LogFiles(tmp_path, rotation=10_000, retention=2)
    for number in range(2):
        files.show(block("bot", f"{number}"))
        assert files.flush(DEADLINE)
        assert process.num_fds() == before + 1
        thread = files._backlog._thread
        assert thread is not None
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
