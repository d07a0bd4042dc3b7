"""Messages of a burst that are staged without the lock: in order with all others, within the credit, none lost."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from link_kit import DEADLINE, End, close, join, until
from test_short_ways import Side, sides

from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.errors import LinkClosed
from liteyuki_host.comm.link import writer as writer_module
from liteyuki_host.comm.link.tuning import INLINE_BURST
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGE_CREDIT, STAGE_PLACES, STAGED_SIZE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.outbound import WRITE_SIZE
from liteyuki_host.comm.protocol.stage import Stage
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.transport.posix import socket_link
from liteyuki_host.comm.waiting.waiting import NOTHING, Gate


def near(*, window: int = 1 << 20) -> tuple[Side, Side, Stream]:
    """As `sides`, but what the host writes is read at once."""
    host, child, stream = sides(window=window)

    def write(data: bytes, at_once: int) -> int:
        child.link.connection.receive_data(data, child.link)
        return len(data)

    host.link.writer.transport = host.transport = SimpleNamespace(  # type: ignore[assignment]
        at_once=0,
        send=write,
        try_write=lambda buffers: write(b"".join(buffers), 0),
        close=lambda: None,
    )
    return host, child, stream


def staging(*, window: int = 1 << 20) -> tuple[Side, Side, Stream, Callable[[bytes], bool]]:
    """A host whose stage is open for the stream, and whose flusher is the test. Everything before has been read."""
    host, child, stream = near(window=window)
    send = host.link.shortcut(stream)
    for _ in range(INLINE_BURST):
        assert send(b"one by one")
    assert host.link.send(stream, b"woke the flusher")
    assert not stream.stage.open
    assert send(b"opened the stage")
    child.got.clear()
    return host, child, stream, send


def arm(host: Side) -> None:
    """Have somebody on the way who writes what is queued."""
    host.link.writer.armed = True
    host.link.writer.quiet = False


def look(host: Side) -> None:
    """What the flusher does."""
    host.link.writer.armed = False
    host.link.write_queued()


def answer(host: Side, child: Side) -> None:
    """What the child has to say is read by the host."""
    while data := child.link.connection.data_to_send():
        host.link.connection.receive_data(b"".join(data), host.link)


def cost(payloads: list[bytes]) -> int:
    return sum(map(len, payloads)) + MESSAGE_CHARGE * len(payloads)


def taking_long(append: Callable[[], None]) -> type[deque[bytes]]:
    class Payloads(deque[bytes]):
        """Something happens before a payload is there."""

        def append(self, payload: bytes) -> None:
            append()
            super().append(payload)

    return Payloads


@pytest.mark.parametrize("seed", range(40))
def test_everything_arrives_in_the_order_sent_and_within_its_credit(seed: int) -> None:
    generator = random.Random(seed)
    host, child, first = near(window=(1 << 18) if seed % 2 else 1 << 20)
    child.consuming = bool(seed % 3)
    connection = host.link.connection
    streams = [first, host.link.open_stream("channel", "y"), host.link.open_stream("channel", "z")]
    shortcuts = [host.link.shortcut(stream) for stream in streams]
    staged = 0
    sent: list[tuple[str, bytes]] = []
    for number in range(3000):
        which = generator.choice((0, 0, 0, 1, 2)) if generator.random() < 0.1 or not sent else which  # noqa: F821
        stream = streams[which]
        size = generator.choice((5, 5, 40, STAGED_SIZE - 4))
        if generator.random() < 0.01:
            size = generator.choice((STAGED_SIZE, 20_000))
        payload = number.to_bytes(4, "big") + bytes(size)
        flags = Flag.RAW if generator.random() < 0.005 else 0
        sent_shortly = not flags and shortcuts[which](payload, generator.random() < 0.5)
        if not sent_shortly and not host.link.send(stream, payload, flags):
            look(host)
            for other in child.link.connection.streams.values():
                other.consume_quietly(other.received - other.consumed)
            answer(host, child)
            assert host.link.send(stream, payload, flags)
        sent.append((stream.key[1], payload))
        staged = max(staged, len(stream.stage.payloads))
        assert len(stream.stage.payloads) + len(stream.stage.places) == STAGE_PLACES
        assert all(len(payload) <= STAGED_SIZE for payload in stream.stage.payloads)
        assert not stream.stage.open or connection.queue
        assert stream.sent <= stream.limit
        if generator.random() < 0.01:
            look(host)
    look(host)
    assert child.got == sent
    assert not child.causes, "the peer has seen no fault, neither in sizes nor in credit"
    assert staged > STAGE_PLACES // 2
    assert connection.pending == 0
    for stream in streams:
        assert not stream.unacknowledged or stream.unacknowledged[-1].end == stream.sent
        assert all(run.end - run.start == cost(run.payloads) for run in stream.unacknowledged)
        assert all(run.size <= WRITE_SIZE or len(run.payloads) <= STAGE_PLACES for run in stream.unacknowledged)


def test_a_full_stage_goes_on_in_the_queue() -> None:
    host, child, stream, send = staging()
    for number in range(3 * STAGE_PLACES):
        assert send(b"%d" % number)
        assert len(stream.stage.payloads) <= STAGE_PLACES
    assert stream.stage.open
    look(host)
    assert not stream.stage.open
    assert child.got[2:] == [("x", b"%d" % number) for number in range(3 * STAGE_PLACES)]


def test_a_full_stage_makes_no_run_that_is_too_long_for_a_frame() -> None:
    host, child, stream, send = staging()
    connection = host.link.connection
    host.link.settle()
    while connection.pending < WRITE_SIZE - STAGED_SIZE:
        assert connection.send(stream, bytes(STAGED_SIZE))
    connection.open_stage(stream)
    for _ in range(STAGE_PLACES):
        assert send(bytes(STAGED_SIZE))
    host.link.settle()
    assert [run.size <= WRITE_SIZE or len(run.payloads) == STAGE_PLACES for run in connection.queue] == [True, True]
    look(host)
    assert len(child.got) == sum(len(run.payloads) for run in stream.unacknowledged) - INLINE_BURST


def test_what_is_sent_elsewhere_comes_behind_what_is_staged() -> None:
    host, child, stream, send = staging()
    other = host.link.connection.open_stream("channel", "y")
    assert send(b"before")
    assert host.link.send(other, b"behind")
    assert not stream.stage.open
    assert send(b"last") or host.link.send(stream, b"last")
    look(host)
    assert child.got[2:] == [("x", b"before"), ("y", b"behind"), ("x", b"last")]


def test_no_stage_is_opened_without_credit_for_all_its_places() -> None:
    host, child, stream, _ = staging(window=1 << 18)
    child.consuming = False
    look(host)
    while stream.limit - stream.sent >= STAGE_CREDIT:
        assert host.link.send(stream, bytes(1000))
        host.link.connection.open_stage(stream)
        assert stream.stage.open == (stream.limit - stream.sent >= STAGE_CREDIT)
        host.link.settle()
    count = 0
    while host.link.send(stream, b""):
        assert not stream.stage.open
        count += 1
    assert count == pytest.approx(STAGE_CREDIT // MESSAGE_CHARGE, abs=5)


@pytest.mark.parametrize("reopened", [False, True], ids=["closed", "and opened again"])
def test_what_comes_onto_a_stage_that_is_being_closed_is_sent_all_the_same(reopened: bool) -> None:
    host, child, stream = near()

    def close_it() -> None:
        look(host)
        if reopened:
            arm(host)
            host.link.connection.open_stage(stream)

    stream.stage = Stage()
    stream.stage.payloads = taking_long(close_it)()
    send = host.link.shortcut(stream)
    arm(host)
    host.link.connection.open_stage(stream)
    assert send(b"late") or host.link.send(stream, b"late")
    look(host)
    assert child.got == [("x", b"late")]
    assert len(stream.stage.places) == STAGE_PLACES


def test_what_comes_too_late_and_went_along_is_not_sent_twice() -> None:
    host, child, stream = near()

    class Payloads(deque[bytes]):
        def append(self, payload: bytes) -> None:
            super().append(payload)
            host.link.settle()  # closes it, and takes the payload along

    stream.stage.payloads = Payloads()
    send = host.link.shortcut(stream)
    host.link.connection.open_stage(stream)
    assert send(b"once")
    look(host)
    assert child.got == [("x", b"once")]


def test_what_comes_too_late_at_the_end_of_the_link_was_not_sent() -> None:
    host, _, stream = near()

    def end() -> None:
        assert not host.link.received_more(0)  # the end of the stream

    stream.stage.payloads = taking_long(end)()
    send = host.link.shortcut(stream)
    arm(host)
    host.link.connection.open_stage(stream)
    assert not send(b"late")
    assert not stream.unacknowledged
    with pytest.raises(LinkClosed):
        host.link.send(stream, b"late")


def test_more_than_there_is_credit_for_is_left_to_those_who_came_late() -> None:
    stage = Stage()
    for number in range(4):
        stage.places.pop()
        stage.payloads.append(b"%d" % number)
    assert stage.take(2 * (MESSAGE_CHARGE + 1)) == ([b"0", b"1"], 2)
    assert list(stage.payloads) == [b"2", b"3"]
    assert stage.take_back(b"3")
    assert not stage.take_back(b"1")
    assert stage.take(1 << 20) == ([b"2"], 1)
    assert len(stage.places) == STAGE_PLACES


def test_what_is_staged_waits_to_be_consumed_like_all_else() -> None:
    host, child, stream, _ = staging()
    outbox = Outbox(on_lost=lambda count, why: None)
    outbox.bind(host.link, stream)
    before = outbox.waiting()
    host.link.connection.open_stage(stream)
    for _ in range(10):
        assert outbox.shortcut(b"x")
    assert stream.stage.payloads
    assert outbox.waiting() == before + 10
    look(host)
    theirs = child.streams[0]

    def consume() -> None:
        theirs.consume(theirs.received - theirs.consumed)
        answer(host, child)

    consume()
    assert outbox.waiting() == 0
    host.link.connection.open_stage(stream)
    assert outbox.shortcut(b"x")
    consumed = outbox.mark()
    assert consumed() is NOTHING
    look(host)
    consume()
    assert consumed() is True


@pytest.mark.parametrize("given_up", [False, True], ids=["unbound", "given up"])
def test_what_is_staged_is_not_forgotten_when_its_channel_leaves_the_link(given_up: bool) -> None:
    host, _, stream, _ = staging()
    lost: list[int] = []
    outbox = Outbox(on_lost=lambda count, why: lost.append(count))
    outbox.bind(host.link, stream)
    before = outbox.waiting()
    host.link.connection.open_stage(stream)
    assert outbox.shortcut(b"staged")
    if given_up:
        assert outbox.give_up("test") == before + 1
        assert lost == [before + 1]
    else:
        outbox.unbind(host.link)
        assert [item.payload for item in outbox.backlog][before:] == [b"staged"]


def test_what_is_staged_at_the_end_of_a_link_goes_to_the_next_one() -> None:
    host, _, stream, _ = staging()
    outbox = Outbox(on_lost=lambda count, why: None)
    outbox.bind(host.link, stream)
    before = outbox.waiting()
    host.link.connection.open_stage(stream)
    assert outbox.shortcut(b"staged")
    assert stream.stage.payloads
    assert not host.link.received_more(0)  # the end of the stream
    outbox.unbind(host.link)
    assert outbox.waiting() == before + 1
    assert outbox.backlog[-1].payload == b"staged"


def test_who_begins_to_wait_writes_what_is_staged(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child = join(socket_link)
    stream = host.link.open_stream("channel", "x")
    until(lambda: not host.link.writer.armed)
    for name in ("BURST_GAP", "GATHER_DELAY", "FLOOD_DELAY"):
        monkeypatch.setattr(writer_module, name, DEADLINE * 2)

    def send_and_wait() -> None:
        for number in range(100):
            host.send(stream, b"%d" % number)
        assert stream.stage.payloads
        host.link.wait(Gate(), 0.01)

    thread = threading.Thread(target=send_and_wait)
    thread.start()
    thread.join(DEADLINE)
    until(lambda: bool(child.got) and child.got[-1] == ("x", b"99"), deadline=1.0)
    close(host, child)


@pytest.mark.parametrize("window", [1 << 17, 1 << 18, 1 << 22], ids=["never staged", "seldom", "always"])
def test_threads_that_send_at_once_lose_nothing_and_keep_their_order(window: int) -> None:
    host, child = join(socket_link, window=window)
    streams = [host.link.open_stream("channel", name) for name in "xy"]
    threads, each = 6, 3000

    def send(sender: int) -> None:
        generator = random.Random(sender)
        stream = streams[0]
        for number in range(each):
            if generator.random() < 0.01:
                stream = generator.choice(streams)
            host.send(stream, b"%d %d" % (sender, number), Flag.RAW if generator.random() < 0.005 else 0)

    workers = [threading.Thread(target=send, args=(sender,)) for sender in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(DEADLINE)
    until(lambda: len(child.got) >= threads * each)
    numbers: dict[int, list[int]] = {sender: [] for sender in range(threads)}
    for _, payload in child.got:
        sender, number = map(int, payload.split())
        numbers[sender].append(number)
    assert all(heard == list(range(each)) for heard in numbers.values())
    assert isinstance(host, End)
    close(host, child)
