"""Start-up hooks that do not return must hold up neither the bot nor its end.

NoneBot runs a sync start-up hook in an AnyIO worker thread and waits for it. ``while True: channel.receive()``
in such a hook, the way the page of 2024 shows it, means that the port never opens; and as those workers are not
daemons, only SIGKILL ends the process. Here sync hooks run in daemon threads, and the start waits only a moment
for one that waits for messages.
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
    """Wraps the start-up hooks of one driver."""

    def __init__(self) -> None:
        self.interrupted = False
        """The bot is to end before it has started: the hook that runs is interrupted, the others are left out."""
        self._running: set[_SyncHook] = set()
        self._task: asyncio.Task[Any] | None = None  # in which a hook runs just now

    def wrap(self, func: Callable[[], Any]) -> Callable[[], Any]:
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
        """The bot is to end: let its start go on without hooks that are still running. From any thread."""
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
        if _runs_in(frame, StartupHooks._run.__code__):
            raise KeyboardInterrupt
        call_soon(task.get_loop(), self._cancel, task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if self._task is task:  # otherwise the hook has returned meanwhile
            task.cancel()

    async def _run(
        self, run: Callable[[], Awaitable[Any]], task: asyncio.Task[Any] | None, func: Callable[[], Any]
    ) -> None:
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
            # The driver would take it for a failed start, and leave the shutdown hooks of the others out.
            logger.opt(exception=exc).error(f"start-up hook {_name(func)} failed when it was interrupted")
        finally:
            self._task = None

    async def _run_sync(self, func: Callable[[], Any]) -> None:
        running = _SyncHook(func, asyncio.get_running_loop())
        self._running.add(running)
        try:
            await running.run()
        finally:
            self._running.discard(running)


class _SyncHook:
    """One run of one sync hook in a thread of its own."""

    def __init__(self, func: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._func = func
        self._loop = loop
        self._done: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until it has returned (its exception is raised here), or the start goes on without it."""
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
        self._post(self._go_on)

    def _in_thread(self, context: contextvars.Context, worker: contextlib.AbstractContextManager[None]) -> None:
        failure: BaseException | None = None
        try:
            with worker:
                context.run(self._func)
        except BaseException as exc:  # also SystemExit: NoneBot's own reaction to it is the right one
            failure = exc
        self._post(functools.partial(self._finish, failure))

    def _about_to_block(self) -> None:  # on the hook's thread, by receive()
        if self._timer is None and not self._done.done():
            self._post(self._start_timer)

    def _post(self, action: Callable[[], None]) -> None:
        call_soon(self._loop, action)  # if it has ended, so has everybody's interest

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
        if not self._done.done():
            self._done.set_result(None)

    def _finish(self, failure: BaseException | None) -> None:
        if not self._done.done():
            if failure is None:
                self._done.set_result(None)
            elif isinstance(failure, StopIteration):  # a future refuses it
                self._done.set_exception(RuntimeError("the start-up hook raised StopIteration"))
            else:
                self._done.set_exception(failure)
        elif failure is not None and not isinstance(failure, ChannelClosed):  # that one is its normal end
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
    return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', repr(func))}"


def _place(func: Callable[[], Any]) -> str:
    try:
        code = inspect.unwrap(func).__code__
    except AttributeError:
        return "defined elsewhere"
    return f"{code.co_filename}:{code.co_firstlineno}"
