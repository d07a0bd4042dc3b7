"""Reports of lost messages."""

from __future__ import annotations

import threading
import time

from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.threads import core_threads
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["LossReport"]


class LossReport:
    """Reports lost messages in the log: the first of a channel at once, further ones every few seconds at most.

    Callable from any thread. Nothing is logged under the lock.

    Args:
        monitor: guards the counts, with everything else of its exchange, and says the lines when the lock has been
            left. None: one of its own; the lines are said at once.
    """

    INTERVAL = 5.0  # seconds between two lines about one channel

    MOST_NAMES = 256
    """Names whose last line is remembered, the newest: names that are used once and never again do not add up."""

    def __init__(self, monitor: Monitor | None = None) -> None:
        self._alone = monitor is None
        self._monitor = monitor or Monitor()
        self._lock = self._monitor.lock  # guards the rest
        self._pending: dict[tuple[str, str], int] = {}  # (name, why) -> messages that no line has told of yet
        self._reported: dict[str, float] = {}  # name -> when its last line was written, by the monotonic clock
        self._timer: threading.Timer | None = None  # there while something is pending; flush ends it

    def add(self, name: str, count: int, why: str) -> None:
        """Count *count* messages of *name* as lost, and say so now or within the interval; also with the lock held."""
        now = time.monotonic()
        with self._lock:
            key = (name, why)
            count += self._pending.pop(key, 0)
            last = self._reported.get(name)
            if last is not None and now - last < self.INTERVAL:
                self._pending[key] = count
                if self._timer is None:
                    self._start_timer()
                return
            self._reported.pop(name, None)
            self._reported[name] = now  # behind all others
            if len(self._reported) > self.MOST_NAMES:
                del self._reported[next(iter(self._reported))]
        self._say(name, count, why)
        if self._alone:
            self._monitor.settle()

    def _start_timer(self) -> None:
        """Have the rest said when the interval is over. The caller holds the lock."""
        timer = threading.Timer(self.INTERVAL, self._flush_in_time)
        timer.name = "lycomm-losses"
        timer.daemon = True
        try:
            timer.start()
        except (RuntimeError, MemoryError):  # no more threads: the next loss tries again, or the end says it
            return
        self._timer = timer

    def _flush_in_time(self) -> None:
        """Run by the timer's thread. A sink of the log must not wait for room there: for each loss there may be one."""
        thread = threading.get_ident()
        core_threads.add(thread)
        try:
            self.flush()
        finally:
            core_threads.discard(thread)

    def flush(self) -> None:
        """Say what has not been said. Called when the interval is over, and at the end; without the lock."""
        with self._lock:
            pending, self._pending = self._pending, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for (name, why), count in pending.items():
            self._say(name, count, why)
        self._monitor.settle()

    def _say(self, name: str, count: int, why: str) -> None:
        line = f"{name}: {count:,} message{'s' if count != 1 else ''} lost ({why})"
        self._monitor.say(lambda: log().warning(line))
