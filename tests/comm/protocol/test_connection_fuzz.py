"""Whatever bytes arrive: events, or RemoteProtocolError, and bounded memory. Whatever is sent: it arrives."""

from __future__ import annotations

import random

import pytest
from connection_kit import Peer, exchange, greeted, hello
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.connection import ENVELOPE, Role
from liteyuki_host.comm.protocol.frames import CHUNK_SIZE, KINDS, Flag, Kind, encode_frame

WINDOW = 20_000
LIMIT = 1 << 20


def greet_only(role: Role) -> Peer:
    peer = Peer(role, hello(window=WINDOW, limit=LIMIT))
    peer.input(encode_frame(Kind.CONTROL, m.encode_message(hello("other", window=WINDOW, limit=LIMIT))))
    return peer


def survives(peer: Peer, data: bytes, step: int) -> None:
    """Feed until the end or the fault, and look at what is held."""
    try:
        peer.input(data, step)
    except RemoteProtocolError:
        pass
    connection = peer.connection
    held = len(connection._partial.getvalue())
    assert held <= LIMIT + ENVELOPE + CHUNK_SIZE
    assert connection._partial.tell() <= held
    for stream in connection.streams.values():
        if not stream.trusted:
            assert stream.received - stream.consumed <= max(WINDOW, LIMIT + ENVELOPE + 256)


@given(st.binary(max_size=400), st.integers(1, 50), st.sampled_from(Role))
@example(b"\x00" * 12, 1, Role.HOST)
def test_random_bytes_are_events_or_a_protocol_error(data: bytes, step: int, role: Role) -> None:
    survives(greet_only(role), data, step)
    survives(Peer(role), data, step)


raw_frames = st.builds(
    lambda kind, flags, stream, ack, payload: encode_frame(kind, payload, flags=flags, stream=stream, ack=ack),
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 65535]),
    st.integers(0, 0xFFFFFFFF),
    st.one_of(
        st.binary(max_size=40),
        st.lists(st.integers(-3, 1 << 20), max_size=6).map(m._encoder.encode),
        st.lists(st.one_of(st.integers(0, 4), st.lists(st.binary(max_size=9), max_size=4)), max_size=6).map(
            m._encoder.encode
        ),
        st.sampled_from([m.Open(2, "channel", "x"), m.Open(3, "topic", "y"), m.Ping(1), m.Goodbye("z")]).map(
            m.encode_message
        ),
    ),
)


@given(st.lists(raw_frames, max_size=12), st.integers(1, 60), st.sampled_from(Role))
def test_well_formed_frames_of_nonsense_are_events_or_a_protocol_error(
    frames: list[bytes], step: int, role: Role
) -> None:
    survives(greet_only(role), b"".join(frames), step)


def conversation() -> bytes:
    """What a busy child says to its host, as one string of bytes."""
    _host, child = greeted(window=1 << 20, limit=LIMIT)
    connection = child.connection
    x, y = connection.open_stream("channel", "x"), connection.open_stream("topic", "y")
    for number in range(12):
        connection.send(x, bytes([number]))
        connection.send(y, b"y" * number)
    connection.send(x, b"raw", Flag.RAW)
    connection.send(x, b"question", Flag.REQUEST, 9)
    connection.send(connection.store, m.encode_message(m.Put(1, "k", b"\xa1v")))
    connection.send_control(m.Ready("http://127.0.0.1:8080", {"a": "b"}))
    said = child.output()
    connection.send(x, b"z" * (CHUNK_SIZE + 10))
    return said + child.output()


SAID = conversation()
SHORT = 700  # bytes before the large message, where the structure is


@settings(max_examples=200)
@given(st.data(), st.integers(1, 200))
def test_a_mutated_conversation_is_events_or_a_protocol_error(data: st.DataObject, step: int) -> None:
    said = bytearray(SAID[:SHORT] if data.draw(st.booleans()) else SAID)
    for _ in range(data.draw(st.integers(1, 4))):
        if not said:  # an earlier deletion took all of it
            break
        place = data.draw(st.integers(0, min(len(said), SHORT) - 1))
        what = data.draw(st.sampled_from(["flip", "insert", "delete", "cut"]))
        if what == "flip":
            said[place] ^= data.draw(st.integers(1, 255))
        elif what == "insert":
            said[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        elif what == "delete":
            del said[place : place + data.draw(st.integers(1, 8))]
        else:
            del said[max(place, 1) :]
    survives(greet_only(Role.HOST), bytes(said), step if len(said) <= SHORT else step * 5000)


def test_the_conversation_itself_is_all_heard() -> None:
    host = greet_only(Role.HOST)
    host.connection.window = 1 << 20
    host.input(SAID, 1000)
    assert len(host.arrived) == 12 * 2 + 4


@pytest.mark.parametrize("seed", range(5))
def test_whole_random_buffers(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(200):
        survives(greet_only(Role.CHILD), generator.randbytes(generator.randrange(2000)), 2000)


def test_a_large_message_in_the_smallest_pieces_is_held_only_once() -> None:
    peer = greet_only(Role.HOST)
    first = LIMIT.to_bytes(8, "big") + bytes(8) + b"x"
    peer.input(encode_frame(Kind.CHUNK, first, stream=1, flags=Flag.FIRST))
    with pytest.raises(RemoteProtocolError, match="an empty piece"):
        peer.input(encode_frame(Kind.CHUNK, b"", stream=1) * 5)


sends = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.integers(0, 300), st.sampled_from([16_379, 16_384, 20_000, CHUNK_SIZE, CHUNK_SIZE + 1, 600_000])),
        st.sampled_from([0, 0, 0, Flag.RAW]),
        st.sampled_from(["", "", "pump", "consume"]),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(sends, sends, st.sampled_from([None, 997, 65_536]))
def test_whatever_is_accepted_arrives_once_and_in_order(
    ours: list[tuple[str, int, int, str]], theirs: list[tuple[str, int, int, str]], step: int | None
) -> None:
    host, child = greeted(window=30_000, limit=1 << 20)
    accepted: dict[int, list[tuple[str, bytes]]] = {0: [], 1: []}
    for index in range(max(len(ours), len(theirs))):
        for number, (peer, other, todo) in enumerate([(host, child, ours), (child, host, theirs)]):
            if index >= len(todo):
                continue
            name, size, flags, then = todo[index]
            stream = peer.connection.open_stream("channel", name)
            payload = bytes([index]) * size
            if peer.connection.send(stream, payload, flags):
                accepted[number].append((name, payload))
            if then:
                exchange(host, child, step)
            if then == "consume":
                other.consume_all()
    for _ in range(2):
        exchange(host, child, step)
        host.consume_all()
        child.consume_all()
    exchange(host, child, step)
    assert child.arrived == accepted[0]
    assert host.arrived == accepted[1]
    for peer in (host, child):
        for stream in peer.connection.streams.values():
            assert not stream.unacknowledged
            assert stream.sent == stream.acknowledged
            assert stream.received == stream.consumed
        assert peer.connection.pending == 0
