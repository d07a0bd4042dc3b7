"""Two links joined by a transport, each with a handler that notes what arrives and consumes it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from liteyuki_host.comm.errors import LinkBroken, LinkError
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.link.reader import Reader, ReadTarget
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.messages import PROTOCOL_VERSION, Control, Hello
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.comm.transport.posix import socket_link
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["DEADLINE", "MAKERS", "End", "TricklingTransport", "close", "descriptors", "join", "lycomm_threads", "until"]

DEADLINE = 10.0


def until(condition: Callable[[], object], *, deadline: float = DEADLINE) -> None:
    """Wait for a fact that nobody announces."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.001)


def lycomm_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lycomm-")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class TricklingTransport:
    """Takes and gives bytes in the smallest pieces, often none; deterministic by its seed."""

    def __init__(self, inner: Any, seed: int) -> None:
        self._inner = inner
        self._random = random.Random(seed)

    def read_into(self, buffer: memoryview) -> int:
        return self._inner.read_into(buffer[: self._random.choice((1, 2, 3, 7, 100, 5000))])

    at_once = 0

    def send(self, data: bytes, at_once: int) -> int:
        return self.try_write([data])

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        size = self._random.choice((0, 0, 1, 2, 13, 300))
        data = b"".join(buffers)[:size]
        return self._inner.try_write([data]) if data else 0

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                size = self._random.choice((1, 5, 400, 70_000))
                self._inner.write_all([view[:size]])
                view = view[size:]

    def close(self) -> None:
        self._inner.close()

    def release(self) -> None:
        self._inner.release()


def trickling() -> tuple[Transport, Transport]:
    a, b = memory_link(777)
    return TricklingTransport(a, 1), TricklingTransport(b, 2)


def trickling_socket() -> tuple[Transport, Transport]:
    a, b = socket_link()
    return TricklingTransport(a, 3), TricklingTransport(b, 4)


MAKERS: dict[str, Callable[[], tuple[Transport, Transport]]] = {
    "memory": memory_link,
    "socket pairs": socket_link,
    "trickling memory": trickling,
    "trickling socket pair": trickling_socket,
}


class CheckedLock:
    """The lock of a link. When it is given back, nothing may be queued that nobody will look at, as long as the peer
    lives."""

    def __init__(self) -> None:
        self.link: Link | None = None  # whose lock it is, once that has been made
        self._lock = threading.RLock()
        self._depth = 0
        self.faults: list[str] = []
        self.forgotten = False

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        acquired = self._lock.acquire(blocking, timeout)
        if acquired:
            self._depth += 1
        return acquired

    def release(self) -> None:
        if self.link is not None and self._is_owned():
            self._depth -= 1
            if not self._depth:
                self._look(self.link)
        self._lock.release()

    def _look(self, link: Link) -> None:
        looks = link.writer.writing or (link.writer.armed and link.writer.grants_of is None)
        queued = link.connection.has_output
        if queued and not (looks or link.ended or link._close_reason):
            self.forgotten = True
        if link.writer.quiet == (looks or link.ended or queued):
            self.faults.append(f"quiet: {link.writer.quiet}, looks: {looks}, ended: {link.ended}, queued: {queued}")

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class End:
    """A link and its handler."""

    def __init__(
        self,
        role: Role,
        transport: Transport,
        *,
        window: int = 1 << 20,
        version: int = PROTOCOL_VERSION,
        reader: Callable[[Transport, ReadTarget, str], Reader] | None = None,
    ) -> None:
        hello = Hello(version, role.name.lower(), os.getpid(), "test", window, 1 << 24)
        self.transport = transport
        self.lock = CheckedLock()
        monitor = Monitor(self.lock)
        name = f"test-{role.name.lower()}"
        self.link = Link(transport, Connection(role, hello), self, name=name, monitor=monitor, reader=reader)
        self.lock.link = self.link
        self.greeted = threading.Event()
        self.ended = threading.Event()
        self.causes: list[LinkError] = []
        self.got: list[tuple[str, bytes]] = []
        self.flags: list[int] = []
        self.controls: list[Control] = []
        self.streams: list[Stream] = []
        self.consuming = True
        self.on_got: Callable[[Stream, bytes, int, int], None] | None = None
        self.short = 0  # messages that went the short way
        self._shortcuts: dict[Stream, Callable[..., bool]] = {}
        self._room = threading.Condition()

    def on_hello(self, hello: Hello) -> None:
        self.greeted.set()

    def on_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        for payload in payloads:
            self.got.append((stream.key[1], payload))
            self.flags.append(flags)
            if self.on_got is not None:
                self.on_got(stream, payload, flags, request_id)
        if self.consuming:
            self.link.consumed(stream, sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads))

    def on_control(self, message: Control) -> None:
        self.controls.append(message)

    def on_opened(self, stream: Stream) -> None:
        self.streams.append(stream)

    def on_credit(self, stream: Stream) -> None:
        with self._room:
            self._room.notify_all()

    def on_end(self, cause: LinkError) -> None:
        self.causes.append(cause)
        self.ended.set()
        with self._room:
            self._room.notify_all()

    def send(self, stream: Stream, payload: bytes, flags: int = 0) -> None:
        """Send, waiting for credit."""
        shortcut = self._shortcuts.setdefault(stream, self.link.shortcut(stream))
        if not flags and shortcut(payload):
            self.short += 1
            return
        while not self.link.send(stream, payload, flags):
            with self._room:
                if not stream.has_room(len(payload)):
                    assert self._room.wait(DEADLINE)

    def unconsumed(self) -> int:
        return sum(len(s.unacknowledged) for s in set(self.link.connection.streams.values()))


def join(make: Callable[[], tuple[Transport, Transport]] = memory_link, **options: Any) -> tuple[End, End]:
    """Two greeted ends: host, child. *options* are those of :class:`End`."""
    there, back = make()
    host, child = End(Role.HOST, there, **options), End(Role.CHILD, back, **options)
    host.link.start()
    child.link.start()
    assert host.greeted.wait(DEADLINE)
    assert child.greeted.wait(DEADLINE)
    return host, child


def close(*ends: End) -> None:
    """End the links and see that nothing of them is left."""
    for end in ends:
        end.link.close("the test is over")
    for end in ends:
        end.link.join(DEADLINE)
        assert end.ended.is_set()
        assert end.lock.faults == []
        assert not end.lock.forgotten or isinstance(end.causes[0], LinkBroken)
        assert len(end.causes) == 1
