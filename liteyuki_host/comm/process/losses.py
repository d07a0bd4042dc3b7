"""Reports of lost messages."""

from __future__ import annotations

import threading
import time

from liteyuki_host.comm.reporting import log

__all__ = ["LossReport"]


class LossReport:
    """Tells about lost messages: the first at once, further ones of the same channel at most every few seconds."""

    INTERVAL = 5.0  # seconds between two lines about one channel

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str], int] = {}
        self._reported: dict[str, float] = {}
        self._timer: threading.Timer | None = None  # there while something is pending; flush ends it

    def add(self, name: str, count: int, why: str) -> None:
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
            self._reported[name] = now
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
