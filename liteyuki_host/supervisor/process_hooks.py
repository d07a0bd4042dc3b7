"""Calls what the host has registered around a process's life. A hook that fails or is slow ends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from loguru import logger

from liteyuki_host.supervisor.kept_process import KeptProcess
from liteyuki_host.supervisor.life import Context, SupervisorEvents

Hook = Callable[[Context], Coroutine[Any, Any, None]]


class ProcessHooks:
    """The hooks of one process. For the host's event loop only.

    Each hook is called in a task of its own. The ``before`` hooks are waited for, until they return, ``stop_timeout``
    is over or the operator is in a hurry; then the task is cancelled.
    """

    def __init__(self, process: KeptProcess, events: SupervisorEvents) -> None:
        self._process = process
        self._events = events
        self._background: set[asyncio.Task[None]] = set()
        """The ``after_restart`` hooks that still run. Each removes itself when it ends."""

    async def before_shutdown(self) -> None:
        """Call the hooks before a child is asked to end."""
        await self._call("before_process_shutdown", self._events.before_process_shutdown, self._process.context())

    async def before_restart(self) -> None:
        """Call the hooks before a restart: once for each restart, however many have asked for it meanwhile."""
        if not self._process.restart_announced:
            self._process.restart_announced = True
            await self._call("before_process_restart", self._events.before_process_restart, self._process.context())

    def after_announced_restart(self) -> None:
        """Call the hooks after a restart, if those before it have been called."""
        if self._process.restart_announced:
            self._process.restart_announced = False
            self.after_restart()

    def after_restart(self) -> None:
        """Call the hooks after a restart. Returns at once: such a hook may well ask for, and wait for, the next
        operation."""
        task = asyncio.ensure_future(self._call("after_restart", self._events.after_restart, self._process.context()))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def close(self) -> None:
        """Cancel the hooks that still run."""
        for task in self._background:
            task.cancel()

    async def _call(self, what: str, hook: Hook, context: Context) -> None:
        """Call *hook* in a task and wait for it, with the limits that the class names. Logs what it raises."""
        spec, hurry_event = self._process.spec, self._process.hurry
        limit = None if what == "after_restart" else spec.stop_timeout  # nobody waits for the former
        task = asyncio.ensure_future(hook(context))
        hurry = asyncio.ensure_future(hurry_event.wait())
        try:
            await asyncio.wait({task, hurry}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                if not task.cancelled():
                    task.result()
            elif not hurry_event.is_set():
                logger.warning(f"{what} hooks of {spec.name} take longer than {limit:g} s; going on")
        except Exception:
            logger.exception(f"{what} hook of {spec.name} failed")
        finally:
            task.cancel()
            hurry.cancel()
