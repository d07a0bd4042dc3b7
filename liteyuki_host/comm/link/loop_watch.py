"""How an event loop is woken by what arrives on a link, and is not while another thread reads.

**The epoll object.** The loop does not watch the link's socket itself but an epoll object of ours that contains it.
Whether the loop is woken can then be changed from any thread by one system call (:meth:`LoopWatch.listen`); the loop's
own list of descriptors may only be changed on the loop's thread.

**One lock.** The object, the loop that has it, and the end of the link belong together: all three change under
``_lock``. So a loop that begins to watch while the link ends either sees the end, or is seen by it and stopped; neither
the descriptor nor the callback stays behind. Nothing of the user's runs under that lock: the loop is called outside it.

**Who calls.** :meth:`~LoopWatch.attach`, :meth:`~LoopWatch.detach` and :meth:`~LoopWatch.end` any thread,
:meth:`~LoopWatch.listen` whoever holds, or has just given up, the reader's role. What touches the loop's descriptors
runs on the loop's thread, except when the loop is closed.

**What is not promised.** A loop may be woken although it was muted the moment before, and may sleep although it listens
(it is blocked). The reader relies on neither: the role decides who reads, and the guard reads what nobody else does.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.waiting.loops import Turn, call_on

if TYPE_CHECKING:
    import asyncio

__all__ = ["LoopWatch"]


class LoopWatch:
    """Has one event loop at a time watch a descriptor.

    Args:
        descriptor: what becomes readable. It stays open until :meth:`end` has returned.
        read: called on the loop's thread, in no task, when there is something to read.

    Attributes:
        listening: whether the loop is to be woken, as it was told last. Changed under the lock, read by anybody
            without it: who reads an old value mutes or unmutes once too often, or leaves that to the next reader.
    """

    __slots__ = ("_descriptor", "_epoll", "_lock", "_loop", "_over", "_read", "listening")

    def __init__(self, descriptor: int, read: Callable[[Turn], object]) -> None:
        self._descriptor = descriptor
        self._read = read
        self._lock = threading.RLock()  # reentrant: a finalizer that interrupts its owner may need it, too
        self._over = False  # the link has ended; set once, under the lock
        self._loop: asyncio.AbstractEventLoop | None = None  # who watches, or has been asked to; under the lock
        self._epoll: select.epoll | None = None  # what it watches, while it does; under the lock
        self.listening = False

    @property
    def active(self) -> bool:
        """Whether a loop watches just now."""
        return self._epoll is not None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop* watch from its next turn on, and no other. Nothing happens after the link's end."""
        self.detach()
        with self._lock:
            if self._over:
                return
            self._loop = loop
        call_on(loop, lambda: self._begin_on(loop))

    def detach(self) -> None:
        """Let no loop watch any more."""
        with self._lock:
            loop, self._loop = self._loop, None
            epoll, self._epoll, self.listening = self._epoll, None, False
        # Outside the lock: both may be called back by the loop at once, when this is its thread.
        if loop is not None and not call_on(loop, lambda: self._end_on(loop, epoll)):
            self._end_on(loop, epoll)

    def end(self) -> None:
        """Let no loop watch any more, now or later: the descriptor is about to be closed."""
        with self._lock:
            self._over = True
        self.detach()

    def listen(self, listening: bool) -> None:
        """Let the loop be woken by what arrives, or not. Costs a system call, of 0.4 to 3 µs, if that is new."""
        if self.listening == listening:
            return
        with self._lock:  # so that the last word here is also the last one there
            epoll = self._epoll
            if epoll is not None and self.listening != listening:
                self.listening = listening
                try:
                    epoll.modify(self._descriptor, select.EPOLLIN if listening else 0)
                except (OSError, ValueError):  # the loop or the link has just gone
                    pass

    # --- on the loop's thread -----------------------------------------------------------------------------------

    def _begin_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch, unless the link has ended or another loop has been attached meanwhile."""
        with self._lock:
            if self._over or self._loop is not loop or self._epoll is not None:
                return
            try:
                epoll = select.epoll()
            except OSError:  # no descriptors left: the guard reads
                return
            try:
                epoll.register(self._descriptor, select.EPOLLIN)
                turn = Turn(loop)
                loop.add_reader(epoll.fileno(), self._read, turn)
                turn.watches(epoll.fileno())
            except (NotImplementedError, OSError):  # a loop that watches no descriptors, or not now: the guard reads
                epoll.close()
                return
            self._epoll, self.listening = epoll, True

    @staticmethod
    def _end_on(loop: asyncio.AbstractEventLoop, epoll: select.epoll | None) -> None:
        if epoll is not None:
            if not loop.is_closed():
                loop.remove_reader(epoll.fileno())
            epoll.close()
