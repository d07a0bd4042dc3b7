"""Calls that arrive in the middle of lycomm's own work on the same thread, from finalizers, signal handlers and so on.

They used to wait for a lock that their own thread held, for ever.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from interrupting import Interruption
from loguru import logger
from pair_kit import DEADLINE, Child, channel, children, memory, until

from liteyuki_host.comm import topics
from liteyuki_host.comm.errors import LycommError, ReentrantCall
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.comm.transport.posix import socket_link

SIDES = ["bot", "host"]
LINKS = {"memory": memory_link, "sockets": socket_link}


class Sides:
    """A bot and its host. *here* is where user code interrupts lycomm, *there* hears of it."""

    def __init__(self, pair: Pair, bot: Child, side: str) -> None:
        self.here: Exchange = bot.node if side == "bot" else pair.host
        self.there: Exchange = pair.host if side == "bot" else bot.node
        self.heard: list[int] = []
        self.refused: list[int] = []
        self._readers: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._told = channel(self.here, "bot-active")
        self._drain("bot-active", self.heard)
        self._drain("bot-passive", [])
        self.work = channel(self.here, "bot-passive")
        self.work.send("opens the channel")
        self._told.send(next(self._numbers))
        self.memory = memory(self.here)
        self.memory.set("told", 0)
        until(lambda: self.heard)

    def _drain(self, name: str, into: list[int]) -> None:
        side = channel(self.there, name)

        def read() -> None:
            with contextlib.suppress(LycommError):  # the test is over
                into.extend(side)

        thread = threading.Thread(target=read, daemon=True)
        self._readers.append(thread)
        thread.start()

    def tell(self) -> None:
        """What a finalizer might do: all of it returns nothing."""
        if threading.current_thread() in self._readers:  # of the other process: it would wait for itself to read
            return
        number = next(self._numbers)
        try:
            self._told.send(number)
        except LycommError:  # no room, and its thread may not wait; or the test is over
            self.refused.append(number)
            return
        try:
            self.memory.set("told", number)
            self.memory.delete("never there")
            topics.publish("told", number, exchange=self.here)
        except LycommError:
            pass

    def told(self) -> int:
        """How many numbers there were, once all have been heard, each once, and what is written has been seen. They are
        heard in order, unless a finalizer was freed in the middle of another one's."""

        def heard() -> list[int]:
            return sorted([*self.heard, *self.refused])

        gc.collect()
        count = next(self._numbers)
        self._told.send(count)
        until(lambda: len(heard()) > count and len(heard()) == len(set(heard())) == heard()[-1] + 1)
        self.memory.set("last", count)
        until(lambda: memory(self.there).get("last") == count)
        return count


@pytest.fixture(params=SIDES)
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    yield from _sides(request.param, socket_link)


@pytest.fixture(params=itertools.product(SIDES, LINKS), ids=" ".join)
def linked(request: pytest.FixtureRequest) -> Iterator[Sides]:
    side, link = request.param
    yield from _sides(side, LINKS[link])


def _sides(side: str, transports: Callable[[], Any]) -> Iterator[Sides]:
    with children() as (pair, _):
        bot = Child(pair, "bot", transports=transports)
        try:
            yield Sides(pair, bot, side)
        finally:
            bot.node.reset()


