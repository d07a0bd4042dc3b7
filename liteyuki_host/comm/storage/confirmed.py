"""Operations that wait until the host has decided: what comes before, how long, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable

from liteyuki_host.comm.errors import RequestTimeout, SharedMemoryError, SharedMemoryFull
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.checkpoints import checkpoint, is_cancelled, may_go_on
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer

__all__ = ["DEFAULT_TIMEOUT", "awaited", "checkpoint_due", "good", "late", "waited"]

DEFAULT_TIMEOUT = 30.0
"""Seconds that a confirmed operation waits for the host; it normally answers within a millisecond."""


def checkpoint_due(exchange: Exchange) -> bool:
    """Whether an ``a...`` form of the shared memory has to make a checkpoint before it asks. Where nothing has to be
    asked over a link the answer is there at once, so the loop would not turn by itself."""
    return not may_go_on() if exchange.link is None else is_cancelled()


def good(key: str, outcome: Outcome) -> Outcome:
    if outcome.error is None:
        return outcome
    if outcome.error == Refusal.FULL:
        raise SharedMemoryFull(
            f"shared_memory[{key!r}]: the shared memory is full; delete keys or raise shared_memory_limit"
        )
    raise SharedMemoryError(f"shared_memory[{key!r}]: {outcome.error}")


def late(key: str, timeout: float | None) -> RequestTimeout:
    return RequestTimeout(f"shared_memory[{key!r}]: the host did not answer within {timeout} s; it may still do it")


def waited(exchange: Exchange, key: str, answer: Answer[Outcome], timeout: float | None) -> Outcome:
    outcome = answer.wait(exchange.link, timeout)
    if outcome is NOTHING:
        raise late(key, timeout)
    return outcome


async def awaited(exchange: Exchange, key: str, ask: Callable[[], Answer[Outcome]], timeout: float | None) -> Outcome:
    """Make a checkpoint, *ask*, and wait in this task for the host's decision.

    Raises:
        RequestTimeout: not within *timeout* seconds.
    """
    if checkpoint_due(exchange):
        await checkpoint()
    answer = ask()
    outcome = answer.value if exchange.link is None else NOTHING  # decided here, if nobody else is to be asked
    if outcome is NOTHING:
        outcome = await answer.wait_async(timeout)
    if outcome is NOTHING:
        raise late(key, timeout)
    return outcome
