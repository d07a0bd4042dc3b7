"""Planned restarts of a bot with slow handlers at work: what they were about to say is said before the bot ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from faults_kit import Report
from kit import eventually, free_port, write
from live_kit import DEADLINE, LiveHost, Traces, damage_project, live_host
from loguru import logger
from onebot_client import OneBotClient, onebot_client
from websockets.exceptions import ConnectionClosed

from liteyuki_host.supervisor.states import State

TITLE = "planned restarts"
SHORT = {"restarts": 2, "handlers": 20, "seconds": 1.2, "timeout": 3.0}
LONG = {"restarts": 50, "handlers": 100, "seconds": 3.0, "timeout": 10.0}

CHAT_EVERY = 4
"""Of so many restarts one is asked for by chat, beginning with the second."""

TOO_LONG_EVERY = 5
"""In so many restarts once there are handlers at work that do not fit the time-out, beginning with the second."""

TOO_LONG = 3
LADDER = {"stop_timeout": 1.0, "interrupt_timeout": 0.5, "terminate_timeout": 0.5}
"""Short: NoneBot keeps its handlers from being cancelled, and a bot with one that does not end has to be killed."""

LATE_PAUSE = 0.02
"""Seconds between two events that come while the bot stops."""

PLUGIN = """
    import asyncio

    from nonebot import on_startswith
    from nonebot.adapters.onebot.v11 import MessageEvent

    from nonebot_plugin_lycomm import passive_channel

    running = 0
    changed = asyncio.Condition()
    all_there = asyncio.Event()

    async def work(seconds):
        global running
        async with changed:
            running += 1
            changed.notify_all()
        await all_there.wait()
        await asyncio.sleep(seconds)

    @passive_channel.on_receive()
    async def until_running(count):
        async with changed:
            await changed.wait_for(lambda: running == count)
        all_there.set()
        return running

    slow = on_startswith("slow")

    @slow.handle()
    async def forecast(event: MessageEvent):
        _, number, seconds = event.get_plaintext().split()
        await work(float(seconds))
        await slow.finish(f"done {number}")

    lasting = on_startswith("too long")

    @lasting.handle()
    async def too_long(event: MessageEvent):
        await work(3600)
