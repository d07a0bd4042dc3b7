"""Waiting for a fact, from a thread or from a task, with the same code on the other side."""

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
    """The type of :data:`NOTHING`, the answer of an attempt that has to wait (None is a value). An enum, so that a type
    checker knows that there is only the one, and ``is`` tells."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING


MAIN_THREAD: Final = threading.main_thread().ident
"""Where Ctrl+C may raise KeyboardInterrupt between any two lines."""


class Gate:
    """What one waiting thread sleeps at. Opened once, by whoever brings what it waits for."""

    __slots__ = ("_lock", "opened")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.opened = False

    def open(self) -> None:
        """From any thread; more calls do nothing."""
        self.opened = True
        self.call()

    def call(self) -> None:
        """Wake who sleeps here, without the gate being open."""
        try:
            self._lock.release()
        except RuntimeError:  # it was woken already
            pass

    def is_open(self) -> bool:
        return self.opened

    def wait(self, timeout: float) -> bool:
        """Sleep until somebody calls, at most *timeout* seconds; -1: as long as it takes. Returns whether one has."""
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
    """Those who wait for one thing to change. Each is woken once; they look again by themselves.

    There is no lock, so a finalizer or signal handler that interrupts one of these methods may call another one. Each
    step is one operation of a deque, which is atomic.

    Attributes:
        callbacks: of those who wait, added and taken off by any thread; empty when nobody does, and then :meth:`wake`
            has nothing to do.
        link: what brings the change, if it is known: who waits may read it meanwhile.
    """

    __slots__ = ("callbacks", "link")

    def __init__(self) -> None:
        self.link: Bringer | None = None
        self.callbacks: deque[Callable[[], None]] = deque()

    def wake(self) -> None:
        """Wake everybody who waits now, because something changed. From any thread; never waits."""
        callbacks = self.callbacks
        for _ in range(len(callbacks)):  # not those who come back meanwhile
            try:
                callback = callbacks.popleft()
            except IndexError:  # somebody else has woken the rest
                return
            callback()

    def _add(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def _discard(self, callback: Callable[[], None]) -> None:
        try:
            self.callbacks.remove(callback)
        except ValueError:  # it has been called
            pass

    def wait(self, attempt: Callable[[], T | Nothing], timeout: float | None) -> T | Nothing:
        """Repeat *attempt* in this thread until it gives something; NOTHING after *timeout* seconds.

        Waiters register first and try afterwards, so a change between the two is not missed.
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
            link = self.link
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
        """Repeat *attempt* in this task until it gives something; NOTHING after *timeout* seconds.

        Cancelling it leaves everything as it was. When the first attempt succeeds the loop has not turned: a caller
        whose attempt may succeed at once makes a checkpoint before.
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
    """One value that is on its way, for one who waits for it. Given once, from any thread."""

    # Of the class, so that making one, which every confirmed write does, calls nothing.
    _value: T | Nothing = NOTHING
    _gate: Gate | None = None  # of a thread that waits
    _parked: Parked | None = None  # of a task

    @property
    def value(self) -> T | Nothing:
        """The value; NOTHING until it has come."""
        return self._value

    @property
    def given(self) -> bool:
        """Whether the value has come."""
        return self._value is not NOTHING

    def give(self, value: T) -> None:
        """Hand the value over and wake who waits. From any thread; never waits."""
        self._value = value  # before the look at who waits, who in turn says so before looking here
        parked = self._parked
        if parked is not None:
            call_soon_on(parked.get_loop(), parked.resume)  # on a loop that is closed nobody waits any more
        elif self._gate is not None:
            self._gate.open()

    def wait(self, link: Bringer | None, timeout: float | None) -> T | Nothing:
        """The value, or NOTHING after *timeout* seconds. *link* is what brings it."""
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
        """Wait for the value in this task; NOTHING after *timeout* seconds. The loop turns meanwhile, unless it has
        turned recently."""
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


class _Bell:
    """What one waiting task sleeps at. Rung from any thread."""

    __slots__ = ("in_time", "loop", "rung")

    def __init__(self) -> None:
        loop = event_loops.running()
        if loop is None:
            no_asyncio()
        self.loop = loop
        self.rung: Parked = parked_type()(loop=loop)
        self.in_time = True

    def ring(self) -> None:
        call_soon_on(self.loop, self.rung.resume)  # on a loop that is closed nobody waits any more

    def time_out(self) -> None:
        """On its loop, in no task."""
        self.in_time = False
        self.rung.resume()

    async def wait(self, timeout: float | None) -> bool:
        """Whether it was rung within *timeout* seconds."""
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
    """The same time limit for many short waits on one loop, with one timer for all of them: a timer for each costs as
    much as half of a confirmed write. As the limit is the same, who began first is also up first."""

    __slots__ = ("loop", "seconds", "timer", "until")

    latest: _TimeLimit | None = None
    """The one used last: nearly always the right one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.until: dict[Parked, float] = {}  # those who wait, by the loop's time
        self.timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, seconds: float) -> _TimeLimit:
        """A new one, which is the latest."""
        before = cls.latest
        cls.latest = limit = _TimeLimit(loop, seconds)
        if before is not None and before.loop is loop:
            before.end_if_unused()
        return limit

    def end_if_unused(self) -> None:
        """No timer outlives its use by more than the one of the limit used last: there may be as many as waits."""
        if not self.until and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look(self) -> None:
        self.timer = None
        now = self.loop.time()
        late: list[Parked] = []
        for parked, until in self.until.items():
            if until > now:
                self.timer = self.loop.call_at(until, self.look)
                break
            late.append(parked)
        for parked in late:  # whose task takes itself off, here and now
            parked.resume()
