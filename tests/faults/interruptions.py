"""Code of users that Python runs in the middle of lycomm's own, while a thread works; in a child or in the host.

Each kind tells numbers on a channel, sets a key and publishes. Nothing of that may hang, and every number that was
taken has to arrive.
"""

from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from liteyuki_host.comm import topics
from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.comm.errors import LycommError
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.storage import SharedMemory

__all__ = ["KINDS", "Work"]

MOST_CYCLES = 100
"""Objects that wait for the collector, and log when it frees them: as many as fill its youngest generation here."""


class Work:
    """A thread that sends and sets, and the code that interrupts it.

    Attributes:
        taken: numbers that were told and not refused.
        rounds: of the thread's work.
        stalled: the longest time in seconds from one round to the next.
    """

    def __init__(self, name: str, exchange: Exchange) -> None:
        self._exchange = exchange
        self._told: Channel[int] = Channel(f"numbers-{name}", exchange=exchange)
        self._work: Channel[Any] = Channel(f"work-{name}", exchange=exchange)
        self._memory = SharedMemory(exchange)
        self._numbers = itertools.count()
        self.taken: list[int] = []
        self.rounds = 0
        self.stalled = 0.0

    def tell(self, *_: object) -> None:
        """What a finalizer may do: all of it returns nothing."""
        number = next(self._numbers)
        try:
            self._told.send(number)
            self.taken.append(number)
            self._memory.set("told", number)
            self._memory.delete("never there")
            topics.publish("told", number, exchange=self._exchange)
        except LycommError:  # no room, where nobody can wait for it
            pass

    def run(self, kind: str, seconds: float) -> None:
        """Work for so many seconds while code of *kind* interrupts. For the main thread, where signals are handled."""
        threshold = gc.get_threshold()
        gc.set_threshold(100)
        try:
            with KINDS[kind](self) as make:
                end = last = time.monotonic()
                end += seconds
                while last < end:
                    make()
                    self.rounds += 1
                    try:
                        if self.rounds % 3:
                            self._work.send({"round": self.rounds})
                        else:
                            self._memory.set(f"key{self.rounds % 20}", {"round": self.rounds})
                    except LycommError:
                        time.sleep(0.001)  # no room, and this thread runs a loop
                    now = time.monotonic()
                    self.stalled, last = max(self.stalled, now - last), now
        finally:
            gc.set_threshold(*threshold)
        gc.collect()


class Cycle:
    """Freed whenever the collector runs."""

    def __init__(self, freed: Callable[[], object] | None = None) -> None:
        self._me = self
        self._freed = freed

    def __del__(self) -> None:
        if self._freed is not None:
            self._freed()


Making = Iterator[Callable[[], object]]


@contextmanager
def finalizers(work: Work) -> Making:
    yield lambda: Cycle(work.tell)


@contextmanager
def weakrefs(work: Work) -> Making:
    kept: list[weakref.ref[Cycle]] = []

    def make() -> None:
        if len(kept) > 1000:
            del kept[:500]
        kept.append(weakref.ref(Cycle(), work.tell))

    yield make


@contextmanager
def collector(work: Work) -> Making:
    thread = threading.get_ident()

    def collected(phase: str, info: dict[str, int]) -> None:
        if threading.get_ident() == thread:
            work.tell()

    gc.callbacks.append(collected)
    try:
        yield Cycle
    finally:
        gc.callbacks.remove(collected)


@contextmanager
def signals(work: Work) -> Making:
    inside: list[int] = []

    def handle(*_: object) -> None:
        if not inside:  # so that the stack stays short
            inside.append(1)
            work.tell()
            inside.clear()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        yield lambda: None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def sinks(work: Work) -> Making:
    """Finalizers log, in this thread and in another one, to a sink that sends."""
    from loguru import logger

    over = threading.Event()
    sink = logger.add(work.tell, level="INFO", format="{message}", filter=lambda record: "re-entry" in record["extra"])
    log = logger.bind(**{"re-entry": True})

    alive: set[object] = set()

    def make() -> None:
        # While one thread is in the collector, in finalizers that take their time, the other ones make more cycles. The
        # next run of the collector would take as long as all their log lines do, and that is not lycomm's doing.
        if len(alive) < MOST_CYCLES:
            token = object()
            alive.add(token)
            Cycle(lambda: (alive.discard(token), log.info("collected")))

    def log_too() -> None:
        while not over.wait(0.001):
            make()
            log.info("beside")

    beside = threading.Thread(target=log_too)
    beside.start()
    try:
        yield make
    finally:
        over.set()
        beside.join()
        logger.remove(sink)


KINDS: dict[str, Callable[[Work], Any]] = {
    "finalizers": finalizers,
    "weakref callbacks": weakrefs,
    "gc callbacks": collector,
    "signal handlers": signals,
    "log sinks": sinks,
}
