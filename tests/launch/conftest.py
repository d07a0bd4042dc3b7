from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_kit import HostProcess, StartHost


@pytest.fixture
def start_host() -> Iterator[StartHost]:
    """Starts mini_host over a project folder. Afterwards nothing of it may be left."""
    hosts: list[HostProcess] = []

    def start(project: Path, **spec: object) -> HostProcess:
        hosts.append(HostProcess(project, **spec))
        return hosts[-1]

    yield start
    for host in hosts:
        host.end()
