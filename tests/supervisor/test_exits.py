from __future__ import annotations

import signal
import sys

import pytest

from liteyuki_host.supervisor.exits import (
    Cause,
    Kind,
    blocked,
    cannot_start,
    cause_of_exit,
    describe_exit,
    describe_failed_start,
    frozen,
    link_lost,
    lock_held,
    not_ready,
    stuck,
)

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
        (0, True, "exited 0 before it was ready: its script came to its end without running the bot; let it end with"),
        (3, True, "start-up failed"),
        (78, True, "it cannot start as it is"),
    ],
)
def test_a_failed_start_names_its_likely_cause(returncode: int, greeted: bool, words: str) -> None:
    assert words in describe_failed_start(returncode, greeted=greeted, platform="linux")


@pytest.mark.parametrize(
    ("returncode", "ready", "cause"),
    [
        (0, True, Cause(Kind.CLEAN, "exited 0")),
        (0, False, Cause(Kind.ENDED_EARLY, describe_failed_start(0, greeted=True, platform="linux"))),
        (1, True, Cause(Kind.CRASH, "exited 1")),
        pytest.param(-11, True, Cause(Kind.CRASH, "killed by SIGSEGV"), marks=posix_only),
        (1, False, Cause(Kind.FAILED_START, "exited 1 before it was ready")),
        pytest.param(-11, False, Cause(Kind.FAILED_START, "killed by SIGSEGV before it was ready"), marks=posix_only),
        pytest.param(78, True, Cause(Kind.CRASH, "exited 78"), id="once ready, 78 is the bot's own business"),
    ],
)
def test_the_kind_of_an_end_depends_on_whether_it_was_ready(returncode: int, ready: bool, cause: Cause) -> None:
    assert cause_of_exit(returncode, ready=ready, greeted=True, platform="linux") == cause


@pytest.mark.parametrize("greeted", [False, True])
def test_a_wrong_configuration_is_told_by_its_code(greeted: bool) -> None:
    cause = cause_of_exit(78, ready=False, greeted=greeted, platform="linux")
    assert cause.kind is Kind.CANNOT_START
    assert cause.words == describe_failed_start(78, greeted=greeted, platform="linux")


@pytest.mark.parametrize(
    ("returncode", "greeted", "hint"),
    [
        (78, True, "its lines above say what to change"),
        (75, True, "its lines above say what"),
        (3, True, "its lines above say which"),
        (78, False, ""),
        (1, True, ""),
        (0, True, ""),
    ],
)
def test_only_the_line_below_its_output_points_at_it(returncode: int, greeted: bool, hint: str) -> None:
    cause = cause_of_exit(returncode, ready=False, greeted=greeted, platform="linux")
    assert cause.hint == hint
    assert "above" not in cause.words
    assert cause.with_hint == (f"{cause.words}; {hint}" if hint else cause.words)


@pytest.mark.parametrize("returncode", [0, 1, 3, 75, 78])
def test_the_bots_own_exit_code_has_no_meaning_here(returncode: int) -> None:
    cause = cause_of_exit(returncode, ready=False, greeted=True, own_exit="bot.py line 7", platform="linux")
    assert cause.kind is (Kind.FAILED_START if returncode else Kind.ENDED_EARLY)
    words = f"exited {returncode} before it was ready: its own code ended it by sys.exit() (bot.py line 7)"
    assert cause.with_hint == words


def test_what_the_bot_says_is_in_the_line_of_its_end() -> None:
    cause = cause_of_exit(78, ready=False, greeted=True, reason="port 8080 is taken", platform="linux")
    assert cause == Cause(Kind.CANNOT_START, "exited 78 before it was ready: port 8080 is taken")


def test_what_the_bot_says_does_not_count_for_another_end() -> None:
    """Its packages were being changed, so that it ended with another code after all; or it was killed."""
    for code in (75, 1, 9):
        told = cause_of_exit(code, ready=False, greeted=True, reason="port 8080 is taken", platform="linux")
        assert told == cause_of_exit(code, ready=False, greeted=True, platform="linux")


@posix_only
def test_a_kill_for_lack_of_memory_is_named() -> None:
    assert cause_of_exit(-9, ready=True, greeted=True, out_of_memory=True, platform="linux") == Cause(
        Kind.OUT_OF_MEMORY, "killed by SIGKILL: out of memory (the system ended it to save the others)"
    )
    early = cause_of_exit(-9, ready=False, greeted=False, out_of_memory=True, platform="linux")
    assert early.kind is Kind.OUT_OF_MEMORY
    assert early.words.startswith("killed by SIGKILL before it was ready: out of memory (")


@pytest.mark.parametrize(
    ("returncode", "out_of_memory", "platform", "kind"),
    [
        pytest.param(-9, False, "linux", Kind.CRASH, id="a kill while nobody was short of memory"),
        pytest.param(-11, True, "linux", Kind.CRASH, id="another signal"),
        pytest.param(1, True, "linux", Kind.CRASH, id="a code"),
        pytest.param(0, True, "linux", Kind.CLEAN, id="it meant to end"),
        pytest.param(-9, True, "win32", Kind.CRASH, id="Windows has no signals"),
    ],
)
def test_lack_of_memory_explains_a_kill_only(returncode: int, out_of_memory: bool, platform: str, kind: Kind) -> None:
    cause = cause_of_exit(returncode, ready=True, greeted=True, out_of_memory=out_of_memory, platform=platform)
    assert cause == Cause(kind, describe_exit(returncode, platform=platform))


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (cannot_start("project folder bot does not exist"), Kind.CANNOT_START, "project folder bot does not exist"),
        (not_ready(60.0), Kind.NOT_READY, "not ready in 60 s"),
        (blocked(30.0), Kind.BLOCKED, "event loop blocked 30 s"),
        (frozen(30.0), Kind.FROZEN, "process stopped 30 s"),
        (lock_held(2.5), Kind.LOCK_HELD, "interpreter's lock held 2.5 s"),
        (link_lost("reset by peer"), Kind.LINK_LOST, "lost its link to the host (reset by peer)"),
        (stuck(6.0), Kind.STUCK, "said goodbye but was still there 6 s later"),
    ],
    ids=lambda value: str(value) if isinstance(value, Kind) else "",
)
def test_what_the_supervisor_ends_a_child_for_in_words(cause: Cause, kind: Kind, words: str) -> None:
    assert cause == Cause(kind, words)
