"""The writing role at the end of a link: whoever has it gives it up, so that the transport is given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from link_kit import DEADLINE, End

from liteyuki_host.comm.link import writer
from liteyuki_host.comm.protocol.connection import Role
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport.memory import memory_link


class HeldTransport:
    """Takes one byte less than it is given once ``hold`` is called, and runs a function in the middle of that write.
    Tells when it is given back."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._meanwhile: Callable[[], None] | None = None
        self.released = threading.Event()

    def hold(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    at_once = 0

    def send(self, data: bytes, at_once: int) -> int:
        return self.try_write([data])

    def try_write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is None:
            return self._inner.try_write(buffers)
        meanwhile()
        return sum(map(len, buffers)) - 1

    def release(self) -> None:
        self._inner.release()
        self.released.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class GatedThread(DaemonThread):
    """A flusher that does not get to run before the gate is opened."""

    gate = threading.Event()

    def run(self) -> None:
        assert self.gate.wait(DEADLINE)
        super().run()


def joined(transport: HeldTransport, theirs: Any) -> tuple[End, End]:
    host, child = End(Role.HOST, transport), End(Role.CHILD, theirs)
    host.link.start()
    child.link.start()
    assert host.greeted.wait(DEADLINE)
    return host, child


def test_the_flusher_gives_the_role_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been handed what a write has left over, and before it gets to that the link ends."""
    monkeypatch.setattr(GatedThread, "gate", threading.Event())
    monkeypatch.setattr(writer, "DaemonThread", GatedThread)
    ours, theirs = memory_link()
    transport = HeldTransport(ours)
    host, child = joined(transport, theirs)
    stream = host.link.open_stream("channel", "x")
    transport.hold(lambda: None)
    assert host.link.send(stream, b"x" * 100)
    theirs.close()
    assert host.ended.wait(DEADLINE)
    assert not transport.released.is_set(), "somebody still has the role"
    GatedThread.gate.set()
    assert transport.released.wait(DEADLINE)
    host.link.join(DEADLINE)
    child.link.join(DEADLINE)


def test_a_rest_is_not_left_to_a_flusher_that_has_ended() -> None:
    """The link ends in the middle of a write, and the flusher with it, before the write is known to have a rest."""
    ours, theirs = memory_link()
    transport = HeldTransport(ours)
    host, child = joined(transport, theirs)
    stream = host.link.open_stream("channel", "x")

    def end() -> None:
        theirs.close()
        assert host.ended.wait(DEADLINE)
        host.link.join(DEADLINE)

    transport.hold(end)
    assert host.link.send(stream, b"x" * 100)
    assert transport.released.wait(DEADLINE)
    child.link.join(DEADLINE)
