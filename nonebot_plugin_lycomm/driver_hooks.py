"""Ties this process's node to NoneBot's life: callbacks run on NoneBot's loop while there is one.

Attaching to the host itself is not done here. The launcher has done it before NoneBot was imported; a
process that was not started by a host stays without one.
"""

from __future__ import annotations

import asyncio

import pydantic
from nonebot.drivers import Driver
from nonebot.log import logger

from liteyuki_host.comm import pydantic_version
from liteyuki_host.comm.gil import without_the_gil
from liteyuki_host.comm.process.current import current_node
from nonebot_plugin_lycomm.starting import on_start

__all__ = ["register"]


def register(driver: Driver) -> None:
    """Add the two hooks. Nothing happens before the bot starts; in one that has started, the first is called soon.

    From any thread.
    """
    unfit = pydantic_version.unfit(pydantic.VERSION)
    if unfit is not None:  # what needs no host works all the same; a host refuses such a bot
        logger.warning(unfit)
    no_gil = without_the_gil()
    if no_gil is not None:
        logger.warning(no_gil)
    driver.on_shutdown(_detach_loop)
    if not on_start(driver, _attach_loop):
        logger.warning(
            "lycomm was loaded in a bot that has started, and cannot find its event loop: callbacks of channels and "
            "topics are not called; load the plugin before the bot starts"
        )


# Both are async so that they run on the loop they are about; a sync hook would run in a worker thread.
async def _attach_loop() -> None:
    node = current_node()
    node.attach_loop(asyncio.get_running_loop())
    if not node.attached:
        from liteyuki_host.comm.command import run_this_bot

        logger.warning(
            "no host: channels to it are off, everything else works in this process; "
            f"to start the bot under a host, run `{run_this_bot()}` in this folder"
        )


async def _detach_loop() -> None:
    # A shutdown hook that raises makes NoneBot skip every hook after it, other plugins' included.
    try:
        current_node().detach_loop()
    except Exception as error:
        logger.opt(exception=error).warning("lycomm could not let go of the event loop")
