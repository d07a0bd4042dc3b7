"""Runs the start-up hooks of a bot, so that one that does not return holds up neither the bot nor its end.

NoneBot runs a sync start-up hook in an AnyIO worker thread and waits for it. ``while True: channel.receive()``
in such a hook, the way the page of 2024 shows it, means that the port never opens; and as those workers are not
daemons, only SIGKILL ends the process. Here sync hooks run in daemon threads, and the start waits only a moment
for one that waits for messages.

How it works
------------

Every start-up hook is wrapped when it is registered (:meth:`StartupHooks.wrap`). NoneBot runs the wrapped ones one
after the other, on the bot's event loop.

- *An async hook* runs as it is, in the task of the start.
- *A sync hook* runs in a daemon thread of its own (:class:`_SyncHook`), and the task of the start waits for it. The
  wait ends when the hook returns or raises; ``PATIENCE_SECONDS`` after it has begun to wait for a message without a
  time limit; or when the bot is to end. In the last two cases the hook goes on in its thread.
- *An interruption* (Ctrl+C, SIGTERM, the host's stop) cancels the hook that runs, or raises KeyboardInterrupt in one
  that blocks the event loop; the other hooks are left out. So the driver's start ends, and its shutdown hooks run.

Threads. A ``_SyncHook``'s state belongs to the event loop; its thread only posts to that loop. ``interrupt`` runs on
the main thread, which is the event loop's. ``release_all`` may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from loguru import logger
from nonebot.utils import is_coroutine_callable, run_sync

from liteyuki_host.comm.channel.channel import blocking_receive_hook
from liteyuki_host.comm.errors import ChannelClosed
from liteyuki_host.comm.threads import DaemonThread, call_soon

PATIENCE_SECONDS = 1.0
"""For a hook to return after it has begun to wait for a message without a timeout."""


class StartupHooks:
    """Wraps the start-up hooks of one driver. There is one per process."""

    def __init__(self) -> None:
        self.interrupted = False
        """The bot is to end before it has started: the hook that runs is interrupted, the others are left out. Set
        once, by :meth:`interrupt`."""
        # The start waits for these. Changed on the event loop, read by any thread.
        self._running: set[_SyncHook] = set()
        self._task: asyncio.Task[Any] | None = None  # in which a hook runs just now; written on the event loop

    def wrap(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Return the hook to register in the place of *func*. It raises what *func* raises."""
        run = func if is_coroutine_callable(func) else functools.partial(self._run_sync, func)

        @functools.wraps(func)
        async def hook() -> None:
            try:
                task = asyncio.current_task()
            except RuntimeError:  # trio; no driver of NoneBot's own uses it
                await (run() if is_coroutine_callable(func) else run_sync(func)())
                return
            if not self.interrupted:
                await self._run(run, task, func)

        return hook

    def release_all(self) -> None:
        """Let the start go on without the sync hooks that still run: the bot is to end. From any thread."""
        for running in list(self._running):
            running.release()

    def interrupt(self, frame: FrameType | None) -> None:
        """End the hook that runs, and leave out those that follow. For the main thread, in a signal handler.

        A hook that waits is cancelled. One that blocks the event loop gets a KeyboardInterrupt, raised here. Further
        calls do nothing: the hook may be cleaning up.

        Args:
            frame: what the signal has interrupted.
        """
        task = self._task
        if task is None or self.interrupted:
            self.interrupted = True
            return
        self.interrupted = True
        # With our frame on the interrupted stack, the loop is in the middle of the hook; else the hook waits.
        if _runs_in(frame, StartupHooks._run.__code__):
            raise KeyboardInterrupt
        call_soon(task.get_loop(), self._cancel, task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel the hook that runs in *task*. On the event loop."""
        if self._task is task:  # otherwise the hook has returned meanwhile
            task.cancel()

    async def _run(
        self, run: Callable[[], Awaitable[Any]], task: asyncio.Task[Any] | None, func: Callable[[], Any]
    ) -> None:
        """Run one hook in the task of the start, so that it can be interrupted.

        An interruption is taken for the hook's end: neither it nor what the hook raises because of it reaches the
        driver, which would take that for a failed start.
        """
        self._task = task
        try:
            await run()
        except (asyncio.CancelledError, KeyboardInterrupt):
            if not self.interrupted:
                raise
            if task is not None and sys.version_info >= (3, 11):
                task.uncancel()  # the driver goes on, and ends as it does after Ctrl+C
        except Exception as exc:
            if not self.interrupted:
                raise
            # A start that has failed would leave out the shutdown hooks, also of the hooks that had returned.
            logger.opt(exception=exc).error(f"start-up hook {_name(func)} failed when it was interrupted")
        finally:
            self._task = None

    async def _run_sync(self, func: Callable[[], Any]) -> None:
        """Run a sync hook in a thread, until it has ended or the start goes on without it."""
        running = _SyncHook(func, asyncio.get_running_loop())
        self._running.add(running)
        try:
            await running.run()
        finally:
            self._running.discard(running)


class _SyncHook:
    """One run of one sync hook in a thread of its own.

    Args:
        loop: the bot's event loop, on which everything happens but ``_in_thread`` and ``_about_to_block``.
    """

    def __init__(self, func: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._func = func
        self._loop = loop
        self._done: asyncio.Future[None] = loop.create_future()  # the start waits no longer; with the hook's error
        self._timer: asyncio.TimerHandle | None = None  # runs once the hook has begun to wait for a message

    async def run(self) -> None:
        """Run the hook until it has returned, or the start goes on without it. Raises what it raises."""
        # It gets the context variables of the start, as in AnyIO's worker, and in them the function that receive()
        # calls before it waits.
        context = contextvars.copy_context()
        context.run(blocking_receive_hook.set, self._about_to_block)
        worker = _anyio_worker(self._loop, context)
        name = f"lycomm-hook-{_name(self._func)}"
        DaemonThread(self._in_thread, args=(context, worker), name=name).start()
        try:
            await self._done
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def release(self) -> None:
        """Let the start go on without the hook. From any thread."""
        self._post(self._go_on)

    def _in_thread(self, context: contextvars.Context, worker: contextlib.AbstractContextManager[None]) -> None:
        """Call the hook, and post how it has ended. Run by the thread."""
        failure: BaseException | None = None
        try:
            with worker:
                context.run(self._func)
        except BaseException as exc:  # also SystemExit: NoneBot's own reaction to it is the right one
            failure = exc
        self._post(functools.partial(self._finish, failure))

    def _about_to_block(self) -> None:
        """Start the timer. Called on the hook's thread by ``receive()``, before it waits without a time limit."""
        if self._timer is None and not self._done.done():
            self._post(self._start_timer)

    def _post(self, action: Callable[[], None]) -> None:
        """Have *action* called on the event loop. Does nothing when that is closed: nobody waits then."""
        call_soon(self._loop, action)

    # On the event loop from here on.

    def _start_timer(self) -> None:
        if self._timer is None and not self._done.done():
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._warn_and_go_on)

    def _warn_and_go_on(self) -> None:
        if self._done.done():
            return
        logger.warning(
            f"start-up hook {_name(self._func)} ({_place(self._func)}) waits for messages and does not return; "
            "the bot starts without it and the hook goes on in its own thread. Better: decorate the function "
            "with `@nonebot_plugin_lycomm.background_thread` instead of `@driver.on_startup`"
        )
        self._go_on()

    def _go_on(self) -> None:
        """End the start's wait, if it still waits; the hook runs on."""
        if not self._done.done():
            self._done.set_result(None)

    def _finish(self, failure: BaseException | None) -> None:
        """Take the hook's end: hand its error to the start, or log it if the start has gone on."""
        if not self._done.done():
            if failure is None:
                self._done.set_result(None)
            elif isinstance(failure, StopIteration):  # a future refuses it
                self._done.set_exception(RuntimeError("the start-up hook raised StopIteration"))
            else:
                self._done.set_exception(failure)
        elif failure is not None and not isinstance(failure, ChannelClosed):  # that is how receive() ends with the bot
            words = f"start-up hook {_name(self._func)} failed after the bot had started"
            logger.opt(exception=failure).error(words)


def _anyio_worker(
    loop: asyncio.AbstractEventLoop, context: contextvars.Context
) -> contextlib.AbstractContextManager[None]:
    """Make ``anyio.from_thread`` work in the hook, as it does in AnyIO's own worker thread.

    There is no public way to do so for a thread that is not AnyIO's; without it only hooks that call
    ``anyio.from_thread`` would notice.
    """
    sniffio = sys.modules.get("sniffio")  # how AnyIO before 4.12 tells that there is a loop
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    try:
        from anyio._core._eventloop import claim_worker_thread, get_async_backend

        backend = get_async_backend()
    except (ImportError, AttributeError):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def worker() -> Iterator[None]:
        with claim_worker_thread(backend, loop):
            yield

    return worker()


def _runs_in(frame: FrameType | None, code: CodeType) -> bool:
    """Whether *code* is on the stack of *frame*."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _name(func: Callable[[], Any]) -> str:
    """Return ``module.function``."""
    return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', repr(func))}"


def _place(func: Callable[[], Any]) -> str:
    """Return ``file:line`` of the function, also of a decorated one."""
    try:
        code = inspect.unwrap(func).__code__
    except AttributeError:
        return "defined elsewhere"
    return f"{code.co_filename}:{code.co_firstlineno}"
