"""The shared memory. Names are resolved on first use, so that the host's half loads nothing of the handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liteyuki_host._lazy import resolve

if TYPE_CHECKING:
    from liteyuki_host.comm.storage.lock import Lock as Lock
    from liteyuki_host.comm.storage.memory import SharedMemory as SharedMemory
    from liteyuki_host.comm.storage.memory import shared_memory as shared_memory
    from liteyuki_host.comm.storage.values import MISSING as MISSING
    from liteyuki_host.comm.storage.watch import Changed as Changed
    from liteyuki_host.comm.storage.watch import Watch as Watch

__all__ = ["MISSING", "Changed", "Lock", "SharedMemory", "Watch", "shared_memory"]

_HOMES = {
    "MISSING": ".values",
    "Lock": ".lock",
    "SharedMemory": ".memory",
    "shared_memory": ".memory",
    "Changed": ".watch",
    "Watch": ".watch",
}


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
