"""What a run of the suite on another system shows of this folder."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.skipif(sys.platform != "win32", reason="for Windows, or Wine: python tests/windows/run.py")
def test_this_is_windows() -> None:
    """The tests beside this one need what only Windows has; elsewhere they are not even collected."""
