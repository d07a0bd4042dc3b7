"""A call that cannot be put off, since too many are: how long the holder of the lock is waited for."""

from __future__ import annotations

import threading

import pytest

from liteyuki_host.comm.errors import ReentrantCall
from liteyuki_host.comm.waiting import monitor as module
from liteyuki_host.comm.waiting.monitor import Monitor

DEADLINE = 15.0


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Monitor:
    monkeypatch.setattr(module, "MOST_DEFERRED", 1)
    return Monitor()


def perform_in_a_thread(monitor: Monitor, first: threading.Event) -> threading.Thread:
    """Hold the lock and perform what is due; *first* says that the first call has begun."""

    def run() -> None:
        with monitor.lock:
            monitor.perform()

    thread = threading.Thread(target=run)
    thread.start()
    assert first.wait(DEADLINE)
    return thread


def test_a_holder_that_goes_on_is_waited_for(monitor: Monitor) -> None:
    """Also if as many calls are put off meanwhile as it performs."""
    begun, performed = threading.Event(), []

    def slow() -> None:
        begun.set()
        threading.Event().wait(0.08)  # longer than the first wait for the lock
        performed.append("slow")
        if len(performed) < 6:
            monitor.due.append((slow, "a call", 0))

    monitor.due.append((slow, "a call", 0))
    thread = perform_in_a_thread(monitor, begun)
    monitor.defer(lambda: performed.append("ours"), "ours", 0)
    thread.join(DEADLINE)
    monitor.settle()
    assert performed == ["slow"] * 6 + ["ours"]


def test_a_holder_that_waits_is_given_up(monitor: Monitor) -> None:
    begun, end = threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        assert end.wait(DEADLINE)

    monitor.due.append((stuck, "a call", 0))
    thread = perform_in_a_thread(monitor, begun)
    try:
        with pytest.raises(ReentrantCall, match="already wait until lycomm's own work is done"):
            monitor.defer(lambda: None, "ours", 0)
    finally:
        end.set()
        thread.join(DEADLINE)
