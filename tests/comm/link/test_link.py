"""A link over every transport: order, credit, control, death, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from link_kit import DEADLINE, MAKERS, End, close, descriptors, join, lycomm_threads, until

from liteyuki_host.comm.errors import LinkBroken, LinkClosed
from liteyuki_host.comm.link import writer as writer_module
from liteyuki_host.comm.link.writer import Writer
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.connection import Role
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import CHUNK_SIZE, HEADER, Flag, FrameDecoder, Kind, encode_frame
from liteyuki_host.comm.protocol.outbound import LARGE
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.comm.transport.posix import SocketTransport, socket_link
from liteyuki_host.comm.waiting.waiting import Gate

OVER_EVERY_TRANSPORT = pytest.mark.parametrize("make", list(MAKERS.values()), ids=list(MAKERS))
OVER_FAST_ONES = pytest.mark.parametrize("make", [memory_link, socket_link], ids=["memory", "socket pairs"])


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    threads, fds = lycomm_threads(), descriptors()
    yield
    until(lambda: lycomm_threads() <= threads)
    until(lambda: descriptors() <= fds)


@OVER_EVERY_TRANSPORT
def test_messages_arrive_in_order_both_ways(make: object) -> None:
    host, child = join(make)  # type: ignore[arg-type]
    there, back = host.link.open_stream("channel", "x"), child.link.open_stream("channel", "y")
    sent = [b"%d" % n * (n % 7) for n in range(300)]
    for payload in sent:
        host.send(there, payload)
        child.send(back, payload, Flag.RAW)
    until(lambda: len(host.got) == len(child.got) == 300)
    assert child.got == [("x", payload) for payload in sent]
    assert host.got == [("y", payload) for payload in sent]
    assert set(host.flags) == {Flag.RAW}
    close(host, child)


@OVER_FAST_ONES
def test_ten_thousand_each_way_at_once(make: object) -> None:
    """Own 0, lost 0, duplicated 0."""
    host, child = join(make)  # type: ignore[arg-type]
    streams = {host: host.link.open_stream("channel", "x")}
    until(lambda: child.streams)
    streams[child] = child.streams[0]
    total = 10_000

    def send(end: End) -> None:
        for number in range(total):
            end.send(streams[end], b"%s %d" % (end.link.name.encode(), number))

    threads = [threading.Thread(target=send, args=(end,), daemon=True) for end in (host, child)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    until(lambda: len(host.got) >= total and len(child.got) >= total)
    assert host.got == [("x", b"test-child %d" % n) for n in range(total)]
    assert child.got == [("x", b"test-host %d" % n) for n in range(total)]
    until(lambda: host.unconsumed() == child.unconsumed() == 0)
    close(host, child)


@OVER_FAST_ONES
def test_many_threads_send_at_once_and_each_ones_order_is_kept(make: object) -> None:
    host, child = join(make)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")

    def send(thread: int) -> None:
        for number in range(500):
            host.send(stream, b"%d %d" % (thread, number), Flag.RAW if number % 5 == 0 else 0)

    threads = [threading.Thread(target=send, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    until(lambda: len(child.got) >= 3000)
    by_thread: dict[int, list[int]] = {}
    for _, payload in child.got:
        thread_number, number = map(int, payload.split())
        by_thread.setdefault(thread_number, []).append(number)
    assert by_thread == {thread: list(range(500)) for thread in range(6)}
    close(host, child)


@OVER_FAST_ONES
def test_who_keeps_sending_joins_what_waits(make: object) -> None:
    host, child = join(make)  # type: ignore[arg-type]
    stream, other = (host.link.open_stream("channel", name) for name in ("x", "y"))
    join_x, join_y = host.link.shortcut(stream), host.link.shortcut(other)
    assert not join_x(b"nothing waits", False)
    for number in range(10_000):
        host.send(stream, b"%d" % number)
        if number == 5000:
            assert not join_y(b"what waits is of another stream")
            assert not join_x(b"large" * LARGE)
    assert host.short > 5000
    until(lambda: len(child.got) == 10_000)
    assert [int(payload) for _, payload in child.got] == list(range(10_000))
    close(host, child)
    assert not join_x(b"the link is over")


def test_a_link_that_is_closed_for_data_still_writes_what_it_accepted() -> None:
    """But nobody joins that any more: its user is about to take back what was not consumed."""
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    joins = host.link.shortcut(stream)
    with host.link.writer.lock:
        host.link.writer.writing = True  # somebody is in the middle of a write
        host.link.writer.quiet = False
        host.link.connection.send(stream, b"1")
    assert joins(b"2")
    assert joins(b"3")
    assert list(stream.stage.payloads) == [b"3"]
    host.link.refuse_data()
    assert host.link.ended
    assert not stream.stage.payloads
    assert not joins(b"4")
    with pytest.raises(LinkClosed):
        host.link.send(stream, b"4")
    with host.link.writer.lock:
        host.link.writer.writing = False
    host.link.write_queued()
    until(lambda: [payload for _, payload in child.got] == [b"1", b"2", b"3"])
    assert host.link.ping(DEADLINE) is not None
    close(host, child)


def test_no_data_is_accepted_behind_the_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent between the last write and the end of the transport was neither delivered nor taken back."""
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    host.send(stream, b"1")
    flush, late = host.link.flush, []

    def flush_and_send(timeout: float) -> bool:
        sent = flush(timeout)
        with pytest.raises(LinkClosed):
            late.append(host.link.send(stream, b"2"))
        return sent

    monkeypatch.setattr(host.link, "flush", flush_and_send)
    assert host.link.close("bye")
    close(host, child)
    assert not late
    assert [payload for _, payload in child.got] == [b"1"]


