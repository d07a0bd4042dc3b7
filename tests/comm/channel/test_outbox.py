"""What was accepted is consumed once, or handed to the next receiver, or reported lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from liteyuki_host.comm.channel.outbox import MAX_ATTEMPTS, Outbox
from liteyuki_host.comm.errors import LinkClosed
from liteyuki_host.comm.protocol.batch import Batch
from liteyuki_host.comm.protocol.connection import Connection, Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.messages import Hello
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.waiting import NOTHING, Gate, Nothing

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
        patient: bool = True,
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

    def consume(self, outbox: Outbox, count: int = 1) -> None:
        """The other side consumes the oldest *count* messages."""
        for _ in range(count):
            with self._lock:
                run: Batch = self.stream.unacknowledged[0]
                self.stream.take_in(
                    self.stream.acknowledged + len(run.unconsumed(self.stream.acknowledged)[0]) + MESSAGE_CHARGE
                )
            outbox.credit()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _, _ in self.sent]


class Losses(list[tuple[int, str]]):
    def __call__(self, count: int, why: str) -> None:
        self.append((count, why))


def make(**limits: int) -> tuple[Outbox, Losses]:
    losses = Losses()
    return Outbox(**{"window": WINDOW, **limits}, on_lost=losses), losses


def bind(outbox: Outbox, link: FakeLink) -> None:
    outbox.bind(link, link.stream)  # type: ignore[arg-type]


def unbind(outbox: Outbox, link: FakeLink) -> list[int]:
    link.end()
    return outbox.unbind(link)  # type: ignore[arg-type]


def offer(outbox: Outbox, *payloads: bytes) -> list[bool]:
    return [outbox.offer(payload) for payload in payloads]


def test_without_a_link_messages_wait_up_to_the_window() -> None:
    outbox, losses = make()
    assert offer(outbox, b"1", b"2", b"3", b"4") == [True, True, True, False]
    assert (outbox.sent, outbox.waiting(), outbox.bound, losses) == (3, 3, False, [])


def test_one_message_larger_than_the_window_may_wait_alone() -> None:
    outbox, _ = make()
    assert offer(outbox, b"x" * 5000, b"") == [True, False]
    outbox, _ = make()
    assert offer(outbox, b"1", b"x" * 5000) == [True, False]


@pytest.mark.parametrize("size", [0, 1, 2, 5000])
@pytest.mark.parametrize("limits", [{}, {"backlog": 0}, {"backlog": WINDOW}], ids=str)
def test_there_is_room_for_what_would_be_accepted(limits: dict[str, int], size: int) -> None:
    for before in range(8):
        for link in (None, FakeLink()):
            outbox, _ = make(**limits)
            for _ in range(before):
                outbox.offer(b"1")
            if link is not None:
                bind(outbox, link)
                for _ in range(before):
                    outbox.offer(b"1")
            assert outbox.has_room(size) == outbox.offer(bytes(size))


def test_binding_sends_what_waits_in_order_and_as_far_as_the_credit_goes() -> None:
    outbox, _ = make(window=10_000)
    offer(outbox, b"1", b"2", b"3", b"4", b"5")
    link = FakeLink()
    bind(outbox, link)
    assert link.payloads == [b"1", b"2", b"3"]
    assert outbox.bound
    assert outbox.bound_to(link)  # type: ignore[arg-type]
    assert outbox.offer(b"6") is False  # behind what waits, and there is no room
    link.consume(outbox)
    assert link.payloads == [b"1", b"2", b"3", b"4"]
    link.consume(outbox, 4)
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5"]
    assert outbox.offer(b"6")
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert (outbox.sent, outbox.waiting(), outbox.redelivered) == (6, 1, 0)


def test_nothing_overtakes_what_waits_although_the_link_has_credit_again() -> None:
    outbox, _ = make(window=10_000)
    offer(outbox, b"1", b"2", b"3", b"4")
    link = FakeLink()
    bind(outbox, link)
    link.stream.take_in(MESSAGE_CHARGE + 1)  # known to the link, and to us in a moment
    outbox.offer(b"5")
    outbox.credit()
    assert link.payloads == [b"1", b"2", b"3", b"4"]


def test_a_bound_channel_accepts_what_the_link_has_credit_for() -> None:
    outbox, _ = make()
    link = FakeLink()
    bind(outbox, link)
    assert offer(outbox, b"1", b"2", b"3", b"4") == [True, True, True, False]
    assert outbox.waiting() == 3
    link.consume(outbox, 2)
    assert outbox.waiting() == 1
    assert offer(outbox, b"5", b"6", b"7") == [True, True, False]


def test_a_backlog_takes_what_the_link_does_not() -> None:
    outbox, _ = make(window=0, backlog=2 * (MESSAGE_CHARGE + 1))
    assert outbox.offer(b"0") is False  # nobody there, and no window for that
    link = FakeLink()
    bind(outbox, link)
    assert offer(outbox, *(b"%d" % n for n in range(1, 7))) == [True] * 5 + [False]
    assert link.payloads == [b"1", b"2", b"3"]
    link.consume(outbox, 3)
    assert link.payloads == [b"1", b"2", b"3", b"4", b"5"]
    assert outbox.offer(b"6")
    assert link.payloads[-1] == b"6"


def test_what_was_not_consumed_goes_first_to_the_next_one_marked_as_redelivered() -> None:
    outbox, losses = make(window=10_000)
    first, second = FakeLink(10_000), FakeLink(10_000)
    bind(outbox, first)
    offer(outbox, b"1", b"2", b"3")
    outbox.offer(b"raw", Flag.RAW)
    first.consume(outbox)
    assert unbind(outbox, first) == []
    offer(outbox, b"4")
    assert outbox.waiting() == 4
    bind(outbox, second)
    assert second.sent == [
        (b"2", Flag.REDELIVERED, 0),
        (b"3", Flag.REDELIVERED, 0),
        (b"raw", Flag.REDELIVERED | Flag.RAW, 0),
        (b"4", 0, 0),
    ]
    assert (outbox.sent, outbox.redelivered, outbox.lost, losses) == (5, 3, 0, [])
    second.consume(outbox, 4)
    assert outbox.waiting() == 0


def test_the_end_of_another_link_changes_nothing() -> None:
    outbox, _ = make()
    link, other = FakeLink(), FakeLink()
    bind(outbox, link)
    offer(outbox, b"1")
    assert unbind(outbox, other) == []
    assert outbox.bound
    assert outbox.waiting() == 1
    assert unbind(outbox, link) == []
    assert unbind(outbox, link) == []
    assert outbox.waiting() == 1


def test_a_message_is_set_aside_after_being_first_at_three_deaths_and_the_others_live_on() -> None:
    outbox, losses = make(window=10_000)
    offer(outbox, b"poison", b"good")
    for death in range(1, MAX_ATTEMPTS + 1):
        link = FakeLink(10_000)
        bind(outbox, link)
        assert link.payloads == [b"poison", b"good"]
        unbind(outbox, link)
        if death < MAX_ATTEMPTS:
            assert losses == []
    assert losses == [(1, "it was first in line 3 times when its receiver died; it may be what kills it")]
    assert outbox.lost == 1
    for _ in range(MAX_ATTEMPTS - 1):  # the next in line has its own three
        link = FakeLink(10_000)
        bind(outbox, link)
        assert link.payloads == [b"good"]
        unbind(outbox, link)
    link = FakeLink(10_000)
    bind(outbox, link)
    assert link.payloads == [b"good"]
    link.consume(outbox)
    assert (len(losses), outbox.waiting()) == (1, 0)


def test_only_deaths_as_the_first_count() -> None:
    outbox, losses = make(window=10_000)
    offer(outbox, b"0", b"1", b"2", b"3", b"4", b"5")
    for _ in range(5):
        link = FakeLink(10_000)
        bind(outbox, link)
        link.consume(outbox)
        unbind(outbox, link)
    assert losses == []
    assert outbox.waiting() == 1


def test_a_message_that_waits_for_credit_does_not_count_as_first_at_a_death() -> None:
    outbox, losses = make(window=10_000)
    offer(outbox, b"1")
    for _ in range(2):
        link = FakeLink()
        bind(outbox, link)
        unbind(outbox, link)
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"2")
    link.consume(outbox)
    unbind(outbox, link)  # 2 is first now, for the first time
    assert losses == []
    assert outbox.waiting() == 1


def test_giving_up_reports_everything_once() -> None:
    outbox, losses = make(window=10_000)
    offer(outbox, *[b"x"] * 5)
    link = FakeLink()  # takes three
    bind(outbox, link)
    link.consume(outbox)  # and one more
    assert outbox.give_up("the host ends") == 4
    assert losses == [(4, "the host ends")]
    assert (outbox.lost, outbox.waiting()) == (4, 0)
    assert outbox.give_up("again") == 0
    assert unbind(outbox, link) == []
    assert outbox.give_up("after the link") == 0
    assert losses == [(4, "the host ends")]


def test_giving_up_after_the_links_end_does_not_count_twice() -> None:
    outbox, losses = make()
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1", b"2")
    link.consume(outbox)
    unbind(outbox, link)
    assert outbox.give_up("why") == 1
    assert losses == [(1, "why")]


def test_giving_up_nothing_reports_nothing() -> None:
    outbox, losses = make()
    assert outbox.give_up("why") == 0
    assert losses == []


def test_requests_fail_instead_of_going_to_the_next_one() -> None:
    outbox, losses = make(window=10_000)
    link = FakeLink()
    bind(outbox, link)
    outbox.offer(b"1", Flag.REQUEST, 11)
    outbox.offer(b"2")
    assert unbind(outbox, link) == [11]
    outbox.offer(b"3", Flag.REQUEST, 12)  # asked while there is nobody: it waits for the next
    link = FakeLink()
    bind(outbox, link)
    assert link.sent == [(b"2", Flag.REDELIVERED, 0), (b"3", Flag.REQUEST, 12)]
    assert losses == []


def test_an_answered_request_is_not_reported() -> None:
    outbox, _ = make()
    link = FakeLink()
    bind(outbox, link)
    outbox.offer(b"1", Flag.REQUEST, 11)
    link.consume(outbox)
    assert unbind(outbox, link) == []


def test_a_request_in_the_backlog_can_be_taken_back_and_makes_room() -> None:
    """It made room without a word, so whoever waited for room slept on."""
    outbox, _ = make()
    offer(outbox, b"1")
    outbox.offer(b"2", Flag.REQUEST, 12)
    offer(outbox, b"3")
    woken = threading.Event()
    outbox.room.callbacks.append(woken.set)
    outbox.cancel_request(99)
    assert not woken.is_set()
    outbox.cancel_request(12)
    assert woken.is_set()
    assert outbox.offer(b"4")
    link = FakeLink()
    bind(outbox, link)
    assert link.payloads == [b"1", b"3", b"4"]


def test_an_ended_link_that_is_not_yet_unbound_is_like_none() -> None:
    outbox, _ = make()
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1")
    link.ended = True
    assert offer(outbox, b"2", b"3") == [True, True]
    unbind(outbox, link)
    link = FakeLink(10_000)
    bind(outbox, link)
    assert link.sent == [(b"1", Flag.REDELIVERED, 0), (b"2", 0, 0), (b"3", 0, 0)]


def test_a_reply_goes_out_beside_the_credit_and_to_nobody_without_a_link() -> None:
    outbox, losses = make()
    outbox.reply(b"r", Flag.REPLY, 1)
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1", b"2", b"3")
    outbox.reply(b"r", Flag.REPLY, 2)
    assert link.sent[-1] == (b"r", Flag.REPLY, 2)
    link.ended = True
    outbox.reply(b"r", Flag.REPLY, 3)
    assert (len(link.sent), losses) == (4, [])


def test_whoever_waits_for_room_is_woken_when_the_link_comes_and_goes_and_consumes() -> None:
    outbox, _ = make()
    rooms: list[str] = []
    outbox.on_room = lambda: rooms.append("relay")

    def armed() -> threading.Event:
        woken = threading.Event()
        outbox.room.callbacks.append(woken.set)
        return woken

    woken, link = armed(), FakeLink()
    bind(outbox, link)
    assert woken.is_set()
    offer(outbox, b"1", b"2")
    woken = armed()
    link.consume(outbox)
    assert woken.is_set()
    assert rooms == ["relay", "relay"]
    woken = armed()
    unbind(outbox, link)
    assert woken.is_set()
    woken = armed()
    outbox.give_up("x")
    assert woken.is_set()


def test_a_mark_is_reached_when_everything_before_it_is_consumed() -> None:
    outbox, _ = make()
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1", b"2")
    reached = outbox.mark()
    offer(outbox, b"3")
    assert reached() is NOTHING
    link.consume(outbox)
    assert reached() is NOTHING
    link.consume(outbox)
    assert reached() is True
    assert outbox.mark()() is NOTHING


def test_a_mark_is_reached_through_the_next_link() -> None:
    outbox, _ = make()
    first, second = FakeLink(), FakeLink()
    bind(outbox, first)
    offer(outbox, b"1")
    reached = outbox.mark()
    unbind(outbox, first)
    assert reached() is NOTHING
    bind(outbox, second)
    assert reached() is NOTHING
    second.consume(outbox)
    assert reached() is True


def test_a_mark_is_reached_when_nothing_is_left_to_wait_for() -> None:
    """After the receiver's end everything may have been consumed, or given up: ``flush`` used to wait for ever."""
    outbox, _ = make()
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1")
    reached, unbound = outbox.mark(), make()[0]
    link.consume(outbox)
    unbind(outbox, link)
    assert reached() is True
    assert unbound.mark()() is True
    offer(outbox, b"2")
    reached = outbox.mark()
    assert reached() is NOTHING
    outbox.give_up("x")
    assert reached() is True


