"""The host's half. It does what the test says, one word a line, over a socket: Wine has no console to press keys in."""

from __future__ import annotations

import os
import socket
import threading
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
async def listen_to_the_test() -> None:
    import asyncio

    loop = asyncio.get_running_loop()

    def listen() -> None:
        with socket.create_connection(("127.0.0.1", int(os.environ["TEST_CONTROL_PORT"]))) as control:
            for word in control.makefile("r"):
                loop.call_soon_threadsafe(act, word.strip())

    tasks = set()

    def act(word: str) -> None:
        if word == "stop":
            bot.stop()
        elif word == "restart":
            bot.restart_process("nonebot")
        elif word == "exchange":
            orders.send("exchange")
            tasks.add(asyncio.ensure_future(exchange()))
        else:
            orders.send(word)

    threading.Thread(target=listen, name="test control", daemon=True).start()
