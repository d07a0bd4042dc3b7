"""What a child gets first: the whole shared memory and the names of all channels."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.storage.store import Store

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["send_snapshot"]

SNAPSHOT_PART = 64 * 1024
"""Bytes of values in one part of a snapshot."""

SNAPSHOT_NAMES = 256
"""Names of channels in the last message of a snapshot: of at most 200 characters each, so 200 KB. Further names go
before it, one by one."""


def send_snapshot(session: Session, store: Store, channels: Iterable[str]) -> None:
    """Send the whole shared memory, and the names of all *channels*. The caller holds the hub's lock, so every later
    change follows it."""
    now = time.monotonic()
    part: list[tuple[str, bytes, int, float | None]] = []
    size = 0
    for item in store.snapshot(now):
        part.append(item)
        size += len(item[0]) + len(item[1])
        if size >= SNAPSHOT_PART:
            session.send_memory(messages.encode_message(messages.SnapshotPart(part)))
            part, size = [], 0
    if part:
        session.send_memory(messages.encode_message(messages.SnapshotPart(part)))
    names = sorted(channels)
    for name in names[SNAPSHOT_NAMES:]:
        session.send_memory(messages.encode_message(messages.Declared(name)))
    end = messages.SnapshotEnd(store.revision, names[:SNAPSHOT_NAMES])
    session.send_memory(messages.encode_message(end))
    session.snapshot_sent()
