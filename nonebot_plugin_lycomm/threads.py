"""Blocking loops beside the bot, each in a daemon thread of its own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from nonebot import get_driver
from nonebot.log import logger

from liteyuki_host.comm.channel.registering import check_callback
from liteyuki_host.comm.errors import ChannelClosed, HostNotAttached
from nonebot_plugin_lycomm.starting import has_started

__all__ = ["background_thread"]

F = TypeVar("F", bound=Callable[[], None])  # not Any: an async function would pass


def background_thread(function: F) -> F:
    """Run a blocking function in a thread of its own while the bot runs; returns it unchanged.

    ::

        @background_thread
        def read() -> None:
            while True:
                print(active_channel.receive())

    The thread starts when the bot starts, in the order in which start-up hooks were registered (at once in
    a bot that has started), and is a daemon: it never holds up the exit. ``receive()`` raises
    ``ChannelClosed`` when the process shuts down, which ends the function quietly. Any other exception ends
    it too, and is logged once; nothing restarts it.

    A blocking ``on_startup`` hook instead would keep NoneBot from ever opening its port.

    Raises:
        TypeError: the function is async (start it as a task; a thread would only make the coroutine), or it could never
            run: it takes arguments, or has a ``yield``.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise TypeError(f"background_thread runs blocking functions; {_name(function)} is async: start it as a task")
    check_callback(function, "a background thread's function")

    def start() -> None:
        # Not AnyIO's worker threads: those are no daemons, and a loop parked in one would hang the exit.
        threading.Thread(target=_run, args=(function,), name=f"lycomm {_name(function)}", daemon=True).start()

    async def start_hook() -> None:
        start()

    driver = get_driver()
    if has_started(driver):
        start()
    else:
        driver.on_startup(start_hook)
    return function


def _run(function: Callable[[], Any]) -> None:
    name = _name(function)
    try:
        function()
    except ChannelClosed:
        logger.debug(f"background thread {name} ended: its channel was closed")
    except HostNotAttached as error:
        # Expected under a plain `nb run`; a traceback would look like a fault of the plugin.
        logger.warning(f"background thread {name} ended: {error}")
    except Exception as error:
        logger.opt(exception=error).error(f"background thread {name} ended with an error")


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
