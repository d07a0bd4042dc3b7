"""The host inside a program that has an event loop of its own.

The supervision of the processes runs on a loop in a thread of its own. What happens to the program's loop cannot
harm it: ``asyncio.run`` ends by cancelling every task of the loop, those that would end the bots in order included,
and a task of the program may block the loop. The program's task only waits, and passes on that it was cancelled.

A host that is run in a thread of the program gets one of its own too, which the interpreter waits for whatever the
program does with its thread: until Python 3.12 a ``join()`` that Ctrl+C interrupts makes that one pass for ended.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

from liteyuki_host.comm.threads import call_soon
from liteyuki_host.signals import REQUEST_SECONDS

__all__ = ["Cancellation", "await_on", "ends_with_program", "run_apart", "run_waited_for"]

T = TypeVar("T")

SAME_SECONDS = 0.1
"""A second cancellation so soon after the first one is the same request: a program whose handlers of two signals cancel
one task gets both from a wrapper within milliseconds. Nobody asks twice so fast."""

OWNER_SECONDS = 1.0
"""Between two looks at whether the program's loop is still there: nothing tells of a loop that is closed."""


class Cancellation:
    """Tells the first cancellation of a task from the second one, and waits through both.

    Several cancellations may be one:

    - A cancelled anyio scope cancels its tasks again and again, in each turn of the loop, until they have left it.
    - ``asyncio.run`` cancels every task that is left when its main task has ended. Mostly that task ended because of
      the first cancellation (``gather`` does not wait for its other tasks). So what takes the whole loop down within
      ``REQUEST_SECONDS`` of the first one belongs to it; later it is a second Ctrl+C.
    - What comes within ``SAME_SECONDS`` of the first one is one request.

    Make and use it in one task; :meth:`close` it at the end.
    """

    def __init__(self, *, first: Callable[[], None], again: Callable[[], None]) -> None:
        """
        Args:
            first: called at the first cancellation: begin to end in order.
            again: called at each further one: end at once.
        """
        self._first = first
        self._again = again
        self._error: asyncio.CancelledError | None = None
        self._since = 0.0  # time.monotonic() of the first one
        self._bystander = _Bystander()

    async def outlast(self, work: asyncio.Future[None]) -> None:
        """Wait until *work* is done, also when cancelled. Its result or exception stays in it."""
        while not work.done():
            try:
                # The shield keeps repeated cancellations of an anyio scope away, and lets task.cancel() through.
                with anyio.CancelScope(shield=self._error is not None):
                    await asyncio.wait({work})
            except asyncio.CancelledError as error:
                self._cancelled(error)

    def raise_if_cancelled(self) -> None:
        """Raise the last cancellation, if there was one. Call when everything has ended."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._bystander.close()

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        now = time.monotonic()
        everything = self._bystander.cancelled
        if everything:
            self._bystander = _Bystander()
        if self._error is None:
            self._since = now
            self._first()
        elif now - self._since > (REQUEST_SECONDS if everything else SAME_SECONDS):
            self._again()
        self._error = error


class _Bystander:
    """A task that nobody knows of: it is cancelled only when all tasks of the loop are."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._wait())

    @property
    def cancelled(self) -> bool:
        return self._future.cancelled() or self._task.done()

    def close(self) -> None:
        self._task.cancel()

    async def _wait(self) -> None:
        await self._future


async def await_on(loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[T]]) -> T:
    """Await what *make* returns on *loop*, whichever loop the caller runs on.

    Raises:
        RuntimeError: *loop* is closed.
    """
    if asyncio.get_running_loop() is loop:
        return await make()

    async def run() -> T:
        return await make()

    coroutine = run()
    try:
        there = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise
    return await asyncio.wrap_future(there)


def run_apart(
    work: Callable[[], Coroutine[Any, Any, None]], *, name: str, on_owner_gone: Callable[[], None]
) -> asyncio.Future[None]:
    """Run *work* on an event loop in a thread of its own. The returned future is done when both have ended.

    Args:
        name: of the thread. The interpreter does not end before it.
        on_owner_gone: called on the new loop, once, when the caller's loop was closed or its thread has ended before
            *work*; for a daemon thread also when the program has. It is to end *work*.

    Raises:
        RuntimeError: the system has no thread left.
    """
    loop, owner = asyncio.get_running_loop(), threading.current_thread()
    ended: asyncio.Future[None] = loop.create_future()

    async def attend() -> None:
        watching = asyncio.ensure_future(watch_owner())
        try:
            await work()
        finally:
            watching.cancel()

    async def watch_owner() -> None:
        while _goes_on(owner) and not loop.is_closed():
            await anyio.sleep(OWNER_SECONDS)
        on_owner_gone()

    def run() -> None:
        error: BaseException | None = None
        try:
            anyio.run(attend, backend="asyncio")
        except BaseException as raised:
            error = raised
        call_soon(loop, settle, error)  # if it is closed, nobody waits

    def settle(error: BaseException | None) -> None:
        thread.join()  # it has nothing left to do
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    # No DaemonThread, also when the caller's thread is a daemon: the program's end waits until the bots have ended. So
    # its start has no limit where there is no memory for its first line.
    thread = threading.Thread(target=run, name=name, daemon=False)
    thread.start()
    return ended


def run_waited_for(work: Callable[[], None], *, name: str) -> None:
    """Call *work* in a thread of its own, which the interpreter does not end before, and wait for it. Not for the main
    thread. Raises what *work* raises, and RuntimeError when the system has no thread left."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=False)  # for the reason given in run_apart
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()


async def ends_with_program(owner: threading.Thread, end: Callable[[], None]) -> None:
    """Call *end* when the program ends that has run a host in its thread *owner*: when it does not wait for that
    thread, or when nobody has caught a Ctrl+C. A main thread that merely has nothing left to do leaves a host alone."""
    main = threading.main_thread()
    while main.is_alive():
        await anyio.sleep(OWNER_SECONDS)
    if owner.daemon or _died_of_interrupt():
        end()


def _died_of_interrupt() -> bool:
    return issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt)


def _goes_on(thread: threading.Thread) -> bool:
    """Whether *thread* runs, and with it the program if it is one that the program's end does not wait for."""
    main = threading.main_thread()
    if thread.daemon and not main.is_alive():
        return False
    # Until Python 3.12 is_alive() is wrong about a thread whose join(timeout) was interrupted by Ctrl+C.
    return thread.is_alive() or (thread is not main and thread in threading.enumerate())