"""


async def run(
    report: Report, folder: Path, *, restarts: int, handlers: int, seconds: float, timeout: float, seed: int = 1
) -> None:
    """
    Args:
        handlers: at work at the moment of each restart.
        seconds: that each of them takes at most.
        timeout: the bot's ``drain_timeout``.
        seed: of how long each handler takes.
    """
    traces = Traces(folder)
    addresses = {name: bot_project(folder / name) for name in ("bot", "hasty")}
    processes: dict[str, dict[str, Any]] = {
        name: {"project": str(folder / name), "drain_timeout": limit, **LADDER}
        for name, limit in (("bot", timeout), ("hasty", 0.0))
    }
    dice = random.Random(seed)
    async with live_host(folder, traces, processes) as lab, contextlib.AsyncExitStack() as ends:
        await lab.ready(*processes)
        bot, hasty = [
            Restarts(lab, name, await ends.enter_async_context(connected(address)), handlers, seconds, dice)
            for name, address in addresses.items()
        ]
        await asyncio.gather(bot.repeat(restarts), hasty.once())
        await bot.answers_to_chats()
    bot.report(report, f"{restarts} restarts, {handlers} handlers at work at each, seed {seed}")
    lost = len(hasty.replies - hasty.said.keys())
    report.hold("the same with drain_timeout = 0: replies lost", f"{lost} of {handlers}", "more than none", lost > 0)
    await traces.report(report)


def bot_project(folder: Path) -> str:
    """Make a bot; returns where a OneBot client connects to it."""
    port = free_port()
    damage_project(folder)
    write(
        folder,
        {
            "pyproject.toml": """
                [tool.nonebot]
                adapters = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]
                plugins = ["damage", "slow"]
                plugin_dirs = []
            """,
            ".env": f'DRIVER=~fastapi\nPORT={port}\nSUPERUSERS=["10000"]\nLOG_LEVEL=WARNING\n',
            "slow.py": PLUGIN,
        },
    )
    return f"ws://127.0.0.1:{port}/onebot/v11/ws"


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[OneBotClient]:
    async with onebot_client(address) as client:
        await client.wait_connected()
        yield client


@contextlib.contextmanager
def host_lines() -> Iterator[list[str]]:
    """What the host logs meanwhile."""
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(line.record["message"]), level="INFO", format="{message}")
    try:
        yield lines
    finally:
        logger.remove(handler)


class Restarts:
    """Restarts one bot, counts what it said, and what the host told of the rest."""

    def __init__(
        self, lab: LiveHost, name: str, client: OneBotClient, handlers: int, seconds: float, dice: random.Random
    ) -> None:
        self.replies: set[str] = set()
        """What the handlers that fit are to say."""
        self._lab = lab
        self._name = name
        self._client = client
        self._handlers = handlers
        self._seconds = seconds
        self._dice = dice
        self._numbers = itertools.count()
        self._restarts = self._chats = 0
        self._too_long = self._too_long_told = 0
        self._late = self._late_answered = self._late_told = 0
        self._wrong: list[str] = []

    @property
    def said(self) -> Counter[str]:
        """What has arrived at the client, and how often."""
        return Counter(call.text for call in self._client.calls)

    async def repeat(self, restarts: int) -> None:
        for number in range(restarts):
            too_long = TOO_LONG if number % TOO_LONG_EVERY == 1 else 0
            await self.once(by_chat=number % CHAT_EVERY == 1, too_long=too_long)

    async def once(self, *, by_chat: bool = False, too_long: int = 0) -> None:
        """One restart, from a bot that is connected to one that is connected again."""
        replies = set()
        for _ in range(self._handlers):
            replies.add(await self._send(self._dice.uniform(self._seconds / 3, self._seconds)))
        for _ in range(too_long):
            await self._client.send_private_message("too long")
        await self._lab.channel(f"{self._name}-passive").request(self._handlers + too_long, timeout=DEADLINE)
        began, connection = time.time(), self._client.connections
        with host_lines() as lines:
            asked = asyncio.ensure_future(self._ask(by_chat))
            await self._lab.entered(self._name, State.STOPPING, since=began)
            late = await self._send_late()
            await self._lab.entered(self._name, State.READY, since=began)
            await asked
            await self._client.wait_connected(connection=connection + 1)
        self._restarts += 1
        self.replies |= replies
        self._too_long += too_long
        self._note(lines, late)

    async def _send(self, seconds: float) -> str:
        """Returns what the bot is to answer after so many seconds."""
        number = next(self._numbers)
        await self._client.send_private_message(f"slow {number} {seconds:.2f}")
        return f"done {number}"

    async def _ask(self, by_chat: bool) -> None:
        if by_chat:
            self._chats += 1
            await self._client.send_private_message("/restart")
        else:
            await self._lab.host.arestart_process(self._name)

    async def _send_late(self) -> list[str]:
        """Events for as long as the bot can be written to. Returns what the answers would be."""
        answers = []
        with contextlib.suppress(ConnectionClosed):
            while self._client.connected:
                answers.append(await self._send(0.0))
                await asyncio.sleep(LATE_PAUSE)
        return answers

    def _note(self, lines: list[str], late: list[str]) -> None:
        said, about = self.said, f"child {self._name}: "
        self._late += len(late)
        self._late_answered += sum(answer in said for answer in late)
        for line in lines:
            if found := re.match(about + r"(\d+) events? came while it was stopping", line):
                self._late_told += int(found[1])
            if re.match(about + r"\d+ events? not finished", line):
                self._too_long_told += line.count("slow.too_long (message.private.friend)")
                self._wrong += [line] * ("forecast" in line)

    async def answers_to_chats(self) -> None:
        """The last restart's "restarted" comes when the bot is connected again."""
        with contextlib.suppress(AssertionError):  # then it is missed in the report
            await eventually(lambda: self._chats_answered() == self._chats)

    def _chats_answered(self) -> int:
        announced = [text for text in self.said.elements() if text.endswith(" / restarting")]
        answered = [text for text in self.said.elements() if " / restarted, took " in text]
        return min(len(announced), len(answered))

    def report(self, report: Report, words: str) -> None:
        said = self.said
        sent = sum(said[reply] == 1 for reply in self.replies)
        total = len(self.replies)
        report.hold(f"{words}: replies sent, once each", f"{sent:,} of {total:,}", "all", sent == total > 0)
        report.hold(
            "handlers longer than the time-out: named in the log",
            f"{self._too_long_told} of {self._too_long}",
            "all",
            self._too_long_told == self._too_long > 0,
        )
        untold = self._late - self._late_answered - self._late_told
        report.hold(
            "events that came while it stopped: told as not begun",
            f"{self._late_told:,} of {self._late:,} ({self._late_answered} were still answered)",
            "all, but for one at each restart that was on its way when the connection closed",
            self._late_told > 0 and 0 <= untold <= self._restarts,
        )
        report.none("named in the log although they fit", self._wrong)
        chats = self._chats_answered()
        report.hold(
            "of them asked for by chat, announced and answered",
            f"{chats} of {self._chats}",
            "all",
            chats == self._chats > 0,
        )
