"""SIGTERM for a bot: a service manager sends it to host and bots alike, a person to one bot alone."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from kit import HostProcess, eventually, free_port, host_process, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send"),
]

PLUGIN = """
import asyncio
from typing import Any

import nonebot
from nonebot.adapters import Adapter, Bot, Event, Message
from nonebot.message import handle_event

driver = nonebot.get_driver()


class TestAdapter(Adapter):
    @classmethod
    def get_name(cls): return "Test"
    async def _call_api(self, bot, api, **data): ...


class TestBot(Bot):
    async def send(self, event, message, **kwargs): ...


class Said(Event):
    def get_type(self): return "notice"
    def get_event_name(self): return "said"
    def get_event_description(self): return "said"
    def get_message(self): raise ValueError
    def get_user_id(self): return "1"
    def get_session_id(self): return "1"
    def is_tome(self): return True


@nonebot.on("notice").handle()
async def answer():
    print("HANDLER begins", flush=True)
    await asyncio.sleep(SECONDS)
    print("HANDLER answers", flush=True)


@driver.on_startup
async def say():
    bot = TestBot(TestAdapter(driver), "1")
    driver.task_group.start_soon(handle_event, bot, Said())


@driver.on_shutdown
async def bye():
    print("SHUTDOWN HOOK", flush=True)
"""


def project(folder: Path, driver: str = "~none", *, seconds: float = 1.0, more: str = "") -> Path:
    return write(
        folder,
        {
            "pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n',
            ".env": f"DRIVER={driver}\nPORT={free_port()}\n",
            "plugins/said.py": PLUGIN.replace("SECONDS", str(seconds)) + more,
        },
    )


def order(host: HostProcess, *patterns: str) -> list[int]:
    """Where the lines stand."""
    return [next(number for number, line in enumerate(host.lines) if pattern in line) for pattern in patterns]


DRIVERS = {
    "~none": "nonebot",
    "~fastapi": "fastapi",
    "~quart": "quart",
    "~aiohttp": "aiohttp",
    "~websockets": "websockets",
}


@pytest.mark.parametrize(
    ("driver", "bot_first"),
    [*((driver, True) for driver in DRIVERS), ("~none", False), ("~fastapi", False)],
    ids=lambda value: value if isinstance(value, str) else ("bot first" if value else "host first"),
)
def test_a_whole_control_group(tmp_path: Path, driver: str, bot_first: bool) -> None:
    """systemd sends SIGTERM to all processes of a service: the driver used to close its connections at once, or to take
    the host's stop for a second request and skip the shutdown hooks."""
    if importlib.util.find_spec(DRIVERS[driver]) is None:
        pytest.skip(f"{driver} is not installed")
    with host_process(project(tmp_path, driver)) as host:
        host.wait_for("child nonebot ready")
        host.wait_for("HANDLER begins")
        bot = host.child()
        for pid in (bot.pid, host.pid) if bot_first else (host.pid, bot.pid):
            os.kill(pid, signal.SIGTERM)
        assert host.wait(20) == 0
        answered, hook = order(host, "HANDLER answers", "SHUTDOWN HOOK")
        assert answered < hook
        assert "stopped after the stop message" in host.text
        assert "Traceback" not in host.text
        assert len(host.wait_for("child nonebot started")) == 1


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_whole_control_group_by_sigint(tmp_path: Path, driver: str) -> None:
    """``KillSignal=SIGINT``: the host's stop finds a bot that ends already, and is no second request to its driver."""
    slow = """
@driver.on_shutdown
async def slow():
    print("SLOW begins", flush=True)
    await asyncio.sleep(2)
    print("SLOW ends", flush=True)
"""
    folder = project(tmp_path, driver)
    plugin = folder / "plugins" / "said.py"
    plugin.write_text(plugin.read_text() + slow)
    with host_process(folder) as host:
        host.wait_for("child nonebot ready")
        bot = host.child()
        bot.send_signal(signal.SIGINT)
        host.wait_for("SLOW begins")
        host.send(signal.SIGINT)
        assert host.wait(20) == 0
        host.wait_for("SLOW ends")


def test_a_bot_that_comes_after_another_is_waited_for(tmp_path: Path) -> None:
    """The one that stops last works on for longer than it would wait by itself."""
    for name in ("db", "web"):
        project(tmp_path / name, seconds=3.0)
    write(
        tmp_path,
        {
            "pyproject.toml": '[tool.lycomm.processes.db]\nproject = "db"\n'
            '[tool.lycomm.processes.web]\nproject = "web"\nafter = ["db"]\n'
        },
    )
    with host_process(tmp_path) as host:
        host.wait_for(r"child \w+ ready", count=2)
        host.wait_for("HANDLER begins", count=2)
        for process in host.children():
            process.terminate()
        host.send(signal.SIGTERM)
        assert host.wait(25) == 0
        web, db = order(host, "child web stopped after the stop message", "child db stopped after the stop message")
        assert web < db
        assert host.text.count("SHUTDOWN HOOK") == 2


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_one_bot_alone_ends_in_order_and_comes_back(tmp_path: Path, driver: str) -> None:
    with host_process(project(tmp_path, driver)) as host:
        host.wait_for("child nonebot ready")
        host.wait_for("HANDLER begins")
        old = host.child()
        old.terminate()
        host.wait_for("child nonebot is to restart: somebody has sent it SIGTERM")
        host.wait_for("child nonebot ready", count=2)
        answered, hook = order(host, "HANDLER answers", "SHUTDOWN HOOK")
        assert answered < hook
        assert not old.is_running()
        assert host.stop() == 0


