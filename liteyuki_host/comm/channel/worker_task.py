"""One task that consumes a queue on one loop, and what is done in its name while it sleeps.

To resume a task and to let it park again costs as much as all else that is done for a short message. So a message that
is all that has arrived is given to its callback by the one who reads, on the task's loop and in the task's name: in its
context, and as ``asyncio.current_task()``. Nearly all callbacks return without having waited, and the task need not
wake up. When one waits, the task is resumed and goes on with it where it stopped.

Loaded by the first that runs: it takes asyncio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from itertools import islice
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from liteyuki_host.comm.channel.calling import Callback, is_awaitable, is_failure
from liteyuki_host.comm.channel.unit import Received, Source, Unit
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.waiting.parking import Parked

if TYPE_CHECKING:
    from liteyuki_host.comm.channel.worker import Worker

__all__ = ["YIELD_SECONDS", "WorkerTask"]

YIELD_SECONDS = 0.005
"""Seconds after which the task lets the loop do something else, although no callback has suspended."""

LOOK_AFTER = 8
"""Messages after which the task looks at the clock again, if the last ones were quick. A look costs nearly as much as
what else is done for a message beside decoding it. Measured: 1 KiB messages 1.02 to 1.04 times as many."""

LOOK_SECONDS = 0.001
"""Seconds between two looks up to which they were."""

# Public, for those who write tasks of their own: https://docs.python.org/3/library/asyncio-extending.html
_enter_task = asyncio._enter_task
_leave_task = asyncio._leave_task


class _Begun(NamedTuple):
    """A callback that was called in the task's name and is not through."""

    callback: Callback
    result: Any
    """What it returned, to be awaited."""

    stepped: bool
    """That is a coroutine, which has been run until it waited for *future*."""

    future: Any
    payload: bytes
    source: Source


