"""A bot in which messages are written to it: ``python chat.py CASE``, the case as JSON.

Loads the modules ``before``, then lycomm's plugin, then ``after``; starts the driver; loads ``later``; lets a superuser
and a stranger write each of ``texts``. Prints as JSON what was answered to each, whose it is, and what was logged.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

import nonebot
from nonebot.adapters.onebot.v11 import Adapter
from nonebot.log import logger

from tests.plugin.support import SUPERUSER, RecordingBot, in_private

MESSAGE_IDS = itertools.count(1)  # nonebot-plugin-alconna takes a message with a known id for the one it knows


async def main(case: dict[str, Any]) -> None:
    sys.path.insert(0, ".")
    lines: list[str] = []
    nonebot.init(driver="~none", superusers={str(SUPERUSER)}, log_level="ERROR", **case.get("settings", {}))
    logger.add(lines.append, level="WARNING", format="{message}", colorize=False)
    driver = nonebot.get_driver()
    driver.register_adapter(Adapter)
    modules = [*case.get("before", []), "nonebot_plugin_lycomm", *case.get("after", [])]
    loaded = [nonebot.load_plugin(module) for module in modules]
    answers: dict[str, list[list[str]]] = {}
    async with driver._lifespan:
        loaded += [nonebot.load_plugin(module) for module in case.get("later", [])]
        for text in case["texts"]:
            answers[text] = [await answers_to(text, SUPERUSER), await answers_to(text, SUPERUSER + 2)]
    assert None not in loaded, "a plugin could not be loaded"
    owners = {text: owner(text) for text in case["texts"]}
    print(json.dumps({"answers": answers, "owners": owners, "lines": [line.strip() for line in lines]}))


def owner(text: str) -> str | None:
    from nonebot_plugin_lycomm.others import owner_of  # here: a plugin is to be loaded before it is imported

    plugin = nonebot.get_plugin("nonebot_plugin_lycomm")
    assert plugin is not None
    return owner_of(text, control="/lycomm", ours=plugin.matcher)


async def answers_to(text: str, user_id: int) -> list[str]:
    bot = RecordingBot(nonebot.get_adapter(Adapter), "10001")
    await bot.handle_event(in_private(text, user_id=user_id, message_id=next(MESSAGE_IDS)))
    return [said for _, said in bot.sent]


asyncio.run(main(json.loads(sys.argv[1])))
