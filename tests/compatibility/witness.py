"""A plugin of the project that is tried: it tells in the log what the command under which it runs has to leave alone.

It is copied into the project's plugin folder, beside the plugin or adapter that is tried.
"""

from __future__ import annotations

import asyncio
import os
import sys

import nonebot
from nonebot import logger
from nonebot.adapters import Bot, Event
from nonebot.drivers import HTTPClientMixin, Request, WebSocketClientMixin

CLOSING_SECONDS = 0.2
"""What closing a database takes: a shutdown hook that is cut off does not get past its first ``await``."""

driver = nonebot.get_driver()


@driver.on_startup
async def start() -> None:
    logger.info(f"witness: start-up hook, on {type(asyncio.get_running_loop()).__module__}, in {os.getcwd()}")
    logger.info(f"witness: {type(sys.modules['__main__']).__name__} {sys.modules['__main__'].__name__}")
    if url := os.environ.get("WITNESS_HTTP"):
        await ask(url)


async def ask(url: str) -> None:
    """Use the driver's clients, those that it has, against the server of the test."""
    if isinstance(driver, HTTPClientMixin):
        response = await driver.request(Request("GET", url))
        logger.info(f"witness: GET is answered {response.status_code} {response.content!r}")
    if isinstance(driver, WebSocketClientMixin):
        async with driver.websocket(Request("GET", url.replace("http", "ws", 1))) as socket:
            await socket.send("hello")
            logger.info(f"witness: WebSocket is answered {await socket.receive()!r}")


@driver.on_shutdown
async def stop() -> None:
    await asyncio.sleep(CLOSING_SECONDS)
    logger.info("witness: shutdown hook")


@driver.on_bot_connect
async def connected(bot: Bot) -> None:
    logger.info(f"witness: {bot.type} bot {bot.self_id} has connected")


async def is_ping(event: Event) -> bool:
    return event.get_type() == "message" and event.get_plaintext().strip() == "ping"


matcher = nonebot.on_message(rule=is_ping, priority=1, block=False)


@matcher.handle()
async def pong() -> None:
    await matcher.finish("pong")
