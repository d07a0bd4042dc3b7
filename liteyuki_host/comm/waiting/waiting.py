"""Waiting for something to happen, in a thread or in a task. The side that makes it happen is the same for both.

Theory of operation
-------------------

There are two tools:

- :class:`Waiters`, for a state that changes again and again (room in a channel, a message in a queue). A waiter brings
  an *attempt*: a function that returns a result, or :data:`NOTHING` if it has to wait. It is woken by each change and
  tries again, because another waiter may have been faster.
- :class:`Answer`, for one value that is given once to one waiter (the reply to a request, a confirmed write).

A thread sleeps at a :class:`Gate`; a task awaits a ``Parked`` future (``waiting/parking.py``), which is resumed on the
task's loop. A thread that waits for something that a link brings (:class:`Bringer`) reads the link itself meanwhile.
That saves a switch between two threads.

No wake-up is lost
------------------

A waiter registers first and tries afterwards; the other side changes the state first and wakes afterwards. So a change
is either seen by the attempt, or it wakes the waiter.

Threads and locks
-----------------

Nothing here takes the exchange's lock, and nothing waits except the methods named ``wait`` and ``wait_async``. Each
step that two threads may take at once is a single operation that is atomic in Python, such as ``deque.popleft``. So a
finalizer or a signal handler may call these methods at any point.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from liteyuki_host.comm.waiting.checkpoints import checkpoint, had_turn, turn_is_due
from liteyuki_host.comm.waiting.loops import call_soon_on, event_loops, no_asyncio, parked_type

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host.comm.waiting.parking import Parked

__all__ = [
    "MAIN_THREAD",
    "NOTHING",
    "Answer",
    "Bringer",
    "Gate",
    "Nothing",
    "Waiters",
]

T = TypeVar("T")


class Nothing(enum.Enum):
    """The type of :data:`NOTHING`, which an attempt returns if it has to wait. None would not do, as it may be a value.
    An enum with one member, so that a type checker understands ``is NOTHING``."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING


MAIN_THREAD: Final = threading.main_thread().ident
"""The thread in which Ctrl+C may raise KeyboardInterrupt between any two lines."""


# --- threads ------------------------------------------------------------------------------------------------


class Gate:
    """What one thread sleeps at until another thread wakes it. Opened once, by whoever brings what it waits for.

    A bare lock, because it is cheaper than ``threading.Event``: it is acquired from the start, the sleeper tries to
    acquire it again, and to release it wakes the sleeper.

    Attributes:
        opened: whether :meth:`open` was called. Set from any thread, never cleared.
    """

    __slots__ = ("_lock", "opened")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.opened = False

    def open(self) -> None:
        """Open the gate and wake the thread that sleeps here. From any thread; further calls have no effect."""
        self.opened = True
        self.call()

    def call(self) -> None:
        """Wake the thread that sleeps here without opening the gate, for example to read the link. If none sleeps, the
        next :meth:`wait` returns at once. From any thread."""
        try:
            self._lock.release()
        except RuntimeError:  # it was woken already, and has not slept again
            pass

    def is_open(self) -> bool:
        """Whether it was opened; the form of a function that ``Reader.lead`` takes as *ready*."""
        return self.opened

    def wait(self, timeout: float) -> bool:
        """Sleep until :meth:`call` or :meth:`open`, at most *timeout* seconds; -1: without limit. Returns whether it
        was woken."""
        return self._lock.acquire(timeout=timeout)


class Bringer(Protocol):
    """What brings the things that are waited for: a link, which a waiting thread may read meanwhile."""

    def lead(self, ready: Callable[[], object], deadline: float | None, wanted: Any = None) -> Any:
        """As ``Reader.lead``."""
        ...

    def look(self) -> float:
        """As ``Reader.look``."""
        ...

    @property
    def wait(self) -> Callable[[Gate, float], bool]:
        """As ``Reader.wait``."""
        ...


