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
from types import FrameType
from typing import Any, NoReturn

from loguru import logger
from nonebot.exception import FinishedException

from liteyuki_host._child.callers import outwards, place_of_call
from liteyuki_host._child.codes import CANNOT_START
from liteyuki_host._child.streams import flush_streams
from liteyuki_host.comm.threads import call_soon

POOLS = ("concurrent.futures.", "anyio.")
"""Modules whose threads hand an exception of what they run to the one who waits for it."""


class SelfReplacement:
    """Takes the place of ``os.execv`` and ``os.execve``, which all the others of that kind call.

    Args:
        process: this bot's name.
        is_ready: whether the bot has told the host that it is ready.
        is_ending: whether the host has asked it to end, and knows what comes then.
        restart: asks the host for a restart of this bot.
        loop: the bot's event loop, if it is known.
    """

    def __init__(
        self,
        process: str,
        *,
        is_ready: Callable[[], bool],
        is_ending: Callable[[], bool],
        restart: Callable[[], None],
        loop: Callable[[], asyncio.AbstractEventLoop | None],
    ) -> None:
        self._process = process
        self._is_ready = is_ready
        self._is_ending = is_ending
        self._restart = restart
        self._loop = loop
        self._instead: list[Callable[..., None]] = []
        self._pid = os.getpid()

    def install(self) -> None:
        """Call once, before the project runs."""
        for name in ("execv", "execve"):
            original: Callable[..., NoReturn] = getattr(os, name)
            instead = self._instead_of(original)
            self._instead.append(instead)
            setattr(os, name, instead)

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
        place = place_of_call(sys._getframe(2), Path.cwd(), self._instead, self._loop())
        if self._is_ready():
            logger.info(f"{place} restarts the bot (os.execv): its host does so")
            self._restart()
            self._leave()
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

    def _leave(self) -> NoReturn:
        """Stop the code that expects to be replaced, and nothing else: the bot ends by the host's request."""
        try:
            _keep_quiet(asyncio.get_running_loop())
        except RuntimeError:
            # In the main thread NoneBot is over. Any other thread ends by this without a word, unless it belongs to a
            # pool: then the exception reaches the task that waits for the call, and would end the event loop.
            if threading.current_thread() is threading.main_thread() or not _in_pool(sys._getframe()):
                raise SystemExit(0) from None
            loop = self._loop()
            if loop is not None:
                call_soon(loop, _keep_quiet, loop)
        raise Replaced


class Replaced(FinishedException):
    """Ends the code that has called ``os.execv``. NoneBot takes it for the normal end of a handler."""


def _keep_quiet(loop: asyncio.AbstractEventLoop) -> None:
    """Show no traceback when :class:`Replaced` ends a task or a callback that is none of NoneBot's."""
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), Replaced):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    if getattr(before, "__qualname__", None) != handle.__qualname__:
        loop.set_exception_handler(handle)


def _in_pool(frame: FrameType) -> bool:
    """Whether the exception of this thread's call is passed on to somebody who waits for it."""
    return any(at.f_globals.get("__name__", "").startswith(POOLS) for at in outwards(frame))
