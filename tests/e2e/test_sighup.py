"""SIGHUP for a bot: alone, or from a service manager that sends it to host and bots alike. No bot loses its hooks."""

from __future__ import annotations

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
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP"),
]

PLUGIN = """
import asyncio
import nonebot

driver = nonebot.get_driver()

@driver.on_shutdown
async def saves():
    print("SAVES", flush=True)
    await asyncio.sleep(SECONDS)
    print("SAVED", flush=True)

@driver.on_startup
async def starts():
    STARTS
"""


def project(folder: Path, driver: str = "~none", *, seconds: float = 0.3, starts: str = "pass") -> Path:
    return write(
        folder,
        {
            "pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n',
            ".env": f"DRIVER={driver}\nPORT={free_port()}\n",
            "plugins/saves.py": PLUGIN.replace("SECONDS", str(seconds)).replace("STARTS", starts),
        },
    )


def send(host: HostProcess, bot: psutil.Process, sequence: str) -> None:
    """Send the signals of a sequence: h, b: SIGHUP to the host or the bot; H, B: SIGTERM; a number: seconds."""
    for word in sequence.split():
        if word in "bhBH":
            os.kill(bot.pid if word in "bB" else host.pid, signal.SIGHUP if word.islower() else signal.SIGTERM)
        else:
            time.sleep(float(word))  # what is due is the time between the two


@pytest.mark.parametrize("driver", ["~none", "~fastapi", "~httpx+~websockets"])
def test_one_bot_alone_is_reloaded(tmp_path: Path, driver: str) -> None:
    with host_process(project(tmp_path, driver)) as host:
        host.wait_for("child nonebot ready")
        old = host.child()
        send(host, old, "b b")
        host.wait_for("child nonebot: somebody has sent it SIGHUP; trying it before the bot is restarted")
        host.wait_for("child nonebot ready", count=2, timeout=40)
        host.wait_for("SAVED")
        assert not old.is_running()
        assert host.stop() == 0
        assert len(host.wait_for("child nonebot started")) == 2
        assert "killed by" not in host.text


def test_one_bot_alone_stays_when_its_new_code_cannot_start(tmp_path: Path) -> None:
    folder = project(tmp_path)
    with host_process(folder) as host:
        host.wait_for("child nonebot ready")
        pid = host.child().pid
        (folder / "plugins" / "saves.py").write_text("this is no python\n", encoding="utf-8")
        send(host, host.child(), "b")
        host.wait_for("the change cannot start: .*the running bot stays")
        assert host.child().pid == pid
        assert "SAVES" not in host.text
        send(host, host.child(), "B")
        host.wait_for("somebody has sent it SIGTERM")
        host.wait_for("SAVED")


# The SIGHUP comes when the shutdown hook runs, too.
@pytest.mark.parametrize("sequence", ["H B h b", "h b H B", "B b H h", "b B h H", "H 0.5 h b", "b 0.3 H B"])
@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_a_stop_of_the_whole_group(tmp_path: Path, driver: str, sequence: str) -> None:
    with host_process(project(tmp_path, driver, seconds=1.5)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), sequence)
        assert host.wait(20) == 0
        host.wait_for("SAVED")
        assert "Traceback" not in host.text, host.text
        assert "killed by" not in host.text, host.text
        assert len(host.wait_for("child nonebot started")) == 1


def test_a_reload_of_the_whole_group_is_one(tmp_path: Path) -> None:
    """``systemctl kill --signal=HUP``."""
    with host_process(project(tmp_path)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "b h")
        host.wait_for("child nonebot ready", count=2, timeout=40)
        host.wait_for("SAVED")
        send(host, host.child(), "1.5")  # a bot tells of its signal after a second
        assert host.stop() == 0
        assert len(host.wait_for("child nonebot started")) == 2


@pytest.mark.parametrize("driver", ["~none", "~fastapi"])
def test_while_the_bot_starts(tmp_path: Path, driver: str) -> None:
    """It may have loaded the old code: the reload follows when it is ready."""
    starts = "print('STARTS', flush=True); await asyncio.sleep(1.5)"
    with host_process(project(tmp_path, driver, starts=starts)) as host:
        host.wait_for("STARTS$")
        send(host, host.child(), "b")
        host.wait_for("somebody has sent it SIGHUP; trying it before the bot is restarted")
        host.wait_for("child nonebot ready", count=2, timeout=40)
        assert host.stop() == 0
        assert "killed by" not in host.text


def test_a_stop_of_the_whole_group_while_the_bot_starts(tmp_path: Path) -> None:
    starts = "print('STARTS', flush=True); await asyncio.sleep(60)"
    with host_process(project(tmp_path, starts=starts)) as host:
        host.wait_for("STARTS$")
        send(host, host.child(), "H B h b")
        assert host.wait(20) == 0
        host.wait_for("SAVED")
        assert "killed by" not in host.text


def test_a_handler_of_the_project_stays(tmp_path: Path) -> None:
    starts = (
        "import signal\n"
        "    nonebot.logger.info('READY TO HANG UP')\n"
        "    signal.signal(signal.SIGHUP, lambda *_: print('MINE', flush=True))"
    )
    with host_process(project(tmp_path, starts=starts)) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "b")
        host.wait_for("MINE")
        send(host, host.child(), "1.5")
        assert host.stop() == 0
        assert "has sent it SIGHUP" not in host.text


def test_the_host_does_not_answer(tmp_path: Path) -> None:
    with host_process(project(tmp_path)) as host:
        host.wait_for("child nonebot ready")
        bot = host.child()
        host.send(signal.SIGSTOP)
        try:
            send(host, bot, "b 7")  # TERMINATE_SECONDS and TERMINATED_ANSWER_SECONDS
            assert bot.is_running()
        finally:
            host.send(signal.SIGCONT)
        host.wait_for("SIGHUP: the host cannot be asked for a reload")
        assert host.stop() == 0


BLOCKED = """if True:
    import runpy, signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    sys.argv = ["lycomm", "run"]
    runpy.run_module("liteyuki_host", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_were_blocked(tmp_path: Path, number: signal.Signals) -> None:
    """A parent that blocks signals for a moment, and starts the host meanwhile, passes its signal mask on."""
    with host_process(project(tmp_path), "-c", BLOCKED) as host:
        host.wait_for("child nonebot ready")
        send(host, host.child(), "h")
        host.wait_for("child nonebot ready", count=2, timeout=40)
        host.send(number)
        assert host.wait(15) == 0
        assert len(host.wait_for("SAVED", count=2)) == 2


EMBEDDED = """if True:
    import asyncio, signal
    from liteyuki_host import Host
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    host = Host(".")
    async def main():
        serving = asyncio.create_task(host.serve())
        await host.wait_ready("nonebot", 30)
        host.stop()
        await serving
    asyncio.run(main())
"""


def test_a_bot_of_a_program_that_blocks_signals(tmp_path: Path) -> None:
    with host_process(project(tmp_path), "-c", EMBEDDED) as host:
        assert host.wait(40) == 0
        host.wait_for("SAVED")
        host.wait_for("child nonebot stopped after the stop message")
