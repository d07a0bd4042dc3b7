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
    """Consecutive messages of one stream, in the order sent. Kept until all of them are acknowledged.

    A message with flags has a batch of its own. A Struct, because there is one for each lone message, and a Struct is
    made faster than an object.

    Attributes:
        size: bytes that the payloads take in a batch frame.
        start: the stream's *sent* before the first message was charged.
        end: the stream's *sent* after the last one was.
        attempts: how often the first message was first in line when its receiver died.
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
    def of(stream: Stream, payload: bytes, flags: int = 0, request_id: int = 0, attempts: int = 0) -> Batch:
        """Charge one message to *stream*, and return its batch. The caller holds the link's lock."""
        size = len(payload)
        cost = size + MESSAGE_CHARGE
        end = stream.charge(cost)
        return Batch(stream, [payload], size + PAYLOAD_HEADER, end - cost, end, flags, request_id, attempts)

    @staticmethod
    def reply(stream: Stream, payload: bytes, flags: int, request_id: int) -> Batch:
        """Return the batch of an answer. Answers have no credit and are not acknowledged, so nothing is charged."""
        return Batch(stream, [payload], len(payload) + PAYLOAD_HEADER, 0, 0, flags, request_id)

    def unconsumed(self, acknowledged: int) -> list[bytes]:
        """Return the payloads that the stream's *acknowledged* does not cover."""
        position = self.start
        for index, payload in enumerate(self.payloads):
            position += len(payload) + MESSAGE_CHARGE
            if position > acknowledged:
                return self.payloads[index:]
        return []
