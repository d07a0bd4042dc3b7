"""Coming to rest before the end: what runs finishes and answers, what comes is not begun, nothing counts for ever."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from child_kit import Watched, watched
from launch_kit import free_port, make_project
from onebot_client import OneBotClient, onebot_client

pytestmark = pytest.mark.slow

PLUGIN = """
import asyncio, gc
from nonebot import on_message
from nonebot.adapters.onebot.v11 import MessageEvent
from nonebot.exception import IgnoredException
from nonebot.matcher import Matcher
from nonebot.message import event_postprocessor, event_preprocessor, run_preprocessor
from nonebot_plugin_lycomm import passive_channel

go_on = asyncio.Event()

@passive_channel.on_receive()
async def _(text):
    if text == "go on":
        go_on.set()
    if text == "count":
        gc.collect()
        print("left:", sum(type(thing) is cancelled for thing in gc.get_objects()), flush=True)
    print("told", text, flush=True)

def says(word):
    async def rule(event: MessageEvent):
        return event.get_plaintext() == word
    return rule

def begins(event):
    print("begins", event.get_plaintext(), event.message_id, flush=True)

slow = on_message(says("slow"))
@slow.handle()
async def forecast(event: MessageEvent):
    begins(event)
    await go_on.wait()
    await slow.finish(f"done {event.message_id}")

unnamed = on_message(says("unnamed"))
@unnamed.handle()
async def first(event: MessageEvent):
    pass

@unnamed.handle()
async def _(event: MessageEvent):
    begins(event)
    await go_on.wait()

async def slow_rule(event: MessageEvent):
    if event.get_plaintext() == "ruled":
        begins(event)
        await go_on.wait()
    return False

ruled = on_message(slow_rule)

@event_preprocessor
async def ignore(event: MessageEvent):
    if event.get_plaintext() == "ignored":
        await asyncio.sleep(0.05)
        raise IgnoredException("a reason")

keeps_running = on_message(says("cancelled"), block=False)
@keeps_running.handle()
async def other(event: MessageEvent):
    begins(event)
    await go_on.wait()

other.__qualname__ = "other_" * 100

finishes = on_message(says("cancelled"), block=False)
@finishes.handle()
async def quick():
    await finishes.finish()  # the exception and the matcher hold each other

cancelled = on_message(says("cancelled"), block=False)
@cancelled.handle()
async def never_runs():
    pass

@event_postprocessor
async def over(event: MessageEvent):
    print("over", event.get_plaintext(), flush=True)

@run_preprocessor
async def cancel(matcher: Matcher):
    if isinstance(matcher, cancelled):
        await asyncio.sleep(0.05)
        print("cancels", flush=True)
        raise IgnoredException("a reason")

raises = on_message(says("raises"))
@raises.handle()
async def fails():
    raise RuntimeError("as it happens")

pauses = on_message(says("pauses"))
@pauses.handle()
async def asks():
    await pauses.pause("which one?")

@pauses.handle()
async def answers():
    await pauses.finish("that one")
