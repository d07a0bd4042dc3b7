"""Interpreters, and programs that are none, are asked something: the answer is bounded in size and time."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from liteyuki_host.comm.shortage import Outlook, outlook
from liteyuki_host.supervisor.interpreter import OUTPUT_BYTES, ask
from liteyuki_host.supervisor.process import why_no_host_in

PYTHON = Path(sys.executable)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a script as interpreter")


def script(folder: Path, text: str, head: str = "#!/bin/sh\n") -> Path:
    path = folder / "program"
    path.write_text(f"{head}{text}\n")
    path.chmod(0o755)
    return path


def test_an_answer(tmp_path: Path) -> None:
    code = "import sys, os; print('mark'); print(sys.argv[1:], os.getcwd()); sys.stderr.write('last\\n'); sys.exit(3)"
    answer = ask(PYTHON, code, folder=tmp_path, seconds=30, arguments=["a b"])
    assert (answer.returncode, answer.of_python, answer.complete) == (3, True, True)
    assert answer.after("mark")[0] == f"['a b'] {os.path.realpath(tmp_path)}"
    assert answer.after("nothing") == []
    assert answer.last_line == "last"


def test_what_prints_without_end_is_ended_at_once(tmp_path: Path) -> None:
    before = time.monotonic()
    answer = ask(PYTHON, "while True: print('x' * 1000)", folder=tmp_path, seconds=30)
    assert not answer.complete
    assert sum(map(len, answer.lines)) <= OUTPUT_BYTES
    assert time.monotonic() - before < 20


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux has it")
def test_what_does_not_end_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    program = script(tmp_path, "sleep 600 & echo $! > pid; wait")
    with pytest.raises(subprocess.TimeoutExpired):
        ask(program, "", folder=tmp_path, seconds=1.0)
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(int((tmp_path / "pid").read_text()))
        assert select.select([ended], [], [], 10)[0]
        os.close(ended)


@posix_only
def test_who_holds_the_pipe_for_longer_is_not_waited_for(tmp_path: Path) -> None:
    program = script(tmp_path, "setsid sleep 600 & echo $! > pid; echo done")
    try:
        assert list(ask(program, "", folder=tmp_path, seconds=30).lines) == ["done"]
    finally:
        psutil.Process(int((tmp_path / "pid").read_text())).kill()


@posix_only
@pytest.mark.parametrize(
    "text", ["exit 0", "exit 1", "echo hi", "echo lycomm", "yes", "cat", "echo 'no such option: -c' >&2; exit 2"]
)
def test_a_program_that_is_no_interpreter(tmp_path: Path, text: str) -> None:
    program = script(tmp_path, text)
    assert why_no_host_in(program, tmp_path) == (
        f"{program} is no Python interpreter that answers: correct python in [tool.lycomm.processes]"
    )


@posix_only
def test_a_text_that_may_be_run_is_no_interpreter(tmp_path: Path) -> None:
    program = script(tmp_path, "\0hello", head="")
    assert "is no Python interpreter that answers" in str(why_no_host_in(program, tmp_path))


@posix_only
def test_an_interpreter_that_was_killed_may_answer_the_next_time(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot run lycomm") as raised:
        why_no_host_in(script(tmp_path, "kill -9 $$"), tmp_path)
    assert outlook(raised.value) is Outlook.UNCLEAR
