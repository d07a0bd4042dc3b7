"""The short ways of lone messages do what the general ways do, or nothing."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

import pytest
from link_kit import DEADLINE, End

from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.end import join as join_stream
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.unit import Received
from liteyuki_host.comm.codec import decode_payload, encode
from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.link.tuning import BURST_GAP, INLINE_BURST
from liteyuki_host.comm.protocol.batch import Batch
from liteyuki_host.comm.protocol.connection import Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import HEADER, MAX_FRAME_PAYLOAD, Flag, Kind
from liteyuki_host.comm.protocol.outbound import LARGE
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.transport.memory import MemoryTransport, memory_link
from liteyuki_host.comm.waiting.loops import Turn
from liteyuki_host.comm.waiting.waiting import Waiters


class Side(End):
    """An end whose link has no threads: the test is what reads and writes."""

    def __init__(self, role: Role, transport: MemoryTransport, *, window: int = 1 << 20) -> None:
        super().__init__(role, transport, window=window)
        self.credited: list[str] = []
        self.consuming = False

    def on_credit(self, stream: Stream) -> None:
        self.credited.append(stream.key[1])

    def flush(self) -> None:
        """Write all there is."""
        while data := self.link.connection.data_to_send():
            self.transport.write_all(data)

    def read(self, receive: Callable[[int], object]) -> object:
        """Read what is there."""
        return receive(self.transport.read_into(self.link.decoder.free))

    def state(self, stream: Stream) -> object:
        runs = [(run.payloads, run.size, run.start, run.end, run.flags) for run in stream.unacknowledged]
        connection = self.link.connection
        return (
            (stream.sent, stream.acknowledged, stream.limit, runs),
            (stream.received, stream.consumed, stream.granted, stream.owes),
            (self.got, self.flags, self.credited, [str(cause) for cause in self.causes]),
            (connection.heard, connection.pending, connection.wants_to_send, self.link.decoder.filled),
        )


async def handle(message: Received) -> None:
    raise AssertionError("nothing is handled in these tests: callbacks are called by a running worker")


def inbox_of(side: Side, *, mode: str | None = None) -> Inbox:
    """The inbox of the side's first stream, joined as a channel does it."""
    inbox = Inbox("x", handle)
    if mode is not None:
        inbox.use(mode)
    join_stream(inbox, side.link, side.streams[0])
    inbox.follow(side.link, side.streams[0])
    return inbox


def sides(*, window: int = 1 << 20) -> tuple[Side, Side, Stream]:
    """Greeted, and with one stream that both know."""
    there, back = memory_link()
    host, child = Side(Role.HOST, there, window=window), Side(Role.CHILD, back, window=window)
    for side in (host, child):
        side.flush()
    for side in (host, child):
        side.read(side.link.received_more)
        side.link.writer.quiet = True  # as after `start`
    stream = host.link.connection.open_stream("channel", "x")
    host.flush()
    child.read(child.link.received_more)
    child.streams[0].receiver = None
    return host, child, stream


def frames(seed: int, outstanding: int) -> list[bytes]:
    """What a peer may send on stream 2: mostly lone messages, and everything that is nearly one.

    Args:
        outstanding: messages of one byte that it has to acknowledge.
    """
    generator = random.Random(seed)
    acknowledged = 0
    result = []
    for number in range(40):
        payload = generator.choice((b"", b"short", b"x" * 200, b"y" * LARGE, b"z" * generator.randrange(4000)))
        length, kind, flags, stream, ack = len(payload), Kind.MESSAGE, 0, 2, acknowledged
        odd = generator.randrange(40)
        if odd < 4:
            flags = generator.choice((Flag.RAW, Flag.REDELIVERED, Flag.REQUEST, Flag.REPLY))
            payload = bytes(8) + payload if flags & (Flag.REQUEST | Flag.REPLY) else payload
            length = len(payload)
        elif odd < 10 and acknowledged < outstanding * (MESSAGE_CHARGE + 1):
            acknowledged += MESSAGE_CHARGE + 1
            ack = acknowledged
        elif odd == 10:
            ack += 1  # of half a message
        elif odd == 11 and number > 30:
            ack += 1 << 20  # more than was sent
        elif odd == 12 and number > 30:
            stream = 3
        elif odd == 13 and number > 30:
            length = MAX_FRAME_PAYLOAD + 1
        elif odd == 14 and number > 30:
            kind = 9
        frame = HEADER.pack(length, kind, flags, stream, ack) + payload
        result += [frame[:7], frame[7:]] if odd == 15 else [frame * 2] if odd == 16 else [frame]
    return result


