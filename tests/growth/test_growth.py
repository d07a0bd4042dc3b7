"""Nothing in a host grows with history. The long form is a command: see ``churn.py``."""

from __future__ import annotations

import pytest
from churn import KINDS, churned
from loguru import logger

ROUNDS = {
    "names": 1_000,
    "names_between_bots": 700,
    "names_in_messages": 700,
    "names_with_callbacks": 700,
    "refused_names": 2_000,
    "subscribers": 700,
    "incarnations": 100,
    "watches": 1_000,
    "requests": 1_000,
    "locks": 700,
    "keys": 700,
    "losses": 2_000,
}
"""Two or three seconds for each."""

SLACK = 600
"""Objects of one class that may be more than before, by chance: a process looks for unused names when 64 are new, and
one of them has about six objects of some classes in the host and two bots. What leaves one each time leaves more."""

LIMITS = {"Link": 8, "Connection": 8, "FrameDecoder": 8, "Session": 8, "Watch": 8, "threads": 8, "descriptors": 4}
"""Of what has nothing to do with names; threads are also those of asyncio's own pool."""

BYTES = 300
"""Of each round. A dropped name used to leave 7 to 16 KB, and an incarnation more than half a megabyte."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_churn_adds_nothing_to_a_host(kind: str) -> None:
    logger.remove()  # nonebug's and pytest's sinks keep what they are told
    added = await churned(kind, ROUNDS[kind], first=100)
    limits = {**LIMITS, "bytes": BYTES * ROUNDS[kind] + 300_000}
    assert {name: count for name, count in added.items() if count > limits.get(name, SLACK)} == {}
