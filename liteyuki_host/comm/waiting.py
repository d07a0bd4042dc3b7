"""Waiting for a fact, from a thread or from a task, with the same code on the other side."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from .errors import WouldBlockEventLoop

__all__ = ["NOTHING", "Gate", "Nothing", "Waiters", "on_event_loop", "refuse_event_loop"]

T = TypeVar("T")


class Nothing:
    """The type of :data:`NOTHING`, the answer of an attempt that has to wait (None is a value)."""


NOTHING: Final = Nothing()


def on_event_loop() -> bool:
    """Whether the calling thread is running an event loop just now, so that blocking it would freeze it."""
    return asyncio._get_running_loop() is not None


def refuse_event_loop(call: str, instead: str) -> None:
    """Raise WouldBlockEventLoop when called on a running event loop."""
    if on_event_loop():
        raise WouldBlockEventLoop(
            f"{call} waits, and on the event loop it would freeze the whole bot; "
            f"write `await {instead}` here, or call it in a thread of its own"
        )


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

    def wait(self, timeout: float) -> bool:
        """Sleep until somebody calls, at most *timeout* seconds; -1: as long as it takes. Returns whether one has."""
        return self._lock.acquire(timeout=timeout)


class Waiters:
    """Those who wait for one thing to change. Each is woken once; they look again by themselves.

    Attributes:
        sleep: how a thread waits at its gate: for things that a link brings, it may read the link meanwhile.
    """

    __slots__ = ("_callbacks", "_lock", "sleep")

    def __init__(self) -> None:
        self.sleep: Callable[[Gate, float], bool] = Gate.wait
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def wake(self) -> None:
        """Something changed. From any thread; never waits."""
        if not self._callbacks:
            return
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _add(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)

    def _discard(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, attempt: Callable[[], T | Nothing], timeout: float | None) -> T | Nothing:
        """Repeat *attempt* in this thread until it gives something; NOTHING after *timeout* seconds.

        Waiters register first and try afterwards, so a change between the two is not missed.
        """
        result = attempt()
        if not isinstance(result, Nothing):
            return result
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            gate = Gate()
            self._add(gate.open)
            try:
                result = attempt()
                if not isinstance(result, Nothing):
                    return result
                left = -1.0
                if deadline is not None:
                    left = min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
                woken = self.sleep(gate, left)
            finally:
                self._discard(gate.open)
            result = attempt()
            if not woken or not isinstance(result, Nothing):
                return result

    async def wait_async(self, attempt: Callable[[], T | Nothing], timeout: float | None) -> T | Nothing:
        """The same for a task. Cancelling it leaves everything as it was."""
        result = attempt()
        if not isinstance(result, Nothing):
            return result
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            changed: asyncio.Future[None] = loop.create_future()

            def wake(changed: asyncio.Future[None] = changed) -> None:
                try:
                    loop.call_soon_threadsafe(_resolve, changed)
                except RuntimeError:  # the loop is closed; nobody waits any more
                    pass

            self._add(wake)
            try:
                result = attempt()
                if not isinstance(result, Nothing):
                    return result
                left = None if deadline is None else max(deadline - loop.time(), 0.0)
                done, _ = await asyncio.wait((changed,), timeout=left)
                if not done:
                    return attempt()
            finally:
                self._discard(wake)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
