"""What was accepted is consumed once, or handed to the next receiver, or reported lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from liteyuki_host.comm.delivery.outgoing import MAX_ATTEMPTS, Outgoing
from liteyuki_host.comm.errors import LinkClosed
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, Run, Stream
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.messages import Hello
from liteyuki_host.comm.waiting import NOTHING, Gate, Nothing

WINDOW = 3 * (MESSAGE_CHARGE + 1)  # three messages of one byte


class FakeLink:
    """A link whose bytes go nowhere: what was sent stays visible, and the test consumes it."""

    def __init__(self, window: int = WINDOW) -> None:
        self.connection = Connection(Role.HOST, Hello(1, "host", 1, window=window))
        self.stream = self.connection.open_stream("channel", "x")
        self.ended = False
        self.sent: list[tuple[bytes, int, int]] = []
        self._lock = threading.Lock()

    def send(
        self,
        stream: Stream,
        payload: bytes,
        flags: int = 0,
        request_id: int = 0,
        attempts: int = 0,
        *,
        one_of_many: bool = False,
        may_wait: bool = False,
    ) -> bool:
        with self._lock:
            if self.ended:
                raise LinkClosed("over")
            accepted = self.connection.send(stream, payload, flags, request_id, attempts)
            if accepted:
                self.sent.append((payload, flags, request_id))
                while self.connection.data_to_send():  # written; only what was written is ever acknowledged
                    pass
            return accepted

    def shortcut(self, stream: Stream) -> Callable[..., bool]:
        return lambda payload, alone=True: False  # never the way here

    def settle(self) -> None:
        with self._lock:
            self.connection.unstage()

    def lead(self, attempt: object, deadline: float | None) -> Nothing:
        return NOTHING

    def wait(self, gate: Gate, timeout: float) -> bool:
        return gate.wait(timeout)

    def end(self) -> None:
        with self._lock:
            self.ended = True

    def consume(self, outgoing: Outgoing, count: int = 1) -> None:
        """The other side consumes the oldest *count* messages."""
        for _ in range(count):
            with self._lock:
                run: Run = self.stream.unacknowledged[0]
                self.stream.acknowledge(
                    self.stream.acknowledged + len(run.unconsumed(self.stream.acknowledged)[0]) + MESSAGE_CHARGE
                )
            outgoing.credit()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _, _ in self.sent]


class Losses(list[tuple[int, str]]):
    def __call__(self, count: int, why: str) -> None:
        self.append((count, why))


def make(**limits: int) -> tuple[Outgoing, Losses]:
    losses = Losses()
    return Outgoing(**{"window": WINDOW, **limits}, on_lost=losses), losses


def bind(outgoing: Outgoing, link: FakeLink) -> None:
    outgoing.bind(link, link.stream)  # type: ignore[arg-type]


def unbind(outgoing: Outgoing, link: FakeLink) -> list[int]:
    link.end()
    return outgoing.unbind(link)  # type: ignore[arg-type]


def offer(outgoing: Outgoing, *payloads: bytes) -> list[bool]:
    return [outgoing.offer(payload) for payload in payloads]


def test_without_a_link_messages_wait_up_to_the_window() -> None:
    outgoing, losses = make()
    assert offer(outgoing, b"1", b"2", b"3", b"4") == [True, True, True, False]
    assert (outgoing.sent, outgoing.waiting(), outgoing.bound, losses) == (3, 3, False, [])


def test_one_message_larger_than_the_window_may_wait_alone() -> None:
    outgoing, _ = make()
    assert offer(outgoing, b"x" * 5000, b"") == [True, False]
    outgoing, _ = make()
    assert offer(outgoing, b"1", b"x" * 5000) == [True, False]


@pytest.mark.parametrize("size", [0, 1, 2, 5000])
@pytest.mark.parametrize("limits", [{}, {"backlog": 0}, {"backlog": WINDOW}], ids=str)
def test_there_is_room_for_what_would_be_accepted(limits: dict[str, int], size: int) -> None:
    for before in range(8):
        for link in (None, FakeLink()):
            outgoing, _ = make(**limits)
            for _ in range(before):
                outgoing.offer(b"1")
            if link is not None:
                bind(outgoing, link)
                for _ in range(before):
                    outgoing.offer(b"1")
            assert outgoing.has_room(size) == outgoing.offer(bytes(size))


def test_binding_sends_what_waits_in_order_and_as_far_as_the_credit_goes() -> None:
    outgoing, _ = make(window=10_000)
    offer(outgoing, b"1", b"2", b"3", b"4", b"5")
    link = FakeLink()
    bind(outgoing, link)
    assert link.payloads == [b"1", b"2", b"3"]
    assert outgoing.bound
    assert outgoing.bound_to(link)  # type: ignore[arg-type]
    assert outgoing.offer(b"6") is False  # behind what waits, and there is no room
    link.consume(outgoing)
    assert link.payloads == [b"1", b"2", b"3", b"4"]
    link.consume(outgoing, 4)
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5"]
    assert outgoing.offer(b"6")
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert (outgoing.sent, outgoing.waiting(), outgoing.redelivered) == (6, 1, 0)


def test_nothing_overtakes_what_waits_although_the_link_has_credit_again() -> None:
    outgoing, _ = make(window=10_000)
    offer(outgoing, b"1", b"2", b"3", b"4")
    link = FakeLink()
    bind(outgoing, link)
    link.stream.acknowledge(MESSAGE_CHARGE + 1)  # known to the link, and to us in a moment
    outgoing.offer(b"5")
    outgoing.credit()
    assert link.payloads == [b"1", b"2", b"3", b"4"]


def test_a_bound_channel_accepts_what_the_link_has_credit_for() -> None:
    outgoing, _ = make()
    link = FakeLink()
    bind(outgoing, link)
    assert offer(outgoing, b"1", b"2", b"3", b"4") == [True, True, True, False]
    assert outgoing.waiting() == 3
    link.consume(outgoing, 2)
    assert outgoing.waiting() == 1
    assert offer(outgoing, b"5", b"6", b"7") == [True, True, False]


def test_a_backlog_takes_what_the_link_does_not() -> None:
    outgoing, _ = make(window=0, backlog=2 * (MESSAGE_CHARGE + 1))
    assert outgoing.offer(b"0") is False  # nobody there, and no window for that
    link = FakeLink()
    bind(outgoing, link)
    assert offer(outgoing, *(b"%d" % n for n in range(1, 7))) == [True] * 5 + [False]
    assert link.payloads == [b"1", b"2", b"3"]
    link.consume(outgoing, 3)
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5"]
    assert outgoing.offer(b"6")
    assert link.payloads[-1] == b"6"


def test_what_was_not_consumed_goes_first_to_the_next_one_marked_as_redelivered() -> None:
    outgoing, losses = make(window=10_000)
    first, second = FakeLink(10_000), FakeLink(10_000)
    bind(outgoing, first)
    offer(outgoing, b"1", b"2", b"3")
    outgoing.offer(b"raw", Flag.RAW)
    first.consume(outgoing)
    assert unbind(outgoing, first) == []
    offer(outgoing, b"4")
    assert outgoing.waiting() == 4
    bind(outgoing, second)
    assert second.sent == [
        (b"2", Flag.REDELIVERED, 0),
        (b"3", Flag.REDELIVERED, 0),
        (b"raw", Flag.REDELIVERED | Flag.RAW, 0),
        (b"4", 0, 0),
    ]
    assert (outgoing.sent, outgoing.redelivered, outgoing.lost, losses) == (5, 3, 0, [])
    second.consume(outgoing, 4)
    assert outgoing.waiting() == 0


def test_the_end_of_another_link_changes_nothing() -> None:
    outgoing, _ = make()
    link, other = FakeLink(), FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1")
    assert unbind(outgoing, other) == []
    assert outgoing.bound
    assert outgoing.waiting() == 1
    assert unbind(outgoing, link) == []
    assert unbind(outgoing, link) == []
    assert outgoing.waiting() == 1


def test_a_message_is_set_aside_after_being_first_at_three_deaths_and_the_others_live_on() -> None:
    outgoing, losses = make(window=10_000)
    offer(outgoing, b"poison", b"good")
    for death in range(1, MAX_ATTEMPTS + 1):
        link = FakeLink(10_000)
        bind(outgoing, link)
        assert link.payloads == [b"poison", b"good"]
        unbind(outgoing, link)
        if death < MAX_ATTEMPTS:
            assert losses == []
    assert losses == [(1, "it was first in line 3 times when its receiver died; it may be what kills it")]
    assert outgoing.lost == 1
    for _ in range(MAX_ATTEMPTS - 1):  # the next in line has its own three
        link = FakeLink(10_000)
        bind(outgoing, link)
        assert link.payloads == [b"good"]
        unbind(outgoing, link)
    link = FakeLink(10_000)
    bind(outgoing, link)
    assert link.payloads == [b"good"]
    link.consume(outgoing)
    assert (len(losses), outgoing.waiting()) == (1, 0)


def test_only_deaths_as_the_first_count() -> None:
    outgoing, losses = make(window=10_000)
    offer(outgoing, b"0", b"1", b"2", b"3", b"4", b"5")
    for _ in range(5):
        link = FakeLink(10_000)
        bind(outgoing, link)
        link.consume(outgoing)
        unbind(outgoing, link)
    assert losses == []
    assert outgoing.waiting() == 1


def test_a_message_that_waits_for_credit_does_not_count_as_first_at_a_death() -> None:
    outgoing, losses = make(window=10_000)
    offer(outgoing, b"1")
    for _ in range(2):
        link = FakeLink()
        bind(outgoing, link)
        unbind(outgoing, link)
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"2")
    link.consume(outgoing)
    unbind(outgoing, link)  # 2 is first now, for the first time
    assert losses == []
    assert outgoing.waiting() == 1


def test_giving_up_reports_everything_once() -> None:
    outgoing, losses = make(window=10_000)
    offer(outgoing, *[b"x"] * 5)
    link = FakeLink()  # takes three
    bind(outgoing, link)
    link.consume(outgoing)  # and one more
    assert outgoing.give_up("the host ends") == 4
    assert losses == [(4, "the host ends")]
    assert (outgoing.lost, outgoing.waiting()) == (4, 0)
    assert outgoing.give_up("again") == 0
    assert unbind(outgoing, link) == []
    assert outgoing.give_up("after the link") == 0
    assert losses == [(4, "the host ends")]


def test_giving_up_after_the_links_end_does_not_count_twice() -> None:
    outgoing, losses = make()
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1", b"2")
    link.consume(outgoing)
    unbind(outgoing, link)
    assert outgoing.give_up("why") == 1
    assert losses == [(1, "why")]


def test_giving_up_nothing_reports_nothing() -> None:
    outgoing, losses = make()
    assert outgoing.give_up("why") == 0
    assert losses == []


def test_requests_fail_instead_of_going_to_the_next_one() -> None:
    outgoing, losses = make(window=10_000)
    link = FakeLink()
    bind(outgoing, link)
    outgoing.offer(b"1", Flag.REQUEST, 11)
    outgoing.offer(b"2")
    assert unbind(outgoing, link) == [11]
    outgoing.offer(b"3", Flag.REQUEST, 12)  # asked while there is nobody: it waits for the next
    link = FakeLink()
    bind(outgoing, link)
    assert link.sent == [(b"2", Flag.REDELIVERED, 0), (b"3", Flag.REQUEST, 12)]
    assert losses == []


def test_an_answered_request_is_not_reported() -> None:
    outgoing, _ = make()
    link = FakeLink()
    bind(outgoing, link)
    outgoing.offer(b"1", Flag.REQUEST, 11)
    link.consume(outgoing)
    assert unbind(outgoing, link) == []


def test_a_request_in_the_backlog_can_be_taken_back_and_makes_room() -> None:
    """It made room without a word, so whoever waited for room slept on."""
    outgoing, _ = make()
    offer(outgoing, b"1")
    outgoing.offer(b"2", Flag.REQUEST, 12)
    offer(outgoing, b"3")
    woken = threading.Event()
    outgoing.room._add(woken.set)
    outgoing.cancel_request(99)
    assert not woken.is_set()
    outgoing.cancel_request(12)
    assert woken.is_set()
    assert outgoing.offer(b"4")
    link = FakeLink()
    bind(outgoing, link)
    assert link.payloads == [b"1", b"3", b"4"]


def test_an_ended_link_that_is_not_yet_unbound_is_like_none() -> None:
    outgoing, _ = make()
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1")
    link.ended = True
    assert offer(outgoing, b"2", b"3") == [True, True]
    unbind(outgoing, link)
    link = FakeLink(10_000)
    bind(outgoing, link)
    assert link.sent == [(b"1", Flag.REDELIVERED, 0), (b"2", 0, 0), (b"3", 0, 0)]


def test_a_reply_goes_out_beside_the_credit_and_to_nobody_without_a_link() -> None:
    outgoing, losses = make()
    outgoing.reply(b"r", Flag.REPLY, 1)
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1", b"2", b"3")
    outgoing.reply(b"r", Flag.REPLY, 2)
    assert link.sent[-1] == (b"r", Flag.REPLY, 2)
    link.ended = True
    outgoing.reply(b"r", Flag.REPLY, 3)
    assert (len(link.sent), losses) == (4, [])


def test_whoever_waits_for_room_is_woken_when_the_link_comes_and_goes_and_consumes() -> None:
    outgoing, _ = make()
    rooms: list[str] = []
    outgoing.on_room = lambda: rooms.append("relay")

    def armed() -> threading.Event:
        woken = threading.Event()
        outgoing.room._add(woken.set)
        return woken

    woken, link = armed(), FakeLink()
    bind(outgoing, link)
    assert woken.is_set()
    offer(outgoing, b"1", b"2")
    woken = armed()
    link.consume(outgoing)
    assert woken.is_set()
    assert rooms == ["relay", "relay"]
    woken = armed()
    unbind(outgoing, link)
    assert woken.is_set()
    woken = armed()
    outgoing.give_up("x")
    assert woken.is_set()


def test_a_mark_is_reached_when_everything_before_it_is_consumed() -> None:
    outgoing, _ = make()
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1", b"2")
    reached = outgoing.mark()
    offer(outgoing, b"3")
    assert reached() is NOTHING
    link.consume(outgoing)
    assert reached() is NOTHING
    link.consume(outgoing)
    assert reached() is True
    assert outgoing.mark()() is NOTHING


def test_a_mark_is_reached_through_the_next_link() -> None:
    outgoing, _ = make()
    first, second = FakeLink(), FakeLink()
    bind(outgoing, first)
    offer(outgoing, b"1")
    reached = outgoing.mark()
    unbind(outgoing, first)
    assert reached() is NOTHING
    bind(outgoing, second)
    assert reached() is NOTHING
    second.consume(outgoing)
    assert reached() is True


def test_a_mark_is_reached_when_nothing_is_left_to_wait_for() -> None:
    """After the receiver's end everything may have been consumed, or given up: ``flush`` used to wait for ever."""
    outgoing, _ = make()
    link = FakeLink()
    bind(outgoing, link)
    offer(outgoing, b"1")
    reached, unbound = outgoing.mark(), make()[0]
    link.consume(outgoing)
    unbind(outgoing, link)
    assert reached() is True
    assert unbound.mark()() is True
    offer(outgoing, b"2")
    reached = outgoing.mark()
    assert reached() is NOTHING
    outgoing.give_up("x")
    assert reached() is True


