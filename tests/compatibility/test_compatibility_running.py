"""A command is started, watched and ended as an operator does, and nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.compatibility.running import Program, started

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ctrl+C is a signal to a process group"),
]

# They take the signal where they wait for it: a handler might run just before the wait begins.
BOT = """
    import signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    print("ready", flush=True)
    signal.sigwait([signal.SIGINT])
    print("stopped", end="", flush=True)
    sys.exit(7)
"""

WITH_CHILD = """
    import signal, subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"],
                             stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    print("child", child.pid, flush=True)
    signal.sigwait([signal.SIGINT])
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


async def line(program: Program, pattern: str) -> float | None:
    return await program.appears(re.compile(pattern), 20)


async def test_one_ctrl_c_ends_it(tmp_path: Path) -> None:
    async with started(command(BOT), tmp_path, os.environ) as program:
        seconds = await line(program, "^ready")
        assert seconds is not None
        assert await program.interrupt() == 7
        assert await program.leave(1) == 0
        assert program.lines == ["ready", "stopped"]


async def test_waiting_for_a_line_ends_with_the_output(tmp_path: Path) -> None:
    async with started(command("print('no')"), tmp_path, os.environ) as program:
        assert await line(program, "^ready") is None
        assert await program.interrupt() == 0


async def test_waiting_for_a_line_ends_with_another(tmp_path: Path) -> None:
    async with started(command(BOT), tmp_path, os.environ) as program:
        waiting = program.appears(re.compile("never"), 60, unless=re.compile("^ready"))
        assert await asyncio.wait_for(waiting, 15) is None
        assert not program.ended


async def test_a_process_that_is_left_behind_is_counted_and_killed(tmp_path: Path) -> None:
    async with started(command(WITH_CHILD), tmp_path, os.environ) as program:
        await line(program, "^child")
        child = psutil.Process(int(program.lines[0].split()[1]))
        assert await program.interrupt() == 0
        assert await program.leave(0.1) == 1
        child.wait(10)


async def test_leaving_the_block_kills_what_runs(tmp_path: Path) -> None:
    async with started(command(WITH_CHILD), tmp_path, os.environ) as program:
        await line(program, "^child")
        child = psutil.Process(int(program.lines[0].split()[1]))
    assert program.ended
    child.wait(10)
