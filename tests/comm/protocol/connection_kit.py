"""Two connections with nothing between them but lists of bytes."""

from __future__ import annotations

from typing import NamedTuple

from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.messages import PROTOCOL_VERSION, Control, Hello
from liteyuki_host.comm.protocol.stream import Stream

__all__ = ["Arrived", "ControlArrived", "Credited", "Opened", "Peer", "cost", "exchange", "greeted", "hello"]


def hello(process: str = "p", *, version: int = PROTOCOL_VERSION, window: int = 1 << 20, limit: int = 1 << 20) -> Hello:
    return Hello(version, process, 1, f"lycomm of {process}", window, limit, True)


class Arrived(NamedTuple):
    stream: Stream
    payloads: list[bytes]
    flags: int
    request_id: int


class Credited(NamedTuple):
    stream: Stream


class Opened(NamedTuple):
    stream: Stream


class ControlArrived(NamedTuple):
    message: Control


Event = Arrived | Credited | Opened | ControlArrived


class Peer:
    """One end, which notes what arrives and consumes it when told to."""

    def __init__(self, role: Role, greeting: Hello | None = None) -> None:
        self.connection = Connection(role, greeting or hello(role.name.lower()))
        self.events: list[Event] = []

    # Inbound.

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        self.events.append(Arrived(stream, payloads, flags, request_id))

    def on_credit(self, stream: Stream) -> None:
        self.events.append(Credited(stream))

    def on_opened(self, stream: Stream) -> None:
        self.events.append(Opened(stream))

    def on_control(self, message: Control) -> None:
        self.events.append(ControlArrived(message))

    def output(self) -> bytes:
        """Everything that wants to be written, as one piece."""
        parts = []
        while buffers := self.connection.data_to_send():
            parts.append(b"".join(buffers))
        return b"".join(parts)

    def input(self, data: bytes, step: int | None = None) -> None:
        for i in range(0, len(data), step or len(data) or 1):
            self.connection.receive_data(data[i : i + (step or len(data))], self)

    def consume_all(self) -> None:
        for stream in set(self.connection.streams.values()):
            if stream.consumed != stream.received:
                stream.consume(stream.received - stream.consumed)

    @property
    def arrived(self) -> list[tuple[str, bytes]]:
        """(stream's name, payload) of every message, in order."""
        return [(e.stream.key[1], p) for e in self.events if isinstance(e, Arrived) for p in e.payloads]

    @property
    def controls(self) -> list[object]:
        return [e.message for e in self.events if isinstance(e, ControlArrived)]

    @property
    def opened(self) -> list[Stream]:
        return [e.stream for e in self.events if isinstance(e, Opened)]

    def unacknowledged(self, stream: Stream) -> list[bytes]:
        return [p for run in stream.unacknowledged for p in run.unconsumed(stream.acknowledged)]


def exchange(a: Peer, b: Peer, step: int | None = None) -> None:
    """Carry bytes both ways until nobody has any more."""
    while True:
        there, back = a.output(), b.output()
        if not there and not back:
            return
        b.input(there, step)
        a.input(back, step)


def greeted(window: int = 1 << 20, limit: int = 1 << 24) -> tuple[Peer, Peer]:
    """Host and child after their greeting, with no events noted yet."""
    host = Peer(Role.HOST, hello("host", window=window, limit=limit))
    child = Peer(Role.CHILD, hello("child", window=1 << 30, limit=1 << 30))
    exchange(host, child)
    host.events.clear()
    child.events.clear()
    return host, child


def cost(*payloads: bytes) -> int:
    return sum(len(payload) + MESSAGE_CHARGE for payload in payloads)