@pytest.mark.parametrize("seed", range(60))
def test_what_is_received_alone_is_as_in_the_general_way(seed: int) -> None:
    ended = []
    for alone in (False, True):
        host, child, stream = sides(window=1 << 16 if seed % 2 else 1 << 20)
        states: list[object] = []
        outstanding = 20 if seed % 4 else 1
        for number in range(outstanding):  # in runs of one and of several
            host.link.connection.send(stream, b"1")
            if number % 3:
                host.link.connection.open_batch = None
        receive = host.link.received if alone else host.link.received_more
        for data in frames(seed, outstanding):
            child.transport.write_all([data])
            more = host.read(receive)
            states.append((more, host.state(stream)))
            if not more:
                break
            if stream.received - stream.consumed > 1 << 15 and seed % 3:
                stream.consume(stream.received - stream.consumed)
        ended.append(states)
    assert ended[0] == ended[1]


def test_a_waiting_thread_keeps_its_message() -> None:
    host, child, stream = sides()
    theirs, inbox = child.streams[0], inbox_of(child)

    def next_message(*, settled: bool = True, wanted: Stream | None = theirs) -> object:
        child.link.settled = settled
        host.link.connection.send(stream, b"for you")
        host.flush()
        return child.link.received(child.transport.read_into(child.link.decoder.free), wanted)

    assert next_message() == (b"for you", 0, 0, theirs.source)
    assert theirs.consumed == theirs.received == len(b"for you") + MESSAGE_CHARGE
    assert list(child.link.connection.owing) == [theirs]
    assert child.link.writer.armed, "a grant follows soon"
    assert inbox.received == 1
    assert (child.got, inbox.waiting()) == ([], 0), "nobody else is told"
    assert next_message(settled=False) is True, "the handler is asked first"
    assert next_message(wanted=None) is True, "no thread waits"
    assert next_message(wanted=child.link.connection.store) is True, "the thread waits for another stream"
    assert next_message() is True, "earlier messages come first"
    assert child.got == [("x", b"for you")], "the handler"
    assert (inbox.received, inbox.waiting()) == (4, 3)
    assert theirs.consumed == len(b"for you") + MESSAGE_CHARGE


def test_kept_messages_are_granted_when_many() -> None:
    host, child, stream = sides(window=1 << 11)
    theirs = child.streams[0]
    inbox_of(child)
    for _ in range(4):  # of 256 bytes and a little: the fourth is half of the window
        host.link.connection.send(stream, b"for you")
        host.flush()
        child.link.received(child.transport.read_into(child.link.decoder.free), theirs)
        if theirs.received < 1 << 10:
            assert (theirs.granted, list(child.link.connection.owing)) == (0, [theirs])
    assert theirs.granted == theirs.consumed == theirs.received
    host.read(host.link.received)
    assert stream.acknowledged == stream.sent


