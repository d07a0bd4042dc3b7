"""What is checked of keys, values and limits of the shared memory, and the words of its errors."""

from __future__ import annotations

import math
import time
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.errors import (
    ChannelFull,
    RequestTimeout,
    SharedMemoryError,
    ValueRefused,
    ValueTooLarge,
    ValueUnreadable,
)
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.storage.store import MAX_KEY_SIZE
from liteyuki_host.comm.storage.values import MISSING, Expiring
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

__all__ = ["alive", "check_key", "check_ttl", "checked_timeout", "decoded", "synchronized", "writes_full"]


def alive(value: Expiring) -> Any:
    return value.value if time.monotonic() < value.deadline else MISSING


def decoded(key: str, payload: bytes) -> Any:
    try:
        return codec.decode(payload)
    except ValueUnreadable as error:
        raise ValueUnreadable(f"shared_memory[{key!r}]: {error}") from error


def check_key(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"a key of the shared memory is a text, not {type(key).__name__}")
    if key.isascii() and len(key) <= MAX_KEY_SIZE:
        return
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueRefused(f"key {key!r:.80}: a text with a lone surrogate cannot travel") from None
    if size > MAX_KEY_SIZE:
        raise ValueTooLarge(f"a key of {size:,} bytes, the limit is {MAX_KEY_SIZE} bytes: {key[:40]!r}...")


def check_ttl(ttl: float) -> None:
    if not (codec.is_number(ttl) and ttl > 0):
        raise ValueError(f"ttl is a positive number of seconds, not {ttl!r}")


def writes_full(key: str) -> ChannelFull:
    return ChannelFull(
        f"shared_memory[{key!r}]: too many writes are on their way, and waiting here would freeze the event loop; "
        "use `await shared_memory.aset(...)`"
    )


def synchronized(outcome: Outcome | Nothing, timeout: float) -> int:
    if outcome is NOTHING:
        raise RequestTimeout(
            f"shared_memory.sync(): not every process has handed over its writes within {timeout} s; "
            "one of them may be frozen, or very busy"
        )
    if outcome.error is not None:
        raise SharedMemoryError(f"shared_memory.sync(): {outcome.error}")
    return outcome.revision


def checked_timeout(timeout: float | None) -> float | None:
    if timeout is None or timeout == math.inf:
        return None
    if not (codec.is_number(timeout) and timeout >= 0):
        raise ValueError(f"the timeout of a lock is a number of seconds, 0 or more, or None, not {timeout!r}")
    return timeout
