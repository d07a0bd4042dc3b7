"""Starting threads, and telling a loop, when there is no memory."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from liteyuki_host.comm import threads
from liteyuki_host.comm.threads import DaemonThread, call_soon


def test_it_is_a_daemon_and_does_its_work() -> None:
    done = threading.Event()
    thread = DaemonThread(lambda event: event.set(), name="lycomm-test", args=(done,))
    thread.start()
    assert done.wait(5)
    thread.join(5)
    assert thread.daemon
    assert not thread.is_alive()


def refused(thread: DaemonThread) -> None:
    with pytest.raises(MemoryError, match="a new thread had no memory for its first line"):
        thread.start()
    assert thread not in threading.enumerate()
    assert not thread.is_alive()


def test_a_thread_that_never_runs_a_line_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for lack of memory. Python's own start waits for it for ever, on the event loop too."""
    monkeypatch.setattr(threads, "START_SECONDS", 0.1)
    monkeypatch.setattr(DaemonThread, "_bootstrap", lambda thread: None)
    refused(DaemonThread(lambda: None, name="lycomm-test"))


def test_a_thread_that_dies_in_its_first_lines_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(thread: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr(threads, "START_SECONDS", 60.0)
    monkeypatch.setattr(threading.Thread, "_bootstrap", out_of_memory)
    began = time.monotonic()
    refused(DaemonThread(lambda: None, name="lycomm-test"))
    assert time.monotonic() - began < 10


def test_one_that_comes_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "START_SECONDS", 0.05)
    bootstrap: Any = DaemonThread._bootstrap
    may_begin, over = threading.Event(), threading.Event()

    def late(thread: DaemonThread) -> None:
        may_begin.wait(5)
        bootstrap(thread)
        over.set()

    monkeypatch.setattr(DaemonThread, "_bootstrap", late)
    called: list[bool] = []
    refused(DaemonThread(lambda: called.append(True), name="lycomm-test"))
    may_begin.set()
    assert over.wait(5)
    assert called == []


class Loop:
    """Has no memory for the first calls."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.called: list[object] = []

    def call_soon_threadsafe(self, function: Any, *args: object) -> None:
        self.times -= 1
        if self.times >= 0:
            raise MemoryError
        self.called.append(args)


def test_what_a_loop_has_no_memory_for_is_handed_over_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "NO_MEMORY_SECONDS", 0.0)
    loop: Any = Loop(3)
    assert call_soon(loop, print, 1)
    assert loop.called == [(1,)]


def test_a_loop_that_has_ended_is_told_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert not call_soon(loop, print)


async def test_a_loop_that_runs_is_told() -> None:
    told = asyncio.Event()
    began = time.monotonic()
    await asyncio.to_thread(call_soon, asyncio.get_running_loop(), told.set)
    await asyncio.wait_for(told.wait(), 5)
    assert time.monotonic() - began < 5
