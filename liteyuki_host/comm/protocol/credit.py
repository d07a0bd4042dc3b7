"""Credit: how much of a stream may be on its way, counted in bytes.

Each message is charged its size plus :data:`MESSAGE_CHARGE`, so one number bounds memory *and* count. The receiver
grants cumulatively as it consumes, and a grant is the acknowledgement: what the sender still holds in
:attr:`Stream.unacknowledged` is exactly what nobody has consumed.
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
"""Bytes of one stream, one direction. Measured: 1 MiB stalls on 64 KiB messages, 16 MiB gains nothing."""

MESSAGE_CHARGE = 256
"""Bytes charged on top of each payload: about what a queued short message costs in Python objects."""

GRANT_SHIFT = 1
"""What is granted at once is a window shifted right by so much: half of it. With a quarter, measured beside it, 7 %
fewer 64 KiB messages arrive: each grant wakes the sender's process."""

ACK_MASK = 0xFFFFFFFF  # acknowledgements travel modulo 2**32

STAGE_PLACES = 64
"""Messages on a stage at most. What the lock and the look at the stage cost is shared by so many."""

STAGED_SIZE = 2048
"""Bytes of a payload up to which it may be staged: a full stage fits into one frame with what waits already."""

STAGE_CREDIT = STAGE_PLACES * (STAGED_SIZE + MESSAGE_CHARGE)
"""Bytes of credit that a full stage may need."""
