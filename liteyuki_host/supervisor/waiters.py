"""Callers that wait until a process is ready, or until it is gone. For the host's event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from liteyuki_host.comm.errors import ProcessFailed


@dataclass(eq=False)
class _Waiter:
    """One caller of :meth:`ReadyWaiters.wait`."""

    future: asyncio.Future[None]
    """Ends the waiting, or raises in it."""
    start: int
    """Number of the earliest start that counts. After a restart was asked, the child that was there does not count."""
    patient: bool
    """The caller goes on waiting when a start fails, as long as another one follows."""


class ReadyWaiters:
    """Callers that wait until a start, counted from 1, has made the process ready."""

    def __init__(self) -> None:
        self._waiting: list[_Waiter] = []
        """Each adds itself, and removes itself when it is told or cancelled."""

    async def wait(self, start: int, *, patient: bool = False) -> None:
        """Wait until start number *start*, or a later one, is ready.

        Args:
            patient: wait through failed starts as long as another one follows.

        Raises:
            ProcessFailed: it is not going to be ready, and why.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future(), start, patient)
        self._waiting.append(waiter)
        try:
            await waiter.future
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def tell(self, start: int, failure: str | None) -> None:
        """Tell those who wait for start number *start*, or an earlier one, that it is ready.

        Args:
            failure: why it is not going to be ready; None: it is. Who is patient is not told of failures.
        """
        self._release(lambda waiter: waiter.start <= start and (failure is None or not waiter.patient), failure)

    def tell_everybody(self, failure: str) -> None:
        """Tell all that nothing will make the process ready any more, and why."""
        self._release(lambda waiter: True, failure)

    def _release(self, counts: Callable[[_Waiter], bool], failure: str | None) -> None:
        for waiter in [waiter for waiter in self._waiting if counts(waiter)]:
            self._waiting.remove(waiter)
            _settle(waiter.future, failure)


class GoneWaiters:
    """Callers that wait until no child of the process is there."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        """Each adds itself, and removes itself when it is told or cancelled."""

    async def wait(self) -> None:
        """Wait until no child is there. Raises ProcessFailed when it will not come to that."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def tell(self, failure: str | None = None) -> None:
        """Tell all that no child is there.

        Args:
            failure: why it will not come to that; None: it has.
        """
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _settle(future, failure)


def _settle(future: asyncio.Future[None], failure: str | None) -> None:
    if future.done():
        return  # who waited has been cancelled
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(ProcessFailed(failure))
