"""Calls what the host has registered around a process's life. A hook that fails or is slow ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from loguru import logger

from liteyuki_host.supervisor.life import Context, SupervisorEvents
from liteyuki_host.supervisor.spec import ProcessSpec

Hook = Callable[[Context], Coroutine[Any, Any, None]]


class Hooks:
    """Of one process. For the event loop only."""

    def __init__(self, spec: ProcessSpec, events: SupervisorEvents, hurry: asyncio.Event) -> None:
        """
        Args:
            hurry: set by an impatient operator; nothing is waited for any more.
        """
        self._spec = spec
        self._events = events
        self._hurry = hurry
        self._background: set[asyncio.Task[None]] = set()

    async def before_shutdown(self, context: Context) -> None:
        """Returns when the hooks have, or after ``stop_timeout``."""
        await self._call("before_process_shutdown", self._events.before_process_shutdown, context)

    async def before_restart(self, context: Context) -> None:
        """Returns when the hooks have, or after ``stop_timeout``."""
        await self._call("before_process_restart", self._events.before_process_restart, context)

    def after_restart(self, context: Context) -> None:
        """Returns at once: such a hook may well ask for, and wait for, the next operation."""
        task = asyncio.ensure_future(self._call("after_restart", self._events.after_restart, context))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def close(self) -> None:
        """Cancel what still goes on."""
        for task in self._background:
            task.cancel()

    async def _call(self, what: str, hook: Hook, context: Context) -> None:
        limit = None if what == "after_restart" else self._spec.stop_timeout
        task = asyncio.ensure_future(hook(context))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({task, hurry}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                if not task.cancelled():
                    task.result()
            elif not self._hurry.is_set():
                logger.warning(f"{what} hooks of {self._spec.name} take longer than {limit:g} s; going on")
        except Exception:
            logger.exception(f"{what} hook of {self._spec.name} failed")
        finally:
            task.cancel()
            hurry.cancel()