async def test_the_loop_hands_its_message_to_the_free_task() -> None:
    host, child, stream = sides()
    loop = asyncio.get_running_loop()
    got: list[object] = []
    callbacks = Callbacks()
    only = Callback(got.append, None, decode_payload)
    callbacks.add(only)
    inbox = Inbox("x", handle, callbacks=callbacks)
    inbox.use("passive")
    theirs = child.streams[0]
    join_stream(inbox, child.link, theirs)
    inbox.follow(child.link, theirs)
    inbox.attach_loop(loop)

    def message(flags: int = 0, *, turn: Turn | None = None) -> Turn:
        """Have the loop read one message; returns its turn, in which nothing has been done yet."""
        turn = turn or Turn(loop)
        host.link.connection.send(stream, encode("x"), flags)
        host.flush()
        assert child.link.received(child.transport.read_into(child.link.decoder.free), None, turn) is True
        return turn

    async def settle() -> None:
        while inbox.waiting() or inbox.worker.current is None or not inbox.worker.current.free:
            await asyncio.sleep(0)

    message()
    await settle()  # it has started the task
    assert got == ["x"]
    turn = message()
    assert len(turn.due) == 1
    assert message().due == [], "the task is not free any more"
    loop.call_soon(turn.end)
    await settle()
    assert got == ["x"] * 3
    assert message(Flag.RAW).due == [], "a message with flags is not only its payload"
    await settle()
    other = asyncio.new_event_loop()
    assert message(turn=Turn(other)).due == [], "another loop reads"
    other.close()
    await settle()
    child.link.settled = False
    assert message().due == []
    assert len(child.got) == 1, "the handler is asked first"
    child.link.settled = True
    callbacks.discard(only)
    assert message().due == [], "there is no callback"
    assert message().due == [], "earlier messages come first"
    callbacks.add(only)
    inbox.worker.wake()
    await settle()
    assert got == ["x"] * 3 + [encode("x")] + ["x"] * 3
    inbox.detach_loop()
    await asyncio.sleep(0)


@pytest.mark.parametrize("waits", ["nobody", "room", "relay", "backlog", "nobody known"])
def test_credit_is_told_where_somebody_waits(waits: str) -> None:
    host, child, stream = sides()

    class User:
        backlog: list[object] = []  # noqa: RUF012  # of one test
        room = Waiters()
        on_room: object = None
        told = 0

        def credit(self) -> None:
            self.told += 1

    user = User()
    stream.user = None if waits == "nobody known" else user
    user.backlog = [1] if waits == "backlog" else []
    user.on_room = print if waits == "relay" else None
    user.room = Waiters()
    if waits == "room":
        user.room.callbacks.append(lambda: None)
    host.link.connection.send(stream, b"question")
    host.flush()
    child.read(child.link.received)
    theirs = child.streams[0]
    theirs.consume(theirs.received - theirs.consumed)
    child.link.connection.send(theirs, b"answer")
    child.flush()
    host.read(host.link.received)
    assert user.told == (waits not in ("nobody", "nobody known"))
    assert host.credited == (["x"] if waits == "nobody known" else [])


def test_what_is_acknowledged_may_be_given_up_meanwhile() -> None:
    host, child, stream = sides()

    class GivenUp(deque[Batch]):
        """Emptied by another thread between two steps."""

        def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
            self.clear()
            return super().__getitem__(index)

    host.link.connection.send(stream, b"question")
    host.flush()
    child.read(child.link.received)
    theirs = child.streams[0]
    theirs.consume(theirs.received - theirs.consumed)
    child.link.connection.send(theirs, b"answer")
    child.flush()
    stream.unacknowledged = GivenUp(stream.unacknowledged)
    assert host.read(host.link.received) is True
    assert host.got == [("x", b"answer")]
    assert stream.acknowledged == stream.sent