class WorkerTask:
    """See the module's docstring. From its announcement to its end.

    Attributes:
        task: None until it has been started.
        parked: what the task waits for between two messages: that costs half of what a task for each of them does.
        free: it waits there, and nobody is about to resume it. Who is says so first.
        handed: on its loop, the message that the reader has for it, and the sender.
    """

    __slots__ = ("_begun", "_worker", "free", "handed", "loop", "parked", "started", "task")

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self.loop = loop
        self.started = False
        self.task: asyncio.Task[None] | None = None
        self.parked: Parked | None = None
        self.free = False
        self.handed: tuple[bytes, Source] | None = None
        self._begun: _Begun | None = None

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of a message. On a closed loop it has ended, perhaps without a word."""
        return self.started and (self.parked is None or self.handed is not None) and not self.loop.is_closed()

    def start(self) -> None:
        """On its loop."""
        self.started = True
        self.task = self.loop.create_task(self._consume(), name=f"lycomm-{self._worker.name}")

    def resume(self) -> None:
        """Let the task go on. On its loop, in no task."""
        if self.parked is not None:
            self.parked.resume()

    @property
    def _current(self) -> bool:
        worker = self._worker
        return worker.current is self and worker.loop is self.loop

    # --- in the task's name ---------------------------------------------------------------------------------

    def take(self) -> None:
        """Give what was handed over to the callback. On the loop, in no task. Written in one piece, as what a lone
        message costs is mostly calls."""
        worker, parked, handed = self._worker, self.parked, self.handed
        if TYPE_CHECKING:  # known to whoever has handed it over
            assert worker.callbacks is not None
            assert parked is not None
            assert parked.context is not None
            assert handed is not None
        payload, source = handed
        callback = worker.callbacks.only
        loop, task, call = self.loop, self.task, parked.context.run
        if callback is None or worker.current is not self or worker.loop is not loop:
            self._hand_back()
            return
        try:
            _enter_task(loop, task)  # type: ignore[arg-type]
        except RuntimeError:  # somebody runs the loop inside a task
            self._hand_back()
            return
        begun: _Begun | None = None
        what = "a message that cannot be decoded"
        try:
            data = callback.decode_plain(payload)
            what = "the callback"
            result = call(callback.function, data)
            if type(result) is CoroutineType:
                try:
                    future = call(result.send, None)
                except StopIteration:
                    pass
                else:
                    begun = _Begun(callback, result, True, future, payload, source)
            elif result is not None and is_awaitable(result):
                begun = _Begun(callback, result, False, None, payload, source)
        except BaseException as error:
            if not is_failure(error):
                self.handed = None  # it is not counted
                parked.cancel()
                if isinstance(error, asyncio.CancelledError):
                    return
                raise
            worker.failed(what, callback, error)
        finally:
            _leave_task(loop, task)  # type: ignore[arg-type]
        if begun is not None:
            self._begun = begun
            parked.resume()  # if it has been cancelled, that is under way
            return
        source.count(len(payload) + MESSAGE_CHARGE)
        self.handed = None
        self.free = True
        if worker.units:  # came meanwhile, and nobody was told
            self.free = False
            parked.resume()

    def _hand_back(self) -> None:
        """The task has to see to it."""
        assert self.handed is not None
        payload, source = self.handed
        self._worker.units.appendleft(Unit([payload], 0, 0, source))
        self.handed = None
        self.loop.call_soon(self.resume)

    # --- the task -------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        worker, loop, task = self._worker, self.loop, self.task
        callbacks, units = worker.callbacks, worker.units
        yielded = time.monotonic()  # when the loop was last free to do something else
        assert task is not None
        try:
            while self._current:
                if units and worker.wanted and (unit := self._first()) is not None:
                    only = None if callbacks is None or unit.flags & ~Flag.RAW else callbacks.only
                    if only is not None:
                        yielded = await self._give(unit, only, yielded)
                    else:
                        yielded = await self._handle_one(unit, yielded)
                    self._settle(unit)
                    unit = None  # nothing that was consumed is kept while it is parked
                    continue
                self.parked = Parked(loop=loop)
                self.free = True
                cancelled = None
                # What came before it was free, and told nobody, is seen here.
                if not (units and worker.wanted):
                    stream = worker.stream
                    if stream is not None and callbacks is not None:
                        stream.taker = self
                    # A loop that is closed without a word ends it here, where nothing is lost by it.
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    cancelled = await self._park(self.parked)
                    task._log_destroy_pending = True  # type: ignore[attr-defined]
                    yielded = time.monotonic()
                self.free = False
                self.parked = None
                if self._begun is not None:
                    begun, self._begun, self.handed = self._begun, None, None
                    await self._finish(begun, cancelled)
                    del begun
        finally:
            self.started = self.free = False
            self.parked = None
            worker.forget(self)
            worker.wake()

    async def _park(self, parked: Parked) -> asyncio.CancelledError | None:
        """Wait to be resumed. Returns the cancellation that a callback still has to be told of."""
        try:
            await parked
        except asyncio.CancelledError as error:
            if self._begun is None:
                raise
            return error
        return None

    async def _finish(self, begun: _Begun, cancelled: asyncio.CancelledError | None) -> None:
        """Go on with a callback that was called in this task's name."""
        try:
            if begun.stepped:
                await _carry_on(begun.result, begun.future, cancelled)
            elif cancelled is not None:
                raise cancelled
            else:
                await begun.result
        except BaseException as error:
            if not is_failure(error):
                raise
            self._worker.failed("the callback", begun.callback, error)
        begun.source.count(len(begun.payload) + MESSAGE_CHARGE)

    def _first(self) -> Unit | None:
        try:
            return self._worker.units[0]
        except IndexError:
            return None

    async def _give(self, unit: Unit, callback: Callback, yielded: float) -> float:
        """Call *callback* with what arrived at once, as long as it is the only one: the path of nearly all messages.

        Args:
            yielded: when the loop was last free to do something else, by ``time.monotonic``. Returns that anew.
        """
        callbacks, decode, function = self._worker.callbacks, callback.decoder(unit.flags), callback.function
        monotonic = time.monotonic
        assert callbacks is not None
        if len(unit.payloads) > 1 and not unit.suspended:
            self.loop.call_soon(self._suspended, unit)
        walk = iter(unit.payloads)
        if unit.position:
            next(islice(walk, unit.position, unit.position), None)
        unit.walk = walk
        what = ""
        looked, look = yielded, 1
        try:
            for payload in walk:
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
                    self._worker.failed(what, callback, error)
                if unit.suspended:
                    unit.reached()
                    self._settle(unit)
                look -= 1
                if not look:
                    now = monotonic()
                    if now - yielded > YIELD_SECONDS:
                        now = yielded = await self._pause(unit)
                    look = LOOK_AFTER if now - looked < LOOK_SECONDS else 1
                    looked = now
                if callbacks.only is not callback:
                    break
            unit.reached()
        except BaseException:
            unit.position = unit.taken
            self._settle(unit)
            raise
        finally:
            unit.walk = None
        return yielded

    async def _handle_one(self, unit: Unit, yielded: float) -> float:
        """The same with one message and whatever receivers and filters there are."""
        payload = unit.payloads[unit.position]
        unit.position += 1
        try:
            await self._worker.handle(Received(payload, unit.flags, unit.request_id, unit.source))
        except Exception as error:  # ours: a user's failure has been dealt with in `handle`
            name = self._worker.name
            log().opt(exception=error).error(f"receiving on {name!r} failed inside lycomm; please report this")
        except BaseException:
            self._settle(unit)
            raise
        unit.handled = unit.position
        self._settle(unit)
        return await self._yield() if time.monotonic() - yielded > YIELD_SECONDS else yielded

    async def _yield(self) -> float:
        """Callbacks that never suspend must not keep the loop from everything else. Returns when that was."""
        await asyncio.sleep(0)
        return time.monotonic()

    async def _pause(self, unit: Unit) -> float:
        """The same in the middle of a unit. No callback waits, so they need not be counted one by one from now on."""
        unit.reached()
        self._settle(unit)
        suspended = unit.suspended
        now = await self._yield()
        if not suspended:
            unit.suspended = False
            self.loop.call_soon(self._suspended, unit)
        return now

    def _suspended(self, unit: Unit) -> None:
        """The loop got to do something else since the unit was begun."""
        with self._worker.lock:
            unit.count()
            unit.suspended = True

    def _settle(self, unit: Unit) -> None:
        """Count what was handled of the unit, and take it off the queue when that is all of it."""
        with self._worker.lock:
            unit.count()
            if unit.position >= len(unit.payloads) and self._worker.units and self._worker.units[0] is unit:
                self._worker.units.popleft()
                unit.payloads = []  # `_suspended` keeps the unit for a turn, which should not keep what has been freed


@coroutine
def _carry_on(
    begun: Generator[Any, Any, Any], future: Any, cancelled: asyncio.CancelledError | None
) -> Generator[Any, Any, Any]:
    """As ``await begun``, which has been run until it waited for *future*.

    Args:
        cancelled: it has cancelled its task before: to be thrown where it waits.
    """
    try:
        if cancelled is not None:
            if future is not None:
                future.cancel()
            future = begun.throw(cancelled)
        while True:
            try:
                value = yield future
            except GeneratorExit:
                begun.close()
                raise
            except BaseException as error:
                future = begun.throw(error)
            else:
                future = begun.send(value)
    except StopIteration as end:
        return end.value
