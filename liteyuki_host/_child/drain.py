"""Lets a bot come to rest before it ends: begins no more events, and tells the host what runs and what is lost.

The host asks on the link's thread, and a thread of its own reports: the bot's event loop may be too full to get to
either in time, or blocked altogether.

A bot that is replaced by another one on the same port also takes in what waits in its sockets before it reports
(:meth:`Draining.take_in_on`). Its server closes every connection without a request when it is told to end, and one
whose request lies unread in the socket is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from loguru import logger

from liteyuki_host._child.events import Events
from liteyuki_host.comm.threads import DaemonThread, call_soon

REPORT_SECONDS = 0.1
"""Between two reports at least. The last one before a violent end is this old at most."""

TURNS = 500
"""Of the event loop, to take in what waits. asyncio accepts all connections of the listener's queue in one turn, and
the server has their requests three turns later; uvloop was seen to accept about one connection a turn. So this is for a
queue of some hundred connections. An empty turn takes 1 to 3 µs."""

TAKE_IN_SECONDS = 1.0
"""For these turns, so that a blocked event loop does not put off the end of the bot for longer."""

Report = Callable[[list[str], int, int], None]


class Draining:
    """Reports when no event is being handled any more, or when the time for that is up, and from then on each change.

    Its methods may be called from any thread.

    Args:
        report: called with the handlers that still run, in words, with how many events were not begun, and with how
            many were begun and are not finished. Not on the event loop.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._events = Events(changed=self._wake)
        self._changed = threading.Condition()
        self._version = 0  # counts changes
        self._telling = threading.Lock()  # reports go out one after the other, and none that is older than the last
        self._reported = -1  # the version of the last report
        self._told = (-1, -1)  # its numbers
        self._reported_at = 0.0  # time.monotonic()
        self._deadline: float | None = None  # of a report that is owed: time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None  # whose sockets are taken in first; set once
        self._taking_in_until = 0.0  # time.monotonic(); a report waits until then. Under `_changed`
        self._thread: threading.Thread | None = None

    def install(self) -> None:
        """Call once, before the project imports an adapter."""
        self._events.install()

    def take_in_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before a report, let *loop* turn a few times, which takes in what waits in its sockets. Call when the bot
        serves, if another one is to take its port over."""
        self._loop = loop

    def drain(self, timeout: float) -> None:
        """Begin no events from now on. Report when nothing runs, and after *timeout* seconds in any case.

        Takes the place of an earlier one that has not been reported yet.
        """
        self._events.refuse()
        loop, now = self._loop, time.monotonic()
        with self._changed:
            self._deadline = now + max(timeout, 0.0)
            self._taking_in_until = 0.0 if loop is None else now + TAKE_IN_SECONDS
            self._changed.notify()
            if self._thread is None:
                self._start()
        if loop is not None and not call_soon(loop, self._turn, loop, TURNS):
            self._taken_in()  # the loop is closed

    def stop(self) -> None:
        """The bot is to end: begin no events, and report at once and whenever that changes."""
        self.drain(0.0)

    def report_last(self) -> None:
        """Report now if anything has changed, on this thread. For the end of the process, when no event is handled."""
        if self._events.refusing:
            self._tell()

    def _turn(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        """Let *loop* turn *left* more times. On that loop."""
        if left:
            loop.call_soon(self._turn, loop, left - 1)
        else:
            self._taken_in()

    def _taken_in(self) -> None:
        """Report as soon as nothing runs."""
        with self._changed:
            self._taking_in_until = 0.0
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify()

    def _start(self) -> None:
        thread = DaemonThread(self._run, name="lycomm-drain")
        with contextlib.suppress(RuntimeError, MemoryError):  # no more threads: the host's next wish tries again
            thread.start()
            self._thread = thread

    # The thread. It lives until the process ends.

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while (left := self._due_in()) is None or left > 0:
                        self._changed.wait(left)
                    owed = self._deadline is not None
                    self._deadline = None
                self._tell(even_if_unchanged=owed)
        except Exception:
            logger.exception("what the bot loses by its end could not be reported to the host")

    def _due_in(self) -> float | None:
        """Seconds until the next report; None: nothing has to be reported."""
        now = time.monotonic()
        if self._deadline is not None:
            earliest = self._taking_in_until if self._events.none_runs else self._deadline
            return min(earliest, self._deadline) - now
        return None if self._reported == self._version else self._reported_at + REPORT_SECONDS - now

    def _tell(self, *, even_if_unchanged: bool = False) -> None:
        version = self._version
        losses = self._events.losses()
        told = (losses.not_begun, losses.unfinished)
        with self._telling:
            if version < self._reported:
                return
            unchanged = told == self._told
            self._reported, self._reported_at, self._told = version, time.monotonic(), told
            if even_if_unchanged or not unchanged:
                self._report(losses.names, *told)
