"""Closing streams: both sides agree, nothing is lost, and numbers are used again."""

from __future__ import annotations

from collections import deque

import pytest
from connection_kit import Peer, exchange, hello
from hypothesis import given
from hypothesis import strategies as st

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.connection import Role
from liteyuki_host.comm.protocol.frames import Flag, Kind, encode_frame
from liteyuki_host.comm.protocol.messages import Close, Closed, CloseRefused, Control, Open, encode_control
from liteyuki_host.comm.protocol.stream import Stream


class Side(Peer):
    """One side that answers. It uses the names in ``uses``, and keeps in ``queues`` what it cannot send yet."""

    def __init__(self, role: Role, **greeting: int) -> None:
        super().__init__(role, hello(role.name.lower(), **greeting))
        self.uses: set[str] = set()
        self.queues: dict[str, deque[bytes]] = {}
        self.closed: list[tuple[str, int]] = []  # by agreement: name, number

    def on_control(self, message: Control) -> None:
        super().on_control(message)
        closing = self.connection.closing
        if isinstance(message, Close):
            stream = closing.stream(message.stream, asked_by_us=False)
            name = stream.key[1]
            stream.take_in(message.ack)
            if closing.answer(stream, willing=name not in self.uses and not self.queues.get(name)):
                self.closed.append((name, stream.id))
        elif isinstance(message, (Closed, CloseRefused)):
            stream = closing.stream(message.stream, asked_by_us=True)
            closing.answered(stream, closed=isinstance(message, Closed))
            if isinstance(message, Closed):
                self.closed.append((stream.key[1], stream.id))
            self.pump()

    def stream(self, name: str) -> Stream | None:
        return self.connection.table.find("channel", name)

    def send(self, name: str, payload: bytes) -> None:
        self.queues.setdefault(name, deque()).append(payload)
        self.pump()

    def pump(self) -> None:
        for name, queue in self.queues.items():
            while queue and self.connection.send(self.connection.open_stream("channel", name), queue[0]):
                queue.popleft()

    def ask(self, name: str) -> bool:
        stream = self.stream(name)
        return stream is not None and self.connection.closing.ask(stream)

    @property
    def numbers(self) -> set[int]:
        return {number for number in self.connection.streams if number > 1}


def sides() -> tuple[Side, Side]:
    host, child = Side(Role.HOST), Side(Role.CHILD)
    exchange(host, child)
    host.events.clear()
    child.events.clear()
    return host, child


def opened(host: Side, child: Side, name: str = "x") -> tuple[Stream, Stream]:
    back = child.connection.open_stream("channel", name)
    exchange(host, child)
    there = host.stream(name)
    assert there is not None
    return there, back


def test_an_unused_stream_is_forgotten_by_both() -> None:
    host, child = sides()
    opened(host, child)
    assert child.ask("x")
    exchange(host, child)
    assert host.numbers == child.numbers == set()
    assert host.closed == child.closed == [("x", 3)]


def test_a_closed_number_means_something_else_next() -> None:
    host, child = sides()
    for name in ("a", "b", "c"):
        there, back = opened(host, child, name)
        assert (there.id, there.key[1]) == (back.id, name) == (3, name)
        child.send(name, name.encode())
        exchange(host, child)
        host.consume_all()
        exchange(host, child)
        assert child.ask(name)
        exchange(host, child)
    assert host.arrived == [("a", b"a"), ("b", b"b"), ("c", b"c")]


def test_more_streams_than_numbers_one_after_the_other() -> None:
    """A child that used 32,767 names, ever, could not use another one, and nor could its next start."""
    host, child = sides()
    for number in range(33_000):
        child.connection.open_stream("channel", str(number))
        if number % 1_000 == 999:
            exchange(host, child)
            for before in range(number - 999, number + 1):
                assert child.ask(str(before))
            exchange(host, child)
    assert host.numbers == child.numbers == set()


