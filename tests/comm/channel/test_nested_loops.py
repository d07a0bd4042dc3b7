"""Callbacks that run the event loop again from inside themselves (``nest_asyncio``, which many chat plugins apply): the
link is read meanwhile, and the order of messages stays. The scenarios are in ``tests/children/nested.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENARIOS = Path(__file__).parents[2] / "children" / "nested.py"
DEADLINE = 40.0

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="nest_asyncio is not made for Python 3.14, whose tasks it cannot replace"
)

RESULTS: dict[str, Any] = {
    "function": [0, 1, 2, 3, 4],
    "coroutine": [0, 1, 2, 3, 4],
    "applied_inside": [0, 1, 2, 3, 4],
    "lone_messages": [0, 1, 2, 3, 4],
    "order": [[number, 1] for number in (0, 3, 1, 2, 6, 4, 5, 9, 7, 8)],
    "deep": [True] * 21,
    "request_inside": [[number, "answered"] for number in range(3)],
    "topic_and_watch": [[kind, number] for kind in ("news", "watch") for number in range(3)],
    "detached_inside": [0, 1, 2, 3, 4],
    "cancelled_inside": [[0, 1, 2, 3], True],
    "ended_inside": ["lycomm-x"],
}


@pytest.mark.parametrize("scenario", RESULTS)
def test_callback_runs_the_loop_again(scenario: str) -> None:
    """Each turn of the inner run used to fail with "cannot enter context", as long as there was something to read."""
    command = [sys.executable, str(SCENARIOS), scenario]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"result": RESULTS[scenario], "errors": []}
