"""Whoever reads a link, the same holds: the contract of a reader, for each that there is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import reader_stress
from link_kit import DEADLINE, End, close, descriptors, join, lycomm_threads, until

from liteyuki_host.comm.channel.end import join as join_stream
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.errors import ChannelTaken
from liteyuki_host.comm.link.reader import Reader, ReadTarget, ThreadReader
from liteyuki_host.comm.protocol.connection import Role
from liteyuki_host.comm.protocol.frames import Flag, FrameDecoder
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.loops import Turn, call_soon_on
from liteyuki_host.comm.waiting.waiting import NOTHING, Gate

if sys.platform != "linux":
    pytest.skip("there is only one reader here", allow_module_level=True)

from liteyuki_host.comm.link import shared_reader, spinning
from liteyuki_host.comm.link.shared_reader import ReaderStatistics, SharedReader
from liteyuki_host.comm.link.spinning import Spinner
from liteyuki_host.comm.link.tuning import (
    GRACE,
    LONG_GRACE,
    MUCH,
    QUESTION_SIZE,
    QUESTIONS,
    READS_FOR_OTHERS,
    TURN_SECONDS,
    TURNS,
)
from liteyuki_host.comm.transport.posix import SocketTransport, socket_link

READERS: dict[str, Callable[..., Reader]] = {"thread": ThreadReader, "shared": SharedReader}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    threads, fds = lycomm_threads(), descriptors()
    yield
    until(lambda: lycomm_threads() <= threads)
    until(lambda: descriptors() <= fds)


@pytest.fixture(params=READERS)
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """A host and a child whose links are read by this kind of reader."""
    host, child = join(socket_link, reader=READERS[request.param])
    yield host, child
    close(host, child)


def shared_reader_of(end: End) -> SharedReader:
    assert isinstance(end.link.reader, SharedReader)
    return end.link.reader


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start *function* in a thread that is not the main one."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    return thread, results


def awaiting(end: End, payload: bytes) -> Gate:
    """A gate that *payload* opens when it arrives at *end*."""
    gate = Gate()
    before = end.on_got

    def on_got(stream: object, got: bytes, flags: int, request_id: int) -> None:
        if before is not None:
            before(stream, got, flags, request_id)  # type: ignore[arg-type]
        if got == payload:
            gate.open()

    end.on_got = on_got
    return gate


def test_who_leads_learns_that_its_channel_is_closed(ends: tuple[End, End]) -> None:
    """By what it reads itself, as when the host refuses this process as an end; the link goes on."""
    host, child = ends

    async def handle(message: object) -> None:
        raise AssertionError

    inbox = Inbox("x", handle)
    stream = child.link.open_stream("channel", "x", lambda stream: join_stream(inbox, child.link, stream))
    inbox.follow(child.link, stream)
    child.on_got = lambda *message: inbox.close("two others have it")

    def receive() -> object:
        try:
            return inbox.receive(None)
        except ChannelTaken as error:
            return str(error)

    thread, results = in_thread(receive)
    reader = child.link.reader
    until(lambda: reader.statistics().reading if isinstance(reader, SharedReader) else inbox.arrived.callbacks)
    host.send(host.link.open_stream("channel", "y"), b"a refusal")
    thread.join(DEADLINE)
    assert results == ["two others have it"]


def test_a_gate_is_opened_by_what_is_read(ends: tuple[End, End]) -> None:
    host, child = ends
    gate = awaiting(child, b"2")
    thread, results = in_thread(lambda: child.link.wait(gate, DEADLINE))
    stream = host.link.open_stream("channel", "x")
    for payload in (b"1", b"2", b"3"):
        host.send(stream, payload)
    thread.join(DEADLINE)
    assert results == [True]
    until(lambda: [payload for _, payload in child.got] == [b"1", b"2", b"3"])


def test_a_gate_that_is_not_opened_in_time(ends: tuple[End, End]) -> None:
    _, child = ends
    began = time.monotonic()
    thread, results = in_thread(lambda: child.link.wait(Gate(), 0.1))
    thread.join(DEADLINE)
    assert results == [False]
    assert 0.1 <= time.monotonic() - began < 1


def test_a_gate_that_is_open_already(ends: tuple[End, End]) -> None:
    gate = Gate()
    gate.open()
    thread, results = in_thread(lambda: ends[0].link.wait(gate, DEADLINE))
    thread.join(DEADLINE)
    assert results == [True]


def test_a_gate_that_somebody_else_opens(ends: tuple[End, End]) -> None:
    gate = Gate()
    thread, results = in_thread(lambda: ends[0].link.wait(gate, DEADLINE))
    gate.open()
    thread.join(DEADLINE)
    assert results == [True]


def test_many_threads_wait_and_each_gets_its_own(ends: tuple[End, End]) -> None:
    host, child = ends
    waiting = []
    for number in range(8):
        gate = awaiting(child, b"%d" % number)
        waiting.append(in_thread(functools.partial(child.link.wait, gate, DEADLINE)))
    stream = host.link.open_stream("channel", "x")
    for number in (3, 0, 7, 1, 2, 6, 5, 4):  # the one that leads among the first, and others
        host.send(stream, b"%d" % number)
        waiting[number][0].join(DEADLINE)
        assert waiting[number][1] == [True]


def test_who_waits_in_vain_leaves_the_reading_to_the_others(ends: tuple[End, End]) -> None:
    host, child = ends
    early, _ = in_thread(lambda: child.link.wait(Gate(), 0.05))
    gate = awaiting(child, b"late")
    late, results = in_thread(lambda: child.link.wait(gate, DEADLINE))
    early.join(DEADLINE)
    host.send(host.link.open_stream("channel", "x"), b"late")
    late.join(DEADLINE)
    assert results == [True]


def test_the_end_of_the_link_is_noticed_while_a_thread_waits(ends: tuple[End, End]) -> None:
    host, child = ends
    gate = Gate()
    thread, results = in_thread(lambda: child.link.wait(gate, DEADLINE))
    host.link.close("that was all")
    assert child.ended.wait(DEADLINE)
    gate.open()  # as whoever is told of the end does
    thread.join(DEADLINE)
    assert results == [True]


@contextlib.contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    loop.close()


def test_a_loop_reads_and_threads_come_and_go(ends: tuple[End, End]) -> None:
    host, child = ends
    stream = host.link.open_stream("channel", "x")
    with loop_in_thread() as loop:
        child.link.attach_loop(loop)
        for number in range(20):
            host.send(stream, b"for the loop %d" % number)
            gate = awaiting(child, b"%d" % number)
            thread, results = in_thread(functools.partial(child.link.wait, gate, DEADLINE))
            host.send(stream, b"%d" % number)
            thread.join(DEADLINE)
            assert results == [True]
        host.send(stream, b"and nobody waits")
        until(lambda: len(child.got) == 41)
        child.link.detach_loop()
        host.send(stream, b"nor is there a loop")
        until(lambda: len(child.got) == 42)


def test_a_blocked_loop_keeps_nobody_from_being_answered(ends: tuple[End, End]) -> None:
    host, child = ends
    with loop_in_thread() as loop:
        child.link.attach_loop(loop)
        assert host.link.ping(DEADLINE) is not None
        freed, blocked = threading.Event(), threading.Event()
        loop.call_soon_threadsafe(lambda: (blocked.set(), freed.wait(DEADLINE)))
        assert blocked.wait(DEADLINE)
        answers = [host.link.ping(DEADLINE) for _ in range(20)]
        freed.set()
        assert None not in answers
        assert sorted(answer or 0 for answer in answers)[10] < 20 * GRACE


def test_the_guard_looks_less_often_while_the_loop_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(shared_reader, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    host, child = join(socket_link)
    stream = host.link.open_stream("channel", "x")
    with loop_in_thread() as loop:
        child.link.attach_loop(loop)
        reader = shared_reader_of(child)
        until(lambda: reader.statistics().loop_listens)

        def more() -> bool:
            host.send(stream, b"more")
            return LONG_GRACE in slept

        until(more)
        freed, blocked = threading.Event(), threading.Event()
        loop.call_soon_threadsafe(lambda: (blocked.set(), freed.wait(DEADLINE)))
        assert blocked.wait(DEADLINE)
        assert host.link.ping(DEADLINE) is not None, "the guard has read it"
        slept.clear()
        assert host.link.ping(DEADLINE) is not None
        assert LONG_GRACE not in slept, "and expects no loop any more"
        freed.set()
    close(host, child)


def test_a_loop_that_was_closed_without_a_word_keeps_nobody_from_reading(ends: tuple[End, End]) -> None:
    host, child = ends
    with loop_in_thread() as loop:
        child.link.attach_loop(loop)
        assert host.link.ping(DEADLINE) is not None
    host.send(host.link.open_stream("channel", "x"), b"still here")
    until(lambda: child.got)


def test_threads_in_the_main_thread_s_place(ends: tuple[End, End]) -> None:
    """Ctrl+C may raise there at any line; what is read is not to be torn by it."""
    host, child = ends
    gate = awaiting(child, b"1")
    host.send(host.link.open_stream("channel", "x"), b"1")
    assert child.link.wait(gate, DEADLINE)
    assert child.link.lead(Gate().is_open, time.monotonic() + 0.01) is NOTHING
    if isinstance(child.link.reader, SharedReader):
        assert child.link.reader.statistics().led_by is None


@pytest.mark.parametrize("reader", [*READERS, "shared, by the guard"])
@pytest.mark.timeout(120)
def test_roles_move_and_nothing_is_lost(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_stress.link_module, "_fastest_reader", READERS.get(reader, SharedReader))
    if reader not in READERS:  # which leads whenever it can
        monkeypatch.setattr(shared_reader, "QUESTIONS", 0)
    for seed in range(6):
        assert reader_stress.Stress(seed).run() == []


def test_an_idle_reader_sleeps() -> None:
    """It used no thread's time while nothing came: counted as the switches of the whole process."""
    resource = pytest.importorskip("resource")
    host, child = join(socket_link)
    with loop_in_thread() as loop:
        for end in (host, child):
            end.link.attach_loop(loop)
        assert host.link.ping(DEADLINE) is not None
        time.sleep(0.1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        time.sleep(0.5)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before <= 10
    close(host, child)


def test_a_reset_link_is_an_end_like_any_other(ends: tuple[End, End]) -> None:
    host, child = ends
    assert isinstance(host.transport, SocketTransport)
    _, writing = host.transport.descriptors
    with socket.fromfd(writing, socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    assert child.ended.wait(DEADLINE)
    assert host.ended.wait(DEADLINE)


# The roles of the shared reader. What they get wrong, the guard would set right some milliseconds later.


class Noting:
    """Stands between a reader and its link, so that a test learns of each read: rebind *received* for that."""

    def __init__(self, link: ReadTarget) -> None:
        self.decoder, self.connection, self.monitor = link.decoder, link.connection, link.monitor
        self.received: Callable[..., object] = link.received
        self.failed, self.write_queued = link.failed, link.write_queued


class Shared:
    """A host and a child over sockets, with the child's reader and what that feeds."""

    def __init__(self) -> None:
        def reader(transport: Transport, link: ReadTarget, name: str) -> Reader:
            self.fed = Noting(link)
            return SharedReader(transport, self.fed, name)  # type: ignore[arg-type]

        there, back = socket_link()
        self.host, self.child = End(Role.HOST, there), End(Role.CHILD, back, reader=reader)
        self.host.link.start()
        self.child.link.start()
        self.reader = shared_reader_of(self.child)
        assert self.host.link.ping(DEADLINE) is not None

    @property
    def now(self) -> ReaderStatistics:
        return self.reader.statistics()

    def open_stream(self) -> Stream:
        """A stream of the host's that the child knows."""
        stream = self.host.link.open_stream("channel", "x")
        until(lambda: stream.id in self.child.link.connection.streams and not self.host.link.writer.armed)
        return stream


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    """The guard of the child's reader never reads once the greeting is over."""
    pair = Shared()
    monkeypatch.setattr(shared_reader, "GRACE", 0.5)
    yield pair
    close(pair.host, pair.child)


def test_who_stops_leading_calls_one_who_follows(shared: Shared) -> None:
    reader = shared.reader
    first, second = Gate(), Gate()
    leader, _ = in_thread(lambda: reader.wait(first, 0.2))
    until(lambda: shared.now.reading)
    follower, _ = in_thread(lambda: reader.wait(second, DEADLINE))
    until(lambda: shared.now.followers)
    leader.join(DEADLINE)
    until(lambda: shared.now.reading)
    assert (shared.now.followers, shared.now.led_by) == (0, follower.ident)
    second.open()
    follower.join(DEADLINE)


def test_who_is_called_in_vain_calls_the_next(shared: Shared) -> None:
    """A follower is called to lead, and gets what it waits for from elsewhere before it has woken up."""
    reader = shared.reader

    class OpenedWhenCalled(Gate):
        def call(self) -> None:
            self.opened = True
            super().call()

    leader, _ = in_thread(lambda: reader.wait(Gate(), 0.3))
    until(lambda: shared.now.reading)
    second, third = OpenedWhenCalled(), Gate()
    follower, results = in_thread(lambda: reader.wait(second, DEADLINE))
    until(lambda: shared.now.followers == 1)
    last, _ = in_thread(lambda: reader.wait(third, DEADLINE))
    until(lambda: shared.now.followers == 2)
    leader.join(DEADLINE)
    follower.join(DEADLINE)
    assert results == [True]
    until(lambda: shared.now.led_by == last.ident and shared.now.reading)
    third.open()
    last.join(DEADLINE)


def test_who_follows_looks_at_the_role_once_more(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role is given up when it has been found taken, and before its follower can be seen in the list."""
    monkeypatch.setattr(shared_reader, "SLICE", 0.01)
    reader = shared.reader
    leads = Gate()
    leader, _ = in_thread(lambda: reader.wait(leads, DEADLINE))
    until(lambda: shared.now.reading)

    class LookedAt(Gate):
        """A thread that has found the role taken looks at its gate before it enters the list."""

        looked = False
        is_opened = False

        @property
        def opened(self) -> bool:  # type: ignore[override]
            if not self.looked and threading.current_thread() is not creator:
                self.looked = True
                leads.open()
                leader.join(DEADLINE)
            return self.is_opened

        @opened.setter
        def opened(self, opened: bool) -> None:
            self.is_opened = opened

    creator = threading.current_thread()
    gate = LookedAt()
    thread, _ = in_thread(lambda: reader.wait(gate, DEADLINE))
    until(lambda: shared.now.led_by == thread.ident and shared.now.reading)
    gate.open()
    thread.join(DEADLINE)


def test_a_leader_notices_in_a_while_what_the_link_did_not_bring(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reader, "SLICE", 0.05)
    reader = shared.reader
    gate = Gate()
    thread, results = in_thread(lambda: reader.wait(gate, -1))
    until(lambda: shared.now.reading)
    gate.open()
    thread.join(DEADLINE)
    assert results == [True]


def test_the_loop_listens_again_when_nobody_leads(shared: Shared) -> None:
    host, reader = shared.host, shared.reader
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)
        gate = Gate()
        thread, _ = in_thread(lambda: reader.wait(gate, DEADLINE))
        until(lambda: not shared.now.loop_listens)
        host.send(host.link.open_stream("channel", "x"), b"1")
        gate.open()
        thread.join(DEADLINE)
        assert shared.now.loop_listens
        reader.detach_loop()


def test_who_leads_again_and_again_leaves_the_loop_muted_until_it_does_not(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, reader = shared.host, shared.reader
    monkeypatch.setattr(shared_reader, "TURN_SECONDS", DEADLINE)
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)

        def lead() -> list[bool]:
            listening = []
            for _ in range(TURNS + 2):
                assert reader.lead(Gate().is_open, time.monotonic()) is NOTHING
                listening.append(shared.now.loop_listens)
            return listening

        thread, results = in_thread(lead)
        thread.join(DEADLINE)
        assert results == [[*[True] * TURNS, False, False]]
        host.send(host.link.open_stream("channel", "x"), b"for somebody else")  # the guard reads it
        until(lambda: shared.now.loop_listens)
        reader.detach_loop()


def test_who_came_again_and_again_and_then_late_gives_the_loop_back(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = shared.reader
    monkeypatch.setattr(shared_reader, "TURN_SECONDS", DEADLINE)
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)

        def lead() -> tuple[bool, bool]:
            for _ in range(TURNS + 1):
                reader.lead(Gate().is_open, time.monotonic())
            often = shared.now.loop_listens
            monkeypatch.setattr(shared_reader, "TURN_SECONDS", 0)
            time.sleep(0.001)
            reader.lead(Gate().is_open, time.monotonic())
            return often, shared.now.loop_listens

        thread, results = in_thread(lead)
        thread.join(DEADLINE)
        assert results == [(False, True)]
        reader.detach_loop()


def test_who_leads_now_and_then_gives_the_loop_back_each_time(shared: Shared) -> None:
    reader = shared.reader
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)

        def lead() -> list[bool]:
            listening = []
            for _ in range(2 * TURNS):
                reader.lead(Gate().is_open, time.monotonic())
                listening.append(shared.now.loop_listens)
                time.sleep(2 * TURN_SECONDS)
            return listening

        thread, results = in_thread(lead)
        thread.join(DEADLINE)
        assert results == [[True] * 2 * TURNS]
        reader.detach_loop()


def note_sleeps(end: End) -> list[bool]:
    """Gets an entry for each read that brought something: whether it would have slept for it."""
    transport = end.transport
    assert isinstance(transport, SocketTransport)
    recv_into = transport.recv_into
    slept: list[bool] = []

    def read(buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        count = recv_into(buffer, size, flags)
        slept.append(not flags)
        return count

    transport.recv_into = read
    return slept


@pytest.mark.parametrize("processors", [1, 2])
def test_who_asks_and_waits_in_turn_spins_if_there_is_a_processor_for_the_answer(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(shared_reader, "TURN_SECONDS", DEADLINE)
    monkeypatch.setattr(spinning, "SPIN_SECONDS", DEADLINE)
    monkeypatch.setattr(shared_reader, "GRACE", 0.5)
    shared = Shared()
    host, child, reader = shared.host, shared.child, shared.reader
    stream = shared.open_stream()
    until(lambda: not shared.now.reading)
    slept = note_sleeps(child)

    turns: list[int] = []

    def wait_in_turn() -> None:
        for number in range(TURNS + 3):
            turns.append(number)
            reader.lead(lambda: len(child.got) > number, None)  # noqa: B023  # at once

    thread, _ = in_thread(wait_in_turn)
    for number in range(TURNS + 3):
        until(lambda: len(turns) > number and shared.now.reading)  # noqa: B023  # at once
        host.send(stream, b"x")
    thread.join(DEADLINE)
    assert slept == [True] * TURNS + [processors == 1] * 3
    close(host, child)


def test_spins_in_vain_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spinning, "SPIN_SECONDS", 0)

    class Transport:
        """Has *answer* bytes to read, and counts who asks for them."""

        at_once = socket.MSG_DONTWAIT
        reads = answer = 0

        def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0, /) -> int:
            assert flags == self.at_once
            self.reads += 1
            if not self.answer:
                raise BlockingIOError
            return self.answer

    transport = Transport()
    spinner = Spinner(transport, FrameDecoder())

    def spins(waits: int) -> list[int]:
        """Which of so many waits began with one."""
        which = []
        for number in range(waits):
            before = transport.reads
            assert spinner.read() == (transport.answer if transport.reads > before else 0)
            if transport.reads > before:
                which.append(number)
        return which

    assert spins(200) == [0, 2, 6, 14, 30, 62, 126, 190]
    transport.answer = 5
    assert spins(60) == [54, 55, 56, 57, 58, 59], "one that is not in vain, and all is well"
    transport.answer = 0
    assert spins(10) == [0, 2, 6]


@pytest.mark.parametrize(
    ("size", "seconds", "reads"), [(MUCH, 60, 5), (MUCH, 0, 2), (MUCH // 2, 60, 1)], ids=["much", "late", "little"]
)
def test_a_loop_that_has_read_much_reads_on_in_the_same_turn(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, size: int, seconds: float, reads: int
) -> None:
    """When that has been handled, and for a while: others want the loop, too."""
    host, reader = shared.host, shared.reader
    monkeypatch.setattr(shared_reader, "READ_ON_SECONDS", seconds)
    stream = shared.open_stream()
    trace: list[str] = []
    received = shared.fed.received

    def note(count: int, wanted: Stream | None = None, turn: Turn | None = None) -> object:
        if turn is not None:
            turn.due.append(handle)
        trace.append("read")
        return received(count, wanted, turn)

    def handle() -> None:
        """Meanwhile the sender writes more, five messages in all."""
        if trace == ["read"]:
            asyncio.get_running_loop().call_soon(trace.append, "the next turn")
        trace.append("handled")
        if trace.count("read") < 5:
            host.send(stream, bytes(size), Flag.RAW)

    shared.fed.received = note
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)
        # By the loop that reads: it must not find a part of it.
        loop.call_soon_threadsafe(lambda: host.send(stream, bytes(size), Flag.RAW))
        until(lambda: trace.count("handled") == 5 and "the next turn" in trace)
        reader.detach_loop()
    expected = ["read", "handled"] * 5
    expected.insert(2 * reads, "the next turn")
    assert trace == expected


def test_who_reads_for_others_only_leaves_that_to_the_loop(shared: Shared) -> None:
    host, reader = shared.host, shared.reader
    gate = Gate()
    stream = shared.open_stream()
    readers: list[threading.Thread] = []
    received = shared.fed.received

    def note(count: int, wanted: Stream | None = None, turn: Turn | None = None) -> object:
        """Note who reads, and let the next piece come."""
        readers.append(threading.current_thread())
        result = received(count, wanted, turn)
        if len(readers) < 2 * READS_FOR_OTHERS:
            host.send(stream, b"for somebody else")
        else:
            gate.open()
        return result

    shared.fed.received = note
    with loop_in_thread() as loop:
        reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)
        thread, results = in_thread(lambda: reader.wait(gate, DEADLINE))
        until(lambda: shared.now.reading)
        host.send(stream, b"the first")
        thread.join(DEADLINE)
        assert results == [True]
        reader.detach_loop()
    loops = [number for number, who in enumerate(readers) if who is not thread]
    assert loops == list(range(READS_FOR_OTHERS, len(readers)))
    assert {readers[number].name for number in loops}.isdisjoint({"lycomm-read-the host", thread.name})


class Questions:
    """The host asks one question after another; who reads one in the child answers it there and then."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self.reader = shared.reader
        self.loop = loop
        self._host = shared.host
        self._stream = shared.open_stream()
        self._answered = threading.Semaphore(0)
        self.readers: list[str] = []
        self.answer: Callable[[], object] = lambda: None
        received = shared.fed.received

        def note(count: int, wanted: Stream | None = None, turn: Turn | None = None) -> object:
            result = received(count, wanted, turn)
            self.readers.append(threading.current_thread().name)
            self.answer()
            self._answered.release()
            return result

        shared.fed.received = note

    @property
    def now(self) -> ReaderStatistics:
        return self.shared.now

    def ask(self, question: bytes = b"a question") -> str:
        """Returns who has read it."""
        self._host.send(self._stream, question)
        assert self._answered.acquire(timeout=DEADLINE)
        return self.readers[-1]

    def until_the_guard_reads(self) -> None:
        until(lambda: self.ask().startswith("lycomm-read"))


@pytest.fixture
def asked(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Questions]:
    """With a loop that reads them at first."""
    monkeypatch.setattr(shared_reader, "GRACE", 0.005)
    monkeypatch.setattr(shared_reader, "QUESTION_SECONDS", DEADLINE)  # however slow the machine is
    with loop_in_thread() as loop:
        shared.reader.attach_loop(loop)
        until(lambda: shared.now.loop_listens)
        yield Questions(shared, loop)
        shared.reader.detach_loop()


def test_the_guard_reads_questions_that_are_answered_without_the_loop(asked: Questions) -> None:
    asked.until_the_guard_reads()
    before = asked.readers[:QUESTIONS]
    assert not any(name.startswith("lycomm-read") for name in before), "first they are seen to be questions"
    assert not asked.now.loop_listens
    assert asked.ask().startswith("lycomm-read")
    until(lambda: asked.now.loop_listens)  # it leaves that to the loop again when there are no more
    assert not asked.now.reading
    assert not asked.ask().startswith("lycomm-read")
    assert asked.now.questions <= 1, "and they are seen to be questions first again"


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


@pytest.mark.usefixtures("two_processors")
def test_the_guard_that_answers_questions_spins(asked: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spinning, "SPIN_SECONDS", DEADLINE)
    slept = note_sleeps(asked.shared.child)
    asked.until_the_guard_reads()
    assert asked.ask().startswith("lycomm-read")
    assert not slept[-1]


@pytest.mark.parametrize("why", ["large", "seldom", "the loop's", "the loop's now and then"])
def test_what_is_no_such_question_is_the_loop_s(asked: Questions, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "seldom":
        monkeypatch.setattr(shared_reader, "QUESTION_SECONDS", 0)
    every = {"the loop's": 1, "the loop's now and then": QUESTIONS - 1}.get(why)
    asked.answer = lambda: every and len(asked.readers) % every == 0 and call_soon_on(asked.loop, lambda: None)
    size = QUESTION_SIZE if why == "large" else 1
    for _ in range(3 * QUESTIONS):
        asked.ask(bytes(size))
    until(lambda: asked.now.loop_listens)
    assert asked.now.questions < QUESTIONS
    assert not any(name.startswith("lycomm-read") for name in asked.readers)


def test_the_guard_leaves_as_soon_as_there_is_something_for_the_loop(
    asked: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reader, "NO_QUESTIONS_SECONDS", DEADLINE * 2)  # it is not silence that ends it
    asked.until_the_guard_reads()
    threads: list[threading.Thread] = []
    asked.answer = lambda: call_soon_on(asked.loop, lambda: threads.append(threading.current_thread()))
    assert asked.ask().startswith("lycomm-read")
    until(lambda: threads)
    until(lambda: asked.now.loop_listens)
    assert not asked.ask().startswith("lycomm-read")


def test_the_guard_leaves_for_a_thread_that_waits(asked: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reader, "NO_QUESTIONS_SECONDS", DEADLINE * 2)  # it is not silence that ends it
    asked.until_the_guard_reads()
    gate = Gate()
    thread, results = in_thread(lambda: asked.reader.wait(gate, DEADLINE))
    until(lambda: asked.now.followers)
    until(lambda: asked.ask() == thread.name)  # the loop may be sooner once, as the thread is only just called
    asked.answer = gate.open
    asked.ask()
    thread.join(DEADLINE)
    assert results == [True]
