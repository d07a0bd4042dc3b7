"""A real supervisor and a real hub on this loop, over children without NoneBot (``bare_project``): a tenth of a second
each, so that thousands can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from live_kit import DEADLINE, Traces

import liteyuki_host
from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.hub import Hub
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.life import ProcessStatus
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State, Transition
from liteyuki_host.supervisor.supervisor import Context, Supervisor

BACKOFF = 0.01
"""Seconds before each restart here, give or take the policy's 20 %."""


def bare_child(folder: Path, traces: Traces, name: str, job: str, **environment: str) -> ProcessSpec:
    """A process that is restarted however often it ends, and is not watched for freezing: no row here is about that."""
    project = folder / name
    shutil.copytree(Path(__file__).parent / "bare_project", project)
    return ProcessSpec(
        name=name,
        project=project,
        env={**traces.environment(name), **environment, "JOB": job, "REAL_PACKAGE": str(_package())},
        max_restarts=1_000_000,
        backoff_base=BACKOFF,
        backoff_max=BACKOFF,
        loop_timeout=0,
        freeze_timeout=0,
        drain_timeout=0,
    )


def _package() -> Path:
    return Path(str(liteyuki_host.__file__)).parent


class BareHost:
    """Also the supervisor's events: who waits for a state is told of the next step to it."""

    def __init__(self, specs: Sequence[ProcessSpec]) -> None:
        self.hub = Hub()
        self.supervisor = Supervisor(
            self.hub, {spec.name: spec for spec in specs}, events=self, inspect=_as_it_is_declared
        )
        self.groups: set[int] = set()
        """Of every child there ever was."""
        self._steps: dict[tuple[str, State], asyncio.Future[Transition]] = {}
        for spec in specs:
            self.hub.declare_process(spec.name)

    def status(self, name: str) -> ProcessStatus:
        return next(status for status in self.supervisor.status() if status.name == name)

    def channel(self, name: str) -> Channel[Any]:
        return Channel(name, exchange=self.hub)

    def next_step(self, name: str, state: State) -> asyncio.Future[Transition]:
        """Done at the first step to *state* from now on."""
        return self._steps.setdefault((name, state), asyncio.get_running_loop().create_future())

    async def ready(self, name: str) -> None:
        await self.supervisor.wait_ready(name, DEADLINE)

    def kill(self, name: str) -> bool:
        """SIGKILL to the child that is there now. False: there is none."""
        pid = self.status(name).pid
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    # SupervisorEvents.

    async def before_process_shutdown(self, context: Context) -> None: ...
    async def before_process_restart(self, context: Context) -> None: ...
    async def after_restart(self, context: Context) -> None: ...

    def stepped(self, step: Transition) -> None:
        if step.pid is not None:
            self.groups.add(step.pid)
        waiting = self._steps.pop((step.process, step.state), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(step)


def _as_it_is_declared(spec: ProcessSpec) -> ProjectPlan:
    return ProjectPlan(spec.project, Path(sys.executable), "toml", None)


@contextlib.asynccontextmanager
async def bare_host(specs: Sequence[ProcessSpec]) -> AsyncIterator[BareHost]:
    """Serve these processes, all ready; stopped at the end."""
    host = BareHost(specs)
    host.hub.attach_loop(asyncio.get_running_loop())
    serving = asyncio.create_task(host.supervisor.serve())
    try:
        for spec in specs:
            if spec.autostart:
                await host.ready(spec.name)
        yield host
    finally:
        await asyncio.wait_for(host.supervisor.stop_all(), DEADLINE)
        await asyncio.wait_for(serving, DEADLINE)
        host.hub.close("the row is over")
        host.hub.detach_loop()


def bots_of(host_pid: int) -> dict[str, list[psutil.Process]]:
    """The living children of a host by the name that their command line says."""
    bots: dict[str, list[psutil.Process]] = {}
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(host_pid).children():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "--process" in command and process.status() != psutil.STATUS_ZOMBIE:
                    bots.setdefault(command[command.index("--process") + 1], []).append(process)
    return bots


class Sampler:
    """Looks for two children of one name all the time, on a thread of its own."""

    PAUSE = 0.05  # seconds

    def __init__(self) -> None:
        self.doubles: Counter[str] = Counter()
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:  # noqa: PYI034  # nothing derives from it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        while not self._over.wait(self.PAUSE):
            self.looks += 1
            for name, bots in bots_of(os.getpid()).items():
                if len(bots) > 1:
                    self.doubles[name] += 1
