"""What the supervisor asks of a running bot, taken from whoever reads the link to where it can be done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.protocol.messages import Drain, DumpStacks, Watch

if TYPE_CHECKING:
    import asyncio

    from liteyuki_host._child.stacks import Stacks

LoopOrder = Watch | Drain


class Orders:
    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks
        self._lock = threading.Lock()
        self._early: dict[type[LoopOrder], LoopOrder] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._obey: Callable[[LoopOrder], None] = lambda order: None

    def take(self, order: LoopOrder | DumpStacks) -> None:
        """Called by whoever reads the link. What needs the event loop waits until there is one."""
        if isinstance(order, DumpStacks):
            self._stacks.write()  # here and now: the loop may be what hangs
            return
        with self._lock:
            if self._loop is None:
                self._early[type(order)] = order  # a later one takes its place, as it would on the loop
            else:
                self._post(self._loop, order)

    def follow(self, loop: asyncio.AbstractEventLoop, obey: Callable[[LoopOrder], None]) -> None:
        """From now on *obey* is called with each order, on *loop*."""
        with self._lock:
            self._loop, self._obey = loop, obey
            for order in self._early.values():
                self._post(loop, order)
            self._early.clear()

    def _post(self, loop: asyncio.AbstractEventLoop, order: LoopOrder) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process is about to
            loop.call_soon_threadsafe(self._obey, order)
