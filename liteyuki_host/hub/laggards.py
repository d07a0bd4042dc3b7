"""Flow control of the shared memory: writers wait for a child that does not read its link, within limits.

Theory of operation
-------------------

Each write of the shared memory is sent to every child. A child has not asked for these messages, so no credit bounds
them. What bounds them is this module: while a child has not read a window of them, it *lags*, and whoever writes has to
wait. There are three kinds of writers:

- A thread of the host waits in :meth:`Laggards.may_write`, a task of the host in :meth:`Laggards.wait_to_write`.
- A child's writes arrive in the thread that reads its link, which must not wait. They are performed, and their credit
  is *withheld* (:meth:`Laggards.withhold`). So the child runs out of credit, and waits on its side.

Who lets them go on: the laggard's link has read something, or is over (:meth:`Laggards.memory_read`). If neither
happens for ``LAG_SECONDS``, the laggard is disconnected, and its supervisor takes over. A writer of the host sees to
that while it waits. For withheld credit a thread does it: it is started with the first credit that is withheld, there
is one at most, and it ends when nothing is withheld any more.

Locks and threads
-----------------

Every method may be called from any thread. The list of withheld credit and the thread's flag are guarded by the hub's
lock. Nobody waits or disconnects with that lock held. Credit is granted outside it, as a grant may be written to a
link there and then; only when ``Hub.admit`` dismisses a predecessor it is held, and such a write does not wait either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.channel.end import StreamSource
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.waiting.loops import call_on
from liteyuki_host.comm.waiting.monitor import Monitor, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host.hub.roster import Roster
    from liteyuki_host.hub.session import Session

__all__ = ["Laggards"]

LAG_SECONDS = 5.0
"""Seconds that writers of the shared memory wait for a process that does not read its link. Its reader is a thread of
its own, so only a stopped process is silent that long; it is disconnected then, and its supervisor takes over."""

LAG_WINDOWS = 16
LAG_MESSAGES = 4
"""Windows, and largest values beside them, of memory events after which such a process is disconnected at once. Both,
because a process that reads all the time is behind by as much as a few writers can hand over in one moment."""


class Laggards:
    """The children that do not read their links, and the writers that wait for them. See the module's docstring.

    Args:
        window: bytes of memory events that a child may leave unread before it lags.
        message_limit: bytes of one encoded value, at most.
        loop: gives the host's event loop; None: there is none.
    """

    def __init__(
        self,
        roster: Roster,
        monitor: Monitor,
        *,
        window: int,
        message_limit: int,
        loop: Callable[[], asyncio.AbstractEventLoop | None],
    ) -> None:
        self._roster = roster
        self._monitor = monitor
        self._lock = monitor.lock
        self._window = window
        self._message_limit = message_limit
        self._loop = loop
        self._withheld: list[tuple[StreamSource, int]] = []  # under the lock: credit kept back while somebody lags
        self._watching = False  # under the lock: the thread is there, or its start will be tried again
        self._closed = threading.Event()  # set when the host ends; the thread ends then, whatever fails
        self._boundary = Boundary("watching for processes that do not read the shared memory")
        self._room = Waiters()  # the host's writers that wait; woken when nobody lags any more

    # --- the host's writers ---------------------------------------------------------------------------------

    async def wait_to_write(self, write: Callable[[], bool]) -> None:
        """Repeat *write* until it has found nobody lagging. Cancelled, it has written nothing."""
        while not write():
            if await self._room.wait_async(self._nobody_lags, LAG_SECONDS) is NOTHING:
                self._disconnect_laggards()

    def may_write(self, may_wait: bool) -> bool:
        """Whether nobody lags, perhaps after a while."""
        if self.now():
            if not may_wait:
                return False
            refuse_to_wait("a write of the shared memory while a process lags behind")
            self._wait_for_laggards()
        return True

    def withhold(self, source: StreamSource, cost: int) -> bool:
        """Keep back the credit for a child's requests of *cost* bytes while somebody lags behind all these writes; it
        is granted to *source* when nobody does any more. Returns whether it is kept back."""
        laggards = self.now()
        if not laggards:
            return False
        with self._lock:
            self._withheld.append((source, cost))
        self.memory_read()  # the last of them may have caught up since we looked
        limit = LAG_WINDOWS * self._window + LAG_MESSAGES * self._message_limit
        for session in laggards:
            if session.memory_backlog > limit:
                self._disconnect(session)
        self._watch_withheld()
        return True

    def _watch_withheld(self) -> None:
        """Have a thread see to what is withheld, unless there is nothing, or a thread already."""
        with self._lock:
            if not self._withheld or self._watching or self._closed.is_set():
                return
            self._watching = True
        self._start_watching()

    # --- the thread -----------------------------------------------------------------------------------------

    def _start_watching(self) -> None:
        """Start the thread, or have its start tried again. ``_watching`` has been set by the caller."""
        try:
            DaemonThread(self._watch, name="lycomm-laggards", core=True).start()
        except (RuntimeError, MemoryError) as error:
            # The caller reads a link, of a child that is not to blame. Whoever lags may also catch up meanwhile.
            delay = self._boundary.failed(error)
            loop = self._loop()
            if loop is None or not call_on(loop, lambda: loop.call_later(delay, self._start_watching)):
                self._watching = False  # the next one who is withheld tries again

    def _watch(self) -> None:
        """Disconnect whoever lags too long, until nothing is withheld. Run by the thread.

        Any failure is told once, and the work is tried again after a while: without this thread the children whose
        credit is withheld would wait for ever.
        """
        while True:
            try:
                self._wait_for_laggards()
                over = self._nothing_left()
                self._boundary.succeeded()
                if self._monitor.due:
                    self._monitor.settle()
            except Exception as error:
                over = self._closed.wait(self._boundary.failed(error))
            if over:
                return

    def _nothing_left(self) -> bool:
        """Grant what is withheld. Returns whether nothing is left; another thread has to be started then."""
        failure = self._let_go_on()
        if failure is not None:
            raise failure
        with self._lock:
            if not self._withheld:
                self._watching = False
            return not self._watching

    def close(self) -> None:
        """End the thread, as the host ends: all links are over, so that no credit is of use any more."""
        with self._lock:
            self._withheld.clear()
        self._closed.set()
        self._room.wake()

    def _wait_for_laggards(self) -> None:
        """Wait until nobody lags; who still does after LAG_SECONDS is disconnected."""
        if self._room.wait(self._nobody_lags, LAG_SECONDS) is NOTHING:
            self._disconnect_laggards()

    def _nobody_lags(self) -> bool | Nothing:
        return NOTHING if self.now() else True

    def _disconnect_laggards(self) -> None:
        for session in self.now():
            self._disconnect(session)

    @property
    def withholding(self) -> bool:
        """Whether credit of some child is kept back."""
        return bool(self._withheld)

    def memory_read(self) -> None:
        """A child has read memory events, or is gone: let the writers go on when nobody lags. Never raises: the caller
        reads the link of a child that has nothing to do with the writers."""
        if self._let_go_on() is not None:
            self._watch_withheld()  # the thread tries again, and reports what fails

    def _let_go_on(self) -> Exception | None:
        """Grant what is withheld and wake the host's writers, if nobody lags.

        Returns what has kept some of it from being granted; that stays in the list, and the rest is granted all the
        same.
        """
        failure: Exception | None = None
        if (self._withheld or self._room.callbacks) and not self.now():
            with self._lock:
                withheld, self._withheld = self._withheld, []
            for source, cost in withheld:
                try:
                    if cost:
                        source.used(cost)
                        cost = 0  # counted; from here on only the grant can be missing
                    source.grant()
                except Exception as error:
                    failure = error
                    with self._lock:
                        self._withheld.append((source, cost))
            self._room.wake()
        return failure

    def now(self) -> list[Session]:
        """Who has not read a window of memory events: writers are to wait for them."""
        window = self._window
        laggards: list[Session] = []
        for session in self._roster.everybody:
            store = session.store
            if store.sent - store.acknowledged > window and session.memory_backlog > window:
                laggards.append(session)
        return laggards

    def _disconnect(self, session: Session) -> None:
        if session.disconnecting:
            return
        session.disconnecting = True  # before the line: what takes it may write
        line = (
            f"child {session.process} has not read its link for a long time ({session.memory_backlog:,} bytes of the "
            "shared memory wait for it); it is disconnected so that the others can go on"
        )
        self._monitor.say(lambda: logger.error(line))
        session.close_soon("it does not read its link")
