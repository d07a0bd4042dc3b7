"""Several SIGINTs within a second, from anywhere, are one request: no bot loses its shutdown hooks to them."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from kit import HostProcess, free_port, host_process, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send"),
]

# Both hooks and the code after nonebot.run() are what a second request would cut off.
BOT = """
import asyncio, sys, time
import nonebot
TOP

nonebot.init()
driver = nonebot.get_driver()

MORE

@driver.on_shutdown
async def save():
    print("HOOK begins", flush=True)
    await asyncio.sleep(SECONDS)
    print("HOOK ends", flush=True)

nonebot.run()
print("AFTER RUN", flush=True)
time.sleep(0.7)
print("THE END", flush=True)
"""

DRIVERS = {
    "~none": "nonebot",
    "~fastapi": "fastapi",
    "~httpx+~websockets": "httpx",
    "~quart": "quart",
    "~aiohttp": "aiohttp",
}

SEQUENCES = {
    "bot": "b 0.5 b",
    "all, host first": "h b h b",
    "all, bot first": "b h 0.3 b h",
    "three times": "b h 0.3 h b 0.3 b h",
    "the host's stop and two": "h 0.3 b 0.3 b",
}
CASES = [(driver, "three times") for driver in DRIVERS] + [
    ("~none", name) for name in SEQUENCES if name != "three times"
]


def project(folder: Path, driver: str = "~none", *, seconds: float = 1.5, more: str = "", top: str = "") -> Path:
    bot = BOT.replace("SECONDS", str(seconds)).replace("MORE", more).replace("TOP", top)
    return write(folder, {"pyproject.toml": "", ".env": f"DRIVER={driver}\nPORT={free_port()}\n", "bot.py": bot})


def send(host: HostProcess, bot: psutil.Process, sequence: str) -> None:
    """Send the signals of a sequence: b, h: SIGINT to the bot or the host; B, H: SIGTERM; a number: seconds."""
    for word in sequence.split():
        if word in "bhBH":
            pid = bot.pid if word in "bB" else host.pid
            os.kill(pid, signal.SIGINT if word.islower() else signal.SIGTERM)
        else:
            time.sleep(float(word))  # what is due is the time between the two


@pytest.mark.parametrize(("driver", "sequence"), CASES)
def test_one_request(tmp_path: Path, driver: str, sequence: str) -> None:
    if importlib.util.find_spec(DRIVERS[driver]) is None:
        pytest.skip(f"{driver} is not installed")
    with host_process(project(tmp_path, driver)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), SEQUENCES[sequence])
        assert host.wait(20) == 0
        host.wait_for("HOOK ends")
        host.wait_for("THE END")
        assert "Traceback" not in host.text, host.text


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
@pytest.mark.parametrize("seconds", [0.1, 0.35])
def test_the_second_one_comes_when_the_driver_has_ended(tmp_path: Path, driver: str, seconds: float) -> None:
    """What the project does after nonebot.run() is part of its end as well."""
    with host_process(project(tmp_path, driver, seconds=seconds)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "b 0.3 b 0.3 b")
        assert host.wait(20) == 0
        host.wait_for("HOOK ends")
        host.wait_for("THE END")
        assert "Traceback" not in host.text, host.text


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_sigterm_among_them(tmp_path: Path, driver: str) -> None:
    """From a wrapper that passes Ctrl+C on to the whole group."""
    with host_process(project(tmp_path, driver)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "h b 0.2 h b 0.2 H B")
        assert host.wait(20) == 0
        host.wait_for("HOOK ends")
        host.wait_for("THE END")
        assert "Traceback" not in host.text, host.text


def test_the_driver_gets_a_second_one_later_than_that(tmp_path: Path) -> None:
    with host_process(project(tmp_path, seconds=60)) as host:
        host.wait_for("child nonebot ready")
        bot = host.child()
        send(host, bot, "b")
        host.wait_for("HOOK begins")
        send(host, bot, "1.1 b")
        bot.wait(5)
        host.stop()
        assert "HOOK ends" not in host.text


def test_a_second_one_later_than_that_ends_what_follows_the_driver(tmp_path: Path) -> None:
    folder = project(tmp_path, seconds=0)
    script = folder / "bot.py"
    script.write_text(script.read_text().replace("time.sleep(0.7)", "time.sleep(60)"))
    with host_process(folder) as host:
        host.wait_for("child nonebot ready")
        bot = host.child()
        send(host, bot, "b")
        host.wait_for("AFTER RUN")
        send(host, bot, "1.1 b")
        assert host.wait(10) == 0
        assert "THE END" not in host.text
        assert "Traceback" not in host.text, host.text


START = """
@driver.on_startup
async def hang():
    try:
        print("STARTING", flush=True)  # a signal may arrive before this returns
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.3)
        print("CLEANED UP", flush=True)
"""


@pytest.mark.parametrize("sequence", ["b 0.1 b", "h b 0.1 b h", "B H 0.1 b h"])
@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_while_the_bot_starts(tmp_path: Path, driver: str, sequence: str) -> None:
    with host_process(project(tmp_path, driver, seconds=0, more=START)) as host:
        host.wait_for("STARTING$")
        send(host, host.child(), sequence)
        host.wait(10)
        host.wait_for("CLEANED UP")
        assert "Traceback" not in host.text, host.text


@pytest.mark.parametrize("pause", ["", "0.05"])
def test_while_the_bot_is_imported(tmp_path: Path, pause: str) -> None:
    top = 'print("IMPORTS", flush=True)\ntime.sleep(60)'
    with host_process(project(tmp_path, top=top)) as host:
        host.wait_for("IMPORTS$")
        send(host, host.child(), f"b {pause} b h")
        assert host.wait(10) == 0
        assert "Traceback" not in host.text, host.text


def test_uvloop(tmp_path: Path) -> None:
    """A loop that handles signals in its own way."""
    with host_process(project(tmp_path, top="import uvloop\nuvloop.install()")) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "h b 0.4 b h")
        assert host.wait(20) == 0
        host.wait_for("HOOK ends")
        host.wait_for("THE END")


def test_an_idle_bot_notices_it_at_once(tmp_path: Path) -> None:
    """Nothing else wakes its loop."""
    for _ in range(3):
        with host_process(project(tmp_path, seconds=0)) as host:
            host.wait_for("child nonebot ready")
            time.sleep(0.5)
            send(host, host.child(), "b")
            host.wait_for("HOOK ends", timeout=3)
            assert host.wait(10) == 0
