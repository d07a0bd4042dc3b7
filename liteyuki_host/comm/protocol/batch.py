"""Messages of one stream that wait to be written, and then to be acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE

if TYPE_CHECKING:
    from liteyuki_host.comm.protocol.stream import Stream

__all__ = ["PAYLOAD_HEADER", "Batch"]

PAYLOAD_HEADER = 5
"""Bytes in front of each payload of a batch frame, at most (MessagePack bin 32)."""


class Batch(msgspec.Struct, eq=False):
    """Consecutive messages of one stream, in the order sent. Kept until acknowledged as a whole.

    Messages with flags are alone in theirs. A Struct: there is one for each lone message, and it is made faster.

    Attributes:
        size: bytes in a batch.
        start: the stream's cumulative cost before the first message.
        end: and after the last.
        attempts: how often it was first in line when its receiver died.
    """

    stream: Stream
    payloads: list[bytes]
    size: int
    start: int
    end: int
    flags: int = 0
    request_id: int = 0
    attempts: int = 0

    @staticmethod
    def of(stream: Stream, payload: bytes, start: int, flags: int = 0, request_id: int = 0, attempts: int = 0) -> Batch:
        """One message."""
        size = len(payload)
        return Batch(
            stream, [payload], size + PAYLOAD_HEADER, start, start + size + MESSAGE_CHARGE, flags, request_id, attempts
        )

    def unconsumed(self, acknowledged: int) -> list[bytes]:
        """The payloads that *acknowledged* does not cover."""
        position = self.start
        for index, payload in enumerate(self.payloads):
            position += len(payload) + MESSAGE_CHARGE
            if position > acknowledged:
                return self.payloads[index:]
        return []
