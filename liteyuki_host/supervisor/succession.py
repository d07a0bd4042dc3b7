"""The children of one process beside the one that serves: a new one that is to replace it, and those it has replaced.

How a replacement goes (``reload = "overlap"``)
-----------------------------------------------

1. The reloader starts a *candidate*, a second child, inside :meth:`Succession.candidate`. As long as that block lasts,
   the keeper begins no start of its own.
2. When the candidate is ready, the reloader offers it by :meth:`Succession.offer`. From then on it is the *successor*,
   and the keeper's.
3. The keeper's task takes it (:meth:`Succession.take`). It serves from now on. The child before is *retiring*: it
   finishes its work and ends in a task of its own (:meth:`Succession.retire`).

There are never more than three children of one process: one serves, one is a candidate or successor, one retires. A
candidate waits until nobody retires (:meth:`Succession.alone`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from liteyuki_host.supervisor import stopping
from liteyuki_host.supervisor.kept_process import KeptProcess
from liteyuki_host.supervisor.life import Life

__all__ = ["Succession"]


class Succession:
    """See the module's docstring. For the host's event loop only."""

    def __init__(self, process: KeptProcess) -> None:
        self._process = process
        self._candidate: asyncio.Event | None = None
        """Wakes whoever tries a candidate; None: nobody does. Written by :meth:`candidate`."""
        self._successor: Life | None = None
        """Ready, and to take the place of the child that serves. Set by :meth:`offer`, taken by the keeper's task."""
        self._retiring: set[asyncio.Task[None]] = set()
        """One task for each replaced child that still ends; each removes itself when it is over."""

    @property
    def under_way(self) -> bool:
        """Whether a candidate or a retiring child is there."""
        return bool(self._retiring) or self._candidate is not None

    @contextlib.contextmanager
    def candidate(self, wake: asyncio.Event) -> Iterator[None]:
        """Allow a candidate inside the block.

        Args:
            wake: set when the child that serves has gone, so that the candidate is of no use any more.
        """
        self._candidate = wake
        try:
            yield
        finally:
            self._candidate = None
            self._process.wake.set()

    def offer(self, successor: Life, why: str) -> bool:
        """Let *successor*, which is ready, replace the child that serves. Returns whether it will; then the keeper ends
        it one day, and the caller has no more to do with it."""
        process = self._process
        if not process.is_ready or self._successor is not None:
            return False
        successor.wake = process.wake
        self._successor, process.why = successor, why
        process.wake.set()
        return True

    @property
    def has_successor(self) -> bool:
        """Whether :meth:`take` has something to take."""
        return self._successor is not None

    def take(self) -> Life:
        """The successor, which is the caller's from now on."""
        successor, self._successor = self._successor, None
        assert successor is not None
        return successor

    def retire(self, ending: Coroutine[Any, Any, None]) -> None:
        """Run *ending*, which ends a child that was replaced, in a task of its own."""
        task = asyncio.ensure_future(ending)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def alone(self) -> None:
        """Wait until every child that was replaced has ended."""
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def end_all(self) -> None:
        """End the successor, and wait until there are no other children than the one that served. Called before the
        next start. Only for the keeper's task: it waits for ``wake``."""
        process = self._process
        if self._successor is not None:
            await stopping.end(process.spec, self.take(), "stop", process.hurry)
        while self._candidate is not None:
            self._candidate.set()
            process.wake.clear()
            await process.wake.wait()
        await self.alone()
