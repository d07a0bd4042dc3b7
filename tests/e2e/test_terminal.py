"""``terminal = true``: one bot has the host's keyboard and screen. And a bot that has none says so, and goes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals"),
]

if sys.platform != "win32":
    from kit import HostProcess, write
    from terminal_kit import Terminal, on_a_terminal

WITH_TERMINAL = "[tool.lycomm.processes.nonebot]\nterminal = true\n"

HEAD = """
import nonebot, os, signal, sys, time
nonebot.init(driver="~none")
driver = nonebot.get_driver()

@driver.on_shutdown
def _():
    print("shutdown hook ran", flush=True)

"""


def project(folder: Path, bot: str, settings: str = WITH_TERMINAL) -> Path:
    return write(folder / "bot", {"pyproject.toml": settings, "bot.py": HEAD + bot + "\nnonebot.run()\n"})


def end_with_one_ctrl_c(terminal: Terminal, *, hook: bool = True) -> None:
    terminal.type("\x03")
    assert terminal.wait() == 0
    assert terminal.shown.count("shutdown hook ran") == hook
    assert terminal.shown.count("host | host stops: asking all processes to end") == 1
    assert "stopped after the stop message" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert terminal.modes_now() == terminal.modes


ASKS = """
name = input("name? ")
print("hello", name, sys.stdin.isatty(), sys.stdout.isatty(), flush=True)

@driver.on_startup
async def _():
    print("again", input("again? "), flush=True)
"""


def test_input_reads_what_is_typed(tmp_path: Path) -> None:
    with on_a_terminal(project(tmp_path, ASKS)) as terminal:
        terminal.see(r"^name\? ")
        terminal.type("cat\r")
        terminal.see("^hello cat True True$")
        terminal.see(r"^again\? ")
        terminal.type("dog\r")
        terminal.see("^again dog$")
        terminal.see("host . child nonebot ready")
        end_with_one_ctrl_c(terminal)


@pytest.mark.parametrize("stop", ["breakpoint()", "import pdb; pdb.set_trace()"])
def test_a_debugger_stops_and_goes_on(tmp_path: Path, stop: str) -> None:
    hook = f"@driver.on_startup\nasync def _():\n    x = 41\n    {stop}\n    print('went on', flush=True)\n"
    with on_a_terminal(project(tmp_path, hook)) as terminal:
        terminal.see(r"\(Pdb\) ")
        terminal.type("p x + 1\r")
        terminal.see("^42$")
        terminal.type("c\r")
        terminal.see("^went on$")
        terminal.see("host . child nonebot ready")
        end_with_one_ctrl_c(terminal)


def test_ctrl_c_ends_everything_also_while_a_debugger_waits(tmp_path: Path) -> None:
    settings = "[tool.lycomm]\nstop_timeout = 1\ninterrupt_timeout = 0.5\nterminate_timeout = 0.5\n" + WITH_TERMINAL
    hook = "@driver.on_startup\nasync def _():\n    breakpoint()\n"
    with on_a_terminal(project(tmp_path, hook, settings)) as terminal:
        terminal.see(r"\(Pdb\) ")
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert terminal.modes_now() == terminal.modes


DRAWS = """
import termios, threading, tty

@driver.on_startup
async def _():
    signal.signal(signal.SIGWINCH, lambda *_: print("size", *os.get_terminal_size(), end="\\r\\n", flush=True))
    tty.setraw(0)
    sys.stdout.write("\\x1b[?1049hdrawn by %d\\r\\n" % os.getpid())
    sys.stdout.flush()
    driver.task_group.start_soon(keys)

async def keys():
    import anyio.to_thread
    print("key", await anyio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True), end="\\r\\n", flush=True)
