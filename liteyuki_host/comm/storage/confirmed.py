"""Operations that wait until the host has decided: how long, and what its answer means."""

from __future__ import annotations

from liteyuki_host.comm.errors import RequestTimeout, SharedMemoryError, SharedMemoryFull
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage.outcome import Outcome, Refusal
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer

__all__ = ["awaited", "good", "late", "waited"]


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


async def awaited(key: str, answer: Answer[Outcome], timeout: float | None) -> Outcome:
    outcome = await answer.wait_async(timeout)
    if outcome is NOTHING:
        raise late(key, timeout)
    return outcome
