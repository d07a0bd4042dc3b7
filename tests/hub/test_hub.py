"""The authority in the host: incarnations come and go, and in one step everything of them goes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, Listener, channel, children, eventually, logged, memory, until

from liteyuki_host.comm.errors import ChannelClosed, ChannelTaken, ReceiveTimeout, RemoteError
from liteyuki_host.comm.process.names import KEPT_NAMES
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.frames import HEADER, Kind, encode_frame
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.topics import subscribe
from liteyuki_host.comm.transport.memory import MemoryTransport, memory_link
from liteyuki_host.hub import Hub


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


class RawChild:
    """Speaks in bytes, as a broken or foreign child would."""

    def __init__(self, hub: Hub, process: str) -> None:
        self.listener = Listener()
        hub.declare_process(process)
        ours, self.transport = memory_link()
        self.session = hub.connect(process, ours, self.listener)

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.transport.write_all([encode_frame(Kind.CONTROL, m.encode_message(message))])

    def closed(self) -> str | None:
        until(lambda: self.listener.closed)
        self.session.link.join(DEADLINE)
        return self.listener.closed[0]


def test_the_channels_exist_before_the_process() -> None:
    hub = Hub()
    hub.declare_process("bot")
    assert hub.channel_names() == {"bot-passive", "bot-active"}
    line = channel(hub, "bot-active")
    for number in range(5):
        line.send(number)
    assert line.statistics().waiting_to_be_consumed == 5
    hub.declare_process("bot")
    ours, theirs = memory_link()
    hub.connect("bot", ours, Listener())
    node = Node()
    node.attach(theirs, "bot", on_stop=lambda reason: None, on_host_gone=lambda cause: None)
    assert [channel(node, "bot-active").receive(DEADLINE) for _ in range(5)] == list(range(5))
    node.reset()
    hub.close("over")


def test_nothing_is_sent_to_a_link_that_has_not_greeted(pair: Pair) -> None:
    raw = RawChild(pair.host, "late")
    pair.host_memory.set("k", 1)
    channel(pair.host, "late-active").send("early")
    assert pair.host.session("late") is None
    buffer = memoryview(bytearray(10_000))
    count = raw.transport.read_into(buffer)
    length, kind, *_ = HEADER.unpack_from(buffer)
    assert (count, kind) == (HEADER.size + length, Kind.CONTROL)  # the host's own greeting, and no more
    raw.transport.close()
    assert raw.closed() == "late went away without a goodbye"


def test_a_link_that_never_greeted_takes_nothing_with_it(pair: Pair) -> None:
    """Its end used to fail the requests that the process's real link was waiting for."""
    raw = RawChild(pair.host, "nonebot")
    line = pair.host_channel("nonebot-active")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asyncio.run, line.request("question", timeout=DEADLINE))
        until(lambda: line.statistics().sent == 1)
        raw.transport.close()
        assert raw.closed() is not None
        assert pair.child_channel("nonebot-active").receive(DEADLINE) == "question"
        with pytest.raises(RemoteError, match="cannot answer requests"):
            asked.result(DEADLINE)
    assert pair.host.session("nonebot") is not None


BROKEN: dict[str, tuple[bytes, str]] = {
    "noise": (b"\xff" * 50, "a frame of 4,294,967,295 bytes"),
    "oversized": (HEADER.pack(1 << 30, Kind.MESSAGE, 0, 0, 0), "a frame of 1,073,741,824 bytes"),
    "data before greeting": (encode_frame(Kind.MESSAGE, b"\x01", stream=1), "traffic is not legal in state greeting"),
    "another version": (
        encode_frame(Kind.CONTROL, m.encode_message(m.Hello(99, "x", 1))),
        "speaks version 99 of the link",
    ),
}


