"""The bot's half of the echo: passes on what is said in a group, and says in the group what comes back."""

from __future__ import annotations

from nonebot import on_message, require
from nonebot.adapters.onebot.v11 import Bot, GroupMessageEvent
from nonebot.log import logger

require("nonebot_plugin_lycomm")

from liteyuki_host.comm.errors import LycommError  # noqa: E402
from nonebot_plugin_lycomm import PassiveChannel  # noqa: E402

echo = on_message(priority=50, block=False)


@echo.handle()
async def ask_the_host(bot: Bot, event: GroupMessageEvent, channel: PassiveChannel) -> None:
    try:
        reply = await channel.request(event.get_plaintext(), timeout=5)
    except LycommError as error:
        logger.warning(f"no echo: {error}")
        return
    await bot.send_group_msg(group_id=event.group_id, message=reply)
