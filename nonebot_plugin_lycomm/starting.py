"""When a bot starts, and what is left to do in one that has started before this plugin was loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from nonebot.drivers import Driver
from nonebot.log import logger

__all__ = ["has_started", "on_start"]

Hook = Callable[[], Coroutine[Any, Any, None]]


def has_started(driver: Driver) -> bool:
    """Whether the start of the bot has begun, and its end has not."""
    try:
        _ = driver.task_group
    except RuntimeError:
        return False
    return True


def on_start(driver: Driver, hook: Hook) -> bool:
    """Call *hook* when the bot starts; in a bot that has started, in the next turn of its event loop. From any thread.

    Returns whether it will be called: not if the event loop of such a bot cannot be found.
    """
    if not has_started(driver):
        driver.on_startup(hook)
        return True
    loop = _loop_of(driver)
    if loop is None or loop.is_closed():
        return False
    # Also where the loop does not run just now, as in a test's fixture that is no coroutine.
    asyncio.run_coroutine_threadsafe(_told(hook), loop)
    return True


async def _told(hook: Hook) -> None:
    try:
        await hook()
    except Exception as error:
        logger.opt(exception=error).error("lycomm could not start in a bot that had started before; please report this")


def _loop_of(driver: Driver) -> asyncio.AbstractEventLoop | None:
    # NoneBot and AnyIO have no public way to it: the task that opened NoneBot's task group knows its loop.
    task = getattr(driver.task_group.cancel_scope, "_host_task", None)
    if isinstance(task, asyncio.Task):
        return task.get_loop()
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
