"""The one lock of a process's core, and what becomes of a call that arrives while its own thread holds it.

Python may run code of the user between any two steps of ours: a finalizer (``__del__``), a weakref callback or an entry
of ``gc.callbacks`` at an allocation or when a reference is dropped, a signal handler in the main thread. That code may
call lycomm, also while its thread is in the middle of a change to our data. Waiting for the lock would be waiting for
itself; going on without it would change data that are half changed.

So there is one :class:`Monitor` for each exchange (the core of one process), and everything of that exchange is guarded
by its lock: queues, the link's writer, the shared memory. The lock is reentrant, because our own functions call each
other while they hold it, and knows its owner. The rules:

1. An entry point that users call asks :attr:`Monitor.owned` first. If this thread owns the lock, the call has come from
   inside. What returns nothing (send, publish, set, delete) is put off with :meth:`Monitor.defer`; the frame that it
   interrupted performs it, in order, when it has left the lock (:meth:`Monitor.settle`). What returns something raises
   ``ReentrantCall``.
2. Nothing of the user's is called while the lock is held. Log lines, whose sinks are the user's code, are put off with
   :meth:`Monitor.say`.
3. With one lock there is no order of locks to keep. Locks of the user's remain: a finalizer that interrupts us may wait
   for one (loguru holds one while a sink runs) whose owner waits for ours. So calls of users do not wait for the lock
   without a limit: after :data:`PATIENCE` they are put off, too, and whoever holds the lock performs them.

Whoever leaves the lock for good, before it returns to code that is not ours or waits for something, looks at
:attr:`Monitor.due` and settles it. A look costs 10 ns; nearly always there is nothing.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from liteyuki_host.comm.errors import ReentrantCall
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.threads import DaemonThread, core_threads

__all__ = ["MOST_DEFERRED", "PATIENCE", "STALLED", "Held", "Monitor", "leading", "refuse_to_wait"]

PATIENCE: Final = 0.05
"""Seconds that a user's call waits for the lock before it is put off. It is held for microseconds, or for as long as
the holder waits for the interpreter's lock: 5 ms for each busy thread."""

HURRY: Final = 0.002
"""Seconds that it waits while other calls are put off already. One run of the collector may free a thousand objects
whose finalizers need a lock that the caller holds, and each of them waits as long as that caller's calls take. Not 0: a
thread that sends as fast as it can would put off :data:`MOST_DEFERRED` calls in some milliseconds."""

STALLED: Final = 0.2
"""Seconds without a call performed after which the holder of the lock is taken to wait for something, when too many
calls are put off already. Several times what a busy machine was seen to keep a thread from running (50 ms)."""

MOST_DEFERRED: Final = 10_000
"""Calls that may be put off at once. One run of the collector over its two young generations frees up to 7,700 objects
by default; with the bytes below that is 7 MB at most."""