def test_what_is_used_stays_open() -> None:
    host, child = sides()
    there, back = opened(host, child)
    host.uses.add("x")
    assert child.ask("x")
    exchange(host, child)
    assert child.controls == [CloseRefused(3)]
    child.send("x", b"1")
    host.send("x", b"2")
    exchange(host, child)
    assert (host.arrived, child.arrived) == ([("x", b"1")], [("x", b"2")])
    assert (host.stream("x"), child.stream("x")) == (there, back)


@pytest.mark.parametrize("what", ["sent", "received", "staged", "answered", "a large answer"])
def test_nobody_asks_while_something_is_on_its_way(what: str) -> None:
    host, child = sides()
    there, back = opened(host, child)
    if what == "sent":
        child.send("x", b"1")
    elif what == "received":
        host.send("x", b"1")
        child.input(host.output())
    elif what == "staged":
        child.connection.open_stage(back)
        back.stage.places.pop()
        back.stage.payloads.append(b"1")
    else:
        payload = b"1" if what == "answered" else b"1" * 600_000
        assert child.connection.send(back, payload, Flag.REPLY, 7)
        if what == "a large answer":
            host.input(b"".join(child.connection.data_to_send()))  # the first piece of it
    assert not child.ask("x")
    exchange(host, child)
    host.consume_all()
    child.consume_all()
    exchange(host, child)
    assert child.ask("x")
    assert there.key == back.key


def test_a_message_that_crosses_the_question_refuses_it() -> None:
    host, child = sides()
    opened(host, child)
    host.send("x", b"on its way")
    on_its_way = host.output()
    assert child.ask("x")
    host.input(child.output())
    child.input(on_its_way)
    exchange(host, child)
    assert child.controls == [CloseRefused(3)]
    child.consume_all()
    exchange(host, child)  # the grant that could not go before
    assert host.unacknowledged(host.stream("x") or pytest.fail("closed")) == []
    assert child.ask("x")


def test_what_is_sent_meanwhile_goes_on_the_next_stream() -> None:
    host, child = sides()
    _, back = opened(host, child)
    assert child.ask("x")
    child.send("x", b"meanwhile")
    assert back.sent == 0
    exchange(host, child)
    assert host.arrived == [("x", b"meanwhile")]
    assert child.stream("x") is not back
    assert child.closed == [("x", 3)]


def test_what_is_sent_meanwhile_goes_when_it_stays_open() -> None:
    host, child = sides()
    _, back = opened(host, child)
    host.uses.add("x")
    assert child.ask("x")
    child.send("x", b"meanwhile")
    exchange(host, child)
    assert host.arrived == [("x", b"meanwhile")]
    assert child.stream("x") is back


@pytest.mark.parametrize("stays", [True, False])
def test_an_answer_given_meanwhile_follows_the_decision(stays: bool) -> None:
    host, child = sides()
    _, back = opened(host, child)
    if stays:
        host.uses.add("x")
    assert child.ask("x")
    assert child.connection.send(back, b"the answer", Flag.REPLY, 7)
    exchange(host, child)
    assert host.arrived == ([("x", b"the answer")] if stays else [])
    child.send("x", b"next")
    exchange(host, child)
    assert host.arrived[-1] == ("x", b"next")


def test_a_stream_of_two_numbers_frees_both() -> None:
    host, child = sides()
    host.connection.open_stream("channel", "x")
    child.connection.open_stream("channel", "x")
    exchange(host, child)
    assert host.numbers == child.numbers == {2, 3}
    assert child.ask("x")
    exchange(host, child)
    assert host.numbers == child.numbers == set()
    assert host.connection.open_stream("channel", "y").id == 2
    assert child.connection.open_stream("channel", "z").id == 3
    exchange(host, child)
    assert host.numbers == child.numbers == {2, 3}


def test_an_open_may_cross_the_question() -> None:
    host, child = sides()
    host.connection.open_stream("channel", "x")
    opening = host.output()
    child.connection.open_stream("channel", "x")
    assert child.ask("x")
    child.input(opening)
    exchange(host, child)
    assert host.numbers == child.numbers == set()


def test_the_host_closes_topics() -> None:
    host, child = sides()
    child.connection.open_stream("topic", "news")
    exchange(host, child)
    stream = host.connection.table.find("topic", "news")
    assert stream is not None
    assert host.connection.closing.ask(stream)
    exchange(host, child)
    assert host.numbers == child.numbers == set()


