"""What becomes of a request to the shared memory."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["Outcome", "Refusal"]


class Refusal:
    """Codes of a refused request, in Done.error."""

    FULL: Final = "full"
    NOT_A_NUMBER: Final = "not a number"
    CHANGED: Final = "changed"  # compare: the key does not hold what was expected; value and revision say what
    NOT_HELD: Final = "not held"
    HELD: Final = "held"  # withdraw: the lock was not granted; value says which process holds it
    HOST_GONE: Final = "the host went away before it answered; whether it was done is unknown"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a request."""

    error: str | None
    value: bytes | None
    revision: int