def test_who_finds_nothing_to_write_takes_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued meanwhile would be left to one who does not look again."""
    host, child = join()
    until(lambda: host.link.writer.quiet and not host.link.connection.owing)
    writes: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_write", lambda writer, buffers: writes.append(buffers))
        host.link.write_queued()
    assert not writes
    assert host.link.writer.quiet
    close(host, child)


def test_a_link_that_was_given_up_sends_nothing() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    send = host.link.shortcut(stream)
    until(lambda: host.link.writer.quiet)
    host.link.writer.give_up()
    assert not send(b"1")
    with pytest.raises(LinkClosed):
        host.link.send(stream, b"1")
    child.link.close("the test is over")
    close(host, child)


def test_who_joins_keeps_to_its_credit() -> None:
    window = 100 * (MESSAGE_CHARGE + 1)
    host, child = join(window=window)
    child.consuming = False
    stream = host.link.open_stream("channel", "x")
    joins = host.link.shortcut(stream)
    accepted = 0
    while joins(b"1") or host.link.send(stream, b"1"):
        accepted += 1
    assert accepted == 100
    assert not joins(b"1")
    close(host, child)


@OVER_FAST_ONES
@pytest.mark.parametrize("size", [16 * 1024, CHUNK_SIZE, CHUNK_SIZE + 1, 16 * 1024 * 1024])
def test_large_messages_arrive_whole_between_small_ones(make: object, size: int) -> None:
    host, child = join(make, window=1 << 25)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    large = os.urandom(1024) * (size // 1024) + b"y" * (size % 1024)
    sent = [b"before", large, b"between", large, b"after"]
    for payload in sent:
        host.send(stream, payload)
    until(lambda: len(child.got) == 5)
    assert [payload for _, payload in child.got] == sent
    close(host, child)


def test_a_large_message_over_a_trickling_transport() -> None:
    host, child = join(MAKERS["trickling socket pair"])
    stream = host.link.open_stream("channel", "x")
    payload = bytes(range(256)) * 3000
    host.send(stream, payload)
    until(lambda: child.got)
    assert child.got == [("x", payload)]
    close(host, child)


@OVER_EVERY_TRANSPORT
def test_what_has_arrived_and_been_consumed_is_kept_by_nobody(make: object) -> None:
    """The flusher kept the rest of the last message it had written, and with it all of the message."""
    host, child = join(make)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    sent = os.urandom(2 * CHUNK_SIZE)
    before = sys.getrefcount(sent)
    host.send(stream, sent)
    until(lambda: child.got and not host.unconsumed())
    _, arrived = child.got.pop()
    assert arrived == sent
    # Not at once: "written" is said before the writer has returned.
    until(lambda: sys.getrefcount(sent) == before)
    until(lambda: sys.getrefcount(arrived) == 2)  # the name, and the question itself
    close(host, child)


@OVER_FAST_ONES
def test_nobody_who_sends_ever_waits_for_the_transport(make: object) -> None:
    """The peer reads nothing: sends return, until the credit is used up."""
    there, back = make()  # type: ignore[operator]
    host = End(Role.HOST, there, window=1 << 22)
    host.link.start()
    # A peer that greets, and then never reads again.
    back.write_all([encode_frame(Kind.CONTROL, m.encode_message(m.Hello(1, "bot", 1, "", 1 << 22)))])
    assert host.greeted.wait(DEADLINE)
    stream = host.link.open_stream("channel", "x")
    started = time.monotonic()
    sent = 0
    while host.link.send(stream, b"x" * 1000):
        sent += 1
    assert time.monotonic() - started < 5.0
    assert sent == (1 << 22) // 1256
    assert host.link.flush(0.05) is False
    host.link.send_control(m.Ping(1))
    assert host.link.close("enough", timeout=0.05) is False
    back.close()
    back.release()
    host.link.join(DEADLINE)
    assert isinstance(host.causes[0], LinkClosed)


@OVER_FAST_ONES
def test_a_ping_is_answered_while_flooded(make: object) -> None:
    host, child = join(make, window=1 << 23)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            host.send(stream, b"x" * 3000)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    until(lambda: len(child.got) > 100)
    times = [end.link.ping(DEADLINE) for _ in range(10) for end in (host, child)]
    stop.set()
    thread.join(DEADLINE)
    assert all(seconds is not None for seconds in times)
    assert sorted(seconds or 0 for seconds in times)[len(times) // 2] < 0.5
    close(host, child)


def test_a_ping_to_nobody_has_no_answer() -> None:
    there, back = memory_link()
    host = End(Role.HOST, there)
    host.link.start()
    assert host.link.ping(0.02) is None
    decoder = FrameDecoder()
    pings: list[m.Control] = []
    while not pings:
        for kind, _, _, _, payload in decoder.buffer_updated(back.read_into(decoder.free)):
            assert kind == Kind.CONTROL
            pings += [message for message in [m.decode_control(payload)] if isinstance(message, m.Ping)]
        decoder.compact()
    [ping] = pings
    assert isinstance(ping, m.Ping)
    hello = m.Hello(m.PROTOCOL_VERSION, "child", 1, "test", 1 << 20, 1 << 24)
    for message in (hello, m.Pong(ping.id)):
        back.write_all([encode_frame(Kind.CONTROL, m.encode_control(message))])
    until(lambda: host.controls == [m.Pong(ping.id)])  # too late: nobody waits for it any more
    close(host)
    back.close()


def test_a_lone_grant_goes_out_by_itself() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    host.send(stream, b"1")
    until(lambda: not stream.unacknowledged)
    close(host, child)


def test_a_closing_side_sends_everything_first() -> None:
    host, child = join(MAKERS["trickling memory"])
    stream = host.link.open_stream("channel", "x")
    for number in range(500):
        host.send(stream, b"%d" % number)
    assert host.link.close("done", timeout=DEADLINE) is True
    assert child.ended.wait(DEADLINE)
    assert [payload for _, payload in child.got] == [b"%d" % n for n in range(500)]
    assert isinstance(child.causes[0], LinkClosed)
    assert str(child.causes[0]) == "done"
    close(host, child)


def test_what_is_consumed_is_said_before_the_goodbye() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    for number in range(100):
        host.send(stream, b"%d" % number)
    until(lambda: len(child.got) == 100)
    child.link.close("done")
    assert host.ended.wait(DEADLINE)
    assert host.unconsumed() == 0
    close(host, child)


@OVER_FAST_ONES
def test_the_end_without_a_goodbye_is_a_broken_link(make: object) -> None:
    host, child = join(make)  # type: ignore[arg-type]
    child.transport.close()
    for end in (host, child):
        assert end.ended.wait(DEADLINE)
        assert isinstance(end.causes[0], LinkBroken)
        assert str(end.causes[0]).endswith("went away without a goodbye")
        stream = end.link.connection.store
        with pytest.raises(LinkClosed, match=r"the link to test-.* is over"):
            end.link.send(stream, b"x")
        end.link.send_control(m.Ping(1))  # nothing happens
        end.link.consumed(stream, 5)
    close(host, child)


@OVER_FAST_ONES
def test_what_had_arrived_before_the_death_is_delivered(make: object) -> None:
    there, back = make()  # type: ignore[operator]
    host = End(Role.HOST, there)
    last_words = encode_frame(Kind.CONTROL, m.encode_message(m.Hello(1, "bot", 1)))
    last_words += encode_frame(Kind.CONTROL, m.encode_message(m.Open(3, "channel", "x")))
    last_words += encode_frame(Kind.MESSAGE, b"last words", stream=3, flags=Flag.RAW)
    back.write_all([last_words, last_words[:5]])
    back.close()
    back.release()
    host.link.start()
    assert host.ended.wait(DEADLINE)
    assert host.got == [("x", b"last words")]
    close(host)


@OVER_FAST_ONES
def test_the_peers_death_while_we_write_ends_the_link(make: object) -> None:
    host, child = join(make, window=1 << 24)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    failed = threading.Event()

    def flood() -> None:
        try:
            while True:
                host.link.send(stream, b"x" * 5000)
        except LinkClosed:
            failed.set()

    threading.Thread(target=flood, daemon=True).start()
    until(lambda: len(child.got) > 20)
    child.transport.close()
    assert failed.wait(DEADLINE)
    assert host.ended.wait(DEADLINE)
    close(host, child)


BAD = {
    "another version": (m.encode_message(m.Hello(7, "bot", 1, "lycomm 7")), "speaks version 7 of the link, this side"),
    "not a control message": (b"\xc1", "a control message that cannot be read"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_greeting_ends_the_link_with_words_on_both_sides(what: str) -> None:
    payload, words = BAD[what]
    there, back = memory_link()
    host = End(Role.HOST, there)
    host.link.start()
    back.write_all([encode_frame(Kind.CONTROL, payload)])
    assert host.ended.wait(DEADLINE)
    assert isinstance(host.causes[0], LinkBroken)
    assert words in str(host.causes[0])
    assert str(host.causes[0]).startswith("test-host broke the link's protocol: ")
    assert not host.greeted.is_set()
    said = bytearray(4096)
    count = back.read_into(memoryview(said))
    assert words.encode() in said[:count]  # it is told why
    close(host)


@pytest.mark.parametrize(
    "data",
    [HEADER.pack(1 << 30, Kind.MESSAGE, 0, 2, 0), HEADER.pack(1, 99, 0, 0, 0), encode_frame(Kind.BATCH, b"\xc1")],
    ids=["oversized", "unknown kind", "bad batch"],
)
def test_bad_bytes_end_this_link_only(data: bytes) -> None:
    host, child = join()
    others = join()
    child.transport.write_all([data])
    assert host.ended.wait(DEADLINE)
    assert isinstance(host.causes[0], LinkBroken)
    assert child.ended.wait(DEADLINE)
    assert isinstance(child.causes[0], LinkClosed)  # the goodbye says whose fault it was
    stream = others[0].link.open_stream("channel", "x")
    others[0].send(stream, b"1")
    until(lambda: others[1].got)
    close(host, child, *others)


def test_more_acknowledged_than_sent_ends_the_link() -> None:
    host, child = join()
    child.transport.write_all([encode_frame(Kind.GRANT, msgspec.msgpack.encode([1, 5000]))])
    assert host.ended.wait(DEADLINE)
    assert "stream 1: 5,000 bytes acknowledged, 0 outstanding" in str(host.causes[0])
    close(host, child)


def test_a_failing_handler_ends_its_link_with_a_word_and_no_other() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")

    def fail(*_: object) -> None:
        raise KeyError("a bug")

    child.on_got = fail
    host.send(stream, b"1")
    assert child.ended.wait(DEADLINE)
    assert str(child.causes[0]) == "the link to test-child failed inside lycomm: KeyError: 'a bug'"
    assert host.ended.wait(DEADLINE)
    close(host, child)


def test_a_handler_may_send_and_close_on_the_readers_thread() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")

    def answer(stream: object, payload: bytes, flags: int, request_id: int) -> None:
        if payload == b"bye":
            child.link.close("as you say")
        else:
            child.link.send(stream, payload.upper())  # type: ignore[arg-type]

    child.on_got = answer
    host.send(stream, b"hello")
    until(lambda: host.got)
    assert host.got == [("x", b"HELLO")]
    host.send(stream, b"bye")
    assert host.ended.wait(DEADLINE)
    assert str(host.causes[0]) == "as you say"
    close(host, child)


def test_closing_twice_and_from_both_sides_at_once_ends_each_once() -> None:
    for _ in range(20):
        host, child = join()
        threads = [
            threading.Thread(target=end.link.close, args=("over",), daemon=True) for end in (host, child) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        close(host, child)
        for end in (host, child):
            assert isinstance(end.causes[0], LinkClosed)


def test_both_sides_opening_one_name_again_and_again_never_part() -> None:
    """Opens cross on the wire while the readers take them in; both must mean one stream afterwards."""
    for _ in range(15):
        host, child = join()
        open_the_same_names(host, child)
        assert not host.ended.is_set()
        close(host, child)


def open_the_same_names(host: End, child: End) -> None:
    def open_all(end: End) -> None:
        for number in range(30):
            end.send(end.link.open_stream("channel", str(number)), b"from " + end.link.name.encode())

    threads = [threading.Thread(target=open_all, args=(end,), daemon=True) for end in (host, child)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    until(lambda: len(host.got) == len(child.got) == 30)
    until(lambda: host.unconsumed() == child.unconsumed() == 0)


def test_a_socket_is_given_back_only_when_nobody_can_be_inside_it() -> None:
    before = descriptors()
    a, b = socket_link()
    host, child = End(Role.HOST, a), End(Role.CHILD, b)
    host.link.start()
    child.link.start()
    assert host.greeted.wait(DEADLINE)
    close(host, child)
    assert descriptors() <= before
    assert a.descriptors == b.descriptors == (-1, -1)


class NotingTransport:
    """Notes which threads wait in a write."""

    def __init__(self, inner: SocketTransport) -> None:
        self._inner = inner
        self.waited: set[str] = set()

    def write_all(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        self.waited.add(threading.current_thread().name)
        self._inner.write_all(buffers)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("where", "may_wait", "waits"),
    [
        ("thread", True, "sender"),
        ("thread", False, "lycomm-write-test-host"),
        ("loop", True, "lycomm-write-test-host"),
        ("main", True, "lycomm-write-test-host"),
    ],
)
def test_who_waits_for_the_transport(where: str, may_wait: bool, waits: str) -> None:
    ours, theirs = socket_link()
    transport = NotingTransport(ours)  # type: ignore[arg-type]
    host, child = join(lambda: (transport, theirs), window=1 << 26)  # type: ignore[arg-type,return-value]
    assert host.link.ping(DEADLINE) is not None
    transport.waited.clear()  # the first who read may have
    stream = host.link.open_stream("channel", "x")
    reading = threading.Event()

    def send() -> None:
        for _ in range(40):
            assert host.link.send(stream, bytes(LARGE), may_wait=may_wait)

    async def send_on_loop() -> None:
        send()

    child.on_got = lambda *_: reading.wait(DEADLINE)  # its transport fills up
    work = {"thread": send, "loop": lambda: asyncio.run(send_on_loop()), "main": send}[where]
    if where == "main":
        work()
    else:
        thread = threading.Thread(target=work, name="sender")
        thread.start()
        if waits != "sender":
            thread.join(DEADLINE)
            assert not thread.is_alive(), "it was blocked"
    until(lambda: transport.waited)
    reading.set()
    until(lambda: len(child.got) == 40)
    assert transport.waited == {waits}
    close(host, child)


@OVER_FAST_ONES
def test_who_waits_for_the_transport_is_let_go_at_the_end(make: object) -> None:
    host, child = join(make, window=1 << 26)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    reading = threading.Event()
    child.on_got = lambda *_: reading.wait(DEADLINE)

    def send() -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                host.link.send(stream, bytes(LARGE), may_wait=True)

    thread = threading.Thread(target=send)
    thread.start()
    until(lambda: host.link.writer.writing and stream.sent > LARGE)
    host.link.close("enough", timeout=0.1)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    reading.set()
    close(host, child)


async def test_a_turn_that_finds_everything_written_leaves_the_link_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child = join()
    writer = host.link.writer
    stream = host.link.open_stream("channel", "x")
    until(lambda: writer.quiet and not writer.armed)
    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "BURST_GAP", DEADLINE)
        patch.setattr(Writer, "_wake_flusher", lambda writer: None)
        for _ in range(writer_module.INLINE_BURST + 1):  # the last one is queued
            host.link.send(stream, b"message")
        host.link.write_queued()  # as somebody does whose messages are many
        assert not writer.quiet
        await asyncio.sleep(0)  # the end of the turn that has sent
        assert writer.quiet
    close(host, child)


def test_what_one_turn_of_a_loop_sends_is_written_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    until(lambda: not host.link.writer.armed)
    monkeypatch.setattr(writer_module, "BURST_GAP", DEADLINE)
    monkeypatch.setattr(writer_module, "GATHER_DELAY", 0.3)  # the flusher comes too late

    async def send() -> None:
        for number in range(100):
            assert host.link.send(stream, b"%d" % number)
        assert host.link.connection.pending
        await asyncio.sleep(0)
        assert not host.link.connection.pending

    def send_and_leave() -> None:
        for number in range(100):
            host.link.send(stream, b"%d" % number)
        raise SystemExit

    asyncio.run(send())
    left = asyncio.new_event_loop()
    left.call_soon(send_and_leave)
    with pytest.raises(SystemExit):
        left.run_forever()  # and never again
    left.close()
    until(lambda: not host.link.writer.armed)  # here the flusher has to
    asyncio.run(send())
    until(lambda: len(child.got) == 300)
    assert [int(payload) for _, payload in child.got] == [*range(100)] * 3
    close(host, child)


def test_what_a_loop_sends_before_it_blocks_is_written_nevertheless() -> None:
    host, child = join()
    stream = host.link.open_stream("channel", "x")

    async def send() -> None:
        for number in range(100):
            assert host.link.send(stream, b"%d" % number)
        until(lambda: len(child.got) == 100)

    asyncio.run(send())
    close(host, child)


@OVER_FAST_ONES
def test_who_begins_to_wait_writes_what_it_has_queued(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perhaps for the answer to it; the flusher would come later."""
    host, child = join(make)  # type: ignore[arg-type]
    stream = host.link.open_stream("channel", "x")
    until(lambda: not host.link.writer.armed)
    for name in ("BURST_GAP", "GATHER_DELAY"):
        monkeypatch.setattr(writer_module, name, DEADLINE * 2)

    def send_and_wait() -> None:
        for number in range(100):
            host.link.send(stream, b"%d" % number)
        assert host.link.connection.queue
        host.link.wait(Gate(), 0.01)

    thread = threading.Thread(target=send_and_wait)
    thread.start()
    thread.join(DEADLINE)
    until(lambda: len(child.got) == 100, deadline=1.0)
    close(host, child)