MOST_DEFERRED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of payload of these calls: the window of one channel."""

MOST_LINES: Final = 200
"""Log lines that may wait until the lock has been left; of further ones only the number is told."""


leading: Final[set[int]] = set()
"""The threads that read a link just now while they wait for something of it (``SharedReader.lead``), by
``threading.get_ident``. What a finalizer calls there must not wait: this thread is who reads."""


def refuse_to_wait(call: str) -> None:
    """Refuse a call that would have to wait in a thread that others wait for: one that reads a link, one of lycomm, and
    one in a log sink. That holds a lock of its library, which a finalizer in the thread that reads may be waiting for.

    Args:
        call: what would wait, for the message.

    Raises:
        ReentrantCall: it is one of these.
    """
    thread = threading.get_ident()
    if thread in leading or thread in core_threads or _inside_a_sink():
        raise ReentrantCall(
            f"{call} was called by a log sink, or by a finalizer or the like in a thread that works for lycomm, and "
            "cannot wait there; let a task or another thread do it"
        )


class Held(ReentrantCall):
    """The lock was not to be had within :data:`PATIENCE`. Nothing has been done; the call has to be put off."""

    def __init__(self) -> None:
        super().__init__(
            f"another thread has been inside lycomm for more than {PATIENCE:g} s, perhaps because a finalizer or "
            "signal handler there waits for a lock that this one holds; try again"
        )


class Monitor:
    """See the module's docstring. Every method may be called from any thread, and from inside.

    Args:
        lock: for tests, one that looks on; with the methods of a ``threading.RLock``.

    Attributes:
        lock: guards everything of one exchange. Nobody who holds it waits for anything but the interpreter.
        acquire, release: the lock's own, bound once.
        owned: whether the calling thread holds the lock.
        due: calls to perform when the lock has been left, each with its name and the bytes it carries. Appended by
            anybody, without the lock; taken off by its holder, when they have been performed.
    """

    __slots__ = (
        "_left_out",
        "_lines",
        "_performed",
        "_performing",
        "_size",
        "acquire",
        "due",
        "lock",
        "owned",
        "release",
    )

    def __init__(self, lock: Any = None) -> None:
        self.lock = lock = threading.RLock() if lock is None else lock
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self.owned: Callable[[], bool] = lock._is_owned  # what threading.Condition relies on, too
        self.due: deque[tuple[Callable[[], object], str, int]] = deque()
        self._performing = False  # somebody is in `perform`; under the lock
        self._performed = 0  # calls so far; counted under the lock, read by who waits for it
        self._size = 0  # bytes of the calls that are due; a bound for what goes wrong, so it need not be exact
        self._lines: deque[Callable[[], object]] = deque()  # log lines to be said; taken off by whoever settles
        self._left_out = 0  # lines that there was no room for

    # --- calls that arrive from inside ------------------------------------------------------------------------

    def refuse_inside(self, call: str) -> None:
        """Refuse a call that has a result, or waits for something, when it comes from inside.

        Args:
            call: its name, for the message.

        Raises:
            ReentrantCall: this thread holds the lock.
        """
        if self.owned():
            raise ReentrantCall(
                f"{call} was called by a finalizer, a signal handler or the like, which Python ran in the middle of "
                "lycomm's own work on this thread; there only send, publish, set and delete can be used. "
                "Let a task or another thread do the rest"
            )

    def defer(self, call: Callable[[], object], what: str, size: int) -> None:
        """Have *call* performed when the lock is left: by the frame that it has interrupted, or by whoever else holds
        the lock. What it raises then is logged.

        Args:
            what: what the user did, for the log and for messages.
            size: bytes that wait with it.

        Raises:
            ReentrantCall: too much is put off already. Nothing will be done.
        """
        due = self.due
        full = len(due) >= MOST_DEFERRED or (due and self._size + size > MOST_DEFERRED_BYTES)
        if full and (self.owned() or not self._make_room()):
            raise ReentrantCall(
                f"{what}: {len(due):,} calls of finalizers, signal handlers and the like already wait until lycomm's "
                "own work is done; this one is refused"
            )
        self._size += size
        due.append((call, what, size))
        self.settle()  # whoever held the lock may have left it before it could see this one

    def _make_room(self) -> bool:
        """Perform what is due, as soon as the lock is to be had; wait for it as long as its holder performs calls.

        False when the holder performed none within :data:`STALLED`. It may be in a finalizer that waits for a lock of
        the caller (loguru's, in a sink), so a wait without a limit could last for ever.
        """
        performed = self._performed
        while not self.acquire(True, STALLED):
            # Not the number of calls that are due: it stays the same while others put off as many as are performed.
            performed, before = self._performed, performed
            if performed == before:
                return False
        try:
            self.perform()
        finally:
            self.release()
        return True

    def enter(self) -> None:
        """Take the lock for a call of a user; call :meth:`leave` in a ``finally`` around it. What was put off before is
        performed first, so that the calls of one thread keep their order.

        Raises:
            Held: it was not to be had in time.
        """
        if self.owned():
            self.acquire()
            return
        if not self.take():
            raise Held
        if self.due:
            self.perform()

    def take(self) -> bool:
        """Wait for the lock for a call of a user. False: it was not to be had in time. Where calls are put off already,
        the holder is known to take long, or about to perform them: then not even :data:`PATIENCE` is waited."""
        return self.acquire(True, HURRY if self.due else PATIENCE)

    def leave(self) -> None:
        """Give back what :meth:`enter` or ``acquire`` has taken, once. Nothing happens if it has not: it may have
        raised, also because of Ctrl+C."""
        try:
            self.release()
        except RuntimeError:  # this thread does not own it
            pass

    def perform(self) -> None:
        """Perform what is due, in order. The caller holds the lock. Does nothing inside a call that is being performed:
        the frame that performs it goes on with the rest.

        A call stays in :attr:`due` until it has been performed. Its thread looks there, without the lock, to see
        whether its next message may take a short way. Were the call taken off first, that message would overtake it.
        """
        if self._performing:
            return
        due = self.due
        self._performing = True
        try:
            while due:
                call, what, size = due[0]
                try:
                    call()
                except Exception as error:  # its caller is gone
                    self.say(_failure(what, error))
                finally:
                    due.popleft()
                    self._performed += 1
                    self._size = max(self._size - size, 0) if due else 0
        finally:
            self._performing = False

    def settle(self) -> None:
        """Perform what is due, then say the log lines; nothing if this thread is still inside. If another one is, it
        settles when it leaves. Called without a role or lock of ours: log lines run code of the user's."""
        if self.owned():
            return
        while self.due and self.acquire(False):
            try:
                self.perform()
            finally:
                self.release()
        if self._lines:
            if threading.get_ident() in leading:
                self.due.append((_nothing, "", 0))  # for who settles without that role
            else:
                self._say_lines()

    # --- log lines --------------------------------------------------------------------------------------------

    def say(self, line: Callable[[], object]) -> None:
        """Have *line* called, which writes a log line, when the lock is left."""
        if len(self._lines) < MOST_LINES:
            self._lines.append(line)
        else:
            self._left_out += 1
        self.due.append((_nothing, "", 0))  # so that whoever leaves the lock settles

    def _say_lines(self) -> None:
        if _inside_a_sink():
            # loguru refuses a line of a thread that is in the middle of another one.
            try:
                DaemonThread(self._say_lines, name="lycomm-report", core=True).start()
            except (RuntimeError, MemoryError):
                pass  # whoever settles next says them
            return
        lines = self._lines
        while lines:
            try:
                line = lines.popleft()
            except IndexError:  # somebody else has just said it
                break
            if not lines and self._left_out:
                count, self._left_out = self._left_out, 0
                lines.append(_left_out(count))
            try:
                line()
            except Exception:  # a sink that raises instead of being caught by loguru; there is nobody to tell
                pass


_LOGGING = frozenset({"loguru._handler", "logging"})


def _nothing() -> None:
    """What is due when there are only log lines."""


def _inside_a_sink() -> bool:
    """Whether the calling thread is in the middle of a log line: it holds a lock of loguru, which would refuse another
    line, or of the standard library's handlers. Costs 60 ns for each frame of the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") in _LOGGING:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _failure(what: str, error: Exception) -> Callable[[], object]:
    text = f"{type(error).__name__}: {error}"

    def say() -> None:
        log().error(f"{what}, called by a finalizer, a signal handler or the like, failed: {text}")

    return say


def _left_out(count: int) -> Callable[[], object]:
    def say() -> None:
        log().warning(f"{count:,} more lines of lycomm were left out: they came faster than they could be logged")

    return say
