"""Failures of lasting work: told once each, waited out."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest
from loguru import logger

from liteyuki_host.boundary import LONGEST_DELAY, Boundary, in_thread_or_here


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    sink = logger.add(lambda message: written.append(message.rstrip("\n")), format="{level} {message}", level="INFO")
    yield written
    logger.remove(sink)


def test_a_shortage_is_told_once_with_what_helps(lines: list[str]) -> None:
    boundary = Boundary("child web: its work")
    delays = [boundary.failed(OSError(errno.EMFILE, "Too many open files")) for _ in range(8)]
    assert delays == [0.5, 1, 2, 4, 8, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]
    boundary.succeeded()
    boundary.succeeded()
    assert lines == [
        "ERROR child web: its work failed: Too many open files; trying again until it works. What helps: raise the "
        "limit of open files (ulimit -n; LimitNOFILE= of a systemd unit)",
        "INFO child web: its work works again",
    ]
    assert boundary.failed(MemoryError()) == 0.5


def test_another_error_is_told_with_its_traceback(lines: list[str]) -> None:
    boundary = Boundary("child web: its work")
    for _ in range(2):
        try:
            raise ZeroDivisionError("where it was")
        except ZeroDivisionError as error:
            boundary.failed(error)
    (line,) = lines
    assert line.startswith("ERROR child web: its work failed inside lycomm; trying again. Please report this\n")
    assert "test_boundary.py" in line
    assert "ZeroDivisionError: where it was" in line


def test_endlessly_new_errors_are_not_told_endlessly(lines: list[str]) -> None:
    boundary = Boundary("child web: its work")
    for number in range(1000):
        boundary.failed(type(f"Error{number}", (Exception,), {})())
    assert sum("failed inside lycomm" in line for line in lines) == 10


async def test_a_worker_thread_does_it_when_there_is_one() -> None:
    assert await in_thread_or_here(threading.get_ident) != threading.get_ident()


async def test_without_threads_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def all_at_once() -> int:
        return threading.get_ident()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await in_thread_or_here(all_at_once) == threading.get_ident()


async def test_its_own_error_is_not_taken_for_a_shortage() -> None:
    calls = []

    def fail() -> None:
        calls.append(os.getpid())
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        await in_thread_or_here(fail)
    assert len(calls) == 1
