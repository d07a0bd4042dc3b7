"""The host's half. It does what the test says, one word a line, over a socket: Wine has no console to press keys in."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from counting import Count
from loguru import logger

from liteyuki_host import get_bot
from liteyuki_host.comm import get_channel

EXCHANGED = 10_000

bot = get_bot()
channel = get_channel("nonebot-passive")
orders = get_channel("nonebot-active")
count = Count("host", EXCHANGED)
tasks: list[asyncio.Future[None]] = []


@channel.on_receive()
async def receive(message: Any) -> None:
    if count.add(message):
        logger.info(count.result())


async def exchange() -> None:
    for number in range(EXCHANGED):
        await channel.asend(["host", number])
    await channel.asend(["host", None])


@bot.on_after_shutdown
def after_shutdown() -> None:
    logger.info("host hook: after shutdown")


@bot.on_after_start
async def do_what_the_test_says() -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["TEST_CONTROL_PORT"]))
    try:
        while word := (await reader.readline()).decode().strip():
            await act(word)
    finally:
        writer.close()


async def act(word: str) -> None:
    if word == "stop":
        bot.stop()
    elif word in ("SIGINT", "SIGBREAK"):
        signal.raise_signal(getattr(signal, word))
    elif word == "restart":
        bot.restart_process("nonebot")
    elif word == "exchange":
        await orders.asend(word)
        tasks.append(asyncio.ensure_future(exchange()))
    else:
        await orders.asend(word)
