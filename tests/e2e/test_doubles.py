"""No bot runs twice, whoever starts it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from kit import host_process, lab_project

pytestmark = pytest.mark.e2e


def test_a_second_host_does_not_start_the_same_bot(tmp_path: Path) -> None:
    lab_project(tmp_path)
    with host_process(tmp_path) as first:
        first.wait_for("child nonebot ready")
        with host_process(tmp_path) as second:
            line = second.wait_for("child nonebot cannot start: the bot already runs under another host")[0]
            assert f"(pid {first.pid}, since " in line
            assert line.endswith("stop that one first")
            assert second.stop() == 0
        assert first.child().is_running()
        assert first.stop() == 0
    with host_process(tmp_path) as third:
        third.wait_for("child nonebot ready")
        assert third.stop() == 0


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
