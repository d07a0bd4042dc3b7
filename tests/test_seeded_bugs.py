"""The bugs that the fault rows have to find can still be put into the code. Whether they are found takes an hour."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from seeded_bugs import BUGS, Bug

import liteyuki_host


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_seeded_bug_fits_the_code(bug: Bug, tmp_path: Path) -> None:
    source = Path(liteyuki_host.__file__).parent / bug.file
    copy = tmp_path / bug.file
    copy.parent.mkdir(parents=True)
    copy.write_text(source.read_text("utf-8"), "utf-8")
    bug.put_into(tmp_path)
    compile(copy.read_text("utf-8"), bug.file, "exec")
