"""An exception that nobody expects while a link is written or read: the link ends, with its cause, and never falls
silent.

An exception in the writer used to leave the writing role held for ever; in the reader's thread it ended the reader.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from interrupting import failing_at_call
from link_kit import DEADLINE, End, close, join, until

from liteyuki_host.comm.errors import LinkBroken, LycommError
from liteyuki_host.comm.protocol.connection import Connection
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.comm.transport.posix import socket_link

ERRORS = [MemoryError, KeyboardInterrupt, RuntimeError]

NOT_FAILING = frozenset({"leave", "settle", "fail", "write_failed", "_leave", "_note_quiet", "wake", "_look"})
"""What is called to give up a lock or a role: it takes no memory to speak of. The last one is the kit's own."""


@pytest.fixture(params=[memory_link, socket_link], ids=["memory", "sockets"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    host, child = join(request.param)
    yield host, child
    close(host, child)


def both_hear(host: End, child: End, of: str) -> None:
    """Both sides have been told that the link is over; the one where it failed also why."""
    assert host.ended.wait(DEADLINE)
    assert child.ended.wait(DEADLINE)
    assert of in str(host.causes[0])
    assert isinstance(host.causes[0], LinkBroken)


def works(host: End, child: End) -> bool:
    """Whether the link does what it should in both directions, and nobody holds its lock."""
    assert host.link.monitor.acquire(timeout=DEADLINE)
    host.link.monitor.release()
    return host.link.ping(DEADLINE) is not None and child.link.ping(DEADLINE) is not None


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("what", ["alone", "large", "many", "control"])
def test_a_failing_step_of_a_sender_never_silences_the_link(error: type[BaseException], what: str) -> None:
    """Whatever function of ours fails in the sender's thread, each in its turn."""
    for step in itertools.count():
        host, child = join(socket_link)
        stream = host.link.open_stream("channel", "x")
        shortcut = host.link.shortcut(stream)

        def send(host: End = host, stream: Stream = stream, shortcut: Any = shortcut) -> None:
            if what == "alone":
                assert shortcut(b"alone") or host.link.send(stream, b"alone")
            elif what == "large":
                host.link.send(stream, bytes(300_000), Flag.RAW)
            elif what == "many":
                for _ in range(12):
                    assert shortcut(b"many") or host.link.send(stream, b"many")
            else:
                host.link.writer.consumed(stream, 0)
                host.link.write_queued()

        with failing_at_call(error, step, without=NOT_FAILING) as failed:
            try:
                send()
            except (LycommError, error):
                pass
        if not failed:
            close(host, child)
            break
        if host.link.writer.failure is not None:
            both_hear(host, child, error.__name__)
        elif not host.ended.is_set():
            assert works(host, child), failed
        for end in (host, child):  # without the kit's checks: what was interrupted may look half done
            end.link.close("the step is over")
            end.link.join(DEADLINE)
            assert end.ended.is_set()
    assert step > 0


class Failing(Connection):
    """Fails once, in what *failing* names."""

    failing = ""
    error: type[BaseException] = MemoryError

    def _fail_in(self, name: str) -> None:
        if self.failing == name:
            self.failing = ""
            raise self.error("no more")

    def data_to_send(self, **options: Any) -> Any:
        self._fail_in("data_to_send")
        return super().data_to_send(**options)

    def receive(self, *arguments: Any) -> None:
        self._fail_in("receive")
        super().receive(*arguments)


def let_fail(end: End, name: str, error: type[BaseException]) -> None:
    end.link.connection.__class__ = Failing
    end.link.connection.error = error  # type: ignore[attr-defined]
    end.link.connection.failing = name  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", ERRORS)
def test_a_failing_flusher_ends_the_link_with_its_cause(ends: tuple[End, End], error: type[BaseException]) -> None:
    host, child = ends
    let_fail(host, "data_to_send", error)
    with host.link.monitor.lock:
        host.link.connection.open_stream("channel", "x")  # queued, for the flusher to write
        host.link.flush(0)
    both_hear(host, child, f"writing to test-host failed inside lycomm: {error.__name__}")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_failing_reader_ends_the_link_with_its_cause(ends: tuple[End, End], error: type[BaseException]) -> None:
    host, child = ends
    let_fail(host, "receive", error)
    child.link.ping(0.1)
    both_hear(host, child, f"failed inside lycomm: {error.__name__}")


def test_the_peer_of_a_failed_writer_is_no_longer_waited_for(ends: tuple[End, End]) -> None:
    """Who waited for room or an answer waited for ever."""
    host, child = ends
    stream = host.link.open_stream("channel", "x")
    let_fail(host, "data_to_send", MemoryError)
    with pytest.raises(MemoryError):
        host.link.send(stream, bytes(20_000))
    both_hear(host, child, "MemoryError")
    with pytest.raises(LycommError):
        host.link.send(stream, b"more")


@pytest.mark.parametrize("kind", ["MESSAGE", "CHUNK"])
@pytest.mark.parametrize("flags", [Flag.UNCREDITED, Flag.LAST, Flag.REQUEST | Flag.REPLY])
def test_flags_that_would_harm_a_third_process_end_the_link(ends: tuple[End, End], flags: int, kind: str) -> None:
    """Handed on, they broke the link of whoever got the message."""
    host, child = ends
    if kind == "CHUNK" and flags == Flag.LAST:
        pytest.skip("that is what the last piece has")
    stream = host.link.open_stream("channel", "x")
    until(lambda: child.streams)
    host.link.writer.send(stream, bytes(300_000 if kind == "CHUNK" else 10), flags)
    assert child.ended.wait(DEADLINE)
    assert "with the flags" in str(child.causes[0])
    assert child.got == []
    assert host.ended.wait(DEADLINE)