def in_time(function: Callable[[], object]) -> None:
    """Call *function* in a thread, and see that it comes to an end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if thread.is_alive():
        import traceback

        stack = traceback.format_stack(sys._current_frames()[thread.ident or 0])
        pytest.fail("it hangs:\n" + "".join(stack[-12:]))
    if failures:
        raise failures[0]


OUTER: dict[str, Callable[[Sides], object]] = {
    "send": lambda sides: sides.work.send("x"),
    "send many": lambda sides: [sides.work.send(number) for number in range(12)],
    "send a large one": lambda sides: sides.work.send("x" * 40_000),
    "set": lambda sides: sides.memory.set("key", [1]),
    "delete": lambda sides: sides.memory.delete("key"),
    "publish": lambda sides: topics.publish("news", 1, exchange=sides.here),
    "incr": lambda sides: sides.memory.incr("count", timeout=DEADLINE),
    "lock": lambda sides: sides.memory.lock("lock", timeout=DEADLINE).__enter__().__exit__(None, None, None),
    "statistics": lambda sides: sides.work.statistics(),
    "subscribe": lambda sides: topics.subscribe("news", exchange=sides.here)(print),
}


@pytest.mark.parametrize("outer", OUTER)
def test_each_line_may_be_interrupted(linked: Sides, outer: str) -> None:
    """All that is said from there is heard, once and in order, and what was interrupted does its work."""

    def interrupt_each() -> None:
        for line in itertools.count():
            with Interruption(linked.tell, line).here() as interruption:
                OUTER[outer](linked)
            assert interruption.failures == []
            if not interruption.calls:  # it has fewer lines
                break

    in_time(interrupt_each)
    assert linked.told() > 10
    assert linked.refused == []
    assert linked.heard == sorted(linked.heard)


REFUSED: dict[str, Callable[[Sides], object]] = {
    "receive": lambda sides: channel(sides.here, "other").receive(0),
    "incr": lambda sides: sides.memory.incr("count", timeout=0.1),
    "compare_and_set": lambda sides: sides.memory.compare_and_set("count", None, 1, timeout=0.1),
    "update": lambda sides: sides.memory.update("count", lambda old: 1, timeout=0.1),
    "sync": lambda sides: sides.memory.sync(timeout=0.1),
    "lock": lambda sides: sides.memory.lock("other", timeout=0.1).__enter__(),
    "watch": lambda sides: sides.memory.watch("x"),
    "on_receive": lambda sides: channel(sides.here, "other").on_receive()(print),
    "subscribe": lambda sides: topics.subscribe("other", exchange=sides.here)(print),
    "unsubscribe": lambda sides: topics.unsubscribe("other", exchange=sides.here),
}


@pytest.mark.parametrize("call", REFUSED)
def test_what_has_a_result_is_refused_inside(sides: Sides, call: str) -> None:
    def ask() -> None:
        with sides.here.monitor.lock, pytest.raises(ReentrantCall, match=r"in the middle of lycomm's own work"):
            REFUSED[call](sides)

    in_time(ask)
    sides.told()


def test_reading_and_looking_work_inside(sides: Sides) -> None:
    sides.memory.set("key", [1])

    def look() -> None:
        with sides.here.monitor.lock:
            assert sides.memory.get("key") == [1]
            assert sides.memory.get_all()["key"] == [1]
            assert sides.memory.revision >= 0
            assert "bot-active" in sides.here.channel_names()
            assert sides.work.statistics().sent > 0

    in_time(look)


def test_a_write_from_inside_is_seen_when_the_lock_has_been_left(sides: Sides) -> None:
    with sides.here.monitor.lock:
        sides.memory.set("key", "late")
        assert "key" not in sides.memory
    sides.work.send("whoever calls next performs it")
    assert sides.memory["key"] == "late"


def test_what_was_put_off_goes_before_what_its_thread_sends_next(sides: Sides) -> None:
    heard = len(sides.heard)
    told = channel(sides.here, "bot-active")
    for _ in range(50):
        with sides.here.monitor.lock:
            told.send(1)
        told.send(2)
    until(lambda: len(sides.heard) == heard + 100)
    assert sides.heard[heard:] == [1, 2] * 50


def test_a_staged_message_waits_for_one_put_off(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call was taken off the list before it was performed, and its thread then sent past it without the lock."""
    here, heard = sides.here, len(sides.heard)
    told, hold = channel(here, "bot-active"), here.hold
    stream = here.end("bot-active").outbox.stream
    assert stream is not None
    performing, sent = threading.Event(), threading.Event()

    def hold_in_the_middle(name: str) -> Any:
        """What a call that was put off begins with: meanwhile its thread sends the next message."""
        performing.set()
        assert sent.wait(DEADLINE)
        return hold(name)

    def send_two() -> None:
        told.send(" " * 40_000)  # not staged, so it waits for the lock, and is put off
        put_off.set()
        assert performing.wait(DEADLINE)
        told.send("next")
        sent.set()

    put_off = threading.Event()
    sender = threading.Thread(target=send_two, daemon=True)
    with contextlib.ExitStack() as held:
        while True:
            for number in range(20):  # a burst, which opens the stage until the flusher writes
                told.send(number)
            held.enter_context(here.monitor.lock)
            if stream.stage.open:
                break
            held.close()
        monkeypatch.setattr(here, "hold", hold_in_the_middle)
        sender.start()
        assert put_off.wait(DEADLINE)
        here.monitor.perform()
    here.monitor.settle()
    sender.join(DEADLINE)
    until(lambda: len(sides.heard) > heard + 1 and "next" in sides.heard)
    assert sides.heard[-2:] == [" " * 40_000, "next"]


