"""Where ``reload = "overlap"`` is possible, and what its children are given."""

from __future__ import annotations

import pytest

from liteyuki_host.supervisor.overlap import SharedPort, can_overlap


@pytest.mark.parametrize(
    ("address", "platform", "can"),
    [
        (None, "linux", True),
        (None, "win32", True),
        ("http://127.0.0.1:8080", "linux", True),
        ("http://127.0.0.1:8080", "darwin", True),
        ("http://127.0.0.1:8080", "win32", False),
        ("unix:/run/bot", "linux", False),
    ],
)
def test_where_two_incarnations_can_be_there_at_once(address: str | None, platform: str, can: bool) -> None:
    assert can_overlap(address, platform) is can


@pytest.mark.parametrize(("beside", "value"), [(False, "alone"), (True, "beside")])
def test_how_a_child_is_told_to_share_its_port(beside: bool, value: str) -> None:
    handles = SharedPort(beside=beside)
    assert handles.environment == {"LYCOMM_SHARE_PORT": value}
    assert handles.popen_options == {}
    handles.close()
