"""Credit: what may be on its way, and what is known to be consumed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.batch import Batch
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.ledger import Ledger, Owing
from liteyuki_host.comm.protocol.stream import Stream

CHARGE = MESSAGE_CHARGE
KEY = ("channel", "x")


def sent(stream: Stream, *payloads: bytes) -> None:
    """Note *payloads* as sent, each a batch of its own."""
    for payload in payloads:
        stream.unacknowledged.append(Batch.of(stream, payload))


def outstanding(stream: Stream) -> list[bytes]:
    return [payload for run in stream.unacknowledged for payload in run.unconsumed(stream.acknowledged)]


def test_the_charge_is_256_bytes() -> None:
    assert MESSAGE_CHARGE == 256


def test_a_run_knows_which_of_its_payloads_are_not_consumed() -> None:
    stream = Stream(2, KEY)
    stream.charge(1000)
    run = Batch.of(stream, b"aa")
    run.payloads += [b"bbb", b""]
    run.end = 1000 + 3 * CHARGE + 5
    assert run.unconsumed(0) == [b"aa", b"bbb", b""]
    assert run.unconsumed(1000) == [b"aa", b"bbb", b""]
    assert run.unconsumed(1000 + CHARGE + 1) == [b"aa", b"bbb", b""]  # one byte short of the first
    assert run.unconsumed(1000 + CHARGE + 2) == [b"bbb", b""]
    assert run.unconsumed(1000 + 2 * CHARGE + 5) == [b""]
    assert run.unconsumed(run.end) == []


@pytest.mark.parametrize(
    ("waiting", "size", "room"),
    [
        ([], 0, True),
        ([], 744, True),
        ([], 10_000, True),  # larger than the window: alone
        ([b""], 488, True),  # 256 + 488 + 256 = 1000
        ([b""], 489, False),
        ([b""], 10_000, False),
        ([b"x" * 744], 0, False),
    ],
)
def test_the_window_bounds_what_is_on_its_way(waiting: list[bytes], size: int, room: bool) -> None:
    stream = Stream(2, KEY, 1000)
    sent(stream, *waiting)
    assert stream.has_room(size) is room
    unlimited = Stream(2, KEY, 1000, limited=False)
    sent(unlimited, *waiting)
    assert unlimited.has_room(size)


def test_an_acknowledgement_drops_whole_runs_and_says_whether_it_was_news() -> None:
    stream = Stream(2, KEY)
    sent(stream, b"a", b"bb", b"ccc")
    assert stream.take_in(0) is False
    assert stream.take_in(CHARGE + 1) is True
    assert outstanding(stream) == [b"bb", b"ccc"]
    assert stream.take_in(CHARGE + 1) is False
    assert stream.take_in(stream.sent) is True
    assert outstanding(stream) == []
    assert not stream.unacknowledged


def test_a_run_stays_until_all_of_it_is_acknowledged() -> None:
    stream = Stream(2, KEY)
    sent(stream, b"1")
    [run] = stream.unacknowledged
    run.payloads += [b"2", b"3"]
    run.end = stream.sent = 3 * (CHARGE + 1)
    assert stream.take_in(2 * (CHARGE + 1))
    assert outstanding(stream) == [b"3"]
    assert stream.take_in(3 * (CHARGE + 1))
    assert not stream.unacknowledged


def test_acknowledgements_go_on_beyond_32_bits() -> None:
    stream = Stream(2, KEY)
    stream.sent = stream.acknowledged = (1 << 32) - 300
    sent(stream, b"a", b"b")
    assert stream.take_in((stream.acknowledged + CHARGE + 1) & 0xFFFFFFFF) is True
    assert outstanding(stream) == [b"b"]
    assert stream.take_in(stream.sent & 0xFFFFFFFF) is True
    assert stream.acknowledged == stream.sent == (1 << 32) - 300 + 2 * (CHARGE + 1)
    assert stream.take_in(stream.sent & 0xFFFFFFFF) is False


@pytest.mark.parametrize("ack", [CHARGE + 2, 5000, 0xFFFFFFFF, -1])
def test_more_acknowledged_than_sent_is_the_peers_fault(ack: int) -> None:
    stream = Stream(9, KEY)
    sent(stream, b"a")
    with pytest.raises(RemoteProtocolError, match=r"stream 9: [\d,]+ bytes acknowledged, 257 outstanding"):
        stream.take_in(ack)
    assert outstanding(stream) == [b"a"]


def test_more_arriving_than_granted_is_the_peers_fault() -> None:
    stream = Stream(4, KEY, 1000)
    stream.arrived(488)
    stream.arrived(0)  # exactly full
    with pytest.raises(RemoteProtocolError, match="stream 4: more than its credit of 1,000 bytes was sent"):
        stream.arrived(0)


def test_one_message_larger_than_the_window_may_arrive_alone() -> None:
    stream = Stream(4, KEY, 1000)
    stream.arrived(5000)
    with pytest.raises(RemoteProtocolError):
        stream.arrived(0)
    stream.consumed = 5000 + CHARGE
    stream.received = 5000 + CHARGE
    stream.arrived(5000)


def test_a_trusted_stream_is_not_held_to_its_credit() -> None:
    stream = Stream(0, ("store", ""), 1000, trusted=True)
    for _ in range(100):
        stream.arrived(900)
    assert stream.received == 100 * (900 + CHARGE)


@given(st.lists(st.one_of(st.integers(0, 2000), st.none()), max_size=60), st.integers(1, 3000))
def test_a_sender_that_asks_for_room_never_breaks_its_receivers_bound(steps: list[int | None], window: int) -> None:
    """Numbers are sizes to send, None is the receiver consuming everything and saying so."""
    sender, receiver = Stream(2, KEY, window), Stream(2, KEY, window)
    for step in steps:
        if step is None:
            receiver.consumed = receiver.received
            sender.take_in(receiver.consumed & 0xFFFFFFFF)
        elif sender.has_room(step):
            sent(sender, b"x" * step)
            receiver.arrived(step)
    assert sender.sent == receiver.received
    assert sum(len(payload) + CHARGE for payload in outstanding(sender)) == sender.sent - sender.acknowledged


def asked_of(owing: Owing) -> list[Ledger]:
    """The streams whose grants *owing* has had sent."""
    asked: list[Ledger] = []
    owing.grant = asked.append
    return asked


def test_small_debts_ask_for_one_grant() -> None:
    owing = Owing()
    asked = asked_of(owing)
    stream = Stream(2, KEY, owing=owing)
    stream.consume(10)
    stream.consume(10)
    assert asked == [stream]
    stream.grant()
    stream.consume(10)
    assert asked == [stream, stream]


def test_a_woken_writer_hears_of_large_debts_alone() -> None:
    owing = Owing()
    asked = asked_of(owing)
    owing.armed = True
    stream = Stream(2, KEY, owing=owing)
    stream.consume(stream.worth_a_frame - 1)
    assert not asked
    stream.consume(1)
    assert asked == [stream]


def test_quiet_consumption_asks_for_nothing() -> None:
    owing = Owing()
    asked = asked_of(owing)
    stream = Stream(2, KEY, owing=owing)
    stream.consume_quietly(stream.worth_a_frame)
    assert stream.owes_much
    assert not asked