def test_too_many_calls_from_inside_are_refused(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liteyuki_host.comm.waiting.monitor.MOST_DEFERRED", 3)
    with sides.here.monitor.lock:
        for _ in range(3):
            channel(sides.here, "bot-active").send(0)
        with pytest.raises(ReentrantCall, match=r"already wait until lycomm's own work is done"):
            channel(sides.here, "bot-active").send(0)
    sides.here.monitor.settle()


def test_a_full_channel_is_said_inside_at_once() -> None:
    with children(window=2_000) as (pair, _):
        full = pair.child_channel("nonebot-passive")
        outbox = full._usable_end().outbox
        while outbox.has_room(100):
            full.send("x" * 90)
        with pair.child.monitor.lock, pytest.raises(ReentrantCall, match=r"channel 'nonebot-passive' is full"):
            full.send("x" * 90)


# --- who calls from inside --------------------------------------------------------------------------------------


class Cycle:
    """Freed whenever the collector runs."""

    def __init__(self, freed: Callable[..., object] | None = None) -> None:
        self.me = self
        self.freed = freed

    def __del__(self) -> None:
        if self.freed is not None:
            self.freed()


@pytest.fixture
def eager() -> Iterator[None]:
    """A collector that runs all the time."""
    before = gc.get_threshold()
    gc.set_threshold(20)
    yield
    gc.set_threshold(*before)


def work_with(sides: Sides, make: Callable[[], object], rounds: int = 1500) -> None:
    def work() -> None:
        for number in range(rounds):
            make()
            if number % 3:
                sides.work.send({"number": number})
            else:
                sides.memory.set(f"key{number % 20}", {"number": number})

    in_time(work)


@pytest.mark.usefixtures("eager")
def test_finalizers_may_send_publish_and_set(linked: Sides) -> None:
    work_with(linked, lambda: Cycle(linked.tell))
    gc.collect()
    assert linked.told() > 20


@pytest.mark.usefixtures("eager")
def test_weakref_callbacks_may_send_publish_and_set(linked: Sides) -> None:
    kept: list[weakref.ref[Cycle]] = []

    def make() -> None:
        kept.append(weakref.ref(Cycle(), lambda _: linked.tell()))

    work_with(linked, make)
    gc.collect()
    assert linked.told() > 20


@pytest.mark.usefixtures("eager")
def test_gc_callbacks_may_send_publish_and_set(linked: Sides) -> None:
    worker: list[int] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if threading.get_ident() in worker:
            linked.tell()

    gc.callbacks.append(collected)
    try:
        work_with(linked, lambda: worker or worker.append(threading.get_ident()))
    finally:
        gc.callbacks.remove(collected)
    assert linked.told() > 10


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_signal_handlers_may_send_publish_and_set(linked: Sides) -> None:
    """They run in the main thread only, between any two steps of what it does."""
    inside: list[int] = []

    def handle(*_: object) -> None:
        if not inside:
            inside.append(1)
            linked.tell()
            inside.clear()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            linked.work.send("x")
            linked.memory.set("key", [1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert linked.told() > 20


@pytest.mark.usefixtures("eager")
def test_finalizers_may_log_to_a_sink_that_sends(sides: Sides) -> None:
    """Two threads: one is in the sink, with loguru's lock, and sends; the other is inside lycomm, and a finalizer there
    logs. Each waited for the other."""
    sink = logger.add(lambda message: sides.tell(), level="INFO", format="{message}", catch=False)
    cycles = [lambda: Cycle(lambda: logger.info("collected"))] * 2
    try:
        threads = [threading.Thread(target=work_with, args=(sides, make, 400), daemon=True) for make in cycles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * DEADLINE)
            assert not thread.is_alive()
    finally:
        logger.remove(sink)
    gc.collect()


@contextlib.contextmanager
def inside_waits_for_us(sides: Sides, before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """A thread inside lycomm waits, as in a finalizer, for a lock that this thread holds. It calls *before* first."""
    mine, inside = threading.Lock(), threading.Event()

    def interrupted() -> None:
        with sides.here.monitor.lock:
            before()
            inside.set()
            assert mine.acquire(timeout=DEADLINE)
            mine.release()
        sides.here.monitor.settle()

    with mine:
        thread = threading.Thread(target=interrupted, daemon=True)
        thread.start()
        assert inside.wait(DEADLINE)
        yield
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_lock_of_the_user_s_delays_a_call_and_no_more(sides: Sides) -> None:
    with inside_waits_for_us(sides):
        in_time(sides.tell)
    sides.told()


def test_nobody_waits_for_ever_to_put_off(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more calls can be put off, and the thread that could perform them waits for a lock of who calls."""
    monkeypatch.setattr("liteyuki_host.comm.waiting.monitor.MOST_DEFERRED", 3)
    line = channel(sides.here, "bot-active")
    refused = pytest.raises(ReentrantCall, match="already wait until lycomm's own work is done")
    with inside_waits_for_us(sides, lambda: [line.send(0) for _ in range(3)]), refused:
        in_time(lambda: line.send(1))
    line.send(2)
    until(lambda: sides.heard[-4:] == [0, 0, 0, 2])


def test_generators_give_locks_and_watches_back_inside(sides: Sides) -> None:
    lock, watch = sides.memory.lock("lock"), sides.memory.watch("key")
    lock.__enter__()
    with sides.here.monitor.lock:
        lock.__exit__(None, None, None)
        watch.close()
    sides.work.send("whoever calls next performs it")
    with sides.memory.lock("lock", timeout=DEADLINE):
        pass
    assert list(watch) == []


@pytest.mark.usefixtures("eager")
def test_a_process_without_a_host_is_interrupted_too() -> None:
    node = Node()
    heard: list[int] = []
    count = itertools.count()

    def tell() -> None:
        number = next(count)
        memory(node).set("told", number)
        topics.publish("told", number, exchange=node)

    topics.subscribe("told", exchange=node)(heard.append)

    def work() -> None:
        for number in range(2000):
            Cycle(tell)
            memory(node).set(f"key{number % 20}", {"number": number})

    in_time(work)
    gc.collect()
    assert memory(node)["told"] == next(count) - 1


@pytest.mark.usefixtures("eager")
def test_every_thread_of_lycomm_may_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers, flushers and guards, every 101 lines."""
    made: list[Sides] = []
    interruption = Interruption(lambda: made and made[0].tell(), 50, every=101)
    threading.settrace(interruption.trace)
    try:
        with children() as (pair, _):
            bot = Child(pair, "bot", transports=socket_link)
            made.append(Sides(pair, bot, "host"))
            threading.settrace(None)  # type: ignore[arg-type]
            work_with(made[0], lambda: None, 300)
            until(lambda: interruption.calls > 20)
            sides = made.pop()
            sides.told()
            bot.node.reset()
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    unexpected = [error for error in interruption.failures if not isinstance(error, ReentrantCall)]
    assert unexpected == []
