"""Two ends in memory: what one says, the other hears, and what it may not say."""

from __future__ import annotations

import msgspec
import pytest
from connection_kit import Arrived, Peer, cost, exchange, greeted, hello

from liteyuki_host.comm.errors import LocalProtocolError, RemoteProtocolError
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.connection import ENVELOPE, Role
from liteyuki_host.comm.protocol.frames import CHUNK_SIZE, HEADER, Flag, FrameDecoder, Kind, encode_frame
from liteyuki_host.comm.protocol.outbound import LARGE, WRITE_SIZE
from liteyuki_host.comm.protocol.states import State

ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)


def ends(role: Role, **limits: int) -> tuple[Peer, Peer]:
    """A greeted pair, the one of *role* first."""
    host, child = greeted(**limits)
    return (host, child) if role is Role.HOST else (child, host)


def kinds(data: bytes) -> list[int]:
    """The kinds of the frames in *data*."""
    decoder = FrameDecoder()
    found = []
    while data:
        room = decoder.free
        part, data = data[: len(room)], data[len(room) :]
        room[: len(part)] = part
        found += [frame[0] for frame in decoder.buffer_updated(len(part))]
        decoder.compact()
    return found


# --- greeting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 7, None])
def test_both_sides_greet_and_agree_on_the_smaller_wishes(step: int | None) -> None:
    host = Peer(Role.HOST, hello("host", window=1000, limit=500))
    child = Peer(Role.CHILD, hello("bot", window=900, limit=600))
    before = child.connection.publish
    exchange(host, child, step)
    assert host.controls == [hello("bot", window=900, limit=600)]
    assert child.controls == [hello("host", window=1000, limit=500)]
    for side in (host, child):
        assert side.connection.state is State.OPEN
        assert (side.connection.window, side.connection.message_limit) == (900, 500)
        assert {stream.window for stream in side.connection.streams.values()} == {900}
    assert before.window == 900


@ROLES
def test_another_version_is_refused_in_words_a_person_can_act_on(role: Role) -> None:
    ours = Peer(role, hello("here"))
    theirs = Peer(Role(1 - role), hello("there", version=2))
    with pytest.raises(RemoteProtocolError) as caught:
        ours.input(theirs.output())
    assert str(caught.value) == (
        "the other side speaks version 2 of the link, this side version 1; install the same nonebot-plugin-lycomm "
        "in both environments (there: lycomm of there, here: lycomm of here)"
    )


@ROLES
def test_anything_before_the_greeting_is_refused(role: Role) -> None:
    for frame in (
        encode_frame(Kind.CONTROL, m.encode_message(m.Ping(1))),
        encode_frame(Kind.MESSAGE, b"\x01", stream=1),
        encode_frame(Kind.BATCH, b"\x90"),
        encode_frame(Kind.CHUNK, b"\x00" * 20, stream=1, flags=Flag.FIRST),
        encode_frame(Kind.GRANT, b"\x90"),
    ):
        peer = Peer(role)
        with pytest.raises(RemoteProtocolError, match="traffic is not legal in state greeting"):
            peer.input(frame)
        assert peer.events == []


@ROLES
def test_greeting_twice_is_refused(role: Role) -> None:
    _here, there = ends(role)
    with pytest.raises(RemoteProtocolError, match="hello is not legal in state open"):
        there.input(encode_frame(Kind.CONTROL, m.encode_message(hello())))


@ROLES
def test_what_was_sent_before_the_goodbye_may_follow_it(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"\x01")
    here.connection.send_control(m.Goodbye("done"))
    exchange(here, there)
    assert there.connection.state is State.CLOSING
    assert there.connection.goodbye == "done"
    assert there.arrived == [("x", b"\x01")]
    there.connection.receive_eof()
    there.connection.receive_eof()
    assert there.connection.state is State.CLOSED
    with pytest.raises(RemoteProtocolError, match="traffic is not legal in state closed"):
        there.input(encode_frame(Kind.GRANT, b"\x90"))


# --- messages -----------------------------------------------------------------------------------------------


