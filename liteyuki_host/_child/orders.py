"""What the supervisor asks of a running bot, taken from whoever reads the link to where it can be done."""

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
    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._lock = threading.Lock()
        self._drain: Callable[[float], None] | None = None
        self._early_drain: Drain | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: Callable[[float], None] = lambda interval: None
        self._early_watch: WatchLoop | None = None

    def take(self, order: WatchLoop | Drain | DumpStacks) -> None:
        """Called by whoever reads the link. Only a watch needs the event loop, and waits until there is one."""
        if isinstance(order, DumpStacks):
            self._stacks.write()  # here and now: the loop may be what hangs
        elif isinstance(order, Drain):
            with self._lock:
                if self._drain is None:
                    self._early_drain = order
                    return
            self._drain(order.timeout)  # here and now: the loop may be what is full
        else:
            with self._lock:
                self._early_watch = order  # a later one takes its place, as it would on the loop
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
        if self._loop is not None and self._early_watch is not None:
            order, self._early_watch = self._early_watch, None
            call_soon(self._loop, self._watch, order.interval)  # if it has ended, the process is about to
