"""Every row of the fault matrix, short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faults_kit import Report  # found by the path above
from run import ROWS, load

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="the damage is done with POSIX signals"),
]


# The system counts the processes of a user: those of other tests would take the room that this row leaves its host.
ALONE = {"shortages"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.alone if name in ALONE else ()) for name in ROWS]
)
async def test_row(name: str, tmp_path: Path) -> None:
    row = load(name)
    report = Report(row.TITLE)
    await row.run(report, tmp_path, **row.SHORT)
    print(*report.lines(), sep="\n")
    assert report.holds, "\n".join(report.lines())
