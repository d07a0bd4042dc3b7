"""What is wanted of a process, and what its keeper does next. Pure: no clock, no child, no event loop.

A keeper has two pieces of state and nothing else that decides what it does:

- The **wish**: what is wanted. Whoever asks for a start, a stop or a restart changes only the wish, at once. So the
  last one who asks gets what was asked for, and no two operations can run into each other.
- The **phase**: how far the keeper's task has come. Only that task changes it.

How a wish changes (rows: the wish before; columns: what the keeper hears)::

    wish        START     STOP       RESTART   GIVE_UP    BEGUN      ENDED      REFUSED
    stopped     start     stopped    restart   given up   stopped    stopped    stopped
    given up    start     given up   restart   given up   given up   given up   given up
    running     start     stopped    restart   given up   running    running    running
    start       start     stopped    restart   given up   running    running    running
    restart     restart   stopped    restart   given up   running    restart    running

``START``, ``STOP`` and ``RESTART``: somebody asks for it. ``GIVE_UP``: the policy allows no further start, or none can
succeed. ``BEGUN``: a start begins, so whatever was asked before is being done. ``ENDED``: the child ends or has ended,
and nobody had asked for that; a ``start`` that was asked while the child was there has meant that child, and is
forgotten. ``REFUSED``: the restart is not carried out, because no new child could be started.

What the keeper does next (rows: its phase; columns: the wish)::

    phase         stopped    given up   running    start      restart
    resting       go on      go on      begin      begin      begin
    spawning      call off   call off   go on      go on      go on
    watching      end        end        go on      go on      end
    ending        rest       rest       policy     begin      begin
    backing off   rest       rest       go on      begin      begin

``go on``: it stays in this phase. ``begin``: a start. ``call off``: the start, if there is no child yet. ``end``: the
child. ``rest``: nothing is started any more. ``policy``: the restart policy says whether and when a start follows.

Both tables are read by ``tests/supervisor/test_wish.py``, which compares them with ``WISHES`` and ``STEPS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

__all__ = ["STEPS", "WISHES", "Heard", "Phase", "Step", "Wish"]


class Wish(Enum):
    """What is wanted of a process."""

    STOPPED = "stopped"
    """No child. Somebody has asked for that, or it ended by itself and the policy starts it no more."""
    GIVEN_UP = "given up"
    """No child, because it ended too often or cannot be started. Its state is, or is going to be, FAILED."""
    RUNNING = "running"
    """A child. When it ends by itself, the policy decides."""
    START = "start"
    """A child, and somebody has asked for a start since the last one began: no back-off."""
    RESTART = "restart"
    """A new child: somebody has asked for a restart since the last start began."""

    @property
    def wants_child(self) -> bool:
        """Whether a child is to be there, this one or another one."""
        return self not in (Wish.STOPPED, Wish.GIVEN_UP)

    @property
    def wants_this_child(self) -> bool:
        """Whether the child that is there may stay."""
        return self in (Wish.RUNNING, Wish.START)


class Heard(Enum):
    """What may change the wish; see the module's docstring."""

    START = "START"
    STOP = "STOP"
    RESTART = "RESTART"
    GIVE_UP = "GIVE_UP"
    BEGUN = "BEGUN"
    ENDED = "ENDED"
    REFUSED = "REFUSED"


class Phase(Enum):
    """How far the keeper's task has come."""

    RESTING = "resting"
    """No child is there, and no start has begun. It may be waiting for the processes that it comes ``after``."""
    SPAWNING = "spawning"
    """A start has begun; there is no child yet."""
    WATCHING = "watching"
    """A child is there and is followed, from its spawn on."""
    ENDING = "ending"
    """It is decided that the child ends, or it has ended, or the spawn has failed."""
    BACKING_OFF = "backing off"
    """No child is there; the next start waits for the delay of the restart policy."""

    @property
    def is_busy(self) -> bool:
        """Whether a start has begun whose child is not gone yet."""
        return self in (Phase.SPAWNING, Phase.WATCHING, Phase.ENDING)


class Step(Enum):
    """What the keeper does next; see the module's docstring."""

    GO_ON = "go on"
    BEGIN = "begin"
    CALL_OFF = "call off"
    END = "end"
    REST = "rest"
    POLICY = "policy"


# fmt: off
_WISH_ROWS: Final[Mapping[Wish, tuple[Wish, ...]]] = {
    # In the order of `Heard`: START, STOP, RESTART, GIVE_UP, BEGUN, ENDED, REFUSED
    Wish.STOPPED: (Wish.START, Wish.STOPPED, Wish.RESTART, Wish.GIVEN_UP, Wish.STOPPED, Wish.STOPPED, Wish.STOPPED),
    Wish.GIVEN_UP:
        (Wish.START, Wish.GIVEN_UP, Wish.RESTART, Wish.GIVEN_UP, Wish.GIVEN_UP, Wish.GIVEN_UP, Wish.GIVEN_UP),
    Wish.RUNNING: (Wish.START, Wish.STOPPED, Wish.RESTART, Wish.GIVEN_UP, Wish.RUNNING, Wish.RUNNING, Wish.RUNNING),
    Wish.START: (Wish.START, Wish.STOPPED, Wish.RESTART, Wish.GIVEN_UP, Wish.RUNNING, Wish.RUNNING, Wish.RUNNING),
    Wish.RESTART: (Wish.RESTART, Wish.STOPPED, Wish.RESTART, Wish.GIVEN_UP, Wish.RUNNING, Wish.RESTART, Wish.RUNNING),
}

_STEP_ROWS: Final[Mapping[Phase, tuple[Step, ...]]] = {
    #                    STOPPED        GIVEN_UP       RUNNING        START          RESTART
    Phase.RESTING:      (Step.GO_ON,    Step.GO_ON,    Step.BEGIN,    Step.BEGIN,    Step.BEGIN),
    Phase.SPAWNING:     (Step.CALL_OFF, Step.CALL_OFF, Step.GO_ON,    Step.GO_ON,    Step.GO_ON),
    Phase.WATCHING:     (Step.END,      Step.END,      Step.GO_ON,    Step.GO_ON,    Step.END),
    Phase.ENDING:       (Step.REST,     Step.REST,     Step.POLICY,   Step.BEGIN,    Step.BEGIN),
    Phase.BACKING_OFF:  (Step.REST,     Step.REST,     Step.GO_ON,    Step.BEGIN,    Step.BEGIN),
}
# fmt: on

WISHES: Final[Mapping[tuple[Wish, Heard], Wish]] = {
    (wish, heard): after for wish, row in _WISH_ROWS.items() for heard, after in zip(Heard, row, strict=True)
}
"""The wish that follows, by the wish before and what was heard."""

STEPS: Final[Mapping[tuple[Phase, Wish], Step]] = {
    (phase, wish): step for phase, row in _STEP_ROWS.items() for wish, step in zip(Wish, row, strict=True)
}
"""What the keeper does next, by its phase and the wish."""
