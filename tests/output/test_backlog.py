"""What waits for something slow: in which order it comes, and how fast."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from output_kit import DEADLINE, block

from liteyuki_host.output import backlog as backlogs
from liteyuki_host.output.backlog import BAND, LIMIT, Backlog, Omitted, Taken


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


class Notes:
    """A writer that keeps the notes, each with its time, and counts the lines."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, str, Omitted]] = []
        self.lines = 0
        self._noted = threading.Condition()

    def __call__(self, taken: list[Taken]) -> None:
        with self._noted:
            for omitted, block in taken:
                self.lines += block.lines
                if omitted is not None:
                    self.notes.append((time.monotonic(), block.process, omitted))
            self._noted.notify_all()

    def wait(self, count: int) -> None:
        with self._noted:
            assert self._noted.wait_for(lambda: len(self.notes) >= count, DEADLINE)

    @property
    def omitted(self) -> int:
        return sum(omitted.lines for _, _, omitted in self.notes)


def flood(backlog: Backlog, process: str, blocks: int) -> int:
    for _ in range(blocks):
        backlog.add(block(process, "x" * 9_999))
    return blocks


def test_a_flood_is_noted_once_and_exactly() -> None:
    writer = Notes()
    backlog = Backlog("lycomm-backlog", writer)
    count = flood(backlog, "bot", 4 * LIMIT // 10_000)
    assert backlog.close(DEADLINE)
    assert len(writer.notes) == 1
    assert writer.omitted == count - writer.lines > 0


def test_floods_in_a_row_are_noted_rarely_and_with_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "NOTE_SECONDS", 0.5)
    writer = Notes()
    backlog = Backlog("lycomm-backlog", writer, limit=50_000, rate=20_000_000)
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < 2.2:
        count += flood(backlog, "bot", 20)
        count += flood(backlog, "other", 20)
        assert backlog.flush(DEADLINE)  # each of them is over at once
    assert backlog.close(DEADLINE)
    for process in ("bot", "other"):
        times = [at for at, who, _ in writer.notes if who == process]
        assert 3 <= len(times) <= 6
        assert all(after - before >= 0.5 for before, after in itertools.pairwise(times[:-1]))
        last = [omitted for _, who, omitted in writer.notes if who == process][-1]
        assert last.total == sum(omitted.lines for _, who, omitted in writer.notes if who == process)
        assert last.words("lines", "why").startswith(f"{last.lines:,} lines: why ({last.total:,} since 20")
    assert writer.omitted == count - writer.lines > 0


def test_what_is_left_out_last_is_noted_without_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "NOTE_SECONDS", 0.3)
    writer = Notes()
    backlog = Backlog("lycomm-backlog", writer, limit=50_000, rate=20_000_000)
    count = flood(backlog, "bot", 20)
    assert backlog.flush(DEADLINE)
    count += flood(backlog, "bot", 20)
    writer.wait(2)
    assert writer.omitted == count - writer.lines
    assert writer.notes[1][0] - writer.notes[0][0] >= 0.3
    for thread in threading.enumerate():
        if thread.name == "lycomm-backlog":
            thread.join(DEADLINE)
    assert backlog.close(0.0)
    assert len(writer.notes) == 2, "and once"


def test_a_new_process_may_log_while_notes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a finalizer may do there, on the same thread."""
    monkeypatch.setattr(backlogs, "NOTE_SECONDS", 0.3)
    writer = Notes()
    backlog = Backlog("lycomm-backlog", writer, limit=50_000, rate=20_000_000)

    class Clock:
        asked = 0

        def time(self) -> float:
            if threading.current_thread().name == "lycomm-backlog":
                self.asked += 1
                backlog.add(block(f"new-{self.asked}", "a line"))
            return time.time()

        def __getattr__(self, name: str) -> object:
            return getattr(time, name)

    flood(backlog, "bot", 20)
    assert backlog.flush(DEADLINE)
    flood(backlog, "bot", 20)
    assert backlog.flush(DEADLINE)
    before = writer.lines
    clock = Clock()
    monkeypatch.setattr(backlogs, "time", clock)
    writer.wait(2)  # the note that comes without another line
    monkeypatch.undo()
    assert backlog.close(DEADLINE)
    assert clock.asked
    assert writer.lines == before + clock.asked
