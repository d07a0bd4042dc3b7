"""The bot's half of the first example: a NoneBot plugin that logs what ``host_half.py`` sends."""

from __future__ import annotations

from nonebot import require
from nonebot.log import logger

require("nonebot_plugin_lycomm")

from nonebot_plugin_lycomm import active_channel, background_thread, passive_channel  # noqa: E402


# Passive: the channel calls us, on NoneBot's own event loop, for each message the filter lets through.
@passive_channel.on_receive(filter_func=lambda data: isinstance(data, str))
async def on_passive_receive(data: str) -> None:
    logger.info(f"Passive receive: {data}")


# Active: we call the channel. receive() blocks, so it gets a thread; in a task it would be areceive().
@background_thread
def receive_active() -> None:
    while True:
        logger.info(f"Active receive: {active_channel.receive()}")
