"""Promises that need real processes and a host of their own: a process has one host at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kit import running_host

from liteyuki_host.comm.storage import SharedMemory

pytestmark = pytest.mark.e2e


async def test_a_restart_hands_over_what_was_not_consumed(tmp_path: Path) -> None:
    """F20, D24: messages used to vanish with the child that had read them."""
    async with running_host(tmp_path, "solo", backoff_base=0.1) as lab:
        from loguru import logger

        reports: list[str] = []
        sink = logger.add(lambda line: reports.append(str(line)), level="WARNING", format="{message}")
        channel = lab.channel("solo-active")
        seen: list[Any] = []
        back = lab.channel("back")
        back.on_receive()(seen.append)
        total = 3000
        for number in range(total):
            await channel.asend(number)
            if number % 700 == 350:
                seen += await lab.ask("solo", "receive", seconds=5, count=100)
            if number in (500, 1200, 1900):
                await lab.host.arestart_process("solo")
            if number == 2500:
                with pytest.raises(Exception, match="no answer can come"):
                    await lab.ask("solo", "crash")
                await lab.host.wait_ready("solo", 30)
        left = total - len(set(seen))
        seen += await lab.ask("solo", "receive", seconds=5, count=left)
        logger.remove(sink)
        lost = sum(int(line.split()[1]) for line in reports if "lost" in line)
        assert len(set(seen)) + lost == total
        assert lost == 0
        assert len(seen) == len(set(seen)), "a planned restart, or a kill of an idle child, redelivers nothing consumed"


async def test_death_is_one_step(tmp_path: Path) -> None:
    async with running_host(tmp_path, "one", "two", backoff_base=0.1) as lab:
        memory = SharedMemory(lab.host.hub)
        await lab.ask("one", "hold_lock", key="turn")
        await lab.ask("one", "ephemeral", key="owner")
        assert memory.get("owner") is not None
        pid = await lab.ask("one", "pid")
        waiting = asyncio.ensure_future(lab.ask("two", "hold_lock", key="turn"))
        with pytest.raises(Exception, match="no answer can come"):
            await lab.ask("one", "crash")
        await asyncio.wait_for(waiting, 5)
        assert memory.get("owner") is None
        await lab.host.wait_ready("one", 30)
        assert await lab.ask("one", "pid") != pid
        status = next(entry for entry in lab.host.status() if entry["name"] == "one")
        assert status["last_exit"] == "killed by SIGKILL"
        assert status["restarts"] == 1


async def test_f18_a_child_asks_for_its_restart_and_each_hook_fires_once(tmp_path: Path) -> None:
    async with running_host(tmp_path, "solo") as lab:
        fired: list[tuple[str, str]] = []
        restarted = asyncio.Event()
        lab.host.on_before_process_shutdown(lambda name: fired.append(("shutdown", name)))
        lab.host.on_before_process_restart(lambda name: fired.append(("restart", name)))

        @lab.host.on_after_restart
        async def after(name: str) -> None:
            fired.append(("after", name))
            restarted.set()

        pid = await lab.ask("solo", "pid")
        await lab.ask("solo", "restart_me")
        await asyncio.wait_for(restarted.wait(), 30)
        assert await lab.ask("solo", "pid") != pid
        assert sorted(fired) == [("after", "solo"), ("restart", "solo"), ("shutdown", "solo")]
        assert fired[-1] == ("after", "solo")
        await lab.host.astop_process("solo")
        assert lab.host.status()[0]["state"] == "stopped"
        lab.channel("solo-active").send("while it is stopped")
        await lab.host.astart_process("solo")
        assert await lab.ask("solo", "receive", seconds=5) == ["while it is stopped"]
