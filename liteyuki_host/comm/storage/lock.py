"""Locks across all processes, as users hold them.

How a lock is taken
-------------------

The host decides who has a lock (``storage/lock_table.py``). A :class:`Lock` asks for it once, on entering its block,
and gets a *holder* number, which names this request to the host until the lock is given back:

1. *Ask* (``Exchange.acquire``). The grant is the answer, at once or when all who asked before have given it back.
2. When the time limit is over without a grant: *withdraw*. The host either answers that it has granted the lock before,
   which is a success, or takes the request out of the queue and says which process holds the lock (``LockTimeout``). So
   the host alone decides; this process never gives up a lock that is on its way to it.
3. *Give back* (``Exchange.release``), on leaving the block or when anything fails. It is also right for a request that
   waits, and for one that the host has never heard of.

If the process dies, the host frees its locks.
"""

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
    """A lock across all processes; made by ``shared_memory.lock``, for one block at a time.

    A free lock is taken however short the time limit is. The lock is not reentrant: a second object for the same key
    waits for the first, also in the same task.

    Args:
        key: name of the lock; the key of the same name in the shared memory is not touched.
        timeout: seconds to wait for it, 0 or more; None: no limit.
    """

    def __init__(self, exchange: Exchange, key: str, timeout: float | None) -> None:
        self._exchange = exchange
        self._key = key
        self._timeout = timeout
        # Number of our request at the host while we hold the lock or wait for it. Written by whoever enters and leaves
        # the block; an object belongs to one task or thread at a time.
        self._holder: int | None = None
        self.fence = 0
        """Number of the grant, which grows with every grant of any lock. A store outside can refuse a writer whose
        number is lower than one it has seen: that one has lost the lock."""

    async def __aenter__(self) -> Lock:  # noqa: PYI034  (nothing derives from it)
        if checkpoint_due(self._exchange):
            await checkpoint()
        granted = self._ask()
        try:
            # With a limit of 0, the answer to the withdrawal says whether the lock was free.
            outcome = granted.value if self._timeout == 0 else await granted.wait_async(self._timeout)
            if outcome is NOTHING:
                outcome = self._decision(granted, await self._withdraw().wait_async(DEFAULT_TIMEOUT))
            self.fence = good(self._key, outcome).revision
        except BaseException:  # also a cancellation: a grant that is on its way would hold the lock for nobody
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
        """Ask the host for the lock.

        Raises:
            LockNotHeld: this object is inside a block already.
            ReentrantCall: called in the middle of lycomm's own work on this thread.
            HostNotAttached: the host is gone.
        """
        if self._holder is not None:
            raise LockNotHeld(f"lock {self._key!r}: this object is in use; take a new one from shared_memory.lock")
        self._exchange.monitor.refuse_inside(f"taking lock {self._key!r}")
        granted: Answer[Outcome] = Answer()
        self._holder = self._exchange.acquire(self._key, granted.give)
        return granted

    def _withdraw(self) -> Answer[Outcome]:
        """Ask the host to take our request back, unless it has been granted."""
        assert self._holder is not None
        decided: Answer[Outcome] = Answer()
        self._exchange.withdraw(self._key, self._holder, decided.give)
        return decided

    def _decision(self, granted: Answer[Outcome], decided: Outcome | Nothing) -> Outcome:
        """Return the grant, if the host has *decided* that there was one before the withdrawal.

        Raises:
            LockTimeout: there was none; the request is out of the queue.
            RequestTimeout: the host did not answer. The caller gives the lock back, whatever its decision will be.
        """
        if decided is NOTHING:
            raise RequestTimeout(f"lock {self._key!r}: the host did not answer within {DEFAULT_TIMEOUT} s")
        if decided.error == Refusal.HELD:
            self._holder = None  # there is nothing to give back
            holder = (decided.value or b"").decode()
            own = ", this process itself," if holder == self._exchange.process else ""
            raise LockTimeout(
                f"lock {self._key!r}: not free within {self._timeout} s; process {holder!r}{own} holds it",
                key=self._key,
                holder=holder,
            )
        outcome = granted.value  # sent before the decision, so it is here
        return decided if outcome is NOTHING else outcome

    def _give_back(self) -> None:
        """Give the lock back, or stop waiting for it. Never waits. Does nothing the second time."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        exchange, key = self._exchange, self._key
        monitor = exchange.monitor
        if monitor.owned():  # a generator inside the block was collected in the middle of our own work on this thread
            monitor.defer(lambda: exchange.release(key, holder), f"giving lock {key!r} back", len(key))
        else:
            exchange.release(key, holder)
            if monitor.due:
                monitor.settle()
