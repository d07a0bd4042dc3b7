"""What waits for something slow: in which order it comes, and how fast."""

from __future__ import annotations

import threading
import time

from output_kit import DEADLINE, block

from liteyuki_host.output.backlog import BAND, Backlog, Taken


class Gate:
    """A writer that can be stopped."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, taken: list[Taken]) -> None:
        self.entered.set()
        assert self.open.wait(DEADLINE)
        self.written += [block.text() for _, block in taken]

    def shut(self, backlog: Backlog) -> None:
        """What is added after this waits."""
        assert backlog.flush(DEADLINE)
        self.open.clear()
        self.entered.clear()
        backlog.add(block("gate", "gate"))
        assert self.entered.wait(DEADLINE)
        self.written.clear()


def test_lines_come_in_the_order_of_their_arrival_whatever_was_before() -> None:
    gate = Gate()
    backlog = Backlog("lycomm-backlog", gate)
    for _ in range(10):
        backlog.add(block("talker", "x" * BAND))
    gate.shut(backlog)
    expected = []
    for number in range(200):
        for process in ("talker", "silent", "host"):
            expected.append(f"{process} {number}")
            backlog.add(block(process, expected[-1]))
    gate.open.set()
    assert backlog.close(DEADLINE)
    assert gate.written == ["gate", *expected]


def test_who_was_silent_has_no_credit_for_a_flood() -> None:
    gate = Gate()
    backlog = Backlog("lycomm-backlog", gate)
    for _ in range(10):
        backlog.add(block("talker", "x" * BAND))
    gate.shut(backlog)
    for _ in range(10):
        backlog.add(block("silent", "x" * BAND))
    backlog.add(block("talker", "now"))
    gate.open.set()
    assert backlog.close(DEADLINE)
    assert gate.written.index("now") <= 3


def test_it_is_written_no_faster_than_the_rate() -> None:
    backlog = Backlog("lycomm-backlog", Gate(), rate=1_000_000)
    begin = time.monotonic()
    for _ in range(10):
        backlog.add(block("bot", "x" * 30_000))
    assert backlog.close(DEADLINE)
    assert time.monotonic() - begin > 0.25


def test_work_that_costs_more_than_its_bytes_takes_half_of_one_core_at_most() -> None:
    times: list[float] = []

    def work(taken: list[Taken]) -> None:
        times.append(time.monotonic())
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        times.append(time.monotonic())

    backlog = Backlog("lycomm-backlog", work)
    for _ in range(4):
        backlog.add(block("bot", "x" * 20_000))
    assert backlog.close(DEADLINE)
    pauses = [begin - end for end, begin in zip(times[1::2], times[2::2], strict=False)]
    assert len(pauses) == 3
    assert min(pauses) > 0.045
