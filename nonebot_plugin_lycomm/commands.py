"""The chat commands ``/restart`` and ``/status``, for superusers, with any adapter."""

from __future__ import annotations

import os
import platform
import time
from typing import Annotated, Any

import anyio
import nonebot
from nonebot import on_command
from nonebot.adapters import Bot, Event, Message
from nonebot.drivers import Driver
from nonebot.log import logger
from nonebot.matcher import Matcher
from nonebot.params import CommandArg
from nonebot.permission import SUPERUSER

from liteyuki_host.comm.errors import LycommError
from liteyuki_host.comm.node import current
from liteyuki_host.comm.storage import shared_memory

from . import texts
from .config import Config
from .pending import EXPIRES_AFTER, PendingReply, key_of

__all__ = ["register"]

REMEMBER_TIMEOUT = 5.0
"""Seconds. A host that takes longer to store who asked is in trouble, and a restart may be the way out."""

_LOADED_AT = time.monotonic()


def register(driver: Driver, config: Config) -> list[type[Matcher]]:
    """Create the commands that the settings ask for, and the hook that answers after a restart.

    Returns the matchers; none when ``lycomm_commands`` is off.
    """
    if not config.lycomm_commands:
        return []
    matchers = []
    for names, handler in ((config.lycomm_restart_command, restart), (config.lycomm_status_command, status)):
        if names:
            matchers.append(
                on_command(
                    names[0],
                    aliases=set(names[1:]),
                    permission=SUPERUSER,
                    # "/restarting" is somebody else's command, or none.
                    force_whitespace=True,
                    priority=1,
                    block=True,
                    handlers=[handler],
                )
            )
    driver.on_bot_connect(answer_after_restart)
    return matchers


async def restart(matcher: Matcher, bot: Bot, event: Event, argument: Annotated[Message[Any], CommandArg()]) -> None:
    node = current()
    if not node.attached:
        await matcher.finish(texts.NO_HOST)
    process = argument.extract_plain_text().strip() or node.process
    if process != node.process:
        await matcher.finish(await _restart_other(process))
    await _remember(bot, event)
    try:
        await matcher.send(texts.RESTARTING)
    except Exception as error:
        # A chat that cannot be written to is no reason to leave the bot unrestarted.
        logger.opt(exception=error).warning("could not announce the restart")
    # Asked, not awaited: the answer could only come back into a process that is shutting down.
    node.request_restart()


async def _restart_other(process: str) -> str:
    """Restart a process that is not this one; returns what to say."""
    node = current()
    try:
        known = [str(entry["name"]) for entry in await node.control("status")]
        if process not in known:
            return texts.unknown_process(process, known)
        await node.control("restart", process)
    except LycommError as error:
        return texts.failed(error)
    return texts.asked_for_restart(process)


async def _remember(bot: Bot, event: Event) -> None:
    """Store the reply that this process's next incarnation owes. Never raises: restarting matters more."""
    try:
        reply = PendingReply.to(bot, event, asked_at=time.time())
        # Confirmed: a plain write could still be on its way when the process ends.
        with anyio.fail_after(REMEMBER_TIMEOUT):
            await shared_memory.aset(key_of(current().process), reply.to_value())
    except Exception as error:
        logger.opt(exception=error).warning("nobody will be told when the restart is done")


async def answer_after_restart(bot: Bot) -> None:
    """Tell whoever asked for the restart that it is done, once their bot is back."""
    try:
        await _answer_after_restart(bot)
    except Exception as error:
        logger.opt(exception=error).error("could not tell whoever asked that the restart is done")


async def _answer_after_restart(bot: Bot) -> None:
    key = key_of(current().process)
    value = shared_memory.get(key)
    if value is None:
        return
    try:
        reply = PendingReply.from_value(value)
    except ValueError:
        await shared_memory.adelete(key)
        raise
    age = time.time() - reply.asked_at
    if age > EXPIRES_AFTER:
        await shared_memory.adelete(key)
        logger.info(f"a restart was asked for {age:.0f} s ago; too long to still answer")
    elif reply.is_for(bot) and await shared_memory.acompare_and_set(key, value, None):
        # Claimed before it is answered, and only by whoever still found it: better no answer than two.
        await bot.send(reply.rebuild_event(), texts.restarted(age))


async def status(matcher: Matcher) -> None:
    node = current()
    if not node.attached:
        await matcher.finish(
            texts.local_status(
                pid=os.getpid(),
                uptime=time.monotonic() - _LOADED_AT,
                versions=f"NoneBot {nonebot.__version__} · Python {platform.python_version()}",
                bots=[f"{bot.adapter.get_name()} {bot.self_id}" for bot in nonebot.get_bots().values()],
                keys=len(shared_memory),
            )
        )
    try:
        text = texts.status(await node.control("status"))
    except LycommError as error:
        text = texts.failed(error)
    await matcher.finish(text)
