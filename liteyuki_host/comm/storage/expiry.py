"""The clock of the shared memory in a process without a host: keys with a ttl are deleted at their time.

Readers need no clock: they compare the time themselves, and each write deletes what is due. So this clock is there for
watchers alone, which are to hear of a deleted key when its time is up and not with the next write.

A thread runs while somebody watches and some key has a ttl, and at no other time. It sleeps until the next key is due.
Who writes, deletes, or begins or ends a watch wakes it up, so that it looks again. It ends when there is nothing left
to do. A watch that is dropped without ``close()`` wakes nobody (nothing may be locked in a finalizer); the thread
notices that within ``LONGEST_SLEEP`` seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.waiting.monitor import Monitor
from liteyuki_host.comm.waiting.waiting import Gate

__all__ = ["ExpiryThread"]

LONGEST_SLEEP = 60.0
"""Seconds until the thread looks again in any case. A look costs some microseconds."""

RETRY_SECONDS = 1.0
"""Seconds until the thread looks again when the deletion has failed."""


class ExpiryThread:
    """Deletes keys at their time while somebody watches. Methods may be called from any thread.

    Args:
        authority: orders the writes; its lock is that of *monitor*.
        is_watched: whether somebody watches. Takes no lock.
    """

    def __init__(self, authority: Authority, monitor: Monitor, is_watched: Callable[[], bool]) -> None:
        self._authority = authority
        self._monitor = monitor
        self._lock = monitor.lock  # guards what follows
        self._is_watched = is_watched
        self._runs_in = 0  # id of the process whose thread runs, 0 for none: a forked process has no thread
        self._planned: float | None = None  # the due time that the thread sleeps for
        # A gate and no event: waking takes no lock, so a finalizer that interrupts the thread may write.
        self._gate = Gate()
        self._ended = False  # never set back

    def look(self) -> None:
        """Have the clock look at what is due next: a key with a ttl was written or deleted, or a watch has begun or
        ended. Costs a comparison when no key has had a ttl."""
        if not self._authority.may_expire:
            return
        with self._lock:
            due = self._next()
            if self._runs_in == os.getpid():
                if due != self._planned:
                    self._gate.call()
                return
            if due is None:
                return
            self._runs_in = os.getpid()
        if self._monitor.owned():  # the start of a thread is waited for, which nobody may who holds the lock
            self._monitor.say(self._start)
        else:
            self._start()

    def end(self) -> None:
        """End the thread, soon, and start no other: the process gets a host, or another shared memory."""
        with self._lock:
            self._ended = True
            self._gate.call()

    def _next(self) -> float | None:
        """The monotonic time at which a watched key is due; None: there is nothing to do. The caller holds the lock."""
        return None if self._ended or not self._is_watched() else self._authority.store.next_deadline()

    def _start(self) -> None:
        try:
            DaemonThread(self._run, name="lycomm-expiry", core=True).start()
        except (RuntimeError, MemoryError) as error:
            with self._lock:
                self._runs_in = 0  # the next write tries again
            why = str(error) or type(error).__name__
            self._monitor.say(
                lambda: log().warning(f"shared memory: watchers hear of expired keys only with the next write ({why})")
            )

    def _run(self) -> None:
        """Delete what is due, until nothing has a ttl or nobody watches. Run by the thread."""
        failed = False
        while True:
            try:
                with self._lock:
                    self._planned = self._next()
                    if self._planned is None:
                        self._runs_in = 0  # in one step with the look: whoever writes from now on starts another one
                        return
                    delay = self._authority.expire()
                    self._planned = self._next()
                failed = False
            except Exception as error:
                delay = RETRY_SECONDS
                if not failed:
                    failed = True
                    self._report(error)
            if self._monitor.due:
                self._monitor.settle()
            if delay is not None:
                self._gate.wait(min(delay, LONGEST_SLEEP))

    def _report(self, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        self._monitor.say(lambda: log().error(f"shared memory: deleting expired keys failed, trying again ({why})"))