class Wake:
    """What a link's flusher waits at. While it waits for more, *meanwhile* happens; nobody wakes it."""

    def __init__(self, writer: Writer, meanwhile: Callable[[], None]) -> None:
        self.waited: list[float] = []
        self._inner, self._meanwhile = writer._wake, meanwhile
        self._inner.release()  # it finds nothing to do, and then waits here
        writer._wake = self  # type: ignore[assignment]
        until(self.locked)

    def acquire(self, timeout: float = -1) -> bool:
        if timeout < 0:
            return self._inner.acquire()
        self.waited.append(timeout)
        self._meanwhile()
        return False

    def release(self) -> None:
        self._inner.release()

    def locked(self) -> bool:
        return self._inner.locked()


@pytest.mark.parametrize("busy", [0, 1, 5], ids=["quiet", "for a moment", "for a while"])
def test_the_flusher_is_patient_while_others_write(monkeypatch: pytest.MonkeyPatch, busy: int) -> None:
    host, child = join()
    link = host.link
    stream = link.open_stream("channel", "x")
    until(lambda: not link.writer.armed)
    left = busy

    def write() -> None:
        nonlocal left
        if left:
            left -= 1
            link.writer.last_write = time.perf_counter()

    monkeypatch.setattr(writer_module, "BURST_GAP", DEADLINE * 2)
    link.writer.burst = writer_module.INLINE_BURST
    link.writer.last_write = time.perf_counter()
    wake = Wake(link.writer, write)
    link.send(stream, b"one of many")
    until(lambda: not link.connection.queue)
    close(host, child)
    assert wake.waited[: busy + 1] == [writer_module.GATHER_DELAY, *([writer_module.FLOOD_DELAY] * busy)]