@ROLES
@pytest.mark.parametrize("step", [1, 7, None])
def test_batches_keep_the_order_across_streams(role: Role, step: int | None) -> None:
    here, there = ends(role)
    streams = [here.connection.open_stream("channel", name) for name in ("a", "b", "c")]
    sent = []
    for number in range(60):
        stream = streams[number * number % 3]
        payload = bytes([number])
        assert here.connection.send(stream, payload)
        sent.append((stream.key[1], payload))
    data = here.output()
    assert kinds(data) == [Kind.CONTROL] * 3 + [Kind.BATCH]
    there.input(data, step)
    assert there.arrived == sent
    assert [stream.key for stream in there.opened] == [("channel", "a"), ("channel", "b"), ("channel", "c")]


@ROLES
def test_messages_that_are_read_at_once_are_told_together(role: Role) -> None:
    """They were written one by one; who answers them answers all at once."""
    ours, theirs = ends(role)
    x, y = (theirs.connection.open_stream("channel", name) for name in "xy")
    exchange(ours, theirs)
    mine = ours.connection.open_stream("channel", "x")
    ours.connection.send(mine, b"before")
    exchange(ours, theirs)
    ours.events.clear()
    written = b""
    for stream, payload, flags in (
        (x, b"1", 0),
        (x, b"2", 0),
        (y, b"3", 0),
        (x, b"4", Flag.RAW),
        (x, b"5", Flag.RAW),
        (x, b"6", 0),
        (x, b"7", 0),
        (x, b"8", Flag.RAW | Flag.REDELIVERED),
        (x, b"9", Flag.RAW | Flag.REDELIVERED),
    ):
        if payload == b"2":
            theirs.consume_all()  # which this one acknowledges
        theirs.connection.send(stream, payload, flags)
        written += theirs.output()
    assert kinds(written).count(Kind.MESSAGE) == 9
    ours.input(written)
    told = [e for e in ours.events if isinstance(e, Arrived)]
    assert [(e.stream.key[1], e.payloads, e.flags) for e in told] == [
        ("x", [b"1", b"2"], 0),
        ("y", [b"3"], 0),
        ("x", [b"4", b"5"], Flag.RAW),
        ("x", [b"6", b"7"], 0),
        ("x", [b"8"], Flag.RAW | Flag.REDELIVERED),
        ("x", [b"9"], Flag.RAW | Flag.REDELIVERED),
    ]
    assert mine.acknowledged == mine.sent
    assert mine.received == cost(*(b"%d" % number for number in (1, 2, 4, 5, 6, 7, 8, 9)))


@ROLES
@pytest.mark.parametrize("others", [[], [b"of another"]], ids=["nothing else", "with others"])
def test_what_of_one_stream_is_written_together_is_told_together(role: Role, others: list[bytes]) -> None:
    """However it was gathered; what is kept for redelivery stays as it was."""
    here, there = ends(role)
    x, y = (here.connection.open_stream("channel", name) for name in "xy")
    exchange(here, there)
    there.events.clear()
    count = WRITE_SIZE // 900 + 2  # the last one finds a run that is full
    payloads = [b"%03d" % number + bytes(892) for number in range(count)]  # 900 bytes each in a batch
    for payload in payloads:
        here.connection.send(x, payload)
    for payload in others:
        here.connection.send(y, payload)
    runs = [list(run.payloads) for run in x.unacknowledged]
    assert [len(run) for run in runs] == [count - 1, 1]
    exchange(here, there)
    told = [e for e in there.events if isinstance(e, Arrived)]
    assert [(e.stream.key[1], e.payloads) for e in told] == [("x", payloads), *(("y", [p]) for p in others)]
    assert [run.payloads for run in x.unacknowledged] == runs
    there.consume_all()
    exchange(there, here)
    assert not x.unacknowledged


@ROLES
def test_short_messages_before_a_fault_are_told(role: Role) -> None:
    peer, _ = ends(role)
    good = encode_frame(Kind.MESSAGE, b"good", stream=1)
    with pytest.raises(RemoteProtocolError):
        peer.input(good + good + encode_frame(Kind.MESSAGE, b"bad", stream=1, ack=1 << 20) + good)
    assert peer.arrived == [("", b"good")] * 2