"""


def test_a_full_screen_bot_that_is_killed_leaves_a_usable_terminal(tmp_path: Path) -> None:
    with on_a_terminal(project(tmp_path, DRAWS, "[tool.lycomm]\nbackoff_base = 60\n" + WITH_TERMINAL)) as terminal:
        pid = int(terminal.see(r"drawn by (\d+)")[1])
        assert terminal.modes_now() != terminal.modes
        terminal.resize(40, 132)
        terminal.see("size 132 40")
        terminal.type("k")
        terminal.see("key b'k'")
        drawn = len(terminal.shown)
        assert "ready" not in terminal.shown, "nobody writes over what is drawn"
        os.kill(pid, signal.SIGKILL)
        terminal.see("host . child nonebot ready", after=drawn)
        terminal.see("child nonebot killed by SIGKILL; starting it again", after=drawn)
        assert "\x1b[?1049l" in terminal.shown[drawn:]
        assert terminal.modes_now() == terminal.modes
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_a_restarted_bot_has_the_terminal_again(tmp_path: Path) -> None:
    bot = "print('pid', os.getpid(), 'says', input(), flush=True)\n"
    with on_a_terminal(project(tmp_path, bot, "[tool.lycomm]\nbackoff_base = 0.1\n" + WITH_TERMINAL)) as terminal:
        terminal.type("one\r")
        first = terminal.see(r"^pid (\d+) says one$")
        terminal.see("host . child nonebot ready")
        os.kill(int(first[1]), signal.SIGKILL)
        terminal.see("starting it again")
        terminal.type("two\r")
        assert terminal.see(r"^pid (\d+) says two$")[1] != first[1]
        terminal.see("host . child nonebot ready", after=terminal.shown.index("says two"))
        end_with_one_ctrl_c(terminal)


def test_a_bot_that_waits_for_a_key_is_not_taken_for_stuck(tmp_path: Path) -> None:
    settings = "[tool.lycomm]\nloop_timeout = 1\nready_timeout = 1\n" + WITH_TERMINAL
    with on_a_terminal(project(tmp_path, ASKS, settings)) as terminal:
        terminal.see(r"^name\? ")
        time.sleep(2.5)  # nothing is to happen for longer than the limits
        terminal.type("cat\r")
        terminal.see("^hello cat")
        terminal.see(r"^again\? ")
        terminal.type("dog\r")
        terminal.see("^again dog$")
        end_with_one_ctrl_c(terminal)


def test_without_a_terminal_one_line_says_so(tmp_path: Path) -> None:
    host = HostProcess(project(tmp_path, ""))
    try:
        host.wait_for(
            r"child nonebot: terminal = true, but the host has none \(it runs as a service, or its input or output is "
            r"redirected\); it runs without a keyboard, its output is captured$"
        )
        host.wait_for("child nonebot ready")
        assert host.stop() == 0
        assert host.text.count("terminal = true") == 1
        host.wait_for(r"^nonebot \| shutdown hook ran$")
    finally:
        host.close()


def test_a_host_in_the_background_keeps_its_bot_off_the_keyboard(tmp_path: Path) -> None:
    folder = project(tmp_path, "")
    shell = f"set -m; {sys.executable} -m liteyuki_host run & read x; kill -INT %1; wait"
    terminal = Terminal(folder, ["/bin/bash", "-c", shell])
    try:
        terminal.see("terminal = true, but the host runs in the background; it runs without a keyboard")
        terminal.see("child nonebot ready")
        terminal.type("\r")
        terminal.wait()
        assert "shutdown hook ran" in terminal.shown
    finally:
        terminal.close()


# Most bots have no terminal.

NOBODY = "[tool.lycomm]\nbackoff_base = 60\n"
ADVICE = r"set terminal = true in \[tool\.lycomm\.processes\.nonebot\] and start the host in a terminal$"


@pytest.mark.parametrize("stop", ["breakpoint()", "import pdb; pdb.set_trace()", "import pdb; pdb.Pdb().set_trace()"])
@pytest.mark.parametrize("where", ["hook", "import"])
def test_a_breakpoint_that_nobody_can_use_is_passed_over(tmp_path: Path, stop: str, where: str) -> None:
    code = f"x = 1\nfor _ in range(3):\n    {stop}\nprint('went on', flush=True)\n"
    if where == "hook":
        code = "@driver.on_startup\nasync def _():\n    " + code.replace("\n", "\n    ")
    host = HostProcess(project(tmp_path, code, NOBODY))
    try:
        host.wait_for("went on$")
        host.wait_for("child nonebot ready")
        assert host.stop() == 0
        line = r"bot\.py line \d+: the debugger goes on at once, this bot has no keyboard: to stop there, "
        assert len(host.wait_for(line + ADVICE)) == 1
        assert "BdbQuit" not in host.text
    finally:
        host.close()


THREADS = {  # what a task does, and what the line begins with; LINE: its own line
    "to_thread": ("await asyncio.to_thread(breakpoint)", "LINE"),
    "a lambda": ("await asyncio.to_thread(lambda: breakpoint())", "LINE"),
    "a thread that is joined": ("t = Thread(target=breakpoint); t.start(); t.join()", "LINE"),
    "a thread": ("Thread(target=breakpoint, name='mine').start()", "(LINE|thread mine)"),
    "input in a thread": ("Thread(target=input, name='mine').start()", "(LINE|thread mine)"),
    "a pool": ("asyncio.get_running_loop().run_in_executor(None, pdb.set_trace)", r"(LINE|thread asyncio_\d+)"),
}
ASKING = """
import asyncio, pdb
from threading import Thread

