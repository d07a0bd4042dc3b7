from __future__ import annotations

import signal
import sys

import pytest

from liteyuki_host.supervisor.exits import describe_exit, describe_failed_start

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signal names of this system")


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited 0"),
        (3, "exited 3"),
        pytest.param(-signal.SIGTERM, "killed by SIGTERM", marks=posix_only),
        pytest.param(-11, "killed by SIGSEGV", marks=posix_only),
        pytest.param(-9, "killed by SIGKILL", marks=posix_only),
        pytest.param(-45, "killed by signal 45", marks=posix_only, id="a real-time signal has no name"),
    ],
)
def test_an_exit_on_posix_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode, platform="linux") == words


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited 0"),
        (15, "exited 15"),
        (0xC0000005, "exited 0xC0000005 (access violation)"),
        (0xC0000005 - 2**32, "exited 0xC0000005 (access violation)"),
        (0xC000013A, "exited 0xC000013A (Ctrl+C)"),
        (0x80000003, "exited 0x80000003"),
    ],
)
def test_an_exit_on_windows_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode, platform="win32") == words


@pytest.mark.parametrize(
    ("returncode", "greeted", "words"),
    [
        (1, True, "exited 1 before it was ready"),
        (1, False, "exited 1 before it was ready: it ended before it could reach the host"),
        (3, True, "start-up failed"),
        (78, True, "the line above says what to change"),
    ],
)
def test_a_failed_start_names_its_likely_cause(returncode: int, greeted: bool, words: str) -> None:
    assert words in describe_failed_start(returncode, greeted=greeted, platform="linux")
