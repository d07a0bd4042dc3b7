"""The task that consumes a queue on one loop, and how a message reaches a callback while the task sleeps.

Theory of operation
-------------------

Resuming a task and letting it park again costs as much as everything else that is done for a short message. So a
message that arrives alone is given to its callback by the reader of the link: on the task's loop and in the task's
name, that is, in its context and as ``asyncio.current_task()`` (:meth:`WorkerTask.take`). Nearly all callbacks return
without having waited, and the task need not wake up. When a callback does wait, the task is resumed and goes on there.

Messages that arrive together wait in the queue as one :class:`Unit`, and the task gives them to the callback one by one
(:meth:`WorkerTask._give`). With several callbacks, filters or flags, ``Worker.handle`` takes each message instead.

A message whose callback does not come to its end, because the task is cancelled or the process ends, is not counted as
consumed. It goes back to the front of the queue, marked as redelivered: a later task of this process handles it again,
or the sender gives it to the next incarnation.

This module is loaded by the first worker that runs, as it takes asyncio.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from itertools import islice
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from liteyuki_host.comm.channel.calling import (
    UNDECODABLE,
    Callback,
    CallbackTask,
    callback_of,
    is_awaitable,
    is_failure,
)
from liteyuki_host.comm.channel.unit import Received, Source, Unit
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.waiting.checkpoints import had_turn
from liteyuki_host.comm.waiting.parking import Parked

if TYPE_CHECKING:
    from liteyuki_host.comm.channel.worker import Worker

__all__ = ["YIELD_SECONDS", "WorkerTask"]

YIELD_SECONDS = 0.005
"""Seconds after which the task lets the loop do something else, although no callback has suspended."""

LOOK_AFTER = 8
"""Messages after which the task reads the clock again, if the last ones were quick. Reading it costs nearly as much as
what is done for a message beside decoding it. Measured: 1 KiB messages 1.02 to 1.04 times as many."""

LOOK_SECONDS = 0.001
"""Seconds between two readings of the clock up to which the messages in between count as quick."""

# Public, for authors of event loops and tasks: https://docs.python.org/3/library/asyncio-extending.html
_enter_task = asyncio._enter_task
_leave_task = asyncio._leave_task


if sys.version_info >= (3, 11):
    _Task = asyncio.Task
else:

    class _Task(asyncio.Task[None]):
        """A task that says whether it was cancelled, as tasks do from Python 3.11 on. Without that, a callback that
        raises CancelledError could not be told from the end of the task, and its message's credit would be lost."""

        _cancel_calls = 0

        def cancel(self, msg: Any = None) -> bool:
            self._cancel_calls += 1
            return super().cancel(msg)

        def cancelling(self) -> int:
            return self._cancel_calls


class _Begun(NamedTuple):
    """A callback that was called in the task's name and has not finished."""

    callback: Callback
    result: Any
    """What it returned, to be awaited."""

    stepped: bool
    """Whether *result* is a coroutine that has been run until it waited for *future*."""

    future: Any
    payload: bytes
    source: Source


