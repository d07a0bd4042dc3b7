"""Polling a socket for a moment before a thread sleeps in it.

When every thread sleeps, each message has to wake a processor too, which takes longer than an answer. So a thread that
expects an answer at once first polls (*spins*) for :data:`SPIN_SECONDS`. That is useless while the peer takes long, so
spins that bring nothing are left out more and more often: after the first one 1 wait goes without, then 3, 7 and so on,
at most :data:`MOST_SPINS_LEFT_OUT`. One that brings something sets this back to none.

On a single processor nobody spins: the peer needs that processor for the answer.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

from liteyuki_host.comm.link.tuning import MOST_SPINS_LEFT_OUT, SPIN_SECONDS
from liteyuki_host.comm.protocol.frames import FrameDecoder

__all__ = ["Pollable", "Spinner"]


class Pollable(Protocol):
    """What of a transport is polled."""

    at_once: int
    """The flag with which ``recv_into`` does not wait."""

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0, /) -> int:
        """Read like the ``recv_into`` of a socket: BlockingIOError is raised when there is nothing, and no time to wait
        or no more of it."""
        ...


class Spinner:
    """Spins for one reader. Used by whoever holds the reader's role, and by nobody else at the same time.

    Args:
        transport: what is read.
        decoder: whose ``free`` is the buffer.

    Attributes:
        allowed: whether there is more than one processor for this process. Never changes.
    """

    __slots__ = ("_decoder", "_left_out", "_to_leave_out", "_transport", "allowed")

    def __init__(self, transport: Pollable, decoder: FrameDecoder) -> None:
        self._transport = transport
        self._decoder = decoder
        self.allowed = len(os.sched_getaffinity(0)) > 1
        self._to_leave_out = 0  # waits without a spin after the last spin that brought nothing
        self._left_out = 0  # how many of these have been

    def read(self) -> int:
        """Read into the decoder's buffer without sleeping, for a moment or, after spins in vain, not at all.

        Returns:
            the bytes that this brought; 0 if there were none, and at the end of the stream. The caller reads again,
            sleeping, and is told of the end then.

        Raises:
            OSError: the link is gone.
        """
        if self._left_out < self._to_leave_out:
            self._left_out += 1
            return 0
        recv_into, buffer, at_once = self._transport.recv_into, self._decoder.free, self._transport.at_once
        until = time.monotonic() + SPIN_SECONDS
        while True:
            try:
                count = recv_into(buffer, 0, at_once)
            except BlockingIOError:
                if time.monotonic() < until:
                    continue
                self._to_leave_out = min(2 * self._to_leave_out + 1, MOST_SPINS_LEFT_OUT)
                self._left_out = 0
                return 0
            self._to_leave_out = 0
            return count
