"""A bot that replaces its process by itself, the way bots restart themselves without a host."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit import HostProcess, free_port, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals; Windows has tests of its own"),
]

# Does it when the file "go" is there, once.
WHEN_TOLD = """
import anyio, asyncio, os, signal, subprocess, sys, threading
from pathlib import Path
from nonebot import get_driver

driver = get_driver()

async def when_told():
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    Path("go").unlink()
    {what}

@driver.on_startup
async def _():
    driver.task = asyncio.create_task(when_told())

@driver.on_shutdown
async def _():
    print("shutdown hook ran", flush=True)
"""

BOT = """
import nonebot, os, sys
if __name__ == "__main__":
    nonebot.init()
    nonebot.load_plugins("plugins")
    nonebot.run()
"""


AFTER = "    os.execv(sys.executable, [sys.executable, *sys.argv])\n"


@contextmanager
def ready(folder: Path, what: str, after: str = "", plugin_end: str = "") -> Iterator[tuple[HostProcess, Path]]:
    """A bot that is ready and does *what* when the file is there."""
    project = write(folder / "bot", {".env": "DRIVER=~none\n", "bot.py": BOT + after, "pyproject.toml": ""})
    (project / "plugins").mkdir()
    (project / "plugins" / "mine.py").write_text(WHEN_TOLD.replace("{what}", what) + plugin_end)
    host = HostProcess(project)
    try:
        host.wait_for("child nonebot ready")
        yield host, project / "go"
    finally:
        host.close()


@pytest.mark.parametrize(
    "what",
    [
        "os.execv(sys.executable, [sys.executable, *sys.argv])",
        "os.execl(sys.executable, sys.executable, *sys.argv)",
        "os.execve(sys.executable, [sys.executable, *sys.argv], os.environ)",
        "os.execvp('python3', ['python3', *sys.argv])",
        "os.execlp('nb', 'nb', 'run')",
        "await asyncio.to_thread(os.execv, sys.executable, [sys.executable, *sys.argv])",
        "await asyncio.gather(asyncio.to_thread(lambda: os.execv(sys.executable, [sys.executable, *sys.argv])))",
        "threading.Thread(target=lambda: os.execv(sys.executable, [sys.executable, *sys.argv])).start()",
        "asyncio.get_running_loop().call_soon(lambda: os.execv(sys.executable, [sys.executable, *sys.argv]))",
        "await anyio.to_thread.run_sync(os.execv, sys.executable, [sys.executable, *sys.argv])",
    ],
)
def test_a_bot_that_replaces_itself_is_restarted_as_planned(tmp_path: Path, what: str) -> None:
    with ready(tmp_path, what) as (host, go):
        go.touch()
        host.wait_for(r"\[INFO\] nonebot \| .* plugins/mine\.py line \d+ restarts the bot \(os\.execv\): its host")
        host.wait_for("shutdown hook ran$")
        host.wait_for("child nonebot stopped after the stop message")
        host.wait_for("child nonebot ready", count=2)
        host.stop()
        assert not re.search(r"starting it again|lost its link|host \| .*(ERROR|WARNING)", host.text)
        assert "Traceback" not in host.text
        assert "FinishedException" not in host.text
        assert "Exception in" not in host.text


@pytest.mark.parametrize(
    "what",
    [
        "threading.Thread(target=os.execv, args=(sys.executable, [sys.executable, *sys.argv]), name='mine').start()",
        "asyncio.create_task(asyncio.to_thread(os.execv, sys.executable, [sys.executable, *sys.argv]))",
        "asyncio.get_running_loop().run_in_executor(None, os.execv, sys.executable, [sys.executable, *sys.argv])",
    ],
)
def test_a_thread_without_a_line_of_the_project_is_named(tmp_path: Path, what: str) -> None:
    with ready(tmp_path, what) as (host, go):
        go.touch()
        # The line that gives it to a pool may still be running.
        host.wait_for(
            r"\| (thread (mine|asyncio_\d+)|plugins/mine\.py line \d+) restarts the bot \(os\.execv\): its host"
        )
        host.wait_for("child nonebot ready", count=2)
        host.stop()
        assert "Traceback" not in host.text


def test_also_after_nonebot_has_ended(tmp_path: Path) -> None:
    with ready(tmp_path, "os.kill(os.getpid(), signal.SIGINT)", AFTER) as (host, go):
        go.touch()
        host.wait_for(r"bot\.py line \d+ restarts the bot \(os\.execv\): its host does so$")
        host.wait_for("child nonebot ready", count=2)
        host.stop()
        assert host.text.count("child nonebot started") == 2, "and the host's stop is no restart"


def test_a_stop_by_the_host_is_no_restart(tmp_path: Path) -> None:
    with ready(tmp_path, "pass", AFTER) as (host, _):
        host.stop()
        assert "restarts the bot" not in host.text
        assert host.text.count("child nonebot started") == 1
        host.wait_for(r"child nonebot stopped after the stop message in .* \(exited 0\)$")


def test_a_bot_that_replaces_itself_before_it_is_ready_cannot_start(tmp_path: Path) -> None:
    bot = (
        "import os, sys\nif 'SET' not in os.environ:\n    os.environ['SET'] = '1'\n"
        f"    os.execv(sys.executable, [sys.executable, *sys.argv])\n{BOT}"
    )
    project = write(tmp_path / "bot", {".env": "DRIVER=~none\n", "bot.py": bot, "pyproject.toml": ""})
    host = HostProcess(project)
    try:
        host.wait_for(
            r"bot\.py line 4 replaces the bot by another program \(os\.execv\) before it is ready, where its host "
            r"cannot follow: set variables by env, .* in \[tool\.lycomm\.processes\.nonebot\]$"
        )
        host.wait_for("child nonebot cannot start: exited 78")
        host.stop()
        assert host.text.count("child nonebot started") == 1
    finally:
        host.close()


HOOKS = {
    "async": "async def _():\n    {}",
    "sync": "def _():\n    {}",
    "a thread": "async def _():\n    threading.Thread(target=lambda: {}).start()\n    await asyncio.sleep(60)",
}


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_nor_can_one_that_does_so_in_a_startup_hook(tmp_path: Path, hook: str, driver: str) -> None:
    code = "import asyncio, os, sys, threading\nfrom nonebot import get_driver\n\n@get_driver().on_startup\n"
    project = write(
        tmp_path / "bot", {".env": f"DRIVER={driver}\nPORT={free_port()}\n", "bot.py": BOT, "pyproject.toml": ""}
    )
    (project / "plugins").mkdir()
    (project / "plugins" / "mine.py").write_text(code + hook.format("os.execv(sys.executable, [sys.executable])"))
    host = HostProcess(project)
    try:
        host.wait_for(r"plugins/mine\.py line \d+ replaces the bot by another program \(os\.execv\) before it is ready")
        host.wait_for("child nonebot cannot start: exited 78")
        host.wait()
        assert host.text.count("child nonebot started") == 1
        assert "Traceback" not in host.text
    finally:
        host.close()


def test_in_a_shutdown_hook_it_keeps_no_other_hook_from_running(tmp_path: Path) -> None:
    # NoneBot runs shutdown hooks in reverse order: this one comes before the other one of the plugin.
    hook = "\n\n@driver.on_shutdown\nasync def _():\n    os.execv(sys.executable, [sys.executable, *sys.argv])"
    with ready(tmp_path, "pass", plugin_end=hook) as (host, _):
        host.stop()
        host.wait_for("shutdown hook ran$")
        host.wait_for(r"child nonebot stopped after the stop message in .* \(exited 0\)$")
        assert "Traceback" not in host.text


def test_programs_that_are_started_are_nobodys_restart(tmp_path: Path) -> None:
    what = (
        'os.spawnv(os.P_WAIT, "/bin/echo", ["echo", "spawned"]); os.fork() or os.execv("/bin/echo", ["echo", "forked"])'
    )
    with ready(tmp_path, what) as (host, go):
        go.touch()
        host.wait_for(r"^nonebot \| spawned$")
        host.wait_for(r"^nonebot \| forked$")
        host.stop()
        assert "restarts the bot" not in host.text


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.Popen([sys.executable, *sys.argv])",
        "os.posix_spawn(sys.executable, [sys.executable, *sys.argv], os.environ)",
    ],
)
def test_a_bot_that_starts_itself_anew_and_ends_is_told_of(tmp_path: Path, start: str) -> None:
    with ready(tmp_path, f"{start}; os._exit(0)") as (host, go):
        go.touch()
        host.wait_for("child nonebot ended by itself: exited 0; not starting it again$")
        host.wait_for(
            r"child nonebot had started python\S* \S+bot\.py \(pid \d+\), which was ended with it\. If that was to be "
            r"the bot itself: restart it by nonebot_plugin_lycomm\.restart_process\(\)$"
        )


def test_a_process_pool_is_no_new_bot(tmp_path: Path) -> None:
    what = "import multiprocessing as m; p = m.get_context('spawn').Pool(1); p.apply(len, ['x']); os._exit(0)"
    with ready(tmp_path, what) as (host, go):
        go.touch()
        host.wait_for("child nonebot ended by itself: exited 0; not starting it again$")
        host.stop()
        assert "had started" not in host.text
