"""Passive mode: one task on the process's loop that gives each message to the callbacks, one at a time and in order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from types import CoroutineType
from typing import TYPE_CHECKING

from ..protocol.frames import Flag
from ..reporting import log
from ..waiting import running_loop
from .callbacks import Callback, Callbacks, is_awaitable, is_failure
from .unit import Received, Unit

if TYPE_CHECKING:
    import asyncio

__all__ = ["Consumer"]

YIELD_SECONDS = 0.005
"""Seconds after which the consumer lets the loop do something else, although no callback has suspended."""


class _Run:
    """A consumer task on one loop, from its announcement to its end. Between two messages it is parked: it waits for a
    future, which costs half of what a task for each message does."""

    __slots__ = ("loop", "parked", "started", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.started = False
        self.task: asyncio.Task[None] | None = None
        self.parked: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of a message. On a closed loop it has ended, perhaps without a word."""
        return self.started and self.parked is None and not self.loop.is_closed()

    def unpark(self) -> None:
        """On its loop."""
        if self.parked is not None and not self.parked.done():
            self.parked.set_result(None)


class Consumer:
    """See the module's docstring. Works on the queue of an ``Incoming``, which has the arguments' descriptions.

    Args:
        lock: guards the front of *units*.
    """

    def __init__(
        self,
        name: str,
        units: deque[Unit],
        lock: threading.Lock,
        handle: Callable[[Received], Awaitable[None]],
        callbacks: Callbacks | None,
        failed: Callable[[str, Callback, BaseException], None],
    ) -> None:
        self._name = name
        self._units = units
        self._lock = lock
        self._handle = handle
        self._callbacks = callbacks
        self._failed = failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: _Run | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on *loop* from the next :meth:`wake` on. From any thread."""
        self._loop = loop

    def detach(self) -> None:
        """Stop; a message in progress is cancelled, and not counted as handled. From any thread."""
        self._loop = None
        run = self._run
        if run is not None and run.task is not None and not run.loop.is_closed():
            self._on(run.loop, run.task.cancel)

    def wake(self) -> None:
        """Something has arrived, or there is somebody who wants it. From any thread; never waits."""
        loop = self._loop
        if loop is None or not self._units or not self._wanted:
            return
        run = self._run
        if run is not None and run.loop is loop and not loop.is_closed():
            # Not parked: it looks at the queue again before it parks, and it says so before it looks.
            parked = run.parked
            if parked is not None and not parked.done():
                self._on(loop, run.unpark)
            return
        with self._lock:
            if self._run is not run or (run is not None and run.busy):
                return  # somebody else has just started one; or the one on the old loop wakes us when it is done
            self._run = fresh = _Run(loop)
        if not self._on(loop, lambda: self._start(fresh)):
            self._forget(fresh)

    @staticmethod
    def _on(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
        """Call *function* on the loop's thread. False: the loop is closed."""
        if running_loop() is loop:
            function()
            return True
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True

    def _start(self, run: _Run) -> None:
        if self._run is run and self._loop is run.loop:
            run.started = True
            run.task = run.loop.create_task(self._consume(run), name=f"lycomm-{self._name}")
        else:
            self._forget(run)
            self.wake()

    def _forget(self, run: _Run) -> None:
        with self._lock:
            if self._run is run:
                self._run = None

    @property
    def _wanted(self) -> bool:
        return self._callbacks is None or self._callbacks.any

    # --- on the loop ----------------------------------------------------------------------------------------

    async def _consume(self, run: _Run) -> None:
        """The task. Written in one piece, as what a lone message costs is mostly calls."""
        callbacks, units, loop = self._callbacks, self._units, run.loop
        yielded = time.monotonic()  # when the loop was last free to do something else
        task = run.task
        assert task is not None
        try:
            while self._run is run and self._loop is loop:
                wanted = callbacks is None or callbacks.any
                if wanted and (unit := self._first()) is not None:
                    only = None if callbacks is None or unit.flags & ~Flag.RAW else callbacks.only
                    if only is not None:
                        yielded = await self._give(unit, only, yielded)
                    else:
                        yielded = await self._handle_one(unit, yielded)
                    self._settle(unit)
                    unit = None  # nothing that was consumed is kept while it is parked
                    continue
                run.parked = loop.create_future()
                # What came before it was parked, and did not know, is seen here.
                if not (units and self._wanted):
                    # A loop that is closed without a word ends it here, where nothing is lost by it.
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    await run.parked
                    task._log_destroy_pending = True  # type: ignore[attr-defined]
                    yielded = time.monotonic()
                run.parked = None
        finally:
            run.started = False
            run.parked = None
            self._forget(run)
            self.wake()

    def _first(self) -> Unit | None:
        try:
            return self._units[0]
        except IndexError:
            return None

    async def _give(self, unit: Unit, callback: Callback, yielded: float) -> float:
        """Call *callback* with what arrived at once, as long as it is the only one: the path of nearly all messages.

        Args:
            yielded: when the loop was last free to do something else, by ``time.monotonic``. Returns that anew.
        """
        callbacks, decode, function = self._callbacks, callback.decoder(unit.flags), callback.function
        monotonic = time.monotonic
        assert callbacks is not None
        position = unit.position
        if len(unit.payloads) > 1 and not unit.suspended:
            loop = running_loop()
            assert loop is not None
            loop.call_soon(self._suspended, unit)
        what = ""
        try:
            for payload in islice(unit.payloads, position, None):
                if callbacks.only is not callback:
                    break
                unit.position = position = position + 1
                try:
                    what = "a message that cannot be decoded"
                    data = decode(payload)
                    what = "the callback"
                    result = function(data)
                    if type(result) is CoroutineType or (result is not None and is_awaitable(result)):
                        await result
                except BaseException as error:
                    if not is_failure(error):
                        raise
                    self._failed(what, callback, error)
                unit.handled = position
                if unit.suspended:
                    self._settle(unit)
                now = monotonic()
                if now - yielded > YIELD_SECONDS:
                    yielded = await self._yield()
        except BaseException:
            self._settle(unit)
            raise
        return yielded

    async def _handle_one(self, unit: Unit, yielded: float) -> float:
        """The same with one message and whatever receivers and filters there are."""
        payload = unit.payloads[unit.position]
        unit.position += 1
        try:
            await self._handle(Received(payload, unit.flags, unit.request_id, unit.source))
        except Exception as error:  # ours: a user's failure has been dealt with in `handle`
            log().opt(exception=error).error(f"receiving on {self._name!r} failed inside lycomm; please report this")
        except BaseException:
            self._settle(unit)
            raise
        unit.handled = unit.position
        self._settle(unit)
        return await self._yield() if time.monotonic() - yielded > YIELD_SECONDS else yielded

    async def _yield(self) -> float:
        """Callbacks that never suspend must not keep the loop from everything else. Returns when that was."""
        import asyncio

        await asyncio.sleep(0)
        return time.monotonic()

    def _suspended(self, unit: Unit) -> None:
        """The loop got to do something else since the unit was begun."""
        unit.suspended = True
        with self._lock:
            unit.count()

    def _settle(self, unit: Unit) -> None:
        """Count what was handled of the unit, and take it off the queue when that is all of it."""
        with self._lock:
            unit.count()
            if unit.position >= len(unit.payloads) and self._units and self._units[0] is unit:
                self._units.popleft()
