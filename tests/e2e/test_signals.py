"""What an operator's signals do to a host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit import host_process, lab_project, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send"),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_host_notices_a_signal_at_once(tmp_path: Path, number: signal.Signals) -> None:
    # With nothing to wake its loop: a signal that came just before the loop slept was noticed in half of the runs.
    write(tmp_path, {"pyproject.toml": "[tool.lycomm.processes.bot]\nproject = 'bot'\nautostart = false\n"})
    for _ in range(4):
        with host_process(tmp_path) as host:
            host.wait_for("host up")
            host.send(number)
            assert host.wait(5) == 0


def test_sighup_gives_every_bot_its_new_code(tmp_path: Path) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as host:
        host.wait_for("child nonebot ready")
        old = host.child().pid
        host.send(signal.SIGHUP)
        host.wait_for("child nonebot: SIGHUP; trying it before the bot is restarted")
        host.wait_for("child nonebot is to restart: SIGHUP")
        host.wait_for("child nonebot ready", count=2)
        assert [line for line in host.lines if "started (pid" in line][-1].endswith("SIGHUP")
        assert old not in {process.pid for process in host.tree() if process.is_running()}
        assert host.stop() == 0


def test_a_closed_terminal_stops_the_host(tmp_path: Path) -> None:
    """It is the same signal, and nobody would know of a host that went on."""
    write(tmp_path, {"pyproject.toml": "[tool.lycomm.processes.bot]\nproject = 'bot'\nautostart = false\n"})
    master, slave = os.openpty()
    env = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}

    # As a shell does for its programs: the terminal is this process's own before the host runs.
    program = """if True:
        import fcntl, runpy, sys, termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        sys.argv = ["lycomm", "run"]
        runpy.run_module("liteyuki_host", run_name="__main__")
    """
    host = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=env,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        shown = b""
        while b"host up" not in shown:
            shown += os.read(master, 4096)
        os.close(master)
        assert host.wait(10) == 0
    finally:
        host.kill()
        host.wait(10)


def test_sighup_leaves_a_bot_alone_whose_new_code_cannot_start(tmp_path: Path) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as host:
        host.wait_for("child nonebot ready")
        pid = host.child().pid
        (tmp_path / "lab.py").write_text("import nonebot\nthis is no python\n", encoding="utf-8")
        host.send(signal.SIGHUP)
        line = host.wait_for("child nonebot: the change cannot start: ")[0]
        assert "lab.py line 2" in line
        assert "the running bot stays" in line
        assert host.child().pid == pid
        assert host.stop() == 0
