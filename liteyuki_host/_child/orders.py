"""What the supervisor asks of a running bot, passed from the link to the code that does it.

Orders arrive by :meth:`Orders.take` on whatever thread reads the link: lycomm's own, or any thread of the project that
receives or requests. Stacks are written and a drain begins there, because the event loop may be what is stuck. A watch
of the event loop needs that loop, so it is posted to it.

Orders may arrive before the driver can carry them out. Then the last one of each kind is kept until ``drain_by`` or
``watch_by`` says how.

One lock guards the attributes, and no call leaves this module while it is held. Posting to a loop can run the
project's code (a loop of its own, a finalizer), and that code may read the link and so come back to ``take``. The lock
is re-entrant because a finalizer or a signal handler can also run between any two lines that hold it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.protocol.messages import Drain, DumpStacks, WatchLoop
from liteyuki_host.comm.threads import call_soon

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host._child.stacks import Stacks


class Orders:
    """Passes orders on. All methods may be called from any thread.

    Args:
        stacks: writes the stacks of all threads when asked to.
    """

    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._lock = threading.RLock()  # guards all that follows
        self._drain: Callable[[float], None] | None = None
        self._early_drain: Drain | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: Callable[[float], None] = lambda interval: None
        self._early_watch: WatchLoop | None = None
        self._posting = False  # a thread is inside the loop of `_post_watch`, and posts what is added meanwhile

    def take(self, order: WatchLoop | Drain | DumpStacks) -> None:
        """Carry out an order, or keep it until that is possible. A later order of a kind replaces the one kept."""
        if isinstance(order, DumpStacks):
            self._stacks.write()
        elif isinstance(order, Drain):
            with self._lock:
                if self._drain is None:
                    self._early_drain = order
                    return
            self._drain(order.timeout)
        else:
            with self._lock:
                self._early_watch = order
            self._post_watch()

    def drain_by(self, drain: Callable[[float], None]) -> None:
        """From now on *drain* is called with the seconds of each order to come to rest, by whoever reads the link."""
        with self._lock:
            self._drain, early = drain, self._early_drain
        if early is not None:
            drain(early.timeout)

    def watch_by(self, watch: Callable[[float], None], loop: asyncio.AbstractEventLoop) -> None:
        """From now on *watch* is called with the seconds between beats that are asked for, on *loop*."""
        with self._lock:
            self._watch, self._loop = watch, loop
        self._post_watch()

    def _post_watch(self) -> None:
        """Post the watch that is kept, and those that arrive meanwhile, in the order of their arrival.

        One frame posts at a time. Others leave their order to it: were two to post, the loop could get the older
        interval last and keep it.
        """
        first = True
        while True:
            with self._lock:
                if first and self._posting:
                    return
                first, self._posting = False, True
                loop, watch, order = self._loop, self._watch, self._early_watch
                if loop is None or order is None:
                    self._posting = False
                    return
                self._early_watch = None
            try:
                call_soon(loop, watch, order.interval)  # False on a closed loop: the process is about to end
            except BaseException:  # a finalizer of the project cannot raise here, but a signal handler can
                self._posting = False
                raise