@driver.on_startup
async def _():
    asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(ask()))

async def ask():
    {}
"""


@pytest.mark.parametrize("kind", THREADS)
def test_a_thread_that_reads_the_keyboard_is_told_by_the_project_s_line(tmp_path: Path, kind: str) -> None:
    """Its own stack may have no line of the project: it begins in Python's threading.py."""
    does, who = THREADS[kind]
    folder = project(tmp_path, ASKING.format(does), NOBODY)
    lines = (folder / "bot.py").read_text(encoding="utf-8").splitlines()
    who = who.replace("LINE", rf"bot\.py line {lines.index(f'    {does}') + 1}")
    host = HostProcess(folder)
    try:
        host.wait_for(rf"\| {who}: (the debugger goes on at once|input\(\) finds no line)")
    finally:
        host.stop()
        host.close()


@pytest.mark.parametrize(
    "reads", ["input('name? ')", "__import__('getpass').getpass()", "sys.stdin.readline() or input()"]
)
def test_whoever_reads_the_keyboard_is_told_that_there_is_none(tmp_path: Path, reads: str) -> None:
    code = f"try:\n    {reads}\nexcept EOFError:\n    print('no line', flush=True)\n"
    host = HostProcess(project(tmp_path, code, NOBODY), PYTHONWARNINGS="ignore")
    try:
        host.wait_for(r"^nonebot \| .*no line$")
        host.wait_for(
            r"bot\.py line \d+: input\(\) finds no line \(EOFError\), this bot has no keyboard: to .*" + ADVICE
        )
        host.wait_for("child nonebot ready")
    finally:
        host.stop()
        host.close()


def test_a_bot_that_needs_the_keyboard_to_start_says_why_it_does_not(tmp_path: Path) -> None:
    host = HostProcess(project(tmp_path, "input()", NOBODY))
    try:
        host.wait_for(r"bot\.py line \d+: input\(\) finds no line \(EOFError\), this bot has no keyboard: .*" + ADVICE)
        host.wait_for("child nonebot exited 1 before it was ready")
    finally:
        host.stop()
        host.close()


def test_two_bots_cannot_have_the_terminal(tmp_path: Path) -> None:
    table = "[tool.lycomm.processes.{}]\nterminal = true\n"
    host = HostProcess(project(tmp_path, "", table.format("one") + table.format("two")))
    try:
        assert host.wait() == 2
        place = re.escape("terminal in [tool.lycomm.processes.two] of pyproject.toml")
        host.wait_for(f"^lycomm: {place}: one has the terminal already, and only one process can have it$")
    finally:
        host.close()


CONSOLE = '[tool.nonebot]\nbuiltin_plugins = ["echo"]\n'
CONSOLE += 'adapters = [{ name = "Console", module_name = "nonebot.adapters.console" }]\n'


def test_the_console_adapter_says_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("nonebot.adapters.console")
    folder = write(tmp_path / "bot", {"pyproject.toml": CONSOLE, ".env": "DRIVER=~none\n"})
    host = HostProcess(folder)
    try:
        what = "adapter Console: no key reaches it and its screen is cut into lines, this bot has no keyboard: .*"
        assert len(host.wait_for(what + ADVICE)) == 1
    finally:
        host.stop()
        host.close()


def test_the_console_adapter_chats_on_the_hosts_terminal(tmp_path: Path) -> None:
    pytest.importorskip("nonebot.adapters.console")
    folder = write(tmp_path / "bot", {"pyproject.toml": CONSOLE + WITH_TERMINAL, ".env": "DRIVER=~none\n"})
    with on_a_terminal(folder, "run", TEXTUAL_ANIMATIONS="none") as terminal:
        terminal.see("Focus input")  # a key that it names in its last line
        for attempt in range(5):  # it is drawn before it takes keys
            terminal.type("\x1f/echo marker-text\r")
            with contextlib.suppress(AssertionError):
                terminal.see(r"\x1b\[[0-9;]*mmarker-text", timeout=10 * (attempt + 1))
                break
        terminal.see(r"\x1b\[[0-9;]*mmarker-text", timeout=1)
        drawn = len(terminal.shown)
        terminal.type("\x11")
        terminal.see("\x1b\\[\\?1049l", after=drawn)
        end_with_one_ctrl_c(terminal, hook=False)