@pytest.mark.parametrize("why", ["left over", "flushing"])
def test_the_flusher_is_not_patient_with_what_waits_for_it(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """What somebody could not write is its to write, and who flushes waits for it, however long others go on."""
    host, child = join()
    link = host.link
    stream = link.open_stream("channel", "x")
    until(lambda: not link.writer.armed)
    monkeypatch.setattr(writer_module, "BURST_GAP", DEADLINE * 2)
    monkeypatch.setattr(writer_module, "GATHER_DELAY", DEADLINE * 2)
    link.writer.burst = writer_module.INLINE_BURST
    link.writer.last_write = time.perf_counter()
    link.send(stream, b"one of many")
    assert link.writer.armed
    until(link.writer._wake.locked)  # it waits for more
    if why == "flushing":
        assert link.flush(DEADLINE)
    else:
        try_write = host.transport.try_write
        host.transport.try_write = lambda buffers: 0  # type: ignore[method-assign]
        link.write_queued()
        host.transport.try_write = try_write  # type: ignore[method-assign]
    until(lambda: child.got)
    close(host, child)


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "quiet"])
@pytest.mark.parametrize("answers", [True, False], ids=["answers carry them", "no answers"])
def test_grants_are_gathered_while_more_is_consumed(busy: bool, answers: bool) -> None:
    host, child = join()
    link = host.link
    stream = link.open_stream("channel", "x")
    until(lambda: not link.writer.armed and child.streams)

    def consume() -> None:
        if busy and not stream.granted:
            before = stream.consumed
            child.send(child.streams[0], b"more")
            until(lambda: stream.consumed > before)
            if answers:
                link.send(stream, b"an answer")
                assert not link.connection.owing

    wake = Wake(link.writer, consume)
    child.send(child.streams[0], b"the first")
    until(lambda: stream.granted and not link.writer.armed)
    more = [writer_module.BUSY_GRANT_DELAY] if busy else []
    assert wake.waited == [writer_module.GRANT_DELAY, *more]
    assert stream.granted == stream.consumed == child.streams[0].sent
    close(host, child)


