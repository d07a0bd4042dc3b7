"""Descriptors that must not live on in processes which are forked from this one.

What they are for is to be held by this process alone: a lock, or a pipe whose end tells others of our death.
Programs that are started are no danger, the descriptors are close-on-exec; ``os.fork`` without one
(multiprocessing on Linux) copies them all.
"""

from __future__ import annotations

import contextlib
import os

_descriptors: set[int] = set()


def close_in_forks(descriptor: int) -> None:
    """Close *descriptor* in every later fork of this process. From then on it is closed by :func:`close`."""
    _descriptors.add(descriptor)


def close(descriptor: int) -> None:
    """Close it here. In a fork, where the number may belong to somebody else by now, and again, it does nothing."""
    if descriptor in _descriptors:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _close_all() -> None:
    while _descriptors:
        with contextlib.suppress(OSError):  # the project closes what it does not know, as daemons do
            os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