@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_child_gets_one_clear_end_and_the_others_live_on(pair: Pair, what: str) -> None:
    data, words = BROKEN[what]
    raw = RawChild(pair.host, "broken")
    raw.transport.write_all([data])
    closed = raw.closed()
    assert closed is not None
    assert words in closed
    assert closed.startswith("broken broke the link's protocol: ")
    pair.child_memory.set("k", 1)
    pair.child_channel("nonebot-active").send("fine")
    assert pair.host_channel("nonebot-active").receive(DEADLINE) == "fine"
    assert pair.host_memory["k"] == 1


REQUESTS: dict[str, bytes] = {
    "not MessagePack": b"\xc1",
    "unknown request": b"\x92\x63\x01",
}


@pytest.mark.parametrize("what", list(REQUESTS))
def test_a_broken_request_ends_its_link_and_changes_nothing(pair: Pair, what: str) -> None:
    pair.host_memory.set("held", [1])
    raw = RawChild(pair.host, "broken")
    raw.say(m.Hello(m.PROTOCOL_VERSION, "broken", 1))
    until(lambda: raw.listener.hello)
    revision = pair.host.revision
    raw.transport.write_all([encode_frame(Kind.MESSAGE, REQUESTS[what])])
    assert raw.closed() is not None
    assert pair.host.revision == revision
    pair.host_memory.set("k", 5)
    until(lambda: pair.child_memory.get("k") == 5)


def test_a_value_that_is_none_ends_no_link(pair: Pair) -> None:
    """It used to; the writer was killed for it, or whoever asked."""
    pair.host_memory.set("held", [1])
    raw = RawChild(pair.host, "odd")
    raw.say(m.Hello(m.PROTOCOL_VERSION, "odd", 1))
    until(lambda: raw.listener.hello)
    for request in (m.Put(1, "k", b""), m.Compare(2, "held", b"\xc1", b"\x01"), m.Increment(3, "k", 1)):
        raw.transport.write_all([encode_frame(Kind.MESSAGE, m.encode_message(request))])
    until(lambda: "k" in pair.child_memory)
    pair.child_memory.set("k", 5)
    pair.child_memory.sync(timeout=DEADLINE)
    assert pair.host_memory.get_all() == {"held": [1], "k": 5}
    assert raw.listener.closed == []
    raw.transport.close()
    raw.closed()


def test_a_channel_name_that_is_none_is_refused_with_words(pair: Pair) -> None:
    raw = RawChild(pair.host, "odd")
    raw.say(m.Hello(m.PROTOCOL_VERSION, "odd", 1), m.Open(3, "channel", "a\nb"), m.Ping(7))
    refused = read_controls(raw.transport, m.OpenRefused)
    assert refused == [m.OpenRefused(3, "a channel name has 1 to 200 printable characters, this one is 'a\\nb'")]
    assert "a\nb" not in pair.host.channel_names()
    # What it sends all the same is nobody's, and is not granted: a grant would say that it was received.
    raw.transport.write_all([encode_frame(Kind.MESSAGE, b"x" * 1000, stream=3)])
    raw.say(m.Ping(8))
    assert read_controls(raw.transport, m.OpenRefused) == []
    stream = raw.session.link.connection.streams[3]
    assert (stream.received, stream.consumed) == (1256, 0)
    raw.transport.close()
    raw.closed()


def test_what_was_sent_before_a_channel_was_refused_is_reported_as_lost(pair: Pair) -> None:
    """Grants are written ahead of the refusal when both have waited for another write: then nothing was reported."""
    first, second, third = (Child(pair, name) for name in ("first", "second", "third"))
    channel(first.node, "theirs").send(1)
    assert channel(second.node, "theirs").receive(DEADLINE) == 1
    line, link = channel(third.node, "theirs"), third.session.link
    with link.writer.lock:
        assert not link.writer.writing
        link.writer.writing = True  # somebody is in the middle of a write
    for number in range(5):
        line.send(number)
    until(lambda: [s for s in link.connection.streams.values() if s.key[1] == "theirs" and s.received >= 5 * 257])
    with link.writer.lock:
        link.writer.writing = False
    link.write_queued()
    until(lambda: third.node.end("theirs").refused)
    until(lambda: line.statistics().lost == 5)
    with pytest.raises(ChannelTaken):
        line.send(5)
    for child in (first, second, third):
        child.node.reset()


