"""Reports of lost messages."""

from __future__ import annotations

import threading
import time

from liteyuki_host.comm.reporting import log

__all__ = ["LossReport"]


class LossReport:
    """Reports lost messages in the log: the first of a channel at once, further ones every few seconds at most.

    Callable from any thread. Nothing is logged under the lock.
    """

    INTERVAL = 5.0  # seconds between two lines about one channel

    MOST_NAMES = 256
    """Names whose last line is remembered, the newest: names that are used once and never again do not add up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._pending: dict[tuple[str, str], int] = {}  # (name, why) -> messages that no line has told of yet
        self._reported: dict[str, float] = {}  # name -> when its last line was written, by the monotonic clock
        self._timer: threading.Timer | None = None  # there while something is pending; flush ends it

    def add(self, name: str, count: int, why: str) -> None:
        """Count *count* messages of *name* as lost, and say so now or within the interval."""
        now = time.monotonic()
        with self._lock:
            key = (name, why)
            count += self._pending.pop(key, 0)
            last = self._reported.get(name)
            if last is not None and now - last < self.INTERVAL:
                self._pending[key] = count
                if self._timer is None:
                    self._timer = threading.Timer(self.INTERVAL, self.flush)
                    self._timer.name = "lycomm-losses"
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._reported.pop(name, None)
            self._reported[name] = now  # behind all others
            if len(self._reported) > self.MOST_NAMES:
                del self._reported[next(iter(self._reported))]
        self._say(name, count, why)

    def flush(self) -> None:
        """Say what has not been said. Called when the interval is over, and at the end."""
        with self._lock:
            pending, self._pending = self._pending, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for (name, why), count in pending.items():
            self._say(name, count, why)

    @staticmethod
    def _say(name: str, count: int, why: str) -> None:
        log().warning(f"{name}: {count:,} message{'s' if count != 1 else ''} lost ({why})")