class Waiters:
    """The threads and tasks that wait for one state to change. A change wakes each of them once; each then tries again
    and, without success, registers again.

    There is no lock, so a finalizer or signal handler that interrupts one of these methods may call another one. Each
    step is one operation of a deque, which is atomic.

    Attributes:
        callbacks: one per waiter, which wakes it. Appended by the waiter and removed by :meth:`wake` or the waiter, in
            any thread. Callers skip :meth:`wake` while it is empty.
        link: what brings the change, if it is known; a waiting thread may read it meanwhile. Set from any thread when a
            link comes or goes.
    """

    __slots__ = ("callbacks", "link")

    def __init__(self) -> None:
        self.link: Bringer | None = None
        self.callbacks: deque[Callable[[], None]] = deque()

    def wake(self) -> None:
        """Wake everybody who waits now, because something changed. From any thread; never waits."""
        callbacks = self.callbacks
        for _ in range(len(callbacks)):  # those who register again meanwhile have seen the change
            try:
                callback = callbacks.popleft()
            except IndexError:  # another thread has woken the rest
                return
            callback()

    def _add(self, callback: Callable[[], None]) -> None:
        """Register a waiter. It tries once more afterwards, before it sleeps."""
        self.callbacks.append(callback)

    def _discard(self, callback: Callable[[], None]) -> None:
        """Remove a waiter that stops waiting, whether it was woken or not."""
        try:
            self.callbacks.remove(callback)
        except ValueError:  # `wake` has removed and called it
            pass

    def wait(self, attempt: Callable[[], T | Nothing], timeout: float | None) -> T | Nothing:
        """Repeat *attempt* in this thread until it gives something.

        While the link is known and nobody else reads it, this thread reads it; else it sleeps until it is woken.

        Args:
            attempt: returns the result, or NOTHING to wait on. Its exceptions go to the caller. Called without a lock.
            timeout: seconds; None waits without limit.

        Returns:
            what *attempt* gave; NOTHING after *timeout* seconds.
        """
        result = attempt()
        if result is not NOTHING:
            return result
        deadline = None if timeout is None else time.monotonic() + timeout

        def ready() -> bool:
            nonlocal result
            result = attempt()
            return result is not NOTHING

        while True:
            link = self.link  # read anew in each round: links come and go during a long wait
            if link is not None:
                link.lead(ready, deadline)
                if result is not NOTHING:
                    return result
            gate = Gate()
            self._add(gate.open)
            try:
                result = attempt()
                if result is not NOTHING:
                    return result
                left = -1.0
                if deadline is not None:
                    left = min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
                woken = gate.wait(left) if link is None else link.wait(gate, left)
            finally:
                self._discard(gate.open)
            result = attempt()
            if not woken or result is not NOTHING:
                return result

    async def wait_async(self, attempt: Callable[[], T | Nothing], timeout: float | None) -> T | Nothing:
        """Repeat *attempt* in this task until it gives something.

        Cancelling it changes nothing: a result is taken only by the call that returns it. If the first attempt
        succeeds, the loop does not turn, so a caller that may loop over such attempts makes a checkpoint before.

        Args:
            attempt: returns the result, or NOTHING to wait on. Its exceptions go to the caller. Called on the loop.
            timeout: seconds; None waits without limit.

        Returns:
            what *attempt* gave; NOTHING after *timeout* seconds.

        Raises:
            AsyncioNeeded: it has to wait, and this thread runs no event loop of asyncio.
        """
        result = attempt()
        if result is not NOTHING:
            return result
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            bell = _Bell()
            self._add(bell.ring)
            try:
                result = attempt()
                if result is not NOTHING:
                    return result
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                if not await bell.wait(left):
                    return attempt()
            finally:
                self._discard(bell.ring)


class Answer(Generic[T]):
    """One value that is on its way to one waiter, a thread or a task. Given once, from any thread.

    Attributes:
        _value: the value, or NOTHING. Set by :meth:`give`.
        _gate: what the waiting thread sleeps at. Set by the waiter, in :meth:`wait`.
        _parked: what the waiting task awaits. Set by the waiter, in :meth:`wait_async`.
    """

    # Defaults of the class: each confirmed write makes an Answer, and a class without __init__ is made faster.
    _value: T | Nothing = NOTHING
    _gate: Gate | None = None
    _parked: Parked | None = None

    @property
    def value(self) -> T | Nothing:
        """The value; NOTHING until it has come."""
        return self._value

    @property
    def given(self) -> bool:
        """Whether the value has come."""
        return self._value is not NOTHING

    def give(self, value: T) -> None:
        """Hand the value over and wake the waiter. From any thread; never waits."""
        # First the value, then the look for a waiter. The waiter registers first and looks at the value afterwards.
        self._value = value
        parked = self._parked
        if parked is not None:
            call_soon_on(parked.get_loop(), parked.resume)  # on a loop that is closed nobody waits any more
        elif self._gate is not None:
            self._gate.open()

    def wait(self, link: Bringer | None, timeout: float | None) -> T | Nothing:
        """Wait for the value in this thread.

        Args:
            link: what brings it, which this thread may read meanwhile; None: not known.
            timeout: seconds; None waits without limit.

        Returns:
            the value; NOTHING after *timeout* seconds.
        """
        if self._value is NOTHING:
            gate = self._gate = Gate()
            if self._value is NOTHING:
                left = -1.0 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
                if link is None:
                    gate.wait(left)
                else:
                    link.wait(gate, left)
        return self._value

    async def wait_async(self, timeout: float | None) -> T | Nothing:
        """Wait for the value in this task; NOTHING after *timeout* seconds (None: no limit).

        The loop turns also when the value is there already, unless it has turned recently. Otherwise a task that never
        has to wait would block the loop.

        Raises:
            AsyncioNeeded: it has to wait, and this thread runs no event loop of asyncio.
        """
        if self._value is not NOTHING:
            if turn_is_due():
                await checkpoint()
        else:
            loop = event_loops.running()
            if loop is None:
                no_asyncio()
            parked = self._parked = parked_type()(loop=loop)
            if self._value is NOTHING:
                if timeout is None:
                    await parked
                else:
                    # Waits with the same limit share a timer. Nearly always the limit is that of the last wait.
                    limit = _TimeLimit.latest
                    if limit is None or limit.loop is not loop or limit.seconds != timeout:
                        limit = _TimeLimit.of(loop, timeout)
                    limit.until[parked] = until = loop.time() + timeout
                    if limit.timer is None:
                        limit.timer = loop.call_at(until, limit.look)
                    try:
                        await parked
                    finally:
                        del limit.until[parked]
                        if _TimeLimit.latest is not limit:
                            limit.end_if_unused()
                had_turn()
        return self._value


