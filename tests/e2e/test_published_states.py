"""What the host and its bots learn of each other's lives."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from kit import eventually, running_host

from liteyuki_host.comm.topics import STATES_TOPIC, subscribe, unsubscribe

pytestmark = pytest.mark.e2e


@pytest.mark.skipif(sys.platform == "win32", reason="the crash is a signal")
async def test_each_change_of_state_is_published_to_host_and_bots(tmp_path: Path) -> None:
    async with running_host(tmp_path, "one", "two", backoff_base=0.1) as lab:
        here: list[dict[str, Any]] = []
        subscribe(STATES_TOPIC, exchange=lab.host.hub)(here.append)
        await lab.ask("two", "subscribe", topic=STATES_TOPIC)
        pid = next(process["pid"] for process in lab.host.status() if process["name"] == "one")
        os.kill(pid, signal.SIGKILL)
        await lab.host.wait_ready("one", 30)
        await eventually(lambda: here and here[-1]["state"] == "ready")
        unsubscribe(STATES_TOPIC, exchange=lab.host.hub)
        steps = [(step["process"], step["previous"], step["state"]) for step in here]
        assert steps == [
            ("one", "ready", "backing off"),
            ("one", "backing off", "starting"),
            ("one", "starting", "hooks done"),
            ("one", "hooks done", "ready"),
        ]
        assert here[0]["cause"] == "killed by SIGKILL"
        assert here[0]["pid"] is None or here[0]["pid"] == pid
        assert here[-1]["restarts"] == 1
        assert here[-1]["pid"] not in (None, pid)
        there = await eventually(lambda: _received(lab, len(here)))
        assert there == here
        assert [str(step.state) for step in lab.host.history("one")][-4:] == [state for _, _, state in steps]


async def _received(lab: Any, count: int) -> list[Any] | None:
    received = await lab.ask("two", "published")
    return received if len(received) >= count else None


async def test_what_a_bot_prints_is_kept_for_the_host(tmp_path: Path) -> None:
    async with running_host(tmp_path, "one") as lab:
        lines, missing = lab.host.output("one").lines()
        assert missing == 0
        assert any("Running NoneBot" in line.text for line in lines)
        assert [line.number for line in lines] == list(range(1, len(lines) + 1))
