from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from loguru import logger
from supervisor_kit import DEADLINE, Events, FakeHub, LogLines, Supervise, plan

from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.supervisor import Supervisor


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    lines = LogLines()
    sink = logger.add(lines.write, format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture
def supervise() -> Supervise:
    """A serving Supervisor over real child processes and a fake hub. Leaving kills what is left."""

    @asynccontextmanager
    async def run(
        *specs: ProcessSpec, hub: FakeHub | None = None, events: Events | None = None
    ) -> AsyncIterator[Supervisor]:
        hub = hub or FakeHub()
        supervisor = Supervisor(hub, {s.name: s for s in specs}, events=events or Events(), inspect=plan)
        serving = asyncio.create_task(supervisor.serve())
        try:
            yield supervisor
        finally:
            supervisor.kill_now()
            await asyncio.wait_for(supervisor.stop_all(), DEADLINE)
            await asyncio.wait_for(serving, DEADLINE)
            for session in hub.sessions:
                session.thread.join(DEADLINE)
                assert not session.thread.is_alive()

    return run
