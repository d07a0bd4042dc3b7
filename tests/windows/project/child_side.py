"""The bot's half: does what the host passes on from the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

from counting import Count
from nonebot import get_driver, require
from nonebot.log import logger

require("nonebot_plugin_lycomm")

from nonebot_plugin_lycomm import active_channel, background_thread, passive_channel, restart_process  # noqa: E402

EXCHANGED = 10_000

driver = get_driver()
count = Count("child", EXCHANGED)
loops: list[asyncio.AbstractEventLoop] = []
tasks: set[asyncio.Task[None]] = set()


@driver.on_startup
async def started() -> None:
    loops.append(asyncio.get_running_loop())
    logger.info(f"child pid {os.getpid()}")


@driver.on_shutdown
async def stopped() -> None:
    logger.info("child hook: shutdown")


@passive_channel.on_receive()
async def receive(message: Any) -> None:
    if count.add(message):
        logger.info(count.result())


async def exchange() -> None:
    for number in range(EXCHANGED):
        await passive_channel.asend(["child", number])
    await passive_channel.asend(["child", None])


@background_thread
def take_orders() -> None:
    [loop] = loops
    while True:
        word = active_channel.receive()
        if word == "exchange":
            loop.call_soon_threadsafe(lambda: tasks.add(loop.create_task(exchange())))
        elif word == "spawn":
            # close_fds=False: it inherits whatever can be inherited, and must keep neither link nor port.
            sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
            grandchild = subprocess.Popen(sleep, stdin=subprocess.DEVNULL, close_fds=False)
            logger.info(f"grandchild pid {grandchild.pid}")
        elif word == "block":
            logger.info("blocking the loop")
            loop.call_soon_threadsafe(time.sleep, 60)
        elif word == "restart me":
            restart_process()
        elif word == "crash":
            os._exit(3)
        else:
            logger.info(f"heard {word}")
