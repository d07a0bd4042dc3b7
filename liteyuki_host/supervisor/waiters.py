"""Who waits for a process to become ready or to be gone. For the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from liteyuki_host.comm.errors import ProcessFailed


@dataclass(eq=False)
class _Waiter:
    future: asyncio.Future[None]
    start: int
    """The earliest start that counts: after a restart was asked, the child that was there does not."""
    patient: bool
    """Waits through failed starts as long as another one follows."""


class ReadyWaiters:
    """Those who wait until a start, counted from 1, has made the process ready."""

    def __init__(self) -> None:
        self._waiting: list[_Waiter] = []

    async def wait(self, start: int, *, patient: bool = False) -> None:
        """Until start number *start*, or a later one, is ready. Raises ProcessFailed."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), start, patient)
        self._waiting.append(waiter)
        try:
            await waiter.future
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def tell(self, start: int, failure: str | None) -> None:
        """Start number *start* is ready (None) or is not going to be (why)."""
        self._release(lambda waiter: waiter.start <= start and (failure is None or not waiter.patient), failure)

    def tell_everybody(self, failure: str) -> None:
        """Nothing will make it ready any more."""
        self._release(lambda waiter: True, failure)

    def _release(self, counts: Callable[[_Waiter], bool], failure: str | None) -> None:
        for waiter in [waiter for waiter in self._waiting if counts(waiter)]:
            self._waiting.remove(waiter)
            _settle(waiter.future, failure)


class GoneWaiters:
    """Those who wait until no child of the process is there."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Raises ProcessFailed when it will not come to that."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def tell(self, failure: str | None = None) -> None:
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