# --- tasks --------------------------------------------------------------------------------------------------


class _Bell:
    """What one task sleeps at in :meth:`Waiters.wait_async`. Made and awaited on the task's loop; rung from any thread.

    Attributes:
        loop: the task's.
        rung: what the task awaits.
        in_time: False after the time-out. Set on the loop's thread.
    """

    __slots__ = ("in_time", "loop", "rung")

    def __init__(self) -> None:
        loop = event_loops.running()
        if loop is None:
            no_asyncio()
        self.loop = loop
        self.rung: Parked = parked_type()(loop=loop)
        self.in_time = True

    def ring(self) -> None:
        """Resume the task on its loop, soon. From any thread; further calls have no effect."""
        call_soon_on(self.loop, self.rung.resume)  # on a loop that is closed nobody waits any more

    def time_out(self) -> None:
        """Resume the task because its time is up. Called by the loop's timer."""
        self.in_time = False
        self.rung.resume()

    async def wait(self, timeout: float | None) -> bool:
        """Sleep until it is rung, at most *timeout* seconds (None: no limit). Returns False after the time-out."""
        if timeout is None:
            await self.rung
            had_turn()
            return True
        timer = self.loop.call_later(timeout, self.time_out)
        try:
            await self.rung
        finally:
            timer.cancel()
        had_turn()
        return self.in_time


class _TimeLimit:
    """The same time limit for many short waits on one loop, with one timer for all of them. A timer for each wait costs
    as much as half of a confirmed write.

    Because the limit is the same for all, the waits expire in the order in which they began. So the timer is set for
    the oldest one, and a dict, which keeps that order, is enough.

    Attributes:
        loop, seconds: for which waits it is. Never change.
        until: the waits in progress with the loop's time at which each expires, oldest first. Changed on the loop's
            thread.
        timer: calls :meth:`look`; None: none is set. Changed on the loop's thread.
    """

    __slots__ = ("loop", "seconds", "timer", "until")

    latest: _TimeLimit | None = None
    """The one used last, in any thread: nearly always the one that the next wait needs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.until: dict[Parked, float] = {}
        self.timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, seconds: float) -> _TimeLimit:
        """Make a new one, which replaces the latest. Called on *loop*."""
        before = cls.latest
        cls.latest = limit = _TimeLimit(loop, seconds)
        if before is not None and before.loop is loop:
            before.end_if_unused()
        return limit

    def end_if_unused(self) -> None:
        """Cancel the timer if no wait is left. Called for every limit but the latest one, whose timer is kept for the
        next wait. Otherwise waits with many different limits would leave as many timers behind."""
        if not self.until and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look(self) -> None:
        """Resume the tasks whose time is up, and set the timer for the next one. Called by the loop's timer."""
        self.timer = None
        now = self.loop.time()
        late: list[Parked] = []
        for parked, until in self.until.items():
            if until > now:
                self.timer = self.loop.call_at(until, self.look)
                break
            late.append(parked)
        # Only now: resuming a task lets it run at once and remove its entry, which must not happen during iteration.
        for parked in late:
            parked.resume()
