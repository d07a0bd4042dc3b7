"""Thread switches between two bytecodes, where no lock is held: each possible one is made once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from link_kit import DEADLINE, End, close, join, until

from liteyuki_host.comm.channel.end import StreamSource
from liteyuki_host.comm.protocol.stream import Stream


@pytest.fixture
def joined() -> Iterator[tuple[End, End, Stream]]:
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    until(lambda: child.streams)
    child.consuming = False  # answers have no credit
    yield host, child, stream
    close(host, child)


def interrupted(function: Callable[[], object], code: object, at: int, other: Callable[[], object]) -> bool:
    """Call *function*; before bytecode number *at* of the function with *code*, call *other*, as another thread might.
    Returns whether there was such a bytecode."""
    left = at
    done = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left, done
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not done:
            if left == 0:
                done = True
                other()
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return done


USES: dict[str, Callable[[StreamSource], object]] = {
    "reply": lambda source: source.reply(b"an answer", 0, 1),
    "consumed": lambda source: source.consumed(0),
    "used": lambda source: source.used(0),
    "grant": lambda source: source.grant(),
}


@pytest.mark.parametrize("use", USES)
def test_a_stream_closed_meanwhile_breaks_no_link(joined: tuple[End, End, Stream], use: str) -> None:
    """A late answer went to a living link with the number of another stream, and the peer ended the link for that."""
    host, child, stream = joined
    code = getattr(StreamSource, use).__code__
    at = 0
    while True:
        source = StreamSource(host.link, stream)
        if not interrupted(lambda: USES[use](source), code, at, source.detach):  # noqa: B023  # at once
            break
        at += 1
    assert at > 5, "the bytecodes were counted"
    assert host.link.ping(DEADLINE) is not None
    assert (child.causes, host.causes) == ([], [])
    assert {name for name, _ in child.got} <= {"x"}
