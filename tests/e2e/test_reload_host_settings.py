"""A change of the host's own settings while a bot of its folder reloads: a wrong one is told at once, and none of them
restarts the bot."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from kit import HostProcess, eventually, free_port, host_process, lab_project, write

from liteyuki_host.host import Host

pytestmark = pytest.mark.e2e

OVERLAP = pytest.param(
    "overlap", marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
)
OF_THE_HOST = "settings of the host changed"
NOT_RESTARTED = r"child \w+: nothing that the bot itself reads has changed in \.env; it is not restarted"


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text("utf-8") + text, "utf-8")


def pid(host: HostProcess) -> int:
    return next(process.pid for process in reversed(host.children()) if process.is_running())


@contextmanager
def reloading(folder: Path, mode: str = "swap", *command: str) -> Iterator[HostProcess]:
    lab_project(folder, "~fastapi", free_port())
    with host_process(folder, *command, LYCOMM_RELOAD=mode) as host:
        host.wait_for("child nonebot ready")
        yield host
        assert host.stop() == 0


@pytest.mark.parametrize("mode", ["swap", OVERLAP])
def test_settings_of_the_host_are_checked_and_told_and_restart_nothing(tmp_path: Path, mode: str) -> None:
    with reloading(tmp_path, mode) as host:
        dotenv = tmp_path / ".env"
        before, first = dotenv.read_text("utf-8"), pid(host)
        dotenv.write_text(before + "LYCOMM_MAX_RESTARTS=many\n", "utf-8")
        [line] = host.wait_for("child nonebot: the change cannot start: ")
        assert "cannot start: LYCOMM_MAX_RESTARTS in .env: 'many' is not " in line
        assert line.endswith("; the running bot stays")

        dotenv.write_text(before + "LYCOMM_MAX_RESTARTS=3\n", "utf-8")
        [line] = host.wait_for(OF_THE_HOST)
        assert line.endswith(f"{OF_THE_HOST} (LYCOMM_MAX_RESTARTS); they count from the next start of the host")
        host.wait_for(NOT_RESTARTED)
        assert pid(host) == first

        # What the bot reads is loaded with it, and what was told is not told again.
        append(dotenv, 'NICKNAME=["mine"]\n')
        host.wait_for("child nonebot stopped after")
        host.wait_for(r"child nonebot (ready|: pid \d+ takes over)", count=2 if mode == "swap" else 1)
        second = pid(host)
        assert second != first
        assert len(host.wait_for(OF_THE_HOST)) == 1

        # Compared with what the new bot has loaded.
        append(dotenv, "LYCOMM_LOG_LEVEL=DEBUG\n")
        host.wait_for(r"\(LYCOMM_MAX_RESTARTS, LYCOMM_LOG_LEVEL\)")
        host.wait_for(NOT_RESTARTED, count=2)
        assert pid(host) == second


def test_a_good_save_beside_a_wrong_setting_waits_for_the_right_one(tmp_path: Path) -> None:
    """What was saved together with a wrong setting of the host is loaded once that is corrected."""
    with reloading(tmp_path) as host:
        dotenv = tmp_path / ".env"
        before, first = dotenv.read_text("utf-8"), pid(host)
        dotenv.write_text(before + "LYCOMM_NO_SUCH=1\n", "utf-8")
        append(tmp_path / "lab.py", "\nprint('the new lab')\n")
        host.wait_for("the change cannot start: LYCOMM_NO_SUCH in .env: no such setting")
        assert pid(host) == first
        dotenv.write_text(before + "LYCOMM_LOG_LEVEL=DEBUG\n", "utf-8")
        host.wait_for("child nonebot ready", count=2)
        host.wait_for("the new lab")
        assert OF_THE_HOST in host.text


def test_a_wrong_table_of_a_process_is_told_under_run_reload(tmp_path: Path) -> None:
    """The command line repeats what the table says as arguments, which beat the table."""
    lab_project(tmp_path, "~none")
    table = "\n[tool.lycomm.processes.nonebot]\nautostart = {}\n"
    append(tmp_path / "pyproject.toml", table.format("true"))
    with host_process(tmp_path, "-m", "liteyuki_host", "run", "--reload") as host:
        host.wait_for("child nonebot ready")
        text = (tmp_path / "pyproject.toml").read_text("utf-8")
        (tmp_path / "pyproject.toml").write_text(text.replace("autostart = true", "autostart = 'yes'"), "utf-8")
        host.wait_for(r"the change cannot start: autostart in \[tool.lycomm.processes.nonebot\] of pyproject.toml: ")
        (tmp_path / "pyproject.toml").write_text(text.replace("autostart = true", "max_restarts = 3"), "utf-8")
        host.wait_for(rf"{OF_THE_HOST} \(processes\.nonebot\)")
        host.wait_for("has changed in pyproject.toml; it is not restarted")
        assert len(host.wait_for("child nonebot started")) == 1
        assert host.stop() == 0


def test_a_bot_elsewhere_reloads_for_its_own_dotenv_as_ever(tmp_path: Path) -> None:
    lab_project(tmp_path / "bot")
    write(tmp_path, {"pyproject.toml": "[tool.lycomm.processes.web]\nproject = 'bot'\n"})
    with host_process(tmp_path, LYCOMM_RELOAD="swap") as host:
        host.wait_for("child web ready")
        append(tmp_path / "bot" / ".env", "LYCOMM_LOG_LEVEL=LOUD\n")
        host.wait_for("child web ready", count=2)
        assert OF_THE_HOST not in host.text
        assert host.stop() == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
def test_a_reload_by_request_is_refused_and_a_change_told(tmp_path: Path) -> None:
    """Nothing watches the files here."""
    lab_project(tmp_path)
    dotenv = tmp_path / ".env"
    before = dotenv.read_text("utf-8")
    with host_process(tmp_path) as host:
        host.wait_for("child nonebot ready")
        first = pid(host)
        dotenv.write_text(before + "LYCOMM_RESTART=perhaps\n", "utf-8")
        os.kill(host.pid, signal.SIGHUP)
        host.wait_for("the change cannot start: LYCOMM_RESTART in .env: 'perhaps' is not .*; the running bot stays")
        assert pid(host) == first
        dotenv.write_text(before + "LYCOMM_RESTART=always\n", "utf-8")
        os.kill(host.pid, signal.SIGHUP)
        host.wait_for(rf"{OF_THE_HOST} \(LYCOMM_RESTART\)")
        host.wait_for("child nonebot ready", count=2)  # somebody has asked for it
        assert host.stop() == 0


@asynccontextmanager
async def _serving(host: Host) -> AsyncIterator[None]:
    serving = asyncio.ensure_future(host.serve())
    try:
        yield
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


async def test_a_restart_is_not_refused_for_the_settings_of_the_host(tmp_path: Path) -> None:
    host = Host(lab_project(tmp_path))
    async with _serving(host):
        await host.wait_ready("nonebot", 30)
        first = host.status()[0]["pid"]
        append(tmp_path / ".env", "LYCOMM_LOG_LEVEL=LOUD\n")
        host.reload_process("nonebot")
        await eventually(lambda: not host._supervisor._reloads)
        assert host.status()[0]["pid"] == first
        await host.arestart_process("nonebot")
        assert host.status()[0]["pid"] != first