"""

HEARTBEAT = {"post_type": "meta_event", "meta_event_type": "heartbeat", "interval": 5000, "status": {}}


class Scene:
    """A bot, and a client that writes to it."""

    def __init__(self, bot: Watched, client: OneBotClient) -> None:
        self.bot = bot
        self.client = client

    async def line(self, pattern: str) -> str:
        return self.bot.lines[await asyncio.to_thread(self.bot.line, pattern)]

    async def write(self, text: str) -> None:
        """Until its handler, or rule, waits."""
        number = await self.client.send_group_message(text)
        await self.line(f"^begins {text} {number}$")

    async def tell(self, text: str) -> None:
        """Until the bot has heard it, and so everything that it was told before."""
        self.bot.tell(text)
        await self.line(f"^told {text}$")

    async def drained(self, count: int) -> tuple[list[str], int, int]:
        """The report of that number, from 1: names, events not begun, events unfinished."""
        await asyncio.to_thread(self.bot.until, lambda: len(self.bot.drained) >= count, "report")
        assert len(self.bot.drained) == count
        return self.bot.drained[-1]


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    port = free_port()
    with watched(make_project(folder / "bot", PLUGIN, port=port)) as bot:
        async with onebot_client(f"ws://127.0.0.1:{port}/onebot/v11/ws") as client:
            await client.wait_connected()
            yield Scene(bot, client)


async def test_what_runs_finishes_and_answers_and_nothing_new_is_begun(tmp_path: Path) -> None:
    async with scene(tmp_path) as the:
        for _ in range(25):
            await the.write("slow")
        the.bot.session.drain(0)
        unfinished, refused, count = await the.drained(1)
        assert (refused, count) == (0, 25)
        assert len(unfinished) == 21
        assert unfinished[-1] == "and 5 more"
        for words in unfinished[:-1]:
            assert re.fullmatch(r"(plugins\.)?mine\.forecast \(message\.group\.normal\), running for \d+ s", words)

        the.bot.session.drain(60)
        await the.tell("draining")
        await the.client.send_event(HEARTBEAT)
        await the.client.send_group_message("slow")
        await the.line(r"message\.group\.normal is ignored")
        await the.tell("go on")
        assert await the.drained(2) == ([], 1, 0), "neither a heartbeat nor an old report is counted"
        texts = {call.text for call in the.client.calls}
        assert texts == {f"done {number}" for number in range(1, 26)}, "answered before the report"
        await the.client.send_group_message("slow")
        assert await the.drained(3) == ([], 2, 0), "who came after the report is not forgotten"
        assert await asyncio.to_thread(the.bot.end) == 0
        assert len(the.client.calls) == 25


async def test_who_is_still_running_is_named_and_nothing_is_counted_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path) as the:
        for text in ("ignored", "raises", "pauses"):
            await the.client.send_group_message(text, user_id=20000)
        await the.client.wait_for_message()
        await the.line("as it happens")
        await the.line(r"message\.group\.normal is ignored")
        for text in ("slow", "unnamed", "ruled", "cancelled"):
            await the.write(text)
        await the.line("^cancels$")

        the.bot.session.drain(60)
        await the.tell("draining")
        assert the.bot.drained == []
        the.bot.session.drain(0.2)
        unfinished, not_begun, count = await the.drained(1)
        assert (not_begun, count) == (1, 3), "a slow rule is no handler"
        line = 1 + PLUGIN.splitlines().index("@unnamed.handle()", PLUGIN.splitlines().index("    pass"))
        expected = [
            r"(plugins\.)?mine\.forecast \(message\.group\.normal\), running for \d+ s",
            rf"(plugins\.)?mine, line {line} \(message\.group\.normal\), running for \d+ s",
            r"(plugins\.)?mine\.(other_)+\w*",
        ]
        assert len(unfinished) == len(expected), unfinished
        for pattern, words in zip(expected, unfinished, strict=True):
            assert re.fullmatch(pattern, words)
            assert len(words) <= 200

        await the.tell("go on")
        for text in ("slow", "unnamed", "ruled", "cancelled"):
            await the.line(f"^over {text}$")
        await the.tell("count")
        assert await the.line("^left: ") == "left: 0"
        assert (await the.drained(2))[1:] == (0, 0), "the first drain, which had 60 seconds"
        the.bot.session.drain(60)
        assert (await the.drained(3))[1:] == (0, 0), "at once when nothing runs"
        assert await asyncio.to_thread(the.bot.end) == 0


async def test_a_stop_does_not_wait_for_a_drain(tmp_path: Path) -> None:
    async with scene(tmp_path) as the:
        await the.write("slow")
        the.bot.session.drain(60)
        await the.tell("draining")
        the.bot.session.stop("no more patience")
        await the.line(r"uvicorn \| Waiting for application shutdown")  # which NoneBot holds up until the handler ends
