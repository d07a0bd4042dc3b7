"""The constants of flow control. How credit works is described in ``ledger.py``.

Each message is charged its size plus :data:`MESSAGE_CHARGE`, so that one number bounds the memory *and* the count of
messages on their way.
"""

from __future__ import annotations

__all__ = [
    "ACK_MASK",
    "DEFAULT_WINDOW",
    "GRANT_SHIFT",
    "MESSAGE_CHARGE",
    "STAGED_SIZE",
    "STAGE_CREDIT",
    "STAGE_PLACES",
]

DEFAULT_WINDOW = 4 * 1024 * 1024
"""Bytes that may be on their way on one stream in one direction. Measured: 1 MiB stalls on 64 KiB messages, 16 MiB
gains nothing."""

MESSAGE_CHARGE = 256
"""Bytes charged on top of each payload: about what a queued short message costs in Python objects."""

GRANT_SHIFT = 1
"""A grant is sent at once when it is worth the window shifted right by so much, that is, half of it. With a quarter
instead, 7 % fewer 64 KiB messages arrived, because each grant wakes the sender's process."""

ACK_MASK = 0xFFFFFFFF  # acknowledgements travel modulo 2**32

STAGE_PLACES = 64
"""Messages on a stage at most. So many share the cost of taking the lock and emptying the stage."""

STAGED_SIZE = 2048
"""Bytes of a payload that may be staged at most: a full stage fits into one frame together with what waits already."""

STAGE_CREDIT = STAGE_PLACES * (STAGED_SIZE + MESSAGE_CHARGE)
"""Bytes of credit that a full stage needs at most. A stage is opened only when there is as much."""
