"""Waiting for a fact, from a thread or from a task, with the same code on the other side."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from .loops import call_soon_on, parked_type, running_loop

if TYPE_CHECKING:
    import asyncio

    from .parking import Parked

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

    @property
    def wait(self) -> Callable[[Gate, float], bool]:
        """As ``Reader.wait``."""
        ...


class Waiters:
    """Those who wait for one thing to change. Each is woken once; they look again by themselves.

    Attributes:
        callbacks: of those who wait; empty when nobody does, and then :meth:`wake` has nothing to do.
        link: what brings the change, if it is known: who waits may read it meanwhile.
    """

    __slots__ = ("_lock", "callbacks", "link")

    def __init__(self) -> None:
        self.link: Bringer | None = None
        self._lock = threading.Lock()
        self.callbacks: list[Callable[[], None]] = []

    def wake(self) -> None:
        """Something changed. From any thread; never waits."""
        if not self.callbacks:
            return
        with self._lock:
            callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def _add(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self.callbacks.append(callback)

    def _discard(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self.callbacks:
                self.callbacks.remove(callback)

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
        """The same for a task. Cancelling it leaves everything as it was."""
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

    __slots__ = ("_value", "_wake")

    def __init__(self) -> None:
        self._value: T | Nothing = NOTHING
        self._wake: Callable[[], None] | None = None

    def give(self, value: T) -> None:
        """Here it is. Never waits."""
        self._value = value  # before the look at who waits, who in turn says so before looking here
        if self._wake is not None:
            self._wake()

    def wait(self, link: Bringer | None, timeout: float | None) -> T | Nothing:
        """The value, or NOTHING after *timeout* seconds. *link* is what brings it."""
        if self._value is NOTHING:
            gate = Gate()
            self._wake = gate.open
            if self._value is NOTHING:
                left = -1.0 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
                if link is None:
                    gate.wait(left)
                else:
                    link.wait(gate, left)
        return self._value

    async def wait_async(self, timeout: float | None) -> T | Nothing:
        """The same for a task."""
        if self._value is NOTHING:
            bell = _Bell()
            self._wake = bell.ring
            if self._value is NOTHING:
                if timeout is None:
                    await bell.rung
                else:
                    limit = _TimeLimit.of(bell.loop, timeout)
                    limit.add(bell)
                    try:
                        await bell.rung
                    finally:
                        limit.discard(bell)
        return self._value


class _Bell:
    """What one waiting task sleeps at. Rung from any thread."""

    __slots__ = ("in_time", "loop", "rung")

    def __init__(self) -> None:
        loop = running_loop()
        assert loop is not None
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
            return True
        timer = self.loop.call_later(timeout, self.time_out)
        try:
            await self.rung
        finally:
            timer.cancel()
        return self.in_time


class _TimeLimit:
    """The same time limit for many short waits on one loop, with one timer for all of them: a timer for each costs as
    much as half of a confirmed write. As the limit is the same, who began first is also up first."""

    __slots__ = ("_loop", "_seconds", "_timer", "_until")

    _latest: _TimeLimit | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._until: dict[_Bell, float] = {}  # those who wait, by the loop's time
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, seconds: float) -> _TimeLimit:
        """The one used last, when it is the right one: nearly always."""
        limit = before = cls._latest
        if limit is None or limit._loop is not loop or limit._seconds != seconds:
            cls._latest = limit = _TimeLimit(loop, seconds)
            if before is not None and before._loop is loop:
                before._end_if_unused()
        return limit

    def add(self, bell: _Bell) -> None:
        """Resolve it when the time is up."""
        self._until[bell] = until = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._look)

    def discard(self, bell: _Bell) -> None:
        """Whoever sleeps at it has woken up."""
        del self._until[bell]
        if _TimeLimit._latest is not self:
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        """No timer outlives its use by more than the one of the limit used last: there may be as many as waits."""
        if not self._until and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late: list[_Bell] = []
        for bell, until in self._until.items():
            if until > now:
                self._timer = self._loop.call_at(until, self._look)
                break
            late.append(bell)
        for bell in late:  # which takes itself off, here and now
            bell.time_out()
