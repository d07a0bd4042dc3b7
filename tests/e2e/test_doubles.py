"""No bot runs twice, whoever starts it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from kit import host_process, lab_project, write

pytestmark = pytest.mark.e2e


def test_a_second_host_does_not_start_the_same_bot(tmp_path: Path) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child nonebot ready")
        with host_process(tmp_path) as second:
            line = second.wait_for("child nonebot cannot start: the bot already runs under another host")[0]
            assert f"(pid {first.pid}, since " in line
            assert line.endswith("stop that one first")
            assert second.wait() == 1
        assert first.child().is_running()
        assert first.stop() == 0
    with host_process(tmp_path) as third:
        third.wait_for("child nonebot ready")
        assert third.stop() == 0


def test_another_name_for_the_same_project_does_not_start_it_again(tmp_path: Path) -> None:
    """Two hosts with folders of their own and names of their own, for one bot."""
    lab_project(tmp_path / "bot")
    for name in ("one", "two"):
        declared = f"[tool.lycomm.processes.{name}]\nproject = '../bot'\n"
        write(tmp_path / name, {"pyproject.toml": declared})
    with host_process(tmp_path / "one") as first:
        first.wait_for("child one ready")
        with host_process(tmp_path / "two") as second:
            line = second.wait_for("child two cannot start: the bot already runs under another host")[0]
            assert f"(pid {first.pid}, since " in line
            assert line.endswith(", as one): stop that one first")
            second.send(signal.SIGINT)
            second.wait()
        assert first.child().is_running()
        assert first.stop() == 0


def two_accounts(folder: Path) -> None:
    """One project, declared as two processes."""
    lab_project(folder)
    declared = "[tool.lycomm.processes.{0}]\nenv = {{ ACCOUNT = '{0}' }}\n"
    with (folder / "pyproject.toml").open("a") as file:
        file.write(declared.format("one") + declared.format("two"))


def test_one_host_may_run_one_project_under_two_names(tmp_path: Path) -> None:
    """Two accounts, one code. Another host gets neither, as long as one of them is wanted."""
    two_accounts(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child (one|two) ready", count=2)
        with host_process(tmp_path) as second:
            second.wait_for("child (one|two) cannot start: the bot already runs under another host", count=2)
            second.send(signal.SIGINT)
            second.wait()
        assert first.stop() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such kill")
def test_the_next_host_ends_the_bots_of_all_names_that_a_killed_one_left(tmp_path: Path) -> None:
    two_accounts(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child (one|two) ready", count=2)
        old = [process for process in first.tree() if "liteyuki_host.launch" in process.cmdline()]
        assert len(old) == 2
        for process in old:
            process.send_signal(signal.SIGSTOP)  # they cannot notice by themselves
        first.send(signal.SIGKILL)
        with host_process(tmp_path) as second:
            second.wait_for("child (one|two) ready", count=2)
            assert not [process for process in old if process.is_running() and process.status() != "zombie"]
            assert second.stop() == 0
        first.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="there the job object ends the children at once")
def test_the_next_host_waits_until_the_bot_of_a_killed_one_is_gone(tmp_path: Path) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child nonebot ready")
        old = first.child()
        old.send_signal(signal.SIGSTOP)  # it cannot notice by itself
        first.send(signal.SIGKILL)
        with host_process(tmp_path) as second:
            second.wait_for(r"child nonebot started \(pid")
            assert not old.is_running() or old.status() == "zombie"
            second.wait_for("child nonebot ready")
            assert second.stop() == 0
        first.wait()
