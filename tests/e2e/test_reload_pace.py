"""Bots with a writer that nobody sees: the restarts that it causes become rare, a developer's save is loaded at once.

The numbers of ``reload_pace`` are smaller here, so that a loop shows after two restarts.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit import HostProcess, host_process, write

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform == "win32", reason="writes through the C library")]

PROGRAM = """
from liteyuki_host import Host
from liteyuki_host.supervisor import reload_pace

reload_pace.AT_ONCE = 1
reload_pace.FIRST_WAIT = 2.0
reload_pace.ALIKE_SECONDS = 10.0  # this machine may be busy with other tests
Host().run()
"""

HEAD = """
import asyncio, ctypes, os, subprocess, sys, time
from nonebot import get_driver

VERSION = @
driver = get_driver()
C = ctypes.CDLL(None)
C.fopen.restype = ctypes.c_void_p

def write(path="plugins/generated.txt.py"):
    file = ctypes.c_void_p(C.fopen(path.encode(), b"w"))
    C.fputs(f"# {time.time_ns()}".encode(), file)
    C.fclose(file)

def later(seconds, act):
    async def run():
        await asyncio.sleep(seconds)
        act()

    @driver.on_startup
    async def begin():
        driver.task = asyncio.create_task(run())

@driver.on_startup
def started():
    print("version", VERSION, flush=True)
"""

AT_IMPORT = "write()"
TWO_SECONDS_LATER = "later(2, write)"
A_NEW_NAME_EACH_TIME = 'later(2, lambda: write(f"plugins/at{time.time_ns()}.txt.py"))'
TWO_FILES_IN_TURN = """
def in_turn():
    turn = int(open("turn").read()) + 1
    open("turn", "w").write(str(turn))
    write(f"plugins/{('one', 'two')[turn % 2]}.txt.py")
later(2, in_turn)
"""
BY_A_PROGRAM_THAT_STAYS = '''
code = """
import os, sys, time
bot, end = os.getppid(), time.monotonic() + 7
while time.monotonic() < end:
    if os.getppid() != bot:
        sys.exit()  # so that it does not outlive the test
    time.sleep(0.05)
open(sys.argv[1], "w").write(f"# {time.time_ns()}")
"""
driver.on_startup(lambda: subprocess.Popen(
    [sys.executable, "-c", code, "plugins/generated.txt.py"], start_new_session=True))
'''
NAMES = {id(value): name.lower() for name, value in list(globals().items()) if isinstance(value, str)}


def save(folder: Path, version: int, bot: str) -> None:
    (folder / "plugins" / "mine.py").write_text(with_version(version, bot), encoding="utf-8")


def with_version(version: int, bot: str) -> str:
    return HEAD.replace("@\n", f"{version}\n", 1) + bot


@contextmanager
def reloading(folder: Path, bot: str) -> Iterator[HostProcess]:
    write(
        folder,
        {
            "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
            ".env": "DRIVER=~none\n",
            "plugins/mine.py": with_version(1, bot),
            "turn": "0",
            "program.txt": PROGRAM,
        },
    )
    with host_process(folder, "program.txt", LYCOMM_RELOAD="swap") as host:
        host.wait_for("version 1$")
        yield host
        assert host.stop() == 0


def starts(host: HostProcess) -> int:
    return sum("child nonebot started (pid" in line for line in host.lines)


@pytest.mark.parametrize(
    "bot",
    [AT_IMPORT, A_NEW_NAME_EACH_TIME, TWO_FILES_IN_TURN, BY_A_PROGRAM_THAT_STAYS],
    ids=lambda bot: NAMES[id(bot)],
)
def test_what_each_start_causes_waits_longer_each_time(tmp_path: Path, bot: str) -> None:
    with reloading(tmp_path, bot) as host:
        line = host.wait_for(r"\[WARNING\] host \| child nonebot: .* changed at the same moment", timeout=60)[0]
        assert re.search(r"plugins.\w+\.txt\.py changed at the same moment after each of the last 2 starts", line)
        assert line.endswith("that file, in reload_dirs")
        assert starts(host) == 2, host.text
        host.wait_for(r"\(3 in a row\); waiting 4 s", timeout=40)
        assert starts(host) == 3, host.text
        save(tmp_path, 2, bot)
        host.wait_for("version 2$")
        assert starts(host) == 4, host.text
    assert host.text.count("changed at the same moment") == 1


def test_the_wait_is_over_when_somebody_else_restarts_the_bot(tmp_path: Path) -> None:
    with reloading(tmp_path, TWO_SECONDS_LATER) as host:
        host.wait_for("this reload waits 2 s")
        host.send(signal.SIGHUP)
        host.wait_for("is to restart: SIGHUP")
        host.wait_for(r"\(3 in a row\); waiting 4 s")
        assert starts(host) == 3, host.text


TRIED_IN_VAIN = "write()\nraise RuntimeError('not today')"


def test_trials_that_cause_each_other_wait_too(tmp_path: Path) -> None:
    with reloading(tmp_path, "") as host:
        host.wait_for("child nonebot ready")
        save(tmp_path, 2, TRIED_IN_VAIN)
        host.wait_for("changed at the same moment")
        host.wait_for(r"\(3 in a row\); waiting 4 s")
        assert host.text.count("the change cannot start") <= 5, host.text
        save(tmp_path, 3, "")
        host.wait_for("version 3$")
    assert starts(host) == 2, host.text


def test_what_a_bot_writes_below_an_open_folder_is_its_own(tmp_path: Path) -> None:
    bot = """
    folder = os.open("plugins", os.O_RDONLY)
    file = os.open("generated.txt.py", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=folder)
    os.write(file, f"# {time.time_ns()}".encode())
    """
    bot = "\n".join(map(str.strip, bot.splitlines()))
    with reloading(tmp_path, bot) as host:
        for version in (2, 3):
            host.wait_for("child nonebot ready", count=version - 1)
            save(tmp_path, version, bot)
            host.wait_for(f"version {version}$")
    assert starts(host) == 3, host.text
    assert "generated.txt.py" not in host.text
