"""Locks across all processes."""

from __future__ import annotations

from types import TracebackType

from liteyuki_host.comm.errors import LockNotHeld
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage.confirmed import awaited, good, waited
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.waiting.loops import refuse_event_loop
from liteyuki_host.comm.waiting.waiting import Answer

__all__ = ["Lock"]


class Lock:
    """A lock across all processes; made by ``shared_memory.lock``, good for one block."""

    def __init__(self, exchange: Exchange, key: str, timeout: float | None) -> None:
        self._exchange = exchange
        self._key = key
        self._timeout = timeout
        self._holder: int | None = None
        self.fence = 0
        """Grows with every grant of any lock: lets a store that both sides write refuse the late one."""

    async def __aenter__(self) -> Lock:  # noqa: PYI034  (nothing derives from it)
        granted = self._ask()
        try:
            self.fence = good(self._key, await awaited(self._key, granted, self._timeout)).revision
        except BaseException:  # also cancelled: a grant on its way must not stay with nobody
            self._give_back()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def __enter__(self) -> Lock:  # noqa: PYI034
        refuse_event_loop("with shared_memory.lock()", "async with shared_memory.lock(...)")
        granted = self._ask()
        try:
            self.fence = good(self._key, waited(self._exchange, self._key, granted, self._timeout)).revision
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _ask(self) -> Answer[Outcome]:
        if self._holder is not None:
            raise LockNotHeld(f"lock {self._key!r}: this object is in use; take a new one from shared_memory.lock")
        granted: Answer[Outcome] = Answer()
        self._holder = self._exchange.acquire(self._key, granted.give)
        return granted

    def _give_back(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            self._exchange.release(self._key, holder)
