"""The set of declared processes: one keeper and one task for each."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from liteyuki_host.comm.errors import ProcessFailed, UnknownProcess
from liteyuki_host.supervisor.host_files import HostFiles, SharedFiles
from liteyuki_host.supervisor.installation import HostInstallation
from liteyuki_host.supervisor.keeper import Keeper
from liteyuki_host.supervisor.life import Context, HubLike, ProcessStatus, SessionLike, SupervisorEvents
from liteyuki_host.supervisor.lock import HostLocks
from liteyuki_host.supervisor.order import also_restarted, stop_levels
from liteyuki_host.supervisor.own_writes import OwnWrites
from liteyuki_host.supervisor.process_output import Output
from liteyuki_host.supervisor.reloader import Reloader
from liteyuki_host.supervisor.spawning import Spawner
from liteyuki_host.supervisor.spec import ProcessSpec, Reload
from liteyuki_host.supervisor.states import Transition

if TYPE_CHECKING:
    from liteyuki_host.project import ProjectPlan

IDLE_SECONDS = 0.5
"""Before a host counts as idle: somebody who waited for a stop may ask for the next start right after it."""

__all__ = ["Context", "HubLike", "ProcessStatus", "Supervisor", "SupervisorEvents"]


class Supervisor:
    """Starts, watches, restarts and stops the declared processes.

    ``start``, ``stop`` and ``restart`` may be called from any thread or task, also before :meth:`serve`;
    they record what is wanted and return at once. The ``a...`` forms belong to the loop that serves.
    """

    def __init__(
        self,
        hub: HubLike,
        specs: Mapping[str, ProcessSpec],
        *,
        events: SupervisorEvents,
        outputs: Mapping[str, Output] | None = None,
        host_main: Path | None = None,
        inspect: Callable[[ProcessSpec], ProjectPlan] | None = None,
        installation: HostInstallation | None = None,
        host_files: HostFiles | None = None,
    ) -> None:
        """
        Args:
            outputs: where the output of each process goes; by default it is kept and shown on stdout.
            host_main: the script that this host was started with; no child is to run it. By default found in
                ``__main__``.
            inspect: says how a process is started, at each start; by default what its folder declares.
            installation: the lycomm that the host has loaded. No bot is started, and none that works is ended for a
                new one, that would load another. None: what they would load is not compared.
            host_files: the files of the host's settings, which a bot in the host's folder shares. None: a change of
                them is one of the bot's code and nothing else.
        """
        if inspect is None:
            from liteyuki_host.project import inspect_project

            inspect = partial(inspect_project, host_main=host_main or _main_script())
        self._specs = dict(specs)
        self._events = events
        self._outputs = dict(outputs or {name: Output(name) for name in specs})
        self._keepers: dict[str, Keeper] = {}
        self._reloaders: dict[str, Reloader] = {}
        host_python, locks = Path(sys.executable), HostLocks()
        own_writes = OwnWrites(wanted=any(spec.reload is not Reload.OFF for spec in self._specs.values()))
        for name, spec in self._specs.items():
            spawner = Spawner(
                spec,
                hub,
                self._outputs[name],
                inspect=inspect,
                host_python=host_python,
                locks=locks,
                own_writes=own_writes,
                installation=installation,
            )
            keeper = Keeper(
                spec, spawner, events=self, on_unasked_end=self._restart_neighbours, on_rest=self._look_again
            )
            self._keepers[name] = keeper
            self._reloaders[name] = Reloader(keeper, spawner, own_writes, SharedFiles(spec, host_files))
        for keeper in self._keepers.values():
            keeper.predecessors = [self._keepers[other] for other in keeper.spec.after]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before_serve: list[Callable[[], None]] = []
        self._reloads: set[asyncio.Task[None]] = set()
        # Reentrant: a signal handler that asks for a restart may interrupt its own thread while that holds it.
        self._lock = threading.RLock()
        self._moved = asyncio.Event()
        """Something has happened after which the processes may be at rest, or not be any more."""

    async def serve(self) -> None:
        """Start what is to start with the host and keep it so. Returns after :meth:`stop_all`.

        Cancelled, it kills every child and waits until they are gone.
        """
        for keeper in self._keepers.values():
            if keeper.spec.autostart:
                keeper.start("with the host")
        with self._lock:
            self._loop = asyncio.get_running_loop()
            early, self._before_serve = self._before_serve, []
        for action in early:
            action()
        async with anyio.create_task_group() as files:
            for reloader in self._reloaders.values():
                files.start_soon(reloader.follow_files)
            async with anyio.create_task_group() as tasks:
                for keeper in self._keepers.values():
                    tasks.start_soon(keeper.run)
            files.cancel_scope.cancel()
        await self._end_reloads()

    async def _end_reloads(self) -> None:
        for task in self._reloads:
            task.cancel()
        if self._reloads:
            await asyncio.wait(self._reloads)

    def start(self, name: str) -> None:
        """Have it running. Already so: nothing happens; failed or backing off: it is tried again at once.

        Raises:
            UnknownProcess: no process of that name is declared.
        """
        self._on_loop(self._keeper(name).start)

    def stop(self, name: str) -> None:
        """Have it stopped, by the ladder; it can be started again. Raises UnknownProcess."""
        self._on_loop(self._keeper(name).stop)

    def restart(self, name: str) -> None:
        """Stop it and start it anew; start it when it is not running. Raises UnknownProcess.

        Asked again before the new child has been started, it is one restart.
        """
        self._on_loop(self._keeper(name).restart)

    def reload(self, name: str, why: str = "asked") -> None:
        """Try its new code in a throw-away process, and restart it if that can start. Raises UnknownProcess.

        In the mode that the process declares, ``swap`` for one that declares none.
        """
        self._keeper(name)
        self._on_loop(lambda: self._start_reload(self._reloaders[name], why))

    async def astart(self, name: str) -> None:
        """:meth:`start`, and wait until it is ready.

        Raises:
            UnknownProcess: no process of that name is declared.
            ProcessFailed: it did not become ready, and why. Unless it cannot start at all, it is tried again.
        """
        keeper = self._keeper(name)
        keeper.start()
        await keeper.started()

    async def astop(self, name: str) -> None:
        """:meth:`stop`, and wait until it and all it started are gone.

        Raises:
            UnknownProcess: no process of that name is declared.
            ProcessFailed: somebody asked for a start before the stop had begun.
        """
        keeper = self._keeper(name)
        keeper.stop()
        await keeper.stopped()

    async def arestart(self, name: str) -> None:
        """:meth:`restart`, and wait until the new child is ready. Raises as :meth:`astart` does."""
        keeper = self._keeper(name)
        keeper.restart()
        await keeper.restarted()

    async def wait_ready(self, name: str, timeout: float | None = None) -> None:
        """Wait until it is ready, without asking for a start; through crashes and back-offs on the way.

        Args:
            timeout: seconds. None waits for as long as it takes.

        Raises:
            UnknownProcess: no process of that name is declared.
            ProcessFailed: it has failed or was stopped, so nothing will make it ready; or the time is up.
        """
        keeper = self._keeper(name)
        with anyio.move_on_after(timeout):
            await keeper.ready()
            return
        raise ProcessFailed(f"{name} is not ready after {timeout:g} s: it is {keeper.state}")

    async def stop_all(self) -> None:
        """Stop every process; nothing starts any more. Returns when all are gone.

        All ladders at once, except that a process ends before those that it comes ``after``.
        """
        for keeper in self._keepers.values():
            keeper.start_no_more()
        for level in stop_levels(self._specs):
            for name in level:
                self._keepers[name].close()
            for name in level:
                await self._keepers[name].stopped()

    def kill_now(self) -> None:
        """End every child at once, without or in the middle of the ladder: the operator's second Ctrl+C."""
        for keeper in self._keepers.values():
            self._on_loop(keeper.kill)

    async def idle(self) -> None:
        """Wait until no process runs and none will start unless somebody asks or changes its files."""
        while True:
            await self._until(lambda: self._at_rest)
            await anyio.sleep(IDLE_SECONDS)
            if self._at_rest:
                return

    async def active(self) -> None:
        """Wait until the processes are not :meth:`idle`."""
        await self._until(lambda: not self._at_rest)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether every process that starts with the host was refused because another host runs it."""
        starting = [keeper for keeper in self._keepers.values() if keeper.spec.autostart]
        return bool(starting) and all(keeper.runs_elsewhere for keeper in starting)

    @property
    def _at_rest(self) -> bool:
        return not self._reloads and all(keeper.at_rest for keeper in self._keepers.values())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    def _look_again(self) -> None:
        self._moved.set()

    def terminated(self, name: str, session: SessionLike) -> None:
        """End the child of this session in order: it has received a SIGTERM that was not the host's.

        Raises:
            UnknownProcess: no process of that name is declared.
        """
        keeper = self._keeper(name)
        self._on_loop(lambda: keeper.terminated(session))

    def status(self) -> list[ProcessStatus]:
        """A snapshot of each process, in the order of declaration. From any thread."""
        return [keeper.status() for keeper in self._keepers.values()]

    def history(self, name: str) -> Sequence[Transition]:
        """The last transitions of a process, oldest first. From any thread. Raises UnknownProcess."""
        return self._keeper(name).story.steps()

    def output(self, name: str) -> Output:
        """What a process has written lately. Raises UnknownProcess."""
        self._keeper(name)
        return self._outputs[name]

    # What the keepers tell.

    async def before_process_shutdown(self, context: Context) -> None:
        await self._events.before_process_shutdown(context)

    async def before_process_restart(self, context: Context) -> None:
        await self._events.before_process_restart(context)

    async def after_restart(self, context: Context) -> None:
        await self._events.after_restart(context)

    def stepped(self, step: Transition) -> None:
        for keeper in self._keepers.values():
            if any(other.spec.name == step.process for other in keeper.predecessors):
                keeper.look_again()
        self._moved.set()
        self._events.stepped(step)

    def _restart_neighbours(self, name: str, cause: str) -> None:
        for other in also_restarted(self._specs, name):
            if self._keepers[other].is_wanted:
                self._keepers[other].restart(f"{name} {cause} (strategy = {self._specs[name].strategy})")

    def _start_reload(self, reloader: Reloader, why: str) -> None:
        task = asyncio.ensure_future(reloader.reload(why))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        task.add_done_callback(lambda _: self._look_again())

    def _keeper(self, name: str) -> Keeper:
        try:
            return self._keepers[name]
        except KeyError:
            known = ", ".join(sorted(self._keepers)) or "none"
            raise UnknownProcess(f"no process {name!r} is declared; declared are: {known}") from None

    def _on_loop(self, action: Callable[[], None]) -> None:
        with self._lock:
            loop = self._loop
            if loop is None:
                self._before_serve.append(action)
                return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            action()
            return
        with contextlib.suppress(RuntimeError):  # the host has ended
            loop.call_soon_threadsafe(action)


def _main_script() -> Path | None:
    path = getattr(sys.modules["__main__"], "__file__", None)
    return None if path is None else Path(path)
