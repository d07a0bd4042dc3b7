"""Hosts with real NoneBot children that can be damaged, and what must not be left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from faults_kit import Report
from kit import CHILDREN, Lab, eventually, lab_project

from liteyuki_host.comm.errors import LycommError
from liteyuki_host.host import Host
from liteyuki_host.supervisor.states import State, Transition

DEADLINE = 30.0
"""Seconds, for anything that takes one or two on an idle machine."""

SERVING = (State.READY, State.BUSY)


class Traces:
    """What must be the same, or nothing, after a row: made before it begins, asked when its host has ended."""

    MARK = "LYCOMM_FAULTS_MARK"

    def __init__(self, folder: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._claims = folder / "claims"
        self._claims.mkdir()
        self._descriptors = psutil.Process().num_fds()

    def environment(self, name: str) -> dict[str, str]:
        """For the child of that name, and all it starts."""
        return {self.MARK: self._mark, "CLAIM": str(self._claims / name)}

    def doubles(self) -> list[str]:
        """Names under which two children have lived at once, if only for a moment."""
        return [path.stem for path in self._claims.glob("*.double")]

    def alive(self) -> list[psutil.Process]:
        """Every process of the row, whoever its parent is by now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(self.MARK) == self._mark:
                    found.append(process)
        return found

    async def report(self, report: Report) -> None:
        """Say what is left, and end it."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not (self.alive() or _our_threads()))  # guards and threads just end
        left = self.alive()
        report.none("processes left", left)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
        report.none("zombies left", zombies)
        report.none("two children of one name at once", self.doubles())
        report.none("threads left", _our_threads())
        gc.collect()
        report.hold("descriptors left", psutil.Process().num_fds() - self._descriptors, "0 or fewer", self._no_growth())

    def _no_growth(self) -> bool:
        return psutil.Process().num_fds() <= self._descriptors


def _our_threads() -> list[str]:
    # The console's thread goes by itself after a second of silence, and other hosts of a test run may use it.
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("lycomm-") and name != "lycomm-console"]


class LiveHost(Lab):
    """A host on this loop, whose children have the plugins of ``tests/children/lab.py`` and ``damage.py``."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._asking: set[asyncio.Task[None]] = set()

    async def ready(self, *names: str, timeout: float = DEADLINE) -> None:
        await asyncio.gather(*(self.host.wait_ready(name, timeout) for name in names))

    async def damage(self, process: str, damage: str, *, timeout: float = DEADLINE, **arguments: Any) -> Any:
        """Have a child damage itself, and wait for what it says to that."""
        return await self._passive(process).request({"damage": damage, **arguments}, timeout=timeout)

    def start_damage(self, process: str, damage: str, **arguments: Any) -> None:
        """The same, for what ends the child or never returns. A new child does not get to hear of it."""

        async def ask() -> None:
            with contextlib.suppress(LycommError):
                await self.damage(process, damage, timeout=3600, **arguments)

        task = asyncio.ensure_future(ask())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def poison(self, process: str, damage: str, **arguments: Any) -> None:
        """A message that is delivered again to the next child when this one has died of it."""
        self._passive(process).send({"damage": damage, **arguments})

    def _passive(self, process: str) -> Any:
        return self.channel(f"{process}-passive")

    def status(self, name: str) -> dict[str, Any]:
        return next(status for status in self.host.status() if status["name"] == name)

    def pid(self, name: str) -> int:
        return int(self.status(name)["pid"])

    async def spawned(self, name: str) -> int:
        """Wait until a child is there, and return its pid. The step to STARTING comes before the child is spawned."""
        return int(await eventually(lambda: self.status(name)["pid"], DEADLINE))

    def story(self, name: str, since: float = 0.0) -> list[Transition]:
        """Its steps after that ``time.time()``."""
        return [step for step in self.host.history(name) if step.at > since]

    async def entered(self, name: str, *states: State, since: float = 0.0, timeout: float = DEADLINE) -> Transition:
        """The first step to one of *states* after that ``time.time()``."""

        def look() -> Transition | None:
            return next((step for step in self.story(name, since) if step.state in states), None)

        try:
            return await eventually(look, timeout)  # type: ignore[no-any-return]
        except AssertionError:
            told = [f"{step.state} ({step.cause})" for step in self.story(name, since)]
            raise AssertionError(f"{name} did not come to {[*map(str, states)]} in {timeout:g} s: {told}") from None

    def text(self, name: str, after: int = 0) -> str:
        """What it has written after that line."""
        return "\n".join(line.text for line in self.host.output(name).lines(after)[0])


@contextlib.asynccontextmanager
async def live_host(
    folder: Path, traces: Traces, processes: Mapping[str, Mapping[str, Any]], **settings: Any
) -> AsyncIterator[LiveHost]:
    """Serve a host with these processes; nobody waits for them. Each is stopped at the end.

    Args:
        processes: name to settings of the process; ``project`` is made unless it is given.
    """
    declared = {}
    for name, options in processes.items():
        env = {**traces.environment(name), **options.get("env", {})}
        project = options.get("project") or str(damage_project(folder / name))
        declared[name] = {**options, "project": project, "env": env}
    # It stays when the last of them has failed or was stopped, which is looked at then.
    host = Host(folder, processes=declared, on_failed="stay", **settings)
    serving = asyncio.get_running_loop().create_task(host.serve())
    try:
        yield LiveHost(host)
    finally:
        host.stop()
        await asyncio.wait_for(serving, DEADLINE)


def damage_project(folder: Path) -> Path:
    lab_project(folder)
    shutil.copy(CHILDREN / "damage.py", folder)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('"lab"', '"lab", "damage"'))
    return folder


@contextlib.asynccontextmanager
async def every_core_busy() -> AsyncIterator[None]:
    """Two busy processes for each core, meanwhile."""
    code = "while True: pass"
    burners = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code) for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            await burner.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that *share* (0 to 1) of all values do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def round_trips(lab: Lab, process: str, seconds: float, *, pause: float) -> list[float]:
    """Seconds of each request to a child and its reply, one after another with a pause between."""
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        await lab.ask(process, "echo", value=1)
        taken.append(time.monotonic() - began)
        await asyncio.sleep(pause)
    return taken
