"""What a bot loses by its end is told, whatever state its event loop is in: sent is finished and told together."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from child_kit import watched
from launch_kit import HostProcess, StartHost, free_port, make_project
from onebot_client import onebot_client

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals; Windows has tests of its own"),
]

HEAD = """
import asyncio, time
from nonebot import on_message
from nonebot.adapters.onebot.v11 import Bot, MessageEvent
from nonebot.message import event_preprocessor

arrived = 0
finished = open("finished", "a", buffering=1)

async def arrives():
    global arrived
    arrived += 1
    print(f"arrived {arrived}.", flush=True)

message = on_message()
"""

OVERLOADED = """
@event_preprocessor
async def count(event: MessageEvent):
    await arrives()

@message.handle()
async def slow(event: MessageEvent):
    for _ in range(1000 if event.message_id % 10 else 3):
        time.sleep(0.001)
        await asyncio.sleep(0)
    finished.write(f"{event.message_id}\\n")
"""

# Every other one never ends.
MIXED = """
@message.handle()
async def first(event: MessageEvent):
    await arrives()
    if event.message_id % 2:
        await asyncio.sleep(3600)

@message.handle()
async def second(event: MessageEvent):
    finished.write(f"{event.message_id}\\n")
    await message.finish()
"""

# Forty events have been handed over, and their tasks never get to begin.
BLOCKED = """
tasks = []

@message.handle()
async def blocks(bot: Bot, event: MessageEvent):
    for _ in range(40):
        tasks.append(asyncio.create_task(bot.handle_event(event.model_copy())))
    print("blocked", flush=True)
    while True:
        try:
            time.sleep(3600)
        except KeyboardInterrupt:  # the ladder's signals interrupt it, and it goes on
            pass
"""

LADDER = {"stop_timeout": 0.5, "interrupt_timeout": 0.2, "terminate_timeout": 0.2}


@contextmanager
def bot(start_host: StartHost, folder: Path, plugin: str, **spec: object) -> Iterator[tuple[HostProcess, str, Path]]:
    port = free_port()
    project = make_project(folder / "bot", HEAD + plugin, port=port)
    host = start_host(project, **spec)
    host.line("child nonebot ready")
    yield host, f"ws://127.0.0.1:{port}/onebot/v11/ws", project / "finished"


def told(host: HostProcess) -> tuple[int, int]:
    """Events not begun, and events not finished."""
    not_begun = re.findall(r"child nonebot: (\d+) events? came while it was stopping", host.text)
    unfinished = re.findall(r"child nonebot: (\d+) events? not finished", host.text)
    assert len(not_begun) <= 1
    assert len(unfinished) <= 1
    return sum(map(int, not_begun)), sum(map(int, unfinished))


@pytest.mark.parametrize(
    ("plugin", "count", "spec"),
    [
        (OVERLOADED, 500, {"drain_timeout": 1, **LADDER}),
        (OVERLOADED, 500, {"drain_timeout": 0, **LADDER}),
        (OVERLOADED, 500, {"drain_timeout": 1, "stop_timeout": 0, "interrupt_timeout": 0, "terminate_timeout": 0}),
        (MIXED, 60, {"drain_timeout": 0.5, **LADDER}),
        (MIXED, 60, {"drain_timeout": 0.5}),
    ],
    ids=["overloaded", "not drained", "killed at once", "some never end", "and are cancelled"],
)
async def test_what_was_sent_is_finished_or_told(
    start_host: StartHost, tmp_path: Path, plugin: str, count: int, spec: dict[str, object]
) -> None:
    with bot(start_host, tmp_path, plugin, **spec) as (host, url, finished):
        async with onebot_client(url) as client:
            await client.wait_connected()
            for number in range(count):
                await client.send_group_message("x", user_id=10000 + number)
            host.line(rf"arrived {count}\.$", timeout=60)
            host.stop()
        done = len(finished.read_text().split())
        not_begun, unfinished = told(host)
        assert unfinished > 0 or plugin is OVERLOADED
        assert done + not_begun + unfinished == count
        if not unfinished:
            return
        name = r"(plugins\.)?mine\.\w+ \(message\.group\.normal\), running for \d+ s"
        more = rf"; .*and {unfinished - 20} more$" if unfinished > 20 else ""
        host.line(rf"not finished and ended with the bot: {name}{more}")


async def test_a_blocked_loop_is_told_of_by_the_links_thread(start_host: StartHost, tmp_path: Path) -> None:
    with bot(start_host, tmp_path, BLOCKED, drain_timeout=0.5, **LADDER) as (host, url, _):
        async with onebot_client(url) as client:
            await client.wait_connected()
            await client.send_group_message("x")
            host.line(r"^nonebot \| blocked$")
            host.stop()
    host.line(r"child nonebot: 40 events came while it was stopping, or before, and were not begun$")
    host.line(
        r"child nonebot: 1 event not finished and ended with the bot: (plugins\.)?mine\.blocks \(.*running for \d s$"
    )
    host.line(r"child nonebot stopped after a kill")
    assert "did not say" not in host.text


async def test_a_bot_that_is_killed_for_its_blocked_loop_tells_too(start_host: StartHost, tmp_path: Path) -> None:
    with bot(start_host, tmp_path, BLOCKED, loop_timeout=1) as (host, url, _):
        async with onebot_client(url) as client:
            await client.wait_connected()
            await client.send_group_message("x")
            host.line("child nonebot event loop blocked 1 s: some plugin blocks it; killing it")
            host.line(r"child nonebot: 1 event not finished and ended with the bot: (plugins\.)?mine\.blocks ")
            host.line(r"child nonebot: 40 events came while")


CANCELS = """
kept = []

@message.handle()
async def cancels(bot: Bot, event: MessageEvent):
    tasks = [asyncio.create_task(bot.handle_event(event.model_copy())) for _ in range(5)]
    for task in tasks[:3]:
        task.cancel()  # before its first step
    await asyncio.wait(tasks[:3])
    kept.append(tasks.pop(0))
    print("cancelled", flush=True)
    time.sleep(3600)
"""


async def test_what_the_bot_itself_has_cancelled_is_not_counted(tmp_path: Path) -> None:
    port = free_port()
    with watched(make_project(tmp_path / "bot", HEAD + CANCELS, port=port)) as child:
        async with onebot_client(f"ws://127.0.0.1:{port}/onebot/v11/ws") as client:
            await client.wait_connected()
            await client.send_group_message("x")
            child.line("^cancelled$")
            child.session.drain(0)
            child.until(lambda: child.drained, "report")
            _, not_begun, unfinished = child.drained[0]
            assert unfinished + not_begun == 3
            assert unfinished >= 1