def test_what_is_queued_does_not_wait_as_long_as_grants_do(monkeypatch: pytest.MonkeyPatch) -> None:
    host, child = join()
    link = host.link
    stream = link.open_stream("channel", "x")
    until(lambda: not link.writer.armed and child.streams)
    monkeypatch.setattr(writer_module, "GRANT_DELAY", DEADLINE * 2)
    child.send(child.streams[0], b"a message")
    until(lambda: link.writer.armed and link.writer._wake.locked())
    assert link.writer.grants_of is stream
    for _ in range(writer_module.INLINE_BURST + 1):  # the last one is queued
        link.send(stream, b"one of many")
    until(lambda: len(child.got) == writer_module.INLINE_BURST + 1)
    close(host, child)


@pytest.mark.parametrize("much", [True, False], ids=["much", "little"])
def test_grants_that_come_up_while_the_flusher_writes_some_are_gathered_again(much: bool) -> None:
    """Else it would go on writing a grant for every few messages as long as they come."""
    host, child = join()
    stream = host.link.open_stream("channel", "x")
    until(lambda: child.streams and not child.link.writer.armed)
    theirs = child.streams[0]
    child.consuming = False
    for payload in (b"the first", b"x" * (theirs.worth_a_frame if much else 10)):
        host.send(stream, payload)
    until(lambda: len(child.got) == 2)
    write_all = child.transport.write_all
    writes = 0

    def write(buffers: Sequence[bytes | memoryview]) -> None:
        nonlocal writes
        writes += 1
        if writes == 1:
            child.link.writer.used(theirs, theirs.received - theirs.consumed)
        write_all(buffers)

    child.transport.write_all = write  # type: ignore[method-assign]
    wake = Wake(child.link.writer, lambda: None)
    child.link.consumed(theirs, len(b"the first") + MESSAGE_CHARGE)
    until(lambda: stream.acknowledged == stream.sent)
    assert writes == 2
    assert wake.waited == [writer_module.GRANT_DELAY] * (1 if much else 2)
    close(host, child)