def test_what_is_sent_to_an_incarnation_while_it_is_replaced_goes_to_the_next(pair: Pair) -> None:
    """Its end has not been noticed yet. The sender has looked at its link before the new one came, and sends after."""
    line = pair.host_channel("nonebot-active")
    session = pair.host.session("nonebot")
    assert session is not None
    old, link, send = pair.child, session.link, session.link.send

    def late(*args: Any, **options: Any) -> bool:
        link.send = send
        pair.child = Node()
        pair.connect()
        return send(*args, **options)

    link.send = late
    line.send(b"late")
    assert pair.child_channel("nonebot-active").receive(DEADLINE) == b"late"
    old.reset()


def test_an_incarnation_that_was_replaced_takes_no_channel_back(pair: Pair) -> None:
    """What it had sent before was still being read when the new one came, which then heard nothing any more."""
    session = pair.host.session("nonebot")
    assert session is not None
    old, link, on_opened, read = pair.child, session.link, session.link.on_opened, threading.Event()

    def late(stream: Stream) -> None:
        pair.child = Node()
        pair.connect()
        pair.child_channel("x").send("from the new one")
        with ThreadPoolExecutor(1) as pool:  # this thread reads for others, and may not wait for a message
            assert pool.submit(pair.host_channel("x").receive, DEADLINE).result() == "from the new one"
        on_opened(stream)
        read.set()

    link.on_opened = late
    line = channel(old, "x")
    line.send("from the old one")
    assert read.wait(DEADLINE)
    pair.host_channel("x").send("to the new one")
    assert pair.child_channel("x").receive(DEADLINE) == "to the new one"
    link.join(DEADLINE)
    old.wait_detached(DEADLINE)
    assert line.statistics().lost == 1
    old.reset()


def read_controls(transport: MemoryTransport, kind: type[m.Message]) -> list[m.Message]:
    """Read until the pong, and give back the control messages of *kind* before it."""
    data = bytearray()
    found: list[m.Message] = []
    while True:
        buffer = memoryview(bytearray(65536))
        data += buffer[: transport.read_into(buffer)]
        while len(data) >= HEADER.size:
            length, frame_kind, *_ = HEADER.unpack_from(data)
            if len(data) < HEADER.size + length:
                break
            payload = bytes(data[HEADER.size : HEADER.size + length])
            del data[: HEADER.size + length]
            if frame_kind == Kind.CONTROL:
                message = m.decode_control(payload)
                if isinstance(message, m.Pong):
                    return found
                if isinstance(message, kind):
                    found.append(message)


def test_in_one_step_everything_of_the_dead_goes() -> None:
    with children("b") as (pair, [b]):
        mine = memory(b.node)
        mine.set("ephemeral", 1, ephemeral=True)
        mine.lock("L").__enter__()
        subscribe("news", exchange=b.node)(print)
        mine.sync()
        assert pair.host.subscribers.counts() == {"news": 1}
        b.kill()
        assert "ephemeral" not in pair.host_memory
        assert pair.host.authority.held_locks() == {}
        assert pair.host.subscribers.counts() == {}
        assert pair.host.session("b") is None
        with pair.host_memory.lock("L", timeout=DEADLINE):
            pass


def test_incarnations_are_told_apart() -> None:
    """A lock of the predecessor is not the successor's, and its late end frees nothing of the successor."""
    with connected_pair() as pair:
        pair.child_memory.lock("L").__enter__()
        first, pair.child = pair.child, Node()
        pair.connect()
        with pair.child_memory.lock("L", timeout=DEADLINE):
            assert pair.host.authority.held_locks() == {"L": "nonebot#2"}
            pair.child_memory.set("mine", 1, ephemeral=True)
            pair.child_memory.sync()
            first.detach("late")
            until(lambda: len(pair.listener.closed) == 1)
            assert pair.host.authority.held_locks() == {"L": "nonebot#2"}
            assert pair.host_memory["mine"] == 1
            pair.host_memory.set("k", 1)
            until(lambda: pair.child_memory.get("k") == 1)