@pytest.mark.parametrize("given_up", [False, True], ids=["closed", "given up"])
def test_what_is_offered_after_the_end_is_not_accepted(given_up: bool) -> None:
    """Nobody would look at the queue again: the message was neither received nor reported."""
    outbox, losses = make()
    link = FakeLink()
    bind(outbox, link)
    offer(outbox, b"1")
    unbind(outbox, link)
    if given_up:
        outbox.give_up("why")
    else:
        outbox.close("why")
    assert not outbox.has_room(0)
    assert offer(outbox, b"2") == [False]
    assert (outbox.sent, outbox.waiting()) == (1, 0)
    assert losses == [(1, "why")]
    late = FakeLink()  # opened by one who has seen it before its end
    late.end()
    bind(outbox, late)
    assert not outbox.bound
    outbox.reopen()
    assert outbox.has_room(0)
    bind(outbox, FakeLink())
    assert outbox.bound


def test_what_was_accepted_between_the_links_end_and_giving_up_is_reported() -> None:
    outbox, losses = make()
    link = FakeLink()
    bind(outbox, link)
    link.end()
    assert offer(outbox, b"1") == [True]
    unbind(outbox, link)
    assert offer(outbox, b"2") == [True]
    outbox.give_up("why")
    assert losses == [(2, "why")]


