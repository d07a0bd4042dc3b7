"""A real host with real bots that is short of something for a moment: it goes on, and so do they."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import eventually, running_host
from loguru import logger
from shortage_kit import descriptors_left, threads_left

from liteyuki_host import boundary
from liteyuki_host.supervisor import vigil

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")]

QUICK = {"backoff_base": 0.1, "backoff_max": 0.2}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    sink = logger.add(lambda message: written.append(message.rstrip("\n")), format="{message}", level="INFO")
    yield written
    logger.remove(sink)


def said(lines: list[str], words: str) -> bool:
    return any(words in line for line in lines)


def pids(lab: Any) -> dict[str, int | None]:
    return {status["name"]: status["pid"] for status in lab.host.status()}


async def test_a_save_is_obeyed_once_there_are_descriptors_again(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to end the host, with all bots."""
    monkeypatch.setattr(boundary, "FIRST_DELAY", 0.05)
    async with running_host(tmp_path, "one", "two", reload="swap") as lab:
        before = pids(lab)
        with descriptors_left(1):  # files can be looked at, and no pipe be made
            (tmp_path / "one" / "lab.py").write_text((tmp_path / "one" / "lab.py").read_text() + "\n# saved\n")
            await eventually(lambda: said(lines, "child one: its reload failed: Too many open files; trying again"))
            assert pids(lab) == before
        await eventually(lambda: pids(lab)["one"] not in (None, before["one"]), 20)
        await lab.host.wait_ready("one", 20)
        assert pids(lab)["two"] == before["two"]
    assert sum("lab.py changed; trying it" in line for line in lines) == 1


async def test_bots_that_are_weighed_outlive_a_lack_of_descriptors(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "MEMORY_SECONDS", 0.05)
    async with running_host(tmp_path, "one", "two", memory_limit="4 GiB") as lab:
        before = pids(lab)
        with descriptors_left(0):
            await eventually(lambda: said(lines, "child two: measuring its memory failed: Too many open files"))
        await eventually(lambda: said(lines, "child two: measuring its memory works again"))
        assert pids(lab) == before
        assert await lab.ask("two", "echo", value=1) == 1


@pytest.mark.parametrize("limit", [descriptors_left, threads_left], ids=lambda limit: limit.__name__)
async def test_a_bot_that_is_killed_meanwhile_comes_back(limit: Any, tmp_path: Path, lines: list[str]) -> None:
    async with running_host(tmp_path, "one", "two", **QUICK) as lab:
        before = pids(lab)
        killed = before["one"]
        assert killed is not None
        with limit(0):
            os.kill(killed, signal.SIGKILL)
            await eventually(lambda: sum("child one could not be started: " in line for line in lines) >= 3)
        began = time.monotonic()
        await lab.host.wait_ready("one", 30)
        assert time.monotonic() - began < 30
        assert pids(lab)["two"] == before["two"]
        assert await lab.ask("one", "echo", value=1) == 1