def test_closing_reports_what_nobody_will_consume_and_wakes_who_waits() -> None:
    with children("b") as (pair, [b]):
        to_child = pair.host_channel("nonebot-active")
        for _ in range(3):
            to_child.send(1)
        for _ in range(2):
            channel(b.node, "to nobody").send(1)
        memory(b.node).sync(timeout=DEADLINE)  # answered in the order of the link: the host has both
        results: list[object] = []
        receives = threading.Event()

        def receive() -> None:
            receives.set()
            try:
                pair.host_channel("nonebot-passive").receive()
            except ChannelClosed as error:
                results.append(error)

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        assert receives.wait(DEADLINE)
        with logged() as lines:
            pair.host.close("the host ends")
        thread.join(DEADLINE)
        assert len(results) == 1
        assert "WARNING nonebot-active: 3 messages lost (the host ends)" in lines
        assert "WARNING to nobody: 2 messages lost (the host ends)" in lines
        assert pair.host.channel_names() >= {"nonebot-active"}


def test_what_was_consumed_before_the_end_is_not_reported(pair: Pair) -> None:
    line = pair.host_channel("nonebot-active")
    for number in range(50):
        line.send(number)
    assert [pair.child_channel("nonebot-active").receive(DEADLINE) for _ in range(50)] == list(range(50))
    with logged() as lines:
        pair.child.detach("bye")
        pair.host.close("over")
    assert not [text for text in lines if "lost" in text]


async def test_the_clock_sleeps_while_there_is_nothing_to_delete_and_wakes_for_what_comes(pair: Pair) -> None:
    serving = asyncio.create_task(pair.host.serve())
    try:
        await asyncio.sleep(0)
        pair.host_memory.set("far", 1, ttl=1000)
        await asyncio.to_thread(pair.child_memory.set, "near", 1, ttl=0.02)
        await eventually(lambda: "near" in pair.host.view)
        await eventually(lambda: "near" not in pair.host.view)
        assert "far" in pair.host.view
        pair.host_memory.set("nearer", 1, ttl=0.01)
        await eventually(lambda: "nearer" not in pair.host.view)
        await eventually(lambda: "near" not in pair.child.view)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    pair.host_memory.set("after", 1, ttl=5)  # nobody to wake, and no error


async def test_a_cancelled_clock_ends_at_its_deadline(pair: Pair) -> None:
    """The time of a key and the cancellation come in one turn of the loop, in this order."""
    serving = asyncio.create_task(pair.host.serve())
    await asyncio.sleep(0)
    pair.host_memory.set("key", 1, ttl=0.02)
    await asyncio.sleep(0)  # the clock has been woken, and
    await asyncio.sleep(0)  # sleeps until the time of the key
    asyncio.get_running_loop().call_later(0.03, serving.cancel)
    time.sleep(0.05)  # so that both timers are due when the loop turns again
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(serving), DEADLINE)


def test_declaring_reaches_everybody_also_who_connects_meanwhile() -> None:
    with connected_pair() as pair:
        stop = threading.Event()
        declared: list[str] = []

        def declare() -> None:
            while not stop.is_set() and len(declared) < KEPT_NAMES:
                name = f"c{len(declared)}"
                pair.host.declare(name)
                declared.append(name)

        thread = threading.Thread(target=declare, daemon=True)
        thread.start()
        made = [Child(pair, f"child{n}") for n in range(5)]
        stop.set()
        thread.join(DEADLINE)
        for child in made:
            until(lambda child=child: child.node.channel_names() >= set(declared))
            child.node.reset()