class WorkerTask:
    """One task of a :class:`Worker`, from its announcement to its end.

    Attributes:
        loop: where it runs. All attributes but *free* and *detached* are changed on that loop's thread.
        started: whether the task has been created and has not ended.
        task: None before it has been created.
        parked: what the task waits for between two messages. Resuming it costs half of creating a task.
        free: True while the task is parked and nobody has claimed it. Set it to False before you resume the task or
            hand it a message; only then are you the one who does.
        handed: the message that the reader has handed to the free task, and its sender; None when it is done.
        detached: set by ``Worker.detach`` before it cancels the task.
    """

    __slots__ = (
        "_begun",
        "_left_message",
        "_worker",
        "detached",
        "free",
        "handed",
        "loop",
        "parked",
        "started",
        "task",
    )

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self.loop = loop
        self.started = False
        self.task: asyncio.Task[None] | None = None
        self.parked: Parked | None = None
        self.free = False
        self.handed: tuple[bytes, Source] | None = None
        self.detached = False
        self._begun: _Begun | None = None
        self._left_message = False  # it has put a message back without having called a callback with it

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of a message. On a closed loop it has ended, perhaps without running its end."""
        return self.started and (self.parked is None or self.handed is not None) and not self.loop.is_closed()

    def start(self) -> None:
        """Create the task. Called on its loop.

        The loop's task factory is not asked: an eager one would run the task at once, inside of this call.
        """
        self.started = True
        self.task = _Task(self._consume(), loop=self.loop, name=f"lycomm-{self._worker.name}")
        self.task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """See to what the task has left undone. Called on its loop, in the turn after its end."""
        worker = self._worker
        unbegun = self.started  # cancelled before its first step: nothing of `_consume` has run, also not its end
        if unbegun:
            self.started = False
            worker.forget(self)
        if self._left_message or (unbegun and (self.detached or worker.loop is not self.loop)):
            worker.wake()

    def resume(self) -> None:
        """Let the task go on, if it is parked. Called on its loop, in no task.

        While a callback runs in its name, which may have run the loop again, nothing happens: :meth:`take` sees to it.
        """
        if self.parked is not None and self.handed is None:
            self.parked.resume()

    @property
    def _current(self) -> bool:
        worker = self._worker
        return worker.current is self and worker.loop is self.loop

    # --- in the task's name ---------------------------------------------------------------------------------

    def take(self) -> None:
        """Give the message in *handed* to the callback. Called on the loop, in no task.

        Written in one piece, as what a lone message costs is mostly calls.
        """
        worker, parked, handed = self._worker, self.parked, self.handed
        if TYPE_CHECKING:  # Inbox.pass_to_task has seen to that
            assert worker.callbacks is not None
            assert parked is not None
            assert parked.context is not None
            assert handed is not None
        payload, source = handed
        callback = worker.callbacks.only
        loop, task, call = self.loop, self.task, parked.context.run
        if callback is None or worker.current is not self or worker.loop is not loop or parked.done():
            self._left_message = parked.done()  # this task has been cancelled, so it is for the next one
            self._hand_to_task()
            return
        try:
            _enter_task(loop, task)  # type: ignore[arg-type]
        except RuntimeError:  # the loop is being run inside a task
            self._hand_to_task()
            return
        begun: _Begun | None = None
        what = UNDECODABLE
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
                self.handed = None
                worker.put_back(Unit([payload], Flag.REDELIVERED, 0, source))
                parked.cancel()
                if isinstance(error, asyncio.CancelledError):
                    return
                raise
            worker.failed(what, callback, error)
        finally:
            _leave_task(loop, task)  # type: ignore[arg-type]
        if begun is not None:
            self._begun = begun
            parked.resume()  # does nothing when the task has been cancelled: then it is about to run anyway
            return
        source.count(len(payload) + MESSAGE_CHARGE)
        self.handed = None
        self.free = True
        if worker.units or worker.loop is not loop:  # while the task was not free, so that nobody has woken it
            self.free = False
            parked.resume()

    def _hand_to_task(self) -> None:
        """Leave the message in *handed* to the task, in the loop's next turn."""
        assert self.handed is not None
        payload, source = self.handed
        self._worker.put_back(Unit([payload], 0, 0, source))
        self.handed = None
        self.loop.call_soon(self.resume)

    # --- the task -------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        """Consume the queue until the worker stops. Messages are counted as consumed once they are handled."""
        worker, loop, task = self._worker, self.loop, self.task
        callbacks, units = worker.callbacks, worker.units
        yielded = time.monotonic()  # when the loop was last free to do something else
        assert task is not None
        ended_from_outside = False
        had_turn(task)
        if worker.requests is not None:  # in the task's own context, which tasks that callbacks start inherit
            callback_of.set(CallbackTask(worker.name, task, worker.requests))
        try:
            while self._current:
                if units and worker.wanted and (unit := self._first()) is not None:
                    only = None if callbacks is None or unit.flags & ~Flag.RAW else callbacks.only
                    if only is not None:
                        yielded = await self._give(unit, only, yielded)
                    else:
                        yielded = await self._handle_one(unit, yielded)
                    self._settle(unit)
                    unit = None  # a parked task keeps nothing that has been consumed
                    continue
                if worker.draining and not units:
                    return
                self.parked = Parked(loop=loop)
                self.free = True
                cancelled = None
                # A message that arrived before `free` was set has woken nobody. It is seen here.
                if not (units and worker.wanted):
                    # A loop that is closed without running its tasks' ends destroys this one here, which loses nothing.
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    cancelled = await self._park(self.parked)
                    task._log_destroy_pending = True  # type: ignore[attr-defined]
                    yielded = time.monotonic()
                    had_turn(task)
                self.free = False
                self.parked = None
                if self._begun is not None:
                    begun, self._begun, self.handed = self._begun, None, None
                    await self._finish(begun, cancelled)
                    del begun
        except BaseException:
            # Cancelled from outside, mostly because the loop ends: a new task would begin the same message anew.
            ended_from_outside = not self.detached
            raise
        finally:
            self.started = self.free = False
            self.parked = None
            worker.forget(self)
            if not ended_from_outside or worker.loop is not loop:
                worker.wake()

    async def _park(self, parked: Parked) -> asyncio.CancelledError | None:
        """Wait to be resumed. Returns the cancellation that a callback in progress has yet to see."""
        try:
            await parked
        except asyncio.CancelledError as error:
            if self._begun is None:
                raise
            return error
        return None

    async def _finish(self, begun: _Begun, cancelled: asyncio.CancelledError | None) -> None:
        """Go on with a callback that was called in this task's name, to its end."""
        try:
            if begun.stepped:
                await _carry_on(begun.result, begun.future, cancelled)
            elif cancelled is not None:
                raise cancelled
            else:
                await begun.result
        except BaseException as error:
            if not is_failure(error):
                self._worker.put_back(Unit([begun.payload], Flag.REDELIVERED, 0, begun.source))
                raise
            self._worker.failed("the callback", begun.callback, error)
        begun.source.count(len(begun.payload) + MESSAGE_CHARGE)

    def _first(self) -> Unit | None:
        """The unit at the front of the queue, if it is still there."""
        try:
            return self._worker.units[0]
        except IndexError:
            return None

    async def _give(self, unit: Unit, callback: Callback, yielded: float) -> float:
        """Call *callback* with the messages of *unit*, as long as it is the only callback. Nearly all messages that do
        not arrive alone take this way.

        Args:
            yielded: when the loop was last free to do something else, by ``time.monotonic``.

        Returns:
            that time anew.
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
                    what = UNDECODABLE
                    data = decode(payload)
                    what = "the callback"
                    result = function(data)
                    if type(result) is CoroutineType or (result is not None and is_awaitable(result)):
                        await result
                except BaseException as error:
                    if not is_failure(error):
                        self._put_back(unit)
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
            if unit.walk is not None:  # raised beside a callback, so that no message was put back
                unit.position = unit.taken
                self._settle(unit)
            raise
        finally:
            unit.walk = None
        return yielded

    async def _handle_one(self, unit: Unit, yielded: float) -> float:
        """Have the worker's *handle* take the next message of *unit*. Takes and returns *yielded* as :meth:`_give`."""
        payload = unit.payloads[unit.position]
        unit.position += 1
        try:
            await self._worker.handle(Received(payload, unit.flags, unit.request_id, unit.source))
        except BaseException as error:
            if not is_failure(error):
                self._put_back(unit)
                raise
            # Not the user's: failures of callbacks are reported inside of `handle`.
            name = self._worker.name
            log().opt(exception=error).error(f"receiving on {name!r} failed inside lycomm; please report this")
        unit.handled = unit.position
        self._settle(unit)
        return await self._yield() if time.monotonic() - yielded > YIELD_SECONDS else yielded

    async def _yield(self) -> float:
        """Let the loop do something else: callbacks that never suspend must not keep it from that. Returns when that
        was."""
        await asyncio.sleep(0)
        had_turn(self.task)
        return time.monotonic()

    async def _pause(self, unit: Unit) -> float:
        """Let the loop do something else between two messages of *unit*. Returns when that was.

        No callback is in progress, so that the next messages need not be counted one by one.
        """
        unit.reached()
        self._settle(unit)
        suspended = unit.suspended
        now = await self._yield()
        if not suspended:
            unit.suspended = False
            self.loop.call_soon(self._suspended, unit)
        return now

    def _suspended(self, unit: Unit) -> None:
        """Count the messages of *unit* one by one from now on: a callback has suspended. Called by the loop, which can
        only be when the task does not run."""
        with self._worker.lock:
            unit.count()
            unit.suspended = True

    def _settle(self, unit: Unit) -> None:
        """Count the handled messages of *unit* as consumed, and take it off the queue when all of them are handled."""
        with self._worker.lock:
            unit.count()
            if unit.position >= len(unit.payloads) and self._worker.units and self._worker.units[0] is unit:
                self._worker.units.popleft()
                unit.payloads = []  # `_suspended` keeps the unit for one more turn, but not what has been consumed

    def _put_back(self, unit: Unit) -> None:
        """Put the message that was taken last from *unit* in front of the queue: its callback was cancelled."""
        with self._worker.lock:
            payload = unit.give_back()
        self._settle(unit)
        if payload is not None:
            flags = unit.flags | Flag.REDELIVERED
            self._worker.put_back(Unit([payload], flags, unit.request_id, unit.source))


@coroutine
def _carry_on(
    begun: Generator[Any, Any, Any], future: Any, cancelled: asyncio.CancelledError | None
) -> Generator[Any, Any, Any]:
    """Do what ``await begun`` does, for a coroutine that has been run until it waited for *future*.

    Args:
        cancelled: has to be raised in *begun* where it waits, because the task was cancelled meanwhile; or None.
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
