"""What travels inside frames: round trips, garbage, and room for later versions."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteyuki_host.comm.errors import LocalProtocolError, RemoteProtocolError
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.frames import MAX_FRAME_PAYLOAD

CONTROL = [
    m.Hello(1, "nonebot", 4242, "lycomm 1", 1 << 20, 1 << 24),
    m.Goodbye("机器人停止"),
    m.Open(2, "channel", "nonebot-passive"),
    m.OpenRefused(3, "taken"),
    m.Unsubscribe(4),
    m.HooksDone(["OneBot V11"]),
    m.Ready("http://127.0.0.1:8080", {"OneBot V11": "ws://127.0.0.1:8080/onebot/v11/ws"}),
    m.Ready(None),
    m.Stop("restart"),
    m.Ping(1 << 62),
    m.Pong(0),
    m.ControlRequest(7, "restart", "nonebot"),
    m.ControlReply(7, None, b"\x01"),
    m.Subscribe(4),
    m.HooksDone(["OneBot V11"], ["nonebot_plugin_broken"]),
    m.WatchLoop(0.5),
    m.Beat(0.25),
    m.MoreTime(120.0, "building an index"),
    m.Drain(10.0),
    m.Drained(["echo (message.private.friend)"], 3, 2),
    m.DumpStacks(),
    m.ShutdownWork(True),
    m.OwnExit("bot.py line 7"),
    m.CannotStart("port 8080 on 127.0.0.1 is used by bot web of this host"),
    m.Close(4, 2**32 - 1),
    m.Closed(4),
    m.CloseRefused(5),
]
REQUESTS = [
    m.Put(1, "k", b"\xc0", 1.5, True),
    m.Remove(2, "k"),
    m.Increment(3, "k", -(2**63)),
    m.Increment(4, "k", 0.5),
    m.Compare(5, "k", None, b"\x01", 9),
    m.Compare(6, "k", b"\x01", None),
    m.Acquire(7, "k"),
    m.Release(8, "k", 7),
    m.Sync(9),
    m.Declare(10, "频道"),
    m.Withdraw(11, "k", 7),
    m.Reached(0, 3),
    m.Undeclare(11, "频道"),
]
EVENTS = [
    m.Change(1, "k", b"\xc0", 2.5),
    m.Change(2, "k", None),
    m.Done(3, "full", b"\x01", 2**63),
    m.Ordered(4, 700, 2**40),
    m.SnapshotPart([("a", b"\x01", 1, None), ("b", b"\x02", 2, 0.5)]),
    m.SnapshotEnd(5, ["x", "y"]),
    m.Declared("x"),
    m.Barrier(3),
    m.Undeclared("x"),
]


@pytest.mark.parametrize("message", CONTROL, ids=lambda message: type(message).__name__)
def test_control_messages_come_back_as_they_were(message: m.Control) -> None:
    assert m.decode_control(m.encode_control(message)) == message
    assert m.decode_control(memoryview(m.encode_control(message))) == message


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_requests_come_back_as_they_were(message: m.Request) -> None:
    back = m.decode_request(m.encode_message(message))
    assert back == message
    assert type(getattr(back, "by", 0)) is type(getattr(message, "by", 0))


@pytest.mark.parametrize("message", EVENTS, ids=lambda message: type(message).__name__)
def test_events_come_back_as_they_were(message: m.Event) -> None:
    assert m.decode_event(m.encode_message(message)) == message


def test_a_publication_comes_back_as_it_was() -> None:
    publication = m.Publication("news", b"\x00\xff", 1)
    assert m.decode_publication(m.encode_message(publication)) == publication


@pytest.mark.parametrize("union", [m.Control, m.Request, m.Event])
def test_every_message_has_an_example_here_and_a_tag_of_its_own(union: object) -> None:
    kinds = set(typing.get_args(union))
    assert kinds <= {type(example) for example in [*CONTROL, *REQUESTS, *EVENTS]}
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)


DECODERS = [m.decode_control, m.decode_request, m.decode_event, m.decode_publication]


@pytest.mark.parametrize("decode", DECODERS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x90",
        b"\x91\xcc\xff",
        b"\xa1\xff",
        b"\x92\x01\xa1\xff",
        b"\x93\x01\x01",
        b"\x91" * 5000,
    ],
    ids=repr,
)
def test_garbage_is_the_peers_fault(decode: typing.Callable[[bytes], object], garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="that cannot be read"):
        decode(garbage)


@given(st.sampled_from(DECODERS), st.binary(max_size=60))
def test_nothing_but_a_protocol_error_comes_out_of_garbage(
    decode: typing.Callable[[bytes], object], garbage: bytes
) -> None:
    try:
        decode(garbage)
    except RemoteProtocolError:
        pass


def test_fields_of_a_later_version_are_ignored_and_missing_ones_have_their_defaults() -> None:
    later = msgspec.msgpack.encode([1, 1, "nonebot", 5, "lycomm 9", 100, 200, True, "something new"])
    assert m.decode_control(later) == m.Hello(1, "nonebot", 5, "lycomm 9", 100, 200, True)
    earlier = msgspec.msgpack.encode([1, 1, "nonebot", 5])
    assert m.decode_control(earlier) == m.Hello(1, "nonebot", 5)


def test_a_control_message_that_needs_more_than_a_frame_is_our_own_fault() -> None:
    assert m.encode_control(m.Goodbye("x" * (MAX_FRAME_PAYLOAD - 100)))
    with pytest.raises(LocalProtocolError, match="a control message of 262,215 bytes, the limit is 262,208"):
        m.encode_control(m.Goodbye("x" * MAX_FRAME_PAYLOAD))
