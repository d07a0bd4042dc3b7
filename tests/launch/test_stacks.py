"""Where every thread is, whatever the bot does: a blocked loop, a held interpreter lock, a stopped process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child_kit import watched
from launch_kit import make_project

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

PLUGIN = """
import collections, itertools, os, time
from nonebot_plugin_lycomm import passive_channel

@passive_channel.on_receive()
async def _(text):
    globals()[text]()

def blocks_the_loop():
    print("blocked", flush=True)
    time.sleep(3600)

def holds_the_lock():
    os.close(2)
    print("held", flush=True)
    collections.deque(itertools.repeat(0), maxlen=0)  # in C, for ever
"""

HANGS_IN_IMPORT = "import time\nprint('importing', flush=True)\ntime.sleep(3600)\n"


def test_over_the_link_while_the_loop_is_blocked(tmp_path: Path) -> None:
    with watched(make_project(tmp_path / "bot", PLUGIN, driver="~none")) as bot:
        bot.tell("blocks_the_loop")
        bot.line("^blocked$")
        bot.session.dump_stacks()
        headline = bot.line("^nonebot: stacks of all threads:$")
        culprit = bot.line(r'mine\.py", line \d+ in blocks_the_loop$', after=headline)
        bot.line(r"launch\.py.* in main$", after=culprit)
        bot.session.dump_stacks()
        bot.line(" in blocks_the_loop$", after=culprit + 1)


@posix_only
def test_by_signal_while_the_lock_is_held_and_stderr_is_closed(tmp_path: Path) -> None:
    with watched(make_project(tmp_path / "bot", PLUGIN, driver="~none")) as bot:
        bot.tell("holds_the_lock")
        bot.line("^held$")
        bot.child.show_stacks(lambda: None)
        bot.line(r'mine\.py", line \d+ in holds_the_lock$')


@posix_only
def test_by_signal_of_a_process_that_was_stopped(tmp_path: Path) -> None:
    with watched(make_project(tmp_path / "bot", HANGS_IN_IMPORT, driver="~none"), ready=False) as bot:
        bot.line("^importing")
        os.kill(bot.child.pid, signal.SIGSTOP)
        bot.child.show_stacks(lambda: None)
        bot.line(r'mine\.py", line \d in <module>$')


@posix_only
@pytest.mark.parametrize("stderr", ["closed", "PYTHONFAULTHANDLER"])
def test_the_signal_is_harmless(stderr: str) -> None:
    """Without a handler it would end the process."""
    program = """if True:
        import os, signal
        from liteyuki_host._child.stacks import Stacks
        Stacks("bot").arm()
        os.kill(os.getpid(), signal.SIGUSR2)
        print("still here")
    """
    command = [sys.executable, "-c", program]
    environment = dict(os.environ)
    if stderr == "closed":
        command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    else:
        environment["PYTHONFAULTHANDLER"] = "1"
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout) == (0, "still here\n")
    assert ("most recent call first" in run.stderr) == (stderr != "closed")


@posix_only
def test_programs_that_the_bot_starts_do_not_inherit_its_output() -> None:
    program = """if True:
        import os, subprocess
        from liteyuki_host._child.stacks import Stacks
        stacks = Stacks("bot")
        stacks.arm()
        print(os.get_inheritable(stacks._output))
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == "False\n"


@posix_only
def test_a_crash_of_the_interpreter_shows_them_too(tmp_path: Path) -> None:
    program = """if True:
        import os, resource
        from liteyuki_host._child.stacks import Stacks
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        Stacks("bot").arm()
        def crashes():
            os.abort()
        crashes()
    """
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert run.returncode == -signal.SIGABRT
    assert " in crashes\n" in run.stderr
