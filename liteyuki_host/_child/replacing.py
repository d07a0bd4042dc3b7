"""What happens when the project replaces this process by another program (``os.execv``), its own one mostly.

It is how bots restart themselves without a host. Under one the new program would be none of the host's: it has no link,
and the host would end it at once. So a bot that is ready is restarted by its host instead, with its handlers finished
and its shutdown hooks run; one that is not ready cannot start, since it would do the same again. One that ends already
goes on doing so: what a shutdown hook asks for would leave the other hooks out.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from loguru import logger
from nonebot.exception import FinishedException

from liteyuki_host._child.codes import CANNOT_START
from liteyuki_host._child.streams import flush_streams
from liteyuki_host._child.trouble import place_of


class SelfReplacement:
    """Takes the place of ``os.execv`` and ``os.execve``, which all the others of that kind call.

    Args:
        process: this bot's name.
        is_ready: whether the bot has told the host that it is ready.
        is_ending: whether the host has asked it to end, and knows what comes then.
        restart: asks the host for a restart of this bot.
    """

    def __init__(
        self,
        process: str,
        *,
        is_ready: Callable[[], bool],
        is_ending: Callable[[], bool],
        restart: Callable[[], None],
    ) -> None:
        self._process = process
        self._is_ready = is_ready
        self._is_ending = is_ending
        self._restart = restart
        self._pid = os.getpid()

    def install(self) -> None:
        """Call once, before the project runs."""
        for name in ("execv", "execve"):
            original: Callable[..., NoReturn] = getattr(os, name)
            setattr(os, name, self._instead_of(original))

    def _instead_of(self, original: Callable[..., NoReturn]) -> Callable[..., None]:
        @functools.wraps(original)
        def replace(path: Any, args: Sequence[Any], *env: Any) -> None:
            if os.getpid() != self._pid:
                original(path, args, *env)  # a fork, as every program begins that is started by hand
            self._do_not_replace()

        return replace

    def _do_not_replace(self) -> None:
        if self._is_ending():
            return  # an exception would end the shutdown hooks that have not run yet
        place = place_of(sys._getframe(2), Path.cwd())
        if self._is_ready():
            logger.info(f"{place} restarts the bot (os.execv): its host does so")
            self._restart()
            _leave()
        logger.error(
            f"{place} replaces the bot by another program (os.execv) before it is ready, where its host cannot follow: "
            f"set variables by env, the interpreter by python and the script by entry in "
            f"[tool.lycomm.processes.{self._process}]"
        )
        # As abruptly as the call would have ended this program. In a start-up hook a SystemExit would break the task
        # group of the driver and become another exit code, in a thread it would end nothing.
        logger.complete()
        flush_streams()
        os._exit(CANNOT_START)


def _leave() -> NoReturn:
    """Stop the code that expects to be replaced, and nothing else: the bot ends by the host's request."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if threading.current_thread() is threading.main_thread():
            raise SystemExit(0) from None  # NoneBot is over
    raise FinishedException