def test_forgetting_says_nothing() -> None:
    outgoing, losses = make()
    offer(outgoing, b"1")
    outgoing.forget()
    assert (outgoing.waiting(), losses, outgoing.lost) == (0, [], 0)
    assert offer(outgoing, b"1", b"2", b"3") == [True] * 3


def test_order_holds_while_links_come_and_go_under_a_sender() -> None:
    """One thread sends, another consumes and breaks links: each message is consumed once, in order, or reported."""
    outgoing, losses = make(window=5 * 260)
    total = 1000
    got: list[int] = []

    def send() -> None:
        for number in range(total):
            payload = b"%d" % number
            assert outgoing.room.wait(lambda payload=payload: outgoing.try_offer(payload, 0, 0), 10.0) is True

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    links = 0
    while len(got) + outgoing.lost < total:
        link = FakeLink(5 * 260)
        links += 1
        bind(outgoing, link)
        for _ in range(7):
            outgoing.room.wait(lambda link=link: bool(link.stream.unacknowledged) or NOTHING, 0.01)
            if link.stream.unacknowledged:
                got.append(int(link.stream.unacknowledged[0].unconsumed(link.stream.acknowledged)[0]))
                link.consume(outgoing)
        unbind(outgoing, link)
    sender.join(10.0)
    assert not sender.is_alive()
    assert got == sorted(set(got))
    assert len(got) + sum(count for count, _ in losses) == total
    assert links > 30
    assert outgoing.waiting() == 0