@ROLES
def test_flags_sizes_and_large_messages_keep_the_order_too(role: Role) -> None:
    here, there = ends(role, window=1 << 24)
    a, b = (here.connection.open_stream("channel", name) for name in "ab")
    sent = []
    sizes = [1, LARGE - 6, LARGE - 5, LARGE, 3, CHUNK_SIZE, CHUNK_SIZE + 1, 0, 2, 3 * CHUNK_SIZE, 5, 70_000, 1]
    for number, size in enumerate(sizes * 2):
        stream = a if number % 3 else b
        payload = bytes([number]) * size
        flags = Flag.RAW if number % 4 == 1 else 0
        assert here.connection.send(stream, payload, flags)
        sent.append((stream.key[1], payload))
    exchange(here, there)
    assert there.arrived == sent
    assert here.connection.pending == 0
    assert not here.connection.has_output


@ROLES
def test_a_lone_payload_before_a_flagged_one_is_not_replaced_by_it(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"\x01")
    here.connection.send(stream, b"raw", Flag.RAW)
    here.connection.send(stream, b"\x02")
    exchange(here, there)
    assert there.arrived == [("x", b"\x01"), ("x", b"raw"), ("x", b"\x02")]


@ROLES
def test_floods_of_tiny_messages_never_make_an_illegal_frame(role: Role) -> None:
    host, child = greeted(window=1 << 28)
    here, there = (host, child) if role is Role.HOST else (child, host)
    streams = [here.connection.open_stream("channel", name) for name in "ab"]
    for stream in streams:
        for _ in range(60_000):
            assert here.connection.send(stream, b"\x01")
    exchange(here, there)
    assert len(there.arrived) == 120_000


