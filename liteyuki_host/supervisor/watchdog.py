"""Tells a ready bot that works from one that is busy, blocked or frozen. Pure: signs of life and the time go in.

There are two signs of life. A *beat* comes from the bot's own event loop, a *pong* from the thread of its link,
which needs no loop but does need the interpreter's lock. So a bot without beats that answers pings has a blocked
loop; one that is silent altogether is stopped, or something holds the lock.
"""

from __future__ import annotations

from dataclasses import dataclass

from liteyuki_host.supervisor.states import State

BEATS_PER_LIMIT = 4
LONGEST_INTERVAL = 1.0
"""Seconds between beats at most: a blocked loop is found within its limit and this, and five idle bots together cost
half a thousandth of a core."""

LONGEST_BUSY = 5.0
"""Seconds without a beat, at most, until a bot is called busy."""

HOST_LAG = 0.5
"""Seconds by which a look may come late. More means that this host, or the whole machine, did not get to run; then
the bot's beats did not get to us either, and it is given that time again."""

LONGEST_EXCUSE = 10.0
"""Seconds of that at most: after the machine slept for a night, beats are back within one."""


@dataclass(frozen=True)
class Look:
    """What is seen at one moment."""

    state: State
    """READY, BUSY, BLOCKED or FROZEN. The last two mean: act."""
    silent: float
    """Seconds since the event loop should have shown that it turns."""
    ping: bool
    """Ask the link for a sign of life now."""
    next: float
    """When to look again."""


class Watchdog:
    """Watches one ready bot. Times are seconds of one monotonic clock.

    Args:
        loop_timeout: how long the event loop may be silent, whatever the reason. 0: as long as it likes.
        freeze_timeout: how long the whole process may be silent. 0: as long as it likes.
        now: when it became ready.
    """

    def __init__(self, loop_timeout: float, freeze_timeout: float, now: float) -> None:
        self._loop_timeout = loop_timeout
        self._freeze_timeout = freeze_timeout
        limits = [limit for limit in (loop_timeout, freeze_timeout) if limit > 0]
        self.interval = min(LONGEST_INTERVAL, min(limits) / BEATS_PER_LIMIT) if limits else 0.0
        """Seconds between beats; 0: nothing is watched, and no beats are needed."""
        self._busy_after = min(LONGEST_BUSY, max(1.0, min(limits) / 4)) if limits else 0.0
        self._began = now
        self._alive_at = now
        self._excused_until = now
        self._next = now + self.interval

    def look(self, now: float, *, beat_at: float | None, pong_at: float | None, excused_until: float) -> Look:
        """Judge by what has been heard until *now*.

        Args:
            beat_at, pong_at: when the last ones came. Before the first beat the loop is not judged: it may be one
                that cannot beat (trio). One that can has beaten before it was ready.
            excused_until: the bot has asked for time until then.
        """
        late = now - self._next
        if late > HOST_LAG:
            self._excused_until = max(self._excused_until, now + min(late, LONGEST_EXCUSE))
        self._alive_at = max(self._alive_at, beat_at or 0.0, pong_at or 0.0)
        # The last sign may have come a whole interval before the silence began.
        silent = now - self._alive_at - self.interval
        overdue = silent if beat_at is None else now - max(beat_at, self._began) - self.interval
        limits = ((self._loop_timeout, 0.0 if beat_at is None else overdue), (self._freeze_timeout, silent))
        # Not later than the next limit passes: otherwise that would be found an interval late.
        self._next = now + min([self.interval, *(limit - duration for limit, duration in limits if limit > duration)])
        state = State.READY
        if now < max(self._excused_until, excused_until):
            pass
        elif any(0 < limit <= duration for limit, duration in limits):
            # It was pinged at every look since the beats ceased: an answer in the last moments makes the difference.
            state = State.FROZEN if silent > self.interval else State.BLOCKED
        elif overdue > self._busy_after:
            state = State.BUSY
        return Look(state, max(overdue, silent, 0.0), ping=overdue > 0, next=self._next)
