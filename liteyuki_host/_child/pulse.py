"""The heartbeat: sent from NoneBot's event loop, so that it stops when that loop does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pulse:
    """Beats on the event loop that :meth:`watch` is called on, and ends with it.

    Args:
        beat: called with the seconds by which this beat was late, by this process's clock; must return at once.
    """

    def __init__(self, beat: Callable[[float], None]) -> None:
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, interval: float) -> None:
        """Beat now and then every *interval* seconds, instead of what was asked for before; 0: no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if interval > 0:
            loop = asyncio.get_running_loop()
            self._beat_at(loop, loop.time(), interval)

    def _beat_at(self, loop: asyncio.AbstractEventLoop, due: float, interval: float) -> None:
        late = max(loop.time() - due, 0.0)  # a loop may fire early, by as much as its clock's step
        self._beat(late)
        # In step with the first beat: lateness does not add up. Beats that a blocked loop has missed stay missed.
        due += interval * (1 + late // interval)
        self._timer = loop.call_at(due, self._beat_at, loop, due, interval)
