"""The task that consumes a queue on one loop, and how a message reaches a callback while the task sleeps.

Theory of operation
-------------------

Resuming a task and letting it park again costs as much as everything else that is done for a short message. So a
message that arrives alone is given to its callback by the reader of the link: on the task's loop and in the task's
name, that is, in its context and as ``asyncio.current_task()`` (:meth:`WorkerTask.take`). Nearly all callbacks return
without having waited, and the task need not wake up. When a callback does wait, the task is resumed and continues it.

Messages that arrive together wait in the queue as one :class:`Unit`, and the task gives them to the callback one by one
(:meth:`WorkerTask._give`). With several callbacks, filters or flags, ``Worker.handle`` takes each message instead.

A message whose callback does not finish, because the task is cancelled or the process ends, is not counted as consumed.
It goes back to the front of the queue, marked as redelivered: a later task of this process handles it again, or the
sender gives it to the next incarnation.

States
------

======================  ==========  ==================  ==========  =======================================
state                   *started*   *parked*            *free*      *handed*
======================  ==========  ==================  ==========  =======================================
announced               False       None                False       None
consuming the queue     True        None                False       None
parked                  True        a future            True        None
claimed                 True        a future            False       the message, or None for a wake-up only
finishing a callback    True        None                False       None
ended                   False       None                False       None
======================  ==========  ==================  ==========  =======================================

"Claimed" lasts from the moment somebody sets *free* to False until the task is resumed, or until
:meth:`WorkerTask.take` has handled the message and makes the task free again. A claim saves wake-ups; two threads may
still claim at once, and the second resume is then a harmless extra look at the queue. "Finishing a callback" means that
:meth:`WorkerTask.take` has called the callback and the callback waits.

No wake-up is lost: the task sets *free* first and looks at the queue afterwards, and whoever brings a message appends
it to the queue first and looks at *free* afterwards.

Threads and locks
-----------------

Everything here runs on the loop's thread. Other threads read the attributes, claim the task, set *detached*, and append
units to the queue. The front of the queue, and what a unit has counted as consumed, are changed under the worker's
lock, because ``statistics()``, a new link and the end of the process use them from other threads. No callback is called
while that lock is held.

This module is loaded by the first worker that runs, because it imports asyncio.
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
"""Messages between two readings of the clock, if the last ones were quick. One reading costs nearly as much as the work
for one message without its decoding. Measured: 1.02 to 1.04 times the throughput of 1 KiB messages."""

LOOK_SECONDS = 0.001
"""Seconds between two readings of the clock up to which the messages in between count as quick."""

# Public, for authors of event loops and tasks: https://docs.python.org/3/library/asyncio-extending.html
_enter_task = asyncio._enter_task
_leave_task = asyncio._leave_task


if sys.version_info >= (3, 11):
    _Task = asyncio.Task
else:

    class _Task(asyncio.Task[None]):
        """A task with a ``cancelling`` method, which asyncio's own tasks have from Python 3.11 on.

        ``is_failure`` needs it: without it, a callback that raises CancelledError by itself looks like the cancellation
        of the whole task, which would end the task and never count the message as consumed.
        """

        _cancel_calls = 0

        def cancel(self, msg: Any = None) -> bool:
            self._cancel_calls += 1
            return super().cancel(msg)

        def cancelling(self) -> int:
            return self._cancel_calls


class _Begun(NamedTuple):
    """A callback that was called in the task's name and has not finished. Written by :meth:`WorkerTask.take`, and
    finished by the task (:meth:`WorkerTask._finish`)."""

    callback: Callback
    result: Any
    """What it returned, to be awaited."""

    stepped: bool
    """Whether *result* is a coroutine that has been run until it waited for *future*."""

    future: Any
    """What the coroutine yielded: a future, or None after ``asyncio.sleep(0)``. None also if not *stepped*."""

    payload: bytes
    """The encoded message. It goes back to the queue if the task is cancelled before the callback has finished."""

    source: Source
    """Where the message is counted as consumed."""


class WorkerTask:
    """One task of a :class:`Worker`, from its announcement to its end. The module describes its states.

    All attributes except *free* and *detached* are changed on the loop's thread only, without a lock.

    Attributes:
        loop: where it runs. Never changes.
        started: whether the task has been created and has not ended. Set by :meth:`start`; cleared by the end of the
            task, or by :meth:`_task_done` if the task was cancelled before its first step.
        task: None before it has been created. Set once, by :meth:`start`.
        parked: what the task waits for between two messages; None while it runs. Set by the task. Resuming a parked
            task costs half as much as creating one.
        free: True while the task is parked and nobody has claimed it. Set to True by the task before it parks, and by
            :meth:`take` when it is done. Set it to False before you resume the task or hand it a message: on the
            loop's thread in ``Inbox.pass_to_task``, on any thread in ``Worker.wake``.
        handed: the message that the reader has handed to the claimed task, and its source. Set by
            ``Inbox.pass_to_task``; set to None by :meth:`take`, or by the task before it finishes the callback.
        detached: whether the worker ends the task on purpose. Set by ``Worker.detach``, from any thread, before it
            cancels the task.
        _begun: the callback that :meth:`take` began and the task has to finish. Set by :meth:`take`, taken by the task.
        _left_message: whether :meth:`take` found the task cancelled and returned the message to the queue. The next
            task handles it, and :meth:`_task_done` starts that one.
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
        self._left_message = False

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of a message, so that no other task may be started yet. Read from any thread.

        False on a closed loop: the task cannot run again there, and perhaps its ``finally`` never ran.
        """
        return self.started and (self.parked is None or self.handed is not None) and not self.loop.is_closed()

    def start(self) -> None:
        """Create the task. Called on its loop.

        The loop's task factory is not asked: an eager one would run the task at once, inside of this call.
        """
        self.started = True
        self.task = _Task(self._consume(), loop=self.loop, name=f"lycomm-{self._worker.name}")
        self.task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """Clean up after a task whose own ``finally`` did not run, and start the next task if messages wait for one.
        Called on its loop, in the turn after its end."""
        worker = self._worker
        unbegun = self.started  # cancelled before its first step: nothing of `_consume` has run, also not its end
        if unbegun:
            self.started = False
            worker.forget(self)
        if self._left_message or (unbegun and (self.detached or worker.loop is not self.loop)):
            worker.wake()

    def resume(self) -> None:
        """Let the task go on, if it is parked. Called on its loop, outside of any task.

        Does nothing while a callback runs in the task's name. That callback may have run the loop from inside itself,
        and then this call comes in the middle of :meth:`take`, which looks at the queue again when it is done.
        """
        if self.parked is not None and self.handed is None:
            self.parked.resume()

    @property
    def _current(self) -> bool:
        """Whether the worker still wants this task, and on this loop. False ends the task after its message."""
        worker = self._worker
        return worker.current is self and worker.loop is self.loop

    # --- in the task's name ---------------------------------------------------------------------------------

    def take(self) -> None:
        """Give the message in *handed* to the callback. Called once for each message that ``Inbox.pass_to_task`` has
        handed over, as one of the calls due in a ``Turn``: on the loop, after the link was read.

        Afterwards the message is in one of four places:

        - handled and counted as consumed, and the task is free again;
        - in ``_begun``, because its callback waits: the task is resumed and finishes it;
        - back in the queue unmarked, because no callback could be called here: the task takes it from there;
        - back in the queue marked as redelivered, because the callback ended the task or the process.

        Written in one piece, because the cost of a lone message is mostly function calls.

        Raises:
            BaseException: what the callback raised to end the process, such as SystemExit or KeyboardInterrupt.
        """
        worker, parked, handed = self._worker, self.parked, self.handed
        if TYPE_CHECKING:  # all of it is checked by Inbox.pass_to_task, which sets `handed`
            assert worker.callbacks is not None
            assert parked is not None
            assert parked.context is not None
            assert handed is not None
        payload, source = handed
        callback = worker.callbacks.only
        loop, task, call = self.loop, self.task, parked.context.run
        # The loop reads all that has arrived before it makes the calls that are due. An earlier one of these calls may
        # have registered a second callback, detached the worker or cancelled the task.
        if callback is None or worker.current is not self or worker.loop is not loop or parked.done():
            self._left_message = parked.done()  # this task has been cancelled, so the next one handles the message
            self._hand_to_task()
            return
        try:
            _enter_task(loop, task)  # type: ignore[arg-type]
        except RuntimeError:  # another task is current: the loop is being run from inside one (nest_asyncio)
            self._hand_to_task()
            return
        begun: _Begun | None = None
        what = UNDECODABLE
        try:
            data = callback.decode_plain(payload)
            what = "the callback"
            result = call(callback.function, data)
            if type(result) is CoroutineType:
                # Run the coroutine to where it first waits. Most never do, and end here.
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
                # The task was cancelled while the callback ran, or the callback ends the process. The message was not
                # handled. The task ends in either case: it sees the cancellation in a later turn.
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
            parked.resume()  # does nothing when the task has been cancelled: its next step is scheduled already
            return
        source.count(len(payload) + MESSAGE_CHARGE)
        self.handed = None
        self.free = True
        # While the task was claimed, `Worker.wake` and `resume` did nothing. So look for what came meanwhile, after
        # `free` has been set: more messages, or another loop (None: the worker ends).
        if worker.units or worker.loop is not loop:
            self.free = False
            parked.resume()

    def _hand_to_task(self) -> None:
        """Put the message in *handed* back in front of the queue and resume the task in the loop's next turn. The
        message is not marked as redelivered, because no callback has seen it."""
        assert self.handed is not None
        payload, source = self.handed
        self._worker.put_back(Unit([payload], 0, 0, source))
        self.handed = None
        self.loop.call_soon(self.resume)

    # --- the task -------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        """Consume the queue until the worker stops, moves to another loop or has drained the queue. Messages are
        counted as consumed once they are handled.

        Each round does one of three things: it handles a unit of the queue, it parks until somebody resumes the task,
        or it finishes a callback that :meth:`take` has begun meanwhile.
        """
        worker, loop, task = self._worker, self.loop, self.task
        callbacks, units = worker.callbacks, worker.units
        yielded = time.monotonic()  # when the loop last had a chance to run something else
        assert task is not None
        ended_from_outside = False
        had_turn(task)
        if worker.requests is not None:  # in the task's own context, which tasks that callbacks start inherit
            callback_of.set(CallbackTask(worker.name, task, worker.requests))
        try:
            while self._current:
                if units and worker.wanted and (unit := self._first()) is not None:
                    # Flags other than RAW ask for more than a call: an answer, or a note about redelivery.
                    only = None if callbacks is None or unit.flags & ~Flag.RAW else callbacks.only
                    if only is not None:
                        yielded = await self._give(unit, only, yielded)
                    else:
                        yielded = await self._handle_one(unit, yielded)
                    self._settle(unit)
                    unit = None  # or this variable would keep the last messages in memory while the task is parked
                    continue
                if worker.draining and not units:
                    return
                self.parked = Parked(loop=loop)
                self.free = True
                cancelled = None
                # A message that arrived before `free` was set has woken nobody. This look finds it.
                if not (units and worker.wanted):
                    # A loop may be closed without cancelling its tasks. A parked task holds no message then, so
                    # asyncio's warning about a pending task that was destroyed would be a false alarm.
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
            # If the worker did not ask for it, the loop is probably ending. A new task on that loop would call the
            # callback with the same message again, only to be cancelled too.
            ended_from_outside = not self.detached
            raise
        finally:
            self.started = self.free = False
            self.parked = None
            worker.forget(self)
            if not ended_from_outside or worker.loop is not loop:
                worker.wake()

    async def _park(self, parked: Parked) -> asyncio.CancelledError | None:
        """Wait to be resumed.

        Returns:
            the cancellation of this task that came while a callback begun by :meth:`take` waits, for :meth:`_finish` to
            raise inside it; else None.

        Raises:
            asyncio.CancelledError: the task was cancelled, and no callback is in progress.
        """
        try:
            await parked
        except asyncio.CancelledError as error:
            if self._begun is None:
                raise
            return error
        return None

    async def _finish(self, begun: _Begun, cancelled: asyncio.CancelledError | None) -> None:
        """Run a callback that was called in this task's name to its end, and count its message as consumed.

        Args:
            cancelled: the cancellation that the callback has to see first; None: there is none.

        Raises:
            BaseException: what ends the task or the process. The message is in front of the queue again.
        """
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
        """The unit at the front of the queue; None if another thread has emptied the queue since the caller looked, as
        ``Inbox.reopen`` does."""
        try:
            return self._worker.units[0]
        except IndexError:
            return None

    async def _give(self, unit: Unit, callback: Callback, yielded: float) -> float:
        """Call *callback* with the messages of *unit*, as long as it is the only callback. Nearly all messages that do
        not arrive alone take this way. Stops early when a callback is added or removed; the rest stays in the unit.

        While no callback suspends, progress is recorded only by the iterator (``Unit.walk``), and all messages are
        counted as consumed together. When one suspends, :meth:`_suspended` runs in the next turn of the loop: from then
        on each message is counted on its own, so that a slow callback does not hold back credit for earlier messages.

        Args:
            yielded: when the loop last had a chance to run something else, by ``time.monotonic``.

        Returns:
            the new value of *yielded*.

        Raises:
            BaseException: what ends the task or the process. The message in progress is in front of the queue again.
        """
        callbacks, decode, function = self._worker.callbacks, callback.decoder(unit.flags), callback.function
        monotonic = time.monotonic
        assert callbacks is not None
        if len(unit.payloads) > 1 and not unit.suspended:
            self.loop.call_soon(self._suspended, unit)
        walk = iter(unit.payloads)
        if unit.position:  # begun before: skip what was taken then
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
            # `_put_back` clears `walk`. If it is set, the exception was raised outside of a callback, mostly by
            # `_pause` between two messages, and nothing was put back. The next task goes on behind the last one taken.
            if unit.walk is not None:
                unit.position = unit.taken
                self._settle(unit)
            raise
        finally:
            unit.walk = None
        return yielded

    async def _handle_one(self, unit: Unit, yielded: float) -> float:
        """Have the worker's *handle* take the next message of *unit*.

        Args:
            yielded: when the loop last had a chance to run something else, by ``time.monotonic``.

        Returns:
            the new value of *yielded*.

        Raises:
            BaseException: what ends the task or the process. The message is in front of the queue again.
        """
        payload = unit.payloads[unit.position]
        unit.position += 1
        try:
            await self._worker.handle(Received(payload, unit.flags, unit.request_id, unit.source))
        except BaseException as error:
            if not is_failure(error):
                self._put_back(unit)
                raise
            # An error of lycomm itself: `handle` reports failures of callbacks on its own and does not raise them.
            name = self._worker.name
            log().opt(exception=error).error(f"receiving on {name!r} failed inside lycomm; please report this")
        unit.handled = unit.position
        self._settle(unit)
        return await self._yield() if time.monotonic() - yielded > YIELD_SECONDS else yielded

    async def _yield(self) -> float:
        """Let the loop turn once, so that callbacks that never suspend do not block it. Returns the time after that, by
        ``time.monotonic``."""
        await asyncio.sleep(0)
        had_turn(self.task)
        return time.monotonic()

    async def _pause(self, unit: Unit) -> float:
        """Let the loop turn once between two messages of *unit*. Returns the time after that, by ``time.monotonic``.

        No callback is in progress, so this suspension says nothing about callbacks: it must not switch the unit to
        counting one by one. ``_suspended``, which runs in this turn, is undone and scheduled again.
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
        """Count the messages of *unit* one by one from now on, because a callback has suspended.

        The loop calls this, and the loop can only do so while the task is suspended. That is how the task learns of a
        suspension without looking at each callback.
        """
        with self._worker.lock:
            unit.count()
            unit.suspended = True

    def _settle(self, unit: Unit) -> None:
        """Count the handled messages of *unit* as consumed, and take it off the queue when all of them are handled."""
        with self._worker.lock:
            unit.count()
            if unit.position >= len(unit.payloads) and self._worker.units and self._worker.units[0] is unit:
                self._worker.units.popleft()
                unit.payloads = []  # the scheduled call of `_suspended` keeps the unit alive for one more turn

    def _put_back(self, unit: Unit) -> None:
        """Put the message that was taken last from *unit* in front of the queue, marked as redelivered, because its
        callback was cancelled. It becomes a unit of its own: the rest of *unit* is not redelivered."""
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

    Everything that the loop sends or throws goes into *begun*, and everything that it yields goes to the loop, until it
    returns.

    Args:
        cancelled: the cancellation of the task that came meanwhile, raised in *begun* where it waits; None: there is
            none.

    Returns:
        what *begun* returns.
    """
    try:
        if cancelled is not None:
            # As `Task.cancel` does for a task that waits: the future that it waits for is cancelled with it.
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
