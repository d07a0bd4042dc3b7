"""What an operator's signals do to a host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit import free_port, host_process, lab_project, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals to send"),
]


IDLE = '[tool.lycomm]\non_failed = "stay"\n[tool.lycomm.processes.bot]\nproject = "bot"\nautostart = false\n'

SAVES = """
import asyncio
import nonebot

@nonebot.get_driver().on_shutdown
async def save():
    print("HOOK begins", flush=True)
    await asyncio.sleep(SECONDS)
    print("HOOK ends", flush=True)
"""


def saving_project(folder: Path, seconds: float, driver: str = "~none") -> Path:
    """A bot whose shutdown hook takes its time."""
    return write(
        folder,
        {
            "pyproject.toml": '[tool.nonebot]\nplugin_dirs = ["plugins"]\n',
            ".env": f"DRIVER={driver}\nPORT={free_port()}\n",
            "plugins/saves.py": SAVES.replace("SECONDS", str(seconds)),
        },
    )


INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(
    "signals",
    [
        [(INT, 0.0), (TERM, 0.0)],
        [(INT, 0.01), (TERM, 0.0)],
        [(TERM, 0.01), (INT, 0.0)],
        [(INT, 0.5), (TERM, 0.0)],
        [(TERM, 0.8), (INT, 0.0)],
        [(INT, 0.1), (INT, 0.1), (TERM, 0.0)],
        [(TERM, 1.3), (TERM, 0.0)],
    ],
    ids=lambda signals: " ".join(f"{signal.Signals(number).name[3:]}+{pause}" for number, pause in signals),
)
def test_signals_of_one_request(tmp_path: Path, signals: list[tuple[int, float]]) -> None:
    """A wrapper that passes Ctrl+C on sends SIGTERM too: the bots used to be killed without their shutdown hooks."""
    with host_process(saving_project(tmp_path, 1.5)) as host:
        host.wait_for("child nonebot ready")
        host.tree()
        for number, pause in signals:
            host.send(number)
            time.sleep(pause)
        assert host.wait() == 0
        host.wait_for("HOOK ends")
        host.wait_for("child nonebot stopped after the stop message")


def test_ctrl_c_once_more_kills(tmp_path: Path) -> None:
    with host_process(saving_project(tmp_path, 60.0)) as host:
        host.wait_for("child nonebot ready")
        host.tree()
        host.send(INT)
        host.wait_for("HOOK begins")
        time.sleep(1.1)  # what is due is the time between the two
        host.send(INT)
        assert host.wait() == 0
        host.wait_for("asked again to end: killing all processes")
        host.wait_for("child nonebot stopped after a kill")


def test_ctrl_c_once_more_ends_a_hook_that_hangs_before_the_start(tmp_path: Path) -> None:
    program = """
        import asyncio
        from liteyuki_host import Host
        host = Host(processes={"bot": {"autostart": False}})
        @host.on_before_start
        async def hang():
            print("HANGS", flush=True)
            await asyncio.sleep(60)
        host.run()
    """
    with host_process(write(tmp_path, {"program.py": program}), "program.py") as host:
        host.wait_for("HANGS")
        host.send(INT)
        time.sleep(1.1)
        host.send(INT)
        assert host.wait() != 0


@pytest.mark.skipif(not os.path.exists(os.path.join(os.path.dirname(sys.executable), "nb")), reason="nb-cli is missing")
def test_one_ctrl_c_under_nb_run(tmp_path: Path) -> None:
    """It arrives as SIGINT from the terminal and SIGTERM from nb-cli."""
    saving_project(tmp_path, 1.0)
    write(tmp_path, {"bot.py": "from liteyuki_host import Host\n\nif __name__ == '__main__':\n    Host().run()\n"})
    nb = subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), "nb"), "run"],
        cwd=tmp_path,
        # nb-cli runs the bot with the Python that it finds first on the PATH.
        env={**os.environ, "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert nb.stdout is not None
    with nb.stdout:
        shown = []
        for line in nb.stdout:
            shown.append(line)
            if "child nonebot ready" in line:
                os.killpg(nb.pid, INT)
        nb.wait(20)
    assert "HOOK ends" in "".join(shown), "".join(shown)


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """nohup: the host used to take it for a reload, and restarted the bot when the terminal was closed."""
    with host_process(lab_project(tmp_path), *ignoring("SIGHUP")) as host:
        host.wait_for("child nonebot ready")
        bot = host.child()
        host.send(signal.SIGHUP)
        bot.send_signal(signal.SIGHUP)
        host.send(TERM)
        assert host.wait() == 0
        assert "SIGHUP" not in host.text
        host.wait_for("child nonebot stopped after the stop message")


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    """Of `lycomm run &` in a script: Ctrl+C is for the program in the foreground. SIGTERM ends it."""
    with host_process(lab_project(tmp_path), *ignoring("SIGINT")) as host:
        host.wait_for("child nonebot ready")
        host.send(INT)
        host.send(signal.SIGHUP)
        host.wait_for("child nonebot: SIGHUP; trying it")  # so SIGINT came before, and did nothing
        host.wait_for("child nonebot ready", count=2)
        host.send(TERM)
        assert host.wait() == 0
        host.wait_for("child nonebot stopped after the stop message", count=2)


def ignoring(name: str) -> tuple[str, ...]:
    program = f"""if True:
        import runpy, signal, sys
        signal.signal(signal.{name}, signal.SIG_IGN)
        sys.argv = ["lycomm", "run"]
        runpy.run_module("liteyuki_host", run_name="__main__")
    """
    return ("-c", program)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_host_notices_a_signal_at_once(tmp_path: Path, number: signal.Signals) -> None:
    # With nothing to wake its loop: a signal that came just before the loop slept was noticed in half of the runs.
    write(tmp_path, {"pyproject.toml": IDLE})
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
    write(tmp_path, {"pyproject.toml": IDLE})
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
