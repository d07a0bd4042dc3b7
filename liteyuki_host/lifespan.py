"""Hooks around the host's and its processes' lives."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from loguru import logger

from liteyuki_host.boundary import in_thread
from liteyuki_host.comm.channel.registering import check_callback
from liteyuki_host.comm.waiting.loops import call_on
from liteyuki_host.embedding import await_on

__all__ = ["Lifespan", "Moment"]

F = TypeVar("F", bound=Callable[..., Any])

STOP_SECONDS = 5.0
"""For cancelled on_after_start hooks to end; the host goes on without one that takes longer."""

Moment = str
BEFORE_START = "on_before_start"
AFTER_START = "on_after_start"
BEFORE_PROCESS_SHUTDOWN = "on_before_process_shutdown"
BEFORE_PROCESS_RESTART = "on_before_process_restart"
AFTER_RESTART = "on_after_restart"
AFTER_SHUTDOWN = "on_after_shutdown"

OF_A_PROCESS = (BEFORE_PROCESS_SHUTDOWN, BEFORE_PROCESS_RESTART, AFTER_RESTART)
"""Their hooks may take the process's name, and after it a `Context`."""


class Lifespan:
    """Registered hooks by moment. A hook that fails is logged with its name and keeps nothing else from running.

    An async hook runs on the loop of :meth:`use`, a sync one in a daemon thread of its own. Hooks may be fired,
    started and stopped from any loop.
    """

    def __init__(self) -> None:
        self._hooks: dict[Moment, list[Callable[..., Any]]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __bool__(self) -> bool:
        """Whether any hook is registered."""
        return any(self._hooks.values())

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run async hooks on *loop*: that of the program which runs the host. Call before the first hook is due."""
        self._loop = loop

    def register(self, moment: Moment, hook: F) -> F:
        """Add *hook* to *moment*; the decorators of ``Host``.

        Raises:
            TypeError: it is no function, or could never be called: it takes other arguments, or has a ``yield``.
        """
        if not callable(hook):
            raise TypeError(f"{moment} takes a function; write @host.{moment} without parentheses")
        offered = ("name", "context") if moment in OF_A_PROCESS else ()
        check_callback(hook, f"an {moment} hook", *offered[: _how_many(hook, len(offered))])
        self._hooks.setdefault(moment, []).append(hook)
        return hook

    async def fire(self, moment: Moment, *arguments: object, timeout: float | None = None) -> None:
        """Run the hooks of *moment* one after another and wait for each, at most *timeout* seconds."""
        if self._hooks.get(moment):
            await self._on_loop(lambda: self._fire(moment, arguments, timeout))

    async def _fire(self, moment: Moment, arguments: tuple[object, ...], timeout: float | None) -> None:
        for hook in self._hooks[moment]:
            try:
                await asyncio.wait_for(_run(moment, hook, arguments), timeout)
            except asyncio.TimeoutError:  # not the builtin: before Python 3.11 wait_for raises a class of its own
                logger.warning(f"{moment} hook {_name(hook)} takes longer than {timeout:g} s; going on without it")

    def start(self, moment: Moment) -> None:
        """Start the hooks of *moment* side by side and wait for none: they may go on as long as the host."""
        assert self._loop is not None
        call_on(self._loop, lambda: self._start(moment))

    def _start(self, moment: Moment) -> None:
        for hook in self._hooks.get(moment, []):
            task = asyncio.get_running_loop().create_task(_run(moment, hook, ()), name=f"{moment} {_name(hook)}")
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def stop(self) -> None:
        """Cancel what :meth:`start` started and wait for its end."""
        if self._background:
            await self._on_loop(self._stop)

    async def _stop(self) -> None:
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    async def _on_loop(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():  # the program that ran the host has ended without it
            await await_on(self._loop, make)


async def _run(moment: Moment, hook: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    try:
        arguments = arguments[: _how_many(hook, len(arguments))]
        if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None)):  # noqa: B004
            await hook(*arguments)
        else:
            result = await in_thread(hook, *arguments, name=f"lycomm-hook-{_name(hook)}")
            if inspect.isawaitable(result):
                await result
    except Exception as error:
        logger.opt(exception=error).error(f"{moment} hook {_name(hook)} failed; the host goes on")


def _how_many(hook: Callable[..., Any], offered: int) -> int:
    """How many of the *offered* arguments a hook wants: it may take the name, the name and the context, or nothing.

    ``*names`` is the name alone.
    """
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return 0
    named = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return min(offered, len(named) or int(takes_any))


def _name(hook: Callable[..., Any]) -> str:
    return f"{getattr(hook, '__module__', '?')}.{getattr(hook, '__qualname__', repr(hook))}"
