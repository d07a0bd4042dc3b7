"""Which signals are one request."""

from __future__ import annotations

import signal

import pytest

from liteyuki_host.signals import Asked, StopRequest

INT, TERM = signal.SIGINT, signal.SIGTERM
STOP, SAME, KILL = Asked.STOP, Asked.NOTHING_NEW, Asked.KILL


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ([(0, INT)], [STOP]),
        ([(0, INT), (0, TERM)], [STOP, SAME]),
        ([(0, TERM), (0.01, INT)], [STOP, SAME]),
        ([(0, INT), (0.9, TERM), (0.95, INT)], [STOP, SAME, SAME]),
        ([(0, INT), (1.0, INT)], [STOP, SAME]),
        ([(0, INT), (1.1, INT)], [STOP, KILL]),
        ([(0, TERM), (1.1, INT)], [STOP, KILL]),
        ([(0, TERM), (5, TERM), (50, TERM)], [STOP, SAME, SAME]),
        ([(0, INT), (5, TERM), (5.1, INT)], [STOP, SAME, KILL]),
        ([(0, INT), (0.5, INT), (1.4, INT)], [STOP, SAME, KILL]),
        ([(0, INT), (2, INT), (3, INT)], [STOP, KILL, KILL]),
    ],
)
def test_one_request_or_two(signals: list[tuple[float, int]], expected: list[Asked]) -> None:
    now = 0.0
    request = StopRequest(clock=lambda: now)
    seen = []
    for at, number in signals:
        now = at
        seen.append(request.signalled(number))
    assert seen == expected


@pytest.mark.skipif(not hasattr(signal, "SIGBREAK"), reason="only Windows has SIGBREAK")
def test_ctrl_break_counts_like_ctrl_c() -> None:
    now = 0.0
    request = StopRequest(clock=lambda: now)
    request.signalled(INT)
    now = 2.0
    assert request.signalled(signal.SIGBREAK) is KILL  # type: ignore[attr-defined]
