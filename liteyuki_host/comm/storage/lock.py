"""Locks across all processes."""

from __future__ import annotations

from types import TracebackType

from liteyuki_host.comm.errors import LockNotHeld, LockTimeout, RequestTimeout
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage.confirmed import DEFAULT_TIMEOUT, checkpoint_due, good
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.checkpoints import checkpoint
from liteyuki_host.comm.waiting.loops import refuse_event_loop
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer, Nothing

__all__ = ["Lock"]


class Lock:
    """A lock across all processes; made by ``shared_memory.lock``, good for one block.

    The host decides who has it. When the time limit is over, the host is asked to let this holder wait no longer; it
    answers that the lock has been granted meanwhile, or which process holds it. So a lock that is free is taken however
    short the limit is.

    Args:
        timeout: seconds, 0 or more; None: no limit.
    """

    def __init__(self, exchange: Exchange, key: str, timeout: float | None) -> None:
        self._exchange = exchange
        self._key = key
        self._timeout = timeout
        self._holder: int | None = None  # our number at the host, while we hold the lock or wait for it
        self.fence = 0
        """Grows with every grant of any lock: lets a store that both sides write refuse the late one."""

    async def __aenter__(self) -> Lock:  # noqa: PYI034  (nothing derives from it)
        if checkpoint_due(self._exchange):
            await checkpoint()
        granted = self._ask()
        try:
            outcome = granted.value if self._timeout == 0 else await granted.wait_async(self._timeout)
            if outcome is NOTHING:
                outcome = self._decision(granted, await self._withdraw().wait_async(DEFAULT_TIMEOUT))
            self.fence = good(self._key, outcome).revision
        except BaseException:  # also cancelled: a grant on its way must not stay with nobody
            self._give_back()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def __enter__(self) -> Lock:  # noqa: PYI034
        refuse_event_loop("with shared_memory.lock()", "async with shared_memory.lock(...)")
        link = self._exchange.link
        granted = self._ask()
        try:
            outcome = granted.value if self._timeout == 0 else granted.wait(link, self._timeout)
            if outcome is NOTHING:
                outcome = self._decision(granted, self._withdraw().wait(link, DEFAULT_TIMEOUT))
            self.fence = good(self._key, outcome).revision
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
        self._exchange.monitor.refuse_inside(f"taking lock {self._key!r}")
        granted: Answer[Outcome] = Answer()
        self._holder = self._exchange.acquire(self._key, granted.give)
        return granted

    def _withdraw(self) -> Answer[Outcome]:
        """Ask the host to let us wait no longer."""
        assert self._holder is not None
        decided: Answer[Outcome] = Answer()
        self._exchange.withdraw(self._key, self._holder, decided.give)
        return decided

    def _decision(self, granted: Answer[Outcome], decided: Outcome | Nothing) -> Outcome:
        """The grant that came before the host has *decided*.

        Raises:
            LockTimeout: there is none, and we wait no longer.
            RequestTimeout: the host did not decide.
        """
        if decided is NOTHING:
            raise RequestTimeout(f"lock {self._key!r}: the host did not answer within {DEFAULT_TIMEOUT} s")
        if decided.error == Refusal.HELD:
            self._holder = None
            holder = (decided.value or b"").decode()
            own = ", this process itself," if holder == self._exchange.process else ""
            raise LockTimeout(
                f"lock {self._key!r}: not free within {self._timeout} s; process {holder!r}{own} holds it",
                key=self._key,
                holder=holder,
            )
        outcome = granted.value  # in the host's order it comes before the decision
        return decided if outcome is NOTHING else outcome

    def _give_back(self) -> None:
        holder, self._holder = self._holder, None
        if holder is None:
            return
        exchange, key = self._exchange, self._key
        monitor = exchange.monitor
        if monitor.owned():  # a generator that held the lock was collected in the middle of our work
            monitor.defer(lambda: exchange.release(key, holder), f"giving lock {key!r} back", len(key))
        else:
            exchange.release(key, holder)
            if monitor.due:
                monitor.settle()