def test_a_bug_of_the_handler_ends_the_link_with_a_word() -> None:
    host, child, stream = sides()

    def failing(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    child.on_got = failing
    host.link.connection.send(stream, b"1")
    host.flush()
    assert child.read(child.link.received) is False
    assert "failed inside lycomm: ZeroDivisionError: a bug" in str(child.causes[0])


def test_what_may_not_be_sent_ends_the_link_in_the_name_of_the_sender() -> None:
    """A lone message as any other: the receiver of the shared memory may find that out."""
    host, child, stream = sides()

    def refusing(*arguments: object) -> None:
        raise RemoteProtocolError("no request")

    child.on_got = refusing
    host.link.connection.send(stream, b"1")
    host.flush()
    assert child.read(child.link.received) is False
    assert str(child.causes[0]) == "test-child broke the link's protocol: no request"


@pytest.mark.parametrize("owed", ["", "x", "xy", "yx"])
def test_what_is_sent_alone_is_as_in_the_general_way(owed: str) -> None:
    results = []
    for alone in (False, True):
        host, child, stream = sides()
        other = host.link.connection.open_stream("channel", "y")
        host.flush()
        child.read(child.link.received_more)
        if owed:
            for theirs in child.streams:
                child.link.connection.send(theirs, b"question")
            child.flush()
            host.read(host.link.received_more)
            for name in owed:
                consumed = stream if name == "x" else other
                consumed.consume(consumed.received - consumed.consumed)
        if alone:
            assert host.link.shortcut(stream)(b"answer")
            assert other.owes == ("y" in owed)  # not worth a frame: for the flusher, which who consumes has woken
        else:
            assert host.link.send(stream, b"answer")
        child.read(child.link.received_more)
        assert child.got == [("x", b"answer")]
        if other.owes:
            host.flush()
            child.read(child.link.received_more)
        written = (host.link.writer.writing, host.link.writer.burst, host.link.writer.last_write > 0)
        results.append((host.state(stream), written, other.granted, child.credited, child.state(child.streams[0])))
    assert results[0][:3] == results[1][:3]
    assert sorted(results[0][3]) == sorted(results[1][3])


def test_what_is_not_alone_is_not_sent_so() -> None:
    host, _, stream = sides(window=3 * MESSAGE_CHARGE)
    link, connection = host.link, host.link.connection
    send = link.shortcut(stream)
    before = host.state(stream)
    assert not send(b"x" * LARGE)
    assert not send(b"x" * 3 * MESSAGE_CHARGE), "without credit"
    assert not send(b"1", False), "one of many, and nothing waits that it could join"
    link.writer.quiet = False
    for what in ("armed", "writing", "closed"):  # the flusher is on its way with others, somebody writes, it is over
        setattr(link.writer, what, True)
        assert not send(b"1"), what
        setattr(link.writer, what, False)
    assert host.state(stream) == before
    link.writer.quiet = True
    stream.consume(1)
    link.writer.grant(stream)
    assert send(b"1"), "while the flusher is on its way with grants only"
    connection.send(stream, b"x" * LARGE)
    link.flush(0)
    assert not send(b"1"), "before what was sent earlier"


def test_a_burst_is_written_one_by_one_at_first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, stream = sides()
    monkeypatch.setattr("liteyuki_host.comm.link.sender.BURST_GAP", 60.0)
    send = host.link.shortcut(stream)
    assert BURST_GAP < 60
    assert [send(b"1") for _ in range(INLINE_BURST + 2)] == [True] * INLINE_BURST + [False] * 2
    host.link.connection.heard = True
    assert send(b"an answer")


@pytest.mark.parametrize("taken", [0, 3])
def test_what_the_transport_does_not_take_is_left_to_the_flusher(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host, child, stream = sides()

    def send_some(data: bytes, at_once: int) -> int:
        if not taken:
            raise BlockingIOError
        return host.transport.try_write([data[:taken]])

    monkeypatch.setattr(host.transport, "send", send_some)
    send = host.link.shortcut(stream)
    assert send(b"message")
    assert host.link.writer.writing, "the flusher has the role"
    assert host.link.writer.armed
    assert not send(b"another"), "which waits behind it"
    monkeypatch.undo()
    host.link.writer.start()  # the flusher
    while child.got != [("x", b"message")]:
        child.read(child.link.received_more)
    host.link.close("the test is over")
    host.link.received_more(0)
    host.link.writer.join(DEADLINE)
    child.transport.close()


def test_a_peer_that_is_gone_is_the_readers_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child, stream = sides()
    child.transport.close()
    closed: list[bool] = []
    monkeypatch.setattr(host.transport, "close", lambda: closed.append(True))
    assert host.link.shortcut(stream)(b"1"), "it is kept until the link's end is known"
    assert not host.link.writer.writing
    assert closed == [True], "so that its reader comes to the end"
    assert [run.payloads for run in stream.unacknowledged] == [[b"1"]]
