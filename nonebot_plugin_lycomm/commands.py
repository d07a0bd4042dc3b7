"""The chat commands ``/lycomm``, ``/restart`` and ``/status``, for superusers, with any adapter."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import nonebot
from nonebot import on_message
from nonebot.adapters import Bot, Event
from nonebot.compat import PYDANTIC_V2
from nonebot.drivers import Driver
from nonebot.log import logger
from nonebot.matcher import Matcher
from nonebot.permission import SUPERUSER

from liteyuki_host.comm.errors import LycommError
from liteyuki_host.comm.process.current import current_node
from liteyuki_host.comm.storage import shared_memory
from nonebot_plugin_lycomm import texts
from nonebot_plugin_lycomm.config import Config
from nonebot_plugin_lycomm.names import Argument, Names, tell_taken
from nonebot_plugin_lycomm.pending import EXPIRES_AFTER, PendingReply, key_of
from nonebot_plugin_lycomm.starting import on_start

__all__ = ["register"]

REMEMBER_TIMEOUT = 5.0
"""Seconds. A host that takes longer to store who asked is in trouble, and a restart may be the way out."""

_LOADED_AT = time.monotonic()


RESTART_WORDS = ("restart", "重启")
STATUS_WORDS = ("status", "状态")
"""Words behind ``/lycomm``. They work whatever other plugins call their commands."""


def register(driver: Driver, config: Config) -> list[type[Matcher]]:
    """Create the commands that the settings ask for, and the hook that answers after a restart.

    Returns the matchers; none when ``lycomm_commands`` is off.
    """
    if not config.lycomm_commands:
        return []
    ours: set[type[Matcher]] = set()
    written = getattr(config, "model_fields_set" if PYDANTIC_V2 else "__fields_set__")

    def names_of(setting: str, fallback: str) -> Names:
        # What the operator has written is what the operator wants, even if another plugin has it too.
        given = setting in written
        return Names(getattr(config, setting), ours=ours, setting=setting.upper(), fallback=None if given else fallback)

    short: list[Names] = []
    words: dict[str, Callable[..., Awaitable[None]]] = {}
    if config.lycomm_restart_command:
        short.append(names_of("lycomm_restart_command", "lycomm restart"))
        ours.add(_matcher(short[-1], restart))
        words |= dict.fromkeys(RESTART_WORDS, restart)
    if config.lycomm_status_command:
        short.append(names_of("lycomm_status_command", "lycomm status"))
        ours.add(_matcher(short[-1], status))
        words |= dict.fromkeys(STATUS_WORDS, status)
    if words:
        ours.add(_matcher(Names(["lycomm"], ours=ours), _by_word(words)))

    # By then all plugins are loaded, those that come after this one too.
    async def tell_what_is_taken() -> None:
        tell_taken(short)

    on_start(driver, tell_what_is_taken)
    driver.on_bot_connect(answer_after_restart)
    return list(ours)


def _matcher(names: Names, handler: Callable[..., Any]) -> type[Matcher]:
    # Before priority 1, NoneBot's default: a catch-all plugin of that priority would answer the command as well.
    return on_message(rule=names.match, permission=SUPERUSER, priority=0, block=True, handlers=[handler])


def _by_word(words: Mapping[str, Callable[..., Awaitable[None]]]) -> Callable[..., Awaitable[None]]:
    """The handler of ``/lycomm WORD [PROCESS]``; of another word it says which there are."""

    async def lycomm(matcher: Matcher, bot: Bot, event: Event, argument: Argument) -> None:
        word, *rest = argument.split(maxsplit=1)[:2] or [""]
        handler = words.get(word)
        if handler is None:
            await matcher.finish(texts.usage(words))
        await handler(matcher, bot, event, "".join(rest))

    return lycomm


async def restart(matcher: Matcher, bot: Bot, event: Event, argument: Argument) -> None:
    node = current_node()
    if not node.attached:
        await matcher.finish(texts.NO_HOST)
    process = argument or node.process
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
    node = current_node()
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
            await shared_memory.aset(key_of(current_node().process), reply.to_value())
    except Exception as error:
        logger.opt(exception=error).warning("nobody will be told when the restart is done")


async def answer_after_restart(bot: Bot) -> None:
    """Tell whoever asked for the restart that it is done, once their bot is back."""
    try:
        await _answer_after_restart(bot)
    except Exception as error:
        logger.opt(exception=error).error("could not tell whoever asked that the restart is done")


async def _answer_after_restart(bot: Bot) -> None:
    key = key_of(current_node().process)
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


async def status(matcher: Matcher, bot: Bot, event: Event, argument: Argument) -> None:
    node = current_node()
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
