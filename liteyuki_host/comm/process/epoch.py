"""The number that tells handles when to ask for the exchange of their process anew."""

from __future__ import annotations

__all__ = ["epoch", "new_epoch"]

epoch = 0
"""Counts how often something changed that handles (channels) remember: the process's exchange, its name, its limits.
They compare it with what it was, which costs less than asking anew for each message."""


def new_epoch() -> None:
    """Make every handle look up its exchange again on its next use. From any thread."""
    global epoch
    epoch += 1  # two threads at once may add one together; the number is new for every handle all the same