def test_one_bot_alone_that_is_never_restarted_has_failed(tmp_path: Path) -> None:
    with host_process(project(tmp_path), LYCOMM_RESTART="never") as host:
        host.wait_for("HANDLER begins")
        host.wait_for("child nonebot ready")
        host.child().terminate()
        assert host.wait(20) == 1
        host.wait_for(r"somebody has sent it SIGTERM; not starting it again \(restart = never\)")
        assert "SHUTDOWN HOOK" in host.text


async def test_one_bot_alone_ends_also_when_the_host_hangs(tmp_path: Path) -> None:
    with host_process(project(tmp_path, seconds=8.0)) as host:
        host.wait_for("child nonebot ready")
        host.wait_for("HANDLER begins")
        bot = host.child()
        host.send(signal.SIGSTOP)
        bot.terminate()
        await eventually(lambda: bot.status() == "zombie", timeout=30)  # nobody reaps it yet
        host.send(signal.SIGCONT)
        host.wait_for("SIGTERM: the host cannot be told")
        # Once it goes on, the host may read the bot's request or see its end first.
        host.wait_for(
            r"child nonebot ((ended by itself: )?killed by SIGTERM; starting it again|"
            r"had just ended by itself \(killed by SIG)"
        )
        answered, hook = order(host, "HANDLER answers", "SHUTDOWN HOOK")
        assert answered < hook
        host.wait_for("child nonebot ready", count=2)
        assert host.stop() == 0


STUCK = """
@driver.on_shutdown
async def hang():
    print("STUCK", flush=True)
    await asyncio.sleep(60)
"""

DEAF = """
import signal

@driver.on_startup
async def deafen():
    asyncio.get_running_loop().call_later(0.5, signal.signal, signal.SIGINT, signal.SIG_IGN)
    asyncio.get_running_loop().call_later(0.6, print, "DEAF")
"""

QUICK = {"LYCOMM_STOP_TIMEOUT": "1", "LYCOMM_INTERRUPT_TIMEOUT": "0.5", "LYCOMM_TERMINATE_TIMEOUT": "5"}


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_the_ladder_ends_by_sigterm_what_ignores_sigint(tmp_path: Path, driver: str) -> None:
    with host_process(project(tmp_path, driver, seconds=0, more=DEAF), **QUICK) as host:
        host.wait_for("child nonebot ready")
        host.wait_for("DEAF")
        assert host.stop() == 0
        host.wait_for("child nonebot stopped after SIGTERM")
        assert "SHUTDOWN HOOK" in host.text


def test_the_ladder_ends_by_sigterm_a_hook_that_hangs(tmp_path: Path) -> None:
    with host_process(project(tmp_path, "~fastapi", seconds=0, more=STUCK), **QUICK) as host:
        host.wait_for("child nonebot ready")
        assert host.stop() == 0
        host.wait_for("STUCK")
        host.wait_for("child nonebot stopped after SIGTERM")


def test_a_late_sigterm_does_not_cut_the_shutdown_hooks_off(tmp_path: Path) -> None:
    more = """
@driver.on_shutdown
async def save():
    print("SAVING", flush=True)
    await asyncio.sleep(2)
    print("SAVED", flush=True)
"""
    for driver in ("~none", "~fastapi"):
        with host_process(project(tmp_path, driver, seconds=0, more=more)) as host:
            host.wait_for("child nonebot ready")
            bot = host.child()
            host.send(signal.SIGINT)
            host.wait_for("SAVING")
            bot.terminate()
            assert host.wait() == 0
            assert "SAVED" in host.text, host.text
            assert "child nonebot stopped after the stop message" in host.text


STARTS = """
@driver.on_startup
async def hang():
    try:
        print("HOOK", flush=True)  # a signal may arrive before this returns
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.3)
        print("CLEANED UP", flush=True)
"""


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_whole_control_group_while_the_bot_starts(tmp_path: Path, driver: str) -> None:
    """The bot is interrupted by its own SIGTERM, and the host's stop right after it does not cut the clean-up off."""
    with host_process(project(tmp_path, driver, seconds=0, more=STARTS)) as host:
        host.wait_for("HOOK$")
        bot = host.child()
        for pid in (bot.pid, host.pid):
            os.kill(pid, signal.SIGTERM)
        assert host.wait() == 0
        assert "CLEANED UP" in host.text
        assert "Traceback" not in host.text


def test_one_bot_alone_while_it_starts(tmp_path: Path) -> None:
    with host_process(project(tmp_path, seconds=0, more=STARTS), LYCOMM_BACKOFF_BASE="0.1") as host:
        host.wait_for("HOOK$")
        host.child().terminate()
        host.wait_for("CLEANED UP")
        host.wait_for("child nonebot killed by SIGTERM before it was ready; starting it again")
        host.wait_for("HOOK$", count=2)
        assert host.stop() == 0