def test_forgetting_says_nothing() -> None:
    outbox, losses = make()
    offer(outbox, b"1")
    outbox.forget()
    assert (outbox.waiting(), losses, outbox.lost) == (0, [], 0)
    assert offer(outbox, b"1", b"2", b"3") == [True] * 3


def test_order_holds_while_links_come_and_go_under_a_sender() -> None:
    """One thread sends, another consumes and breaks links: each message is consumed once, in order, or reported."""
    outbox, losses = make(window=5 * 260)
    total = 1000
    got: list[int] = []

    def send() -> None:
        for number in range(total):
            payload = b"%d" % number
            assert outbox.room.wait(lambda payload=payload: outbox.try_offer(payload, 0, 0), 10.0) is True

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    links = 0
    while len(got) + outbox.lost < total:
        link = FakeLink(5 * 260)
        links += 1
        bind(outbox, link)
        for _ in range(7):
            outbox.room.wait(lambda link=link: bool(link.stream.unacknowledged) or NOTHING, 0.01)
            if link.stream.unacknowledged:
                got.append(int(link.stream.unacknowledged[0].unconsumed(link.stream.acknowledged)[0]))
                link.consume(outbox)
        unbind(outbox, link)
    sender.join(10.0)
    assert not sender.is_alive()
    assert got == sorted(set(got))
    assert len(got) + sum(count for count, _ in losses) == total
    assert links > 30
    assert outbox.waiting() == 0
