"""What is lost is told: the first at once, the rest with a count and not too often."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from loguru import logger

from liteyuki_host.comm.process.losses import LossReport


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def test_further_losses_are_told_when_the_interval_is_over(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A count used to wait for the next loss, perhaps for hours."""
    monkeypatch.setattr(LossReport, "INTERVAL", 0.05)
    told = threading.Event()
    sink = logger.add(lambda line: told.set() if "2 messages" in str(line) else None, level="WARNING")
    report = LossReport()
    report.add("news", 1, "why")
    report.add("news", 1, "why")
    report.add("news", 1, "why")
    assert told.wait(5)
    logger.remove(sink)
    assert said == ["news: 1 message lost (why)", "news: 2 messages lost (why)"]


def test_the_end_tells_what_is_left_and_leaves_no_timer(said: list[str]) -> None:
    report = LossReport()
    for _ in range(3):
        report.add("news", 500, "why")
    report.add("other", 1, "why")
    report.flush()
    report.flush()
    assert said == [
        "news: 500 messages lost (why)",
        "other: 1 message lost (why)",
        "news: 1,000 messages lost (why)",
    ]
    assert not [
        timer for timer in threading.enumerate() if timer.name == "lycomm-losses" and not timer.finished.is_set()
    ]  # type: ignore[attr-defined]