def test_two_ends_may_claim_at_once() -> None:
    """Host and child mention the same new channel at the same moment, again and again."""
    with connected_pair() as pair:
        for number in range(60):
            name = f"c{number}"
            sides = (pair.host_channel(name), pair.child_channel(name))
            threads = [
                threading.Thread(target=lambda side=side: [side.send(n) for n in range(20)], daemon=True)
                for side in sides
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE)
            for side in sides:
                assert [side.receive(DEADLINE) for _ in range(20)] == list(range(20))
        assert pair.child.attached


def test_losses_are_said_at_once_and_then_gathered() -> None:
    from liteyuki_host.comm.process.losses import LossReport

    report = LossReport()
    with logged() as lines:
        report.add("x", 1, "why")
        report.add("x", 2, "why")
        report.add("x", 3, "why")
        report.add("y", 1000, "because")
        report.add("x", 5, "another reason")
        report.flush()
        report.flush()
    assert lines == [
        "WARNING x: 1 message lost (why)",
        "WARNING y: 1,000 messages lost (because)",
        "WARNING x: 5 messages lost (why)",
        "WARNING x: 5 messages lost (another reason)",
    ]


def test_an_unread_channel_times_out_in_the_host_too(pair: Pair) -> None:
    with pytest.raises(ReceiveTimeout):
        pair.host_channel("nonebot-active").receive(0)


# --- a child's own writes -------------------------------------------------------------------------------------


def test_a_writer_hears_of_its_writes_in_runs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    session = pair.host.session("nonebot")
    assert session is not None
    told: list[bytes] = []
    monkeypatch.setattr(session, "_send_shortly", lambda payload: told.append(payload) or True)
    with pair.host.authority.lock:
        for request, revision in ((1, 10), (2, 11), (4, 12), (5, 13), (6, 20)):  # 3 waits for a lock
            session.ordered(request, revision)
        session.send_memory(m.encode_message(m.Declared("x")))
        session.tell_ordered()
        monkeypatch.undo()
    assert [m.decode_event(payload) for payload in told] == [
        m.Ordered(1, 2, 10),
        m.Ordered(4, 2, 12),
        m.Ordered(6, 1, 20),
        m.Declared("x"),
    ]


def test_what_others_write_between_two_writes_of_a_child_comes_after_the_first_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = pair.host.session("nonebot")
    assert session is not None
    ordered = session.ordered

    def ordered_and_write(request: int, revision: int) -> None:
        ordered(request, revision)
        if revision == 1:
            pair.host_memory.set("between", 2)

    monkeypatch.setattr(session, "ordered", ordered_and_write)
    with logged() as lines:
        pair.child_memory.set("first", 1)
        pair.child_memory.sync(timeout=DEADLINE)
        assert pair.child_memory.get_all() == {"first": 1, "between": 2}
        assert pair.child_memory.revision == 2
    assert lines == []


# --- writers that wait for a slow process ---------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["the host", "another child"])
def test_a_laggard_that_ends_lets_writers_go_on(writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not have to wait until it would have been disconnected."""
    monkeypatch.setattr("liteyuki_host.hub.laggards.LAG_SECONDS", 3600.0)
    with connected_pair("bot", window=16 * 1024) as pair:
        pair.host.declare_process("slow")
        ours, theirs = memory_link(4096)
        slow = pair.host.connect("slow", ours, Listener())
        theirs.write_all([encode_frame(Kind.CONTROL, m.encode_message(m.Hello(m.PROTOCOL_VERSION, "slow", 1)))])
        until(lambda: pair.host.session("slow"))
        writes = pair.host_memory if writer == "the host" else pair.child_memory
        done = threading.Event()

        def write() -> None:
            for number in range(50):  # as much as 12 windows
                writes.set("key", f"{number}{'x' * 4000}")
            writes.sync()
            done.set()

        threading.Thread(target=write, daemon=True).start()
        until(lambda: pair.host.laggards() == [slow])
        assert not done.is_set()
        theirs.close()  # it dies
        assert done.wait(DEADLINE)
        assert pair.host_memory["key"].startswith("49")