def test_a_peer_that_cannot_close_is_not_asked() -> None:
    host, child = Peer(Role.HOST, hello("host")), Peer(Role.CHILD, hello("child"))
    host.connection.hello = host.connection.hello.__class__(1, "host", 1)
    exchange(host, child)
    child.connection.peer = host.connection.hello
    stream = child.connection.open_stream("channel", "x")
    assert not child.connection.closing.ask(stream)


BAD = {
    "what was not opened": ([Close(9, 0)], "stream 9 cannot be closed, as it was not opened"),
    "the shared memory": ([Close(0, 0)], "stream 0 cannot be closed"),
    "a topic, by the child": ([Open(3, "topic", "t"), Close(3, 0)], "stream 3 cannot be closed by that side"),
    "an answer to nothing": ([Open(3, "topic", "t"), Closed(3)], "was not asked for"),
    "a refusal of nothing": ([Open(3, "topic", "t"), CloseRefused(3)], "was not asked for"),
    "an answer to its own": ([Open(3, "channel", "t"), Closed(3)], "stream 3 cannot be closed by that side"),
    "twice": ([Open(3, "channel", "x"), Close(3, 0), Close(3, 0)], "stream 3 cannot be closed, as it was not opened"),
    "a name opened twice": (
        [Open(3, "channel", "x"), Open(5, "channel", "x"), Open(7, "channel", "x")],
        "opened twice",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_close_against_the_rules_is_refused(name: str) -> None:
    messages, words = BAD[name]
    host, _ = sides()
    with pytest.raises(RemoteProtocolError, match=words):  # noqa: PT012
        for message in messages:
            host.input(encode_frame(Kind.CONTROL, encode_control(message)))


def test_data_behind_a_close_is_refused() -> None:
    host, _ = sides()
    host.input(encode_frame(Kind.CONTROL, encode_control(Open(3, "channel", "x"))))
    host.input(encode_frame(Kind.CONTROL, encode_control(Close(3, 0))))
    with pytest.raises(RemoteProtocolError, match="data on stream 3, which was not opened"):
        host.input(encode_frame(Kind.MESSAGE, b"late", stream=3))


NAMES = "xyz"
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["child sends", "host sends", "ask", "there", "back", "consume", "use", "unuse"]),
        st.sampled_from(NAMES),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_however_it_crosses(steps: list[tuple[str, str]]) -> None:
    """Every message arrives once and in order, whenever streams are closed and opened again."""
    host, child = sides()
    there: deque[bytes] = deque()
    back: deque[bytes] = deque()
    sent: dict[tuple[str, str], list[bytes]] = {}

    def write() -> None:
        there.extend(filter(None, [child.output()]))
        back.extend(filter(None, [host.output()]))

    for number, (step, name) in enumerate(steps):
        payload = b"%d" % number
        if step == "child sends":
            child.send(name, payload)
            sent.setdefault(("host", name), []).append(payload)
        elif step == "host sends":
            host.send(name, payload)
            sent.setdefault(("child", name), []).append(payload)
        elif step == "ask":
            child.ask(name)
        elif step == "use":
            host.uses.add(name)
        elif step == "unuse":
            host.uses.discard(name)
        elif step == "consume":
            host.consume_all()
            child.consume_all()
        write()
        if step == "there" and there:
            host.input(there.popleft())
        elif step == "back" and back:
            child.input(back.popleft())
        write()
    host.uses.clear()
    for _ in range(4):  # everything arrives, then everything is consumed, then everything is closed
        while there or back:
            if there:
                host.input(there.popleft())
            if back:
                child.input(back.popleft())
            write()
        host.consume_all()
        child.consume_all()
        write()
    for name in NAMES:
        child.ask(name)
    exchange(host, child)
    for side, word in ((host, "host"), (child, "child")):
        for name in NAMES:
            assert [p for n, p in side.arrived if n == name] == sent.get((word, name), [])
    assert host.numbers == child.numbers == set()
