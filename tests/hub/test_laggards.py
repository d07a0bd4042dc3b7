"""Faults while writers wait for a slow child, and while keys expire: the work goes on, and the fault is told."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loguru import logger

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, eventually, logged, memory, until

from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.waiting.monitor import Monitor
from liteyuki_host.hub import Hub
from liteyuki_host.hub.laggards import Laggards
from liteyuki_host.hub.roster import Roster


class SlowChild:
    """Has not read a window of memory events, until told otherwise."""

    process = "slow"
    disconnecting = False

    def __init__(self) -> None:
        self.store = self
        self.sent, self.acknowledged = 1_000, 0
        self.failures: list[Exception] = []  # to be raised at the next looks of the thread
        self.closed: list[str] = []

    @property
    def memory_backlog(self) -> int:
        if self.failures and threading.current_thread().name == "lycomm-laggards":
            raise self.failures.pop()
        return self.sent - self.acknowledged

    def reads(self) -> None:
        self.acknowledged = self.sent

    def close_soon(self, cause: str) -> None:
        self.closed.append(cause)
        self.reads()


class Writer:
    """A child whose credit is withheld."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.counted = 0
        self.granted = threading.Event()

    def used(self, cost: int) -> None:
        self.counted += cost

    def grant(self) -> None:
        if self.failures:
            raise self.failures.pop()
        self.granted.set()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lycomm-laggards"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("liteyuki_host.boundary.FIRST_DELAY", 0.01)
    yield
    until(lambda: not threads())


@pytest.fixture
def slow() -> SlowChild:
    return SlowChild()


@pytest.fixture
def lag(slow: SlowChild) -> Iterator[Laggards]:
    roster = Roster()
    roster.everybody = (slow,)  # type: ignore[assignment]
    laggards = Laggards(roster, Monitor(), window=100, message_limit=1_000_000, loop=lambda: None)
    yield laggards
    laggards.close()


def withhold(lag: Laggards, writer: Writer, cost: int) -> bool:
    return lag.withhold(writer, cost)  # type: ignore[arg-type]


@contextmanager
def raising_sink() -> Iterator[list[str]]:
    """A sink that raises for every line, into whoever logs."""
    lines: list[str] = []

    def sink(line: str) -> None:
        lines.append(line)
        raise OSError("the disk is full")

    number = logger.add(sink, format="{message}", catch=False)
    try:
        yield lines
    finally:
        logger.remove(number)


def test_a_failing_grant_is_told_and_repeated(lag: Laggards, slow: SlowChild) -> None:
    first, second = Writer(MemoryError()), Writer()
    with logged() as lines:
        assert withhold(lag, first, 7)
        assert withhold(lag, second, 8)
        slow.reads()
        lag.memory_read()
        assert second.granted.is_set()
        assert first.granted.wait(DEADLINE)
        until(lambda: not threads())
    assert (first.counted, second.counted) == (7, 8)
    assert not lag.withholding
    failed = [line for line in lines if "watching for processes that do not read the shared memory failed" in line]
    assert len(failed) <= 1  # none, if the thread came first to what the reader had left


def grant_behind_a_failing_look(lag: Laggards, slow: SlowChild) -> None:
    """Let one look at a slow child fail. Credit is granted and the thread ends all the same, once it has read."""
    writer = Writer()
    slow.failures.append(ValueError("a fault of ours"))
    assert withhold(lag, writer, 7)
    until(lambda: not slow.failures)
    slow.reads()
    lag.memory_read()
    assert writer.granted.wait(DEADLINE)
    until(lambda: not threads())


def test_the_thread_survives_a_failing_look(lag: Laggards, slow: SlowChild) -> None:
    with logged() as lines:
        grant_behind_a_failing_look(lag, slow)
    assert any("failed inside lycomm; trying again" in line for line in lines)
    assert any("works again" in line for line in lines)


def test_a_raising_sink_stops_no_grant(lag: Laggards, slow: SlowChild) -> None:
    with raising_sink() as lines:
        grant_behind_a_failing_look(lag, slow)
    assert lines


def test_a_raising_sink_disconnects_the_laggard(
    lag: Laggards, slow: SlowChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liteyuki_host.hub.laggards.LAG_SECONDS", 0.05)
    writer = Writer()
    with raising_sink() as lines:
        assert withhold(lag, writer, 7)
        assert writer.granted.wait(DEADLINE)
        until(lambda: any("child slow has not read its link" in line for line in lines))
    assert slow.closed == ["it does not read its link"]


def test_closing_ends_a_thread_that_fails(lag: Laggards, slow: SlowChild) -> None:
    assert withhold(lag, Writer(*[MemoryError()] * 100_000), 7)
    slow.reads()
    lag.memory_read()
    assert threads()
    lag.close()
    until(lambda: not threads())


def test_a_closed_loop_does_not_end_the_watching(slow: SlowChild, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread can be started and the loop is closed, the next child that is withheld tries again."""
    loop = asyncio.new_event_loop()
    loop.close()
    roster = Roster()
    roster.everybody = (slow,)  # type: ignore[assignment]
    lag = Laggards(roster, Monitor(), window=100, message_limit=1_000_000, loop=lambda: loop)
    with monkeypatch.context() as short:

        def start(self: DaemonThread) -> None:
            raise RuntimeError("can't start new thread")

        short.setattr(DaemonThread, "start", start)
        assert withhold(lag, Writer(), 7)
    assert withhold(lag, Writer(), 7)
    assert threads()
    slow.reads()
    lag.memory_read()


async def test_expiry_survives_failures_and_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    expire, failures = hub.authority.expire, [ValueError("a fault of ours"), MemoryError()]

    def failing() -> float | None:
        if failures and "key" in memory(hub):
            raise failures.pop()
        return expire()

    monkeypatch.setattr(hub.authority, "expire", failing)
    task = asyncio.create_task(hub.serve())
    with raising_sink() as lines:
        memory(hub).set("key", 1, ttl=0.2)
        await eventually(lambda: "key" not in hub.view)
    assert [line for line in lines if "failed inside lycomm" in line]
    assert [line for line in lines if "no memory left" in line]
    assert not failures
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