@ROLES
def test_a_write_stays_near_its_size(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    for _ in range(1000):
        here.connection.send(stream, b"x" * 500)
    there.input(b"".join(here.connection.data_to_send()))
    sizes = []
    while buffers := here.connection.data_to_send():
        sizes.append(sum(map(len, buffers)))
    assert sum(sizes) > 400_000
    assert max(sizes) <= WRITE_SIZE + 2000


@ROLES
@pytest.mark.parametrize(("rest", "writes"), [([1000], 1), ([LARGE // 2] * 3, 2)], ids=["a little", "enough"])
def test_a_little_that_would_be_left_over_goes_along(role: Role, rest: list[int], writes: int) -> None:
    here, there = ends(role)
    first, second = (here.connection.open_stream("channel", name) for name in "xy")
    there.input(b"".join(here.connection.data_to_send()))
    while here.connection.pending < WRITE_SIZE:
        here.connection.send(first, b"x" * 1000)
    for size in rest:
        here.connection.send(second, b"y" * size)
    written = 0
    while buffers := here.connection.data_to_send():
        written += 1
        there.input(b"".join(buffers))
    assert written == writes
    assert [payload for name, payload in there.arrived if name == "y"] == [b"y" * size for size in rest]


@ROLES
@pytest.mark.parametrize("size", [3, LARGE + 5, 2 * CHUNK_SIZE + 5])
def test_requests_and_replies_carry_their_number(role: Role, size: int) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    number = (1 << 63) + 5
    here.connection.send(stream, b"q" * size, Flag.REQUEST | Flag.RAW, number)
    exchange(here, there)
    [event] = [e for e in there.events if isinstance(e, Arrived)]
    assert (event.payloads, event.flags, event.request_id) == ([b"q" * size], Flag.REQUEST | Flag.RAW, number)
    there.connection.send(there.opened[0], b"r" * size, Flag.REPLY, number)
    exchange(here, there)
    [event] = [e for e in here.events if isinstance(e, Arrived)]
    assert (event.payloads, event.flags, event.request_id) == ([b"r" * size], Flag.REPLY, number)


@ROLES
def test_a_reply_needs_no_credit_and_is_not_counted(role: Role) -> None:
    here, there = ends(role, window=1000)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"x" * 744)
    assert here.connection.send(stream, b"") is False
    for number in range(20):
        assert here.connection.send(stream, b"y" * 900, Flag.REPLY, number)
    exchange(here, there)
    assert len(there.arrived) == 21
    assert there.opened[0].received == 1000


# --- credit -------------------------------------------------------------------------------------------------


@ROLES
def test_sending_stops_at_the_window_and_goes_on_after_a_grant(role: Role) -> None:
    here, there = ends(role, window=1000)
    stream = here.connection.open_stream("channel", "x")
    assert [here.connection.send(stream, b"x" * 44) for _ in range(5)] == [True, True, True, False, False]
    assert here.connection.send(stream, b"x" * 44, Flag.RAW) is False
    exchange(here, there)
    assert here.unacknowledged(stream) == [b"x" * 44] * 3
    there.consume_all()
    exchange(here, there)
    assert here.unacknowledged(stream) == []
    assert here.connection.send(stream, b"x" * 44)


@ROLES
def test_a_message_larger_than_the_window_goes_alone(role: Role) -> None:
    here, there = ends(role, window=1000)
    stream = here.connection.open_stream("channel", "x")
    assert here.connection.send(stream, b"x" * 5000)
    assert not here.connection.send(stream, b"")
    exchange(here, there)
    there.consume_all()
    exchange(here, there)
    assert here.connection.send(stream, b"1")
    assert not here.connection.send(stream, b"x" * 5000)
    assert there.arrived == [("x", b"x" * 5000)]


@ROLES
def test_each_stream_has_a_window_of_its_own(role: Role) -> None:
    here, _ = ends(role, window=1000)
    a, b = (here.connection.open_stream("channel", name) for name in "ab")
    assert here.connection.send(a, b"x" * 744)
    assert not here.connection.send(a, b"")
    assert here.connection.send(b, b"x" * 744)


@ROLES
def test_a_lone_answer_carries_the_acknowledgement_and_needs_no_frame_for_it(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"question")
    exchange(here, there)
    there.consume_all()
    there.connection.send(there.opened[0], b"answer")
    data = there.output()
    assert kinds(data) == [Kind.MESSAGE]
    here.input(data)
    assert here.unacknowledged(stream) == []
    assert here.arrived == [("x", b"answer")]
    assert not there.connection.wants_to_send


@ROLES
def test_what_is_consumed_while_a_write_is_put_together_is_acknowledged_in_order(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant was written ahead of a header that said less: the peer took that for a breach of the protocol."""
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    for _ in range(2):
        here.connection.send(stream, b"question")
    exchange(here, there)
    [theirs], make_header = there.opened, HEADER.pack

    class ConsumingHeader:
        """Another thread consumes right after a message's header was made."""

        @staticmethod
        def pack(*fields: int) -> bytes:
            header = make_header(*fields)
            if fields[1] == Kind.MESSAGE:
                there.consume_all()
            return header

    theirs.consume(cost(b"question"))
    there.connection.send(theirs, b"answer")
    with monkeypatch.context() as patch:
        patch.setattr("liteyuki_host.comm.protocol.outbound.HEADER", ConsumingHeader)
        data = b"".join(there.connection.data_to_send())
    here.input(data)
    assert stream.acknowledged == cost(b"question")
    here.input(b"".join(there.connection.data_to_send()))
    assert stream.acknowledged == stream.sent
    assert here.arrived == [("x", b"answer")]


@ROLES
def test_a_grant_follows_what_opens_its_stream(role: Role) -> None:
    """Both have opened it at once. The grant was written first, and named a stream that the peer had not heard of."""
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    theirs = there.connection.open_stream("channel", "x")
    here.connection.send(stream, b"1")
    there.input(here.output())  # whose own Open has not been written yet
    there.consume_all()
    here.input(there.output())
    assert here.unacknowledged(stream) == []
    assert here.connection.streams[theirs.id] is stream


@ROLES
def test_owed_grants_wait_unless_asked_for(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"1")
    exchange(here, there)
    there.consume_all()
    assert there.connection.wants_to_send
    assert not there.connection.has_output
    assert there.connection.data_to_send(grants=False) == []
    data = b"".join(there.connection.data_to_send())
    assert kinds(data) == [Kind.GRANT]
    here.input(data)
    assert stream.acknowledged == cost(b"1")


@ROLES
def test_a_bound_that_is_not_kept_ends_the_connection(role: Role) -> None:
    here, there = ends(role, window=1000)
    stream = here.connection.open_stream("channel", "x")
    exchange(here, there)
    batch = msgspec.msgpack.encode([stream.id, [b"x" * 100] * 3])
    with pytest.raises(RemoteProtocolError, match="more than its credit of 1,000 bytes was sent"):
        there.input(encode_frame(Kind.BATCH, batch))


@ROLES
def test_more_acknowledged_than_sent_ends_the_connection(role: Role) -> None:
    here, there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.connection.send(stream, b"1")
    exchange(here, there)
    with pytest.raises(RemoteProtocolError, match="258 bytes acknowledged, 257 outstanding"):
        here.input(encode_frame(Kind.GRANT, msgspec.msgpack.encode([stream.id, 258])))
    with pytest.raises(RemoteProtocolError, match="outstanding"):
        here.input(encode_frame(Kind.MESSAGE, b"\x01", stream=stream.id, ack=300))


# --- control ahead of data ------------------------------------------------------------------------------------


@ROLES
def test_control_is_written_ahead_of_waiting_data(role: Role) -> None:
    here, _there = ends(role)
    stream = here.connection.open_stream("channel", "x")
    here.output()
    for _ in range(500):
        here.connection.send(stream, b"x" * 1000)
    here.connection.send_control(m.Ping(1))
    assert kinds(here.output())[0] is Kind.CONTROL


@ROLES
def test_control_goes_out_between_the_pieces_of_a_large_message(role: Role) -> None:
    here, _there = ends(role, window=1 << 24)
    stream = here.connection.open_stream("channel", "x")
    here.output()
    payload = bytes(range(256)) * (4 * 1024 * 4)  # 4 MiB
    here.connection.send(stream, payload)
    data = b"".join(here.connection.data_to_send())
    order = []
    number = 0
    while data:
        order += kinds(data)
        if number < 5:
            here.connection.send_control(m.Ping(number))
            number += 1
        data = b"".join(here.connection.data_to_send())
    assert order == [Kind.CHUNK] + [Kind.CONTROL, Kind.CHUNK] * 5 + [Kind.CHUNK] * 10


@ROLES
def test_pings_between_the_pieces_disturb_nothing(role: Role) -> None:
    here, there = ends(role, window=1 << 24)
    stream = here.connection.open_stream("channel", "x")
    payload = bytes(range(251)) * 5000
    here.connection.send(stream, payload)
    here.connection.send(stream, b"after")
    number = 0
    while buffers := here.connection.data_to_send():
        there.input(b"".join(buffers))
        if number < 4:
            here.connection.send_control(m.Ping(number))
            number += 1
    assert there.controls == [m.Ping(0), m.Ping(1), m.Ping(2), m.Ping(3)]
    assert there.arrived == [("x", payload), ("x", b"after")]


# --- streams ------------------------------------------------------------------------------------------------


@ROLES
def test_a_name_is_opened_once(role: Role) -> None:
    here, there = ends(role)
    first = here.connection.open_stream("channel", "x")
    assert here.connection.open_stream("channel", "x") is first
    assert here.connection.open_stream("topic", "x") is not first
    exchange(here, there)
    assert [stream.key for stream in there.opened] == [("channel", "x"), ("topic", "x")]
    assert there.connection.open_stream("channel", "x") is there.opened[0]
    assert there.output() == b""


def test_both_sides_may_open_the_same_name_at_once() -> None:
    host, child = greeted(window=3000)
    there, back = host.connection.open_stream("channel", "x"), child.connection.open_stream("channel", "x")
    assert (there.id, back.id) == (2, 3)
    for round_number in range(40):  # far beyond one window: both numbers count on one stream
        host.connection.send(there, b"h%d" % round_number)
        child.connection.send(back, b"c%d" % round_number)
        exchange(host, child)
        host.consume_all()
        child.consume_all()
        exchange(host, child)
    assert child.arrived == [("x", b"h%d" % n) for n in range(40)]
    assert host.arrived == [("x", b"c%d" % n) for n in range(40)]
    assert host.unacknowledged(there) == child.unacknowledged(back) == []
    assert host.connection.streams[2] is host.connection.streams[3] is there
    assert child.connection.streams[2] is child.connection.streams[3] is back


def test_an_open_that_arrives_while_ours_is_being_made_is_one_stream() -> None:
    """The reader takes an Open in without the link's lock, so it may come in the middle of ``open_stream``.

    Two Stream objects for one name used to come of it: the peer then acknowledged more than either had sent.
    """
    host, child = greeted()
    there = host.connection.open_stream("channel", "x")
    opening = host.output()

    class SlowNames(dict[tuple[str, str], object]):
        """The other thread runs right behind the look-up."""

        armed = True

        def get(self, key: tuple[str, str], default: object = None) -> object:  # type: ignore[override]
            found = super().get(key, default)
            if self.armed:
                self.armed = False
                child.input(opening)
            return found

    child.connection.table._by_key = SlowNames()  # type: ignore[assignment]
    back = child.connection.open_stream("channel", "x")
    assert child.opened == [back]
    assert {stream for number, stream in child.connection.streams.items() if number >= 2} == {back}
    host.connection.send(there, b"1")
    child.connection.send(back, b"2")
    exchange(host, child)
    host.consume_all()
    child.consume_all()
    exchange(host, child)
    assert host.unacknowledged(there) == child.unacknowledged(back) == []


@pytest.mark.parametrize("number", [0, 1, -2, 65536, 2, 1 << 40])
def test_a_child_cannot_open_numbers_that_are_not_its_own(number: int) -> None:
    host, _ = greeted()
    with pytest.raises(RemoteProtocolError, match=f"stream number {number} cannot be opened by the other side"):
        host.input(encode_frame(Kind.CONTROL, m.encode_message(m.Open(number, "channel", "x"))))


def test_a_number_is_not_opened_twice() -> None:
    host, _child = greeted()
    frame = encode_frame(Kind.CONTROL, m.encode_message(m.Open(3, "channel", "x")))
    host.input(frame)
    with pytest.raises(RemoteProtocolError, match="stream number 3 cannot be opened"):
        host.input(frame)


@ROLES
def test_stream_numbers_run_out_with_a_word(role: Role) -> None:
    here, _ = ends(role)
    for number in range(32_767):
        here.connection.open_stream("channel", str(number))
    with pytest.raises(LocalProtocolError, match=r"used all its stream numbers \(32,767\)"):
        here.connection.open_stream("channel", "one more")
    assert here.connection.open_stream("channel", "5").key == ("channel", "5")


# --- broken by the peer ---------------------------------------------------------------------------------------


def chunk(stream: int, payload: bytes, flags: int = 0, announced: int | None = None) -> bytes:
    prefix = b""
    if announced is not None:
        flags |= Flag.FIRST
        prefix = announced.to_bytes(8, "big") + bytes(8)
    return encode_frame(Kind.CHUNK, prefix + payload, flags=flags, stream=stream)


BROKEN = {
    "data on an unknown stream": (
        [encode_frame(Kind.MESSAGE, b"\x01", stream=77)],
        "data on stream 77, which was not opened",
    ),
    "batch on an unknown stream": (
        [encode_frame(Kind.BATCH, msgspec.msgpack.encode([77, [b"x"]]))],
        "data on stream 77, which was not opened",
    ),
    "grant for an unknown stream": (
        [encode_frame(Kind.GRANT, msgspec.msgpack.encode([77, 1]))],
        "data on stream 77, which was not opened",
    ),
    "batch that is no MessagePack": ([encode_frame(Kind.BATCH, b"\xc1")], "a batch that cannot be read"),
    "batch of other types": (
        [encode_frame(Kind.BATCH, msgspec.msgpack.encode(["x", [b"x"]]))],
        "a batch that cannot be read",
    ),
    "batch of text": ([encode_frame(Kind.BATCH, msgspec.msgpack.encode([1, ["x"]]))], "a batch that cannot be read"),
    "batch without payloads": ([encode_frame(Kind.BATCH, msgspec.msgpack.encode([1]))], "not pairs of stream and"),
    "batch of two numbers": ([encode_frame(Kind.BATCH, msgspec.msgpack.encode([1, 1]))], "not pairs of stream and"),
    "batch of two lists": ([encode_frame(Kind.BATCH, msgspec.msgpack.encode([[b""], [b""]]))], "not pairs of stream"),
    "batch with something behind it": ([encode_frame(Kind.BATCH, b"\x90\x90")], "a batch that cannot be read"),
    "grant that is no MessagePack": ([encode_frame(Kind.GRANT, b"\xc1")], "a grant that cannot be read"),
    "grant of other types": ([encode_frame(Kind.GRANT, msgspec.msgpack.encode([1, True]))], "a grant that cannot"),
    "grant without its amount": ([encode_frame(Kind.GRANT, msgspec.msgpack.encode([1]))], "a grant without its amount"),
    "control that is no MessagePack": ([encode_frame(Kind.CONTROL, b"\xc1")], "a control message that cannot be read"),
    "control of a kind that is none": ([encode_frame(Kind.CONTROL, b"\x91\x63")], "a control message that cannot be"),
    "control with a lone half of a character": (
        [encode_frame(Kind.CONTROL, b"\x92\x02\xa3\xed\xa0\x80")],
        "a control message that cannot be read",
    ),
    "request without its number": (
        [encode_frame(Kind.MESSAGE, b"\x01\x02", stream=1, flags=Flag.REQUEST)],
        "a request without its number",
    ),
    "large message announced too large": (
        [chunk(1, b"x", announced=(1 << 24) + ENVELOPE + 1)],
        "a message of 17,039,361 bytes is announced, the limit is 16,777,216 bytes",
    ),
    "large message longer than announced": (
        [chunk(1, b"12345", announced=10), chunk(1, b"678901", Flag.LAST)],
        "a large message is longer than the 10 bytes announced",
    ),
    "large message shorter than announced": (
        [chunk(1, b"12345", announced=10), chunk(1, b"6789", Flag.LAST)],
        "a large message ended after 9 of 10 bytes",
    ),
    "piece without a beginning": ([chunk(1, b"x", Flag.LAST)], "a piece of a large message that did not begin"),
    "piece of another stream": (
        [chunk(1, b"12345", announced=10), chunk(0, b"67890", Flag.LAST)],
        "a piece of a large message that did not begin",
    ),
    "large message inside another": (
        [chunk(1, b"12345", announced=10), chunk(1, b"12345", announced=10)],
        "a large message begins inside another",
    ),
    "large message without its size": (
        [encode_frame(Kind.CHUNK, b"123", stream=1, flags=Flag.FIRST)],
        "without its size",
    ),
    "large message on an unknown stream": ([chunk(77, b"x", announced=5)], "data on stream 77"),
    "empty piece of a large message": (
        [chunk(1, b"12345", announced=10), chunk(1, b"")],
        "an empty piece of a large message",
    ),
    "unknown kind of frame": ([HEADER.pack(0, 9, 0, 0, 0)], "a frame of unknown kind 9"),
}


@ROLES
@pytest.mark.parametrize("what", list(BROKEN))
@pytest.mark.parametrize("step", [1, None], ids=["bytewise", "whole"])
def test_what_the_peer_must_not_do_ends_the_connection_with_words(role: Role, what: str, step: int | None) -> None:
    frames, words = BROKEN[what]
    peer, _ = ends(role, window=1 << 26)
    with pytest.raises(RemoteProtocolError, match=words):
        peer.input(b"".join(frames), step)


def test_a_value_at_the_limit_fits_together_with_its_key_or_topic() -> None:
    """A write of a value of exactly the limit used to be announced as more than the limit, which ended the link."""
    host, child = greeted(limit=1 << 20)
    value = b"x" * (1 << 20)
    assert child.connection.send(child.connection.store, m.encode_message(m.Put(1, "k" * 512, value)))
    exchange(host, child)
    host.connection.send(host.connection.store, m.encode_message(m.SnapshotPart([("k" * 512, value, 1, None)])))
    exchange(host, child)
    assert len(host.arrived) == len(child.arrived) == 1


@ROLES
def test_what_came_before_the_fault_has_been_handled(role: Role) -> None:
    peer, _ = ends(role)
    data = encode_frame(Kind.MESSAGE, b"good", stream=1) + encode_frame(Kind.GRANT, b"\xc1")
    with pytest.raises(RemoteProtocolError):
        peer.input(data)
    assert peer.arrived == [("", b"good")]


def test_credit_is_told_once_and_when_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child = greeted()
    stream = child.connection.open_stream("channel", "x")
    child.connection.send(stream, b"1")
    exchange(host, child)
    host.consume_all()
    told: list[int] = []
    monkeypatch.setattr(child, "on_credit", lambda credited: told.append(credited.acknowledged))
    output = host.output()
    child.input(output)
    child.input(output)
    assert told == [stream.sent]
