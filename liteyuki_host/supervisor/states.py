"""The states of a child, in the words that ``status`` shows, and the story of how it came to each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

#   declared ──▶ starting ──▶ hooks done ──▶ ready ◀──▶ busy ──▶ blocked, frozen
#                  ▲  │             │          │          │         │
#                  │  └─────────────┴──────────┴──────────┴─────────┴──▶ stopping ──▶ stopped
#                  │  └─────────────┴──────────┴──────────┴─ unasked end ──▶ backing off, failed, stopped
#                  └───────────────────────────────────────────────────────────┘
#
# What ends in `blocked` or `frozen` is killed, and goes on as an unasked end.

HISTORY_LENGTH = 200
"""Transitions remembered per process: a few days of a healthy bot, the last ten minutes of a crash loop."""


class State(str, Enum):
    DECLARED = "declared"
    """Known, not started; or wanted, and waiting for the processes it comes ``after``."""
    STARTING = "starting"
    """Spawned (or about to be); start-up hooks are running."""
    HOOKS_DONE = "hooks done"
    """Start-up hooks have returned; the port is not open yet."""
    READY = "ready"
    BUSY = "busy"
    """Ready, but its event loop has not turned for a while."""
    BLOCKED = "blocked"
    """Its event loop has not turned for ``loop_timeout``; it is about to be replaced."""
    FROZEN = "frozen"
    """The whole process has been silent for ``freeze_timeout``; it is about to be replaced."""
    STOPPING = "stopping"
    """Asked to end: it finishes what it does, then the stop ladder runs."""
    STOPPED = "stopped"
    """Ended, and nobody wants it back."""
    BACKING_OFF = "backing off"
    """Ended unasked; it is started again after the delay."""
    FAILED = "failed"
    """Given up: it cannot start as declared, or ended too often. ``start`` tries again."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Transition:
    """One step of a process from state to state."""

    process: str
    previous: State
    state: State
    cause: str
    """Why, in words."""
    at: float = field(default_factory=time.time)
    """``time.time()``."""
    pid: int | None = None
    restarts: int = 0
    """Starts after the first, so far."""


class Story:
    """The last transitions of one process."""

    def __init__(self) -> None:
        self._steps: deque[Transition] = deque(maxlen=HISTORY_LENGTH)

    def add(self, step: Transition) -> None:
        self._steps.append(step)

    def steps(self) -> Sequence[Transition]:
        """Oldest first; from any thread."""
        return tuple(self._steps.copy())