@pytest.mark.parametrize("much", [True, False], ids=["much", "little"])
def test_grants_that_came_up_during_a_write_are_not_forgotten(much: bool) -> None:
    """What is consumed meanwhile, and not seen by the flusher, which leaves a link alone that somebody writes to."""
    host, child = join()
    child.consuming = False
    stream, other = host.link.open_stream("channel", "x"), host.link.open_stream("channel", "y")
    until(lambda: len(child.streams) == 2)
    link, theirs = child.link, child.streams[1]
    host.send(other, b"x" * (theirs.worth_a_frame if much else 10))
    until(lambda: child.got)
    until(lambda: not link.writer.armed)
    try_write = child.transport.try_write
    writes: list[int] = []

    def write(buffers: Sequence[bytes | memoryview]) -> int:
        if not writes:
            theirs.consume(theirs.received - theirs.consumed)
            if not much:  # as the flusher leaves it
                assert link.writer.writing
                assert not link.writer.armed
        writes.append(sum(map(len, buffers)))
        return try_write(buffers)

    child.transport.try_write = write  # type: ignore[method-assign]
    child.link.send(child.streams[0], b"a message")
    assert len(writes) == (2 if much else 1)  # what is worth a frame goes at once
    until(lambda: other.acknowledged == other.sent)
    assert stream.acknowledged == stream.sent
    close(host, child)
