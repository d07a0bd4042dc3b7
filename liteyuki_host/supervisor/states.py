"""The states of a child, in the words that ``status`` shows."""

from __future__ import annotations

from enum import Enum

#   declared ──▶ starting ──▶ hooks done ──▶ ready ──▶ stopping ──▶ stopped
#                  ▲  │             │          │          ▲
#                  │  └─────────────┴──────────┴── stop ──┘
#                  │  └─────────────┴──────────┴── exit or lost link ──▶ backing off
#                  └──────────────────────────────────────────────────────────┘
#
# `failed` is entered from `starting` only: the start cannot work before somebody changes something.


class State(str, Enum):
    DECLARED = "declared"
    """Known, never started."""
    STARTING = "starting"
    """Spawned (or about to be); start-up hooks are running."""
    HOOKS_DONE = "hooks done"
    """Start-up hooks have returned; the port is not open yet."""
    READY = "ready"
    STOPPING = "stopping"
    """Asked to end; the stop ladder is running."""
    STOPPED = "stopped"
    """Ended, and nobody wants it back."""
    BACKING_OFF = "backing off"
    """Ended unasked; it is started again after the delay."""
    FAILED = "failed"
    """It cannot start as declared. ``start`` tries again."""

    def __str__(self) -> str:
        return self.value
