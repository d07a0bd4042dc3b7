"""From a declared process to a child that runs.

The steps of one spawn, in this order:

1. The *plan*: what the folder holds today, which interpreter runs it, and whether that one can (:meth:`Spawner.plan`).
2. The *lock*, so that no other host runs the process. It is kept until :meth:`Spawner.release`, over all restarts.
3. What the child inherits, and what the host keeps of it: the link, the leash, the pipe of its output (or the loan of
   the terminal), the record of its own writes. Each is undone when a later step fails.
4. The child itself, and then the session on its link.

Whatever fails, nothing of that spawn is left; see :meth:`Spawner.spawn`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from liteyuki_host._child.changing import RAN_BEFORE
from liteyuki_host.boundary import in_thread
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.threads import call_soon
from liteyuki_host.comm.transport import open_link
from liteyuki_host.supervisor import stopping, terminal
from liteyuki_host.supervisor.handles import Variable
from liteyuki_host.supervisor.hiding import hidden_packages
from liteyuki_host.supervisor.installation import HostInstallation
from liteyuki_host.supervisor.leash import open_leash
from liteyuki_host.supervisor.life import HubLike, Life
from liteyuki_host.supervisor.lock import HostLocks, InstanceLock
from liteyuki_host.supervisor.memory import oom_kills
from liteyuki_host.supervisor.overlap import SharedPort
from liteyuki_host.supervisor.own_writes import OwnWrites
from liteyuki_host.supervisor.process import Child, child_environment, why_no_host_in
from liteyuki_host.supervisor.process_output import Output
from liteyuki_host.supervisor.spec import ProcessSpec, Reload

if TYPE_CHECKING:
    from liteyuki_host.comm.transport import ChildHandles, Transport
    from liteyuki_host.project import ProjectPlan


OUTPUT_SECONDS = 0.5
"""After a child's end, for what is left in its pipe: at most 64 KiB. Only what has left its group holds the pipe for
longer, and the next start does not wait for that."""


class NoLongerWanted(Exception):
    """A stop has arrived before the child was spawned. No child is there."""


class Spawner:
    """Spawns the children of one declared process. From the first spawn until :meth:`release` no other host can."""

    def __init__(
        self,
        spec: ProcessSpec,
        hub: HubLike,
        output: Output,
        *,
        inspect: Callable[[ProcessSpec], ProjectPlan],
        host_python: Path,
        locks: HostLocks,
        own_writes: OwnWrites | None = None,
        installation: HostInstallation | None = None,
    ) -> None:
        """
        Args:
            own_writes: takes what the children say they have written; None: that is not asked.
            installation: what the lycomm that a child would load is compared with; None: it is not compared, nor is
                it looked for packages that the project hides.
        """
        self.on_spawn: Callable[[Life], None] = lambda life: None
        """Called with each new child."""
        self.before_spawn: Callable[[Life], Awaitable[None]] = _nothing
        """Awaited before each new child, when its plan and its lock are there."""
        self._spec = spec
        self._hub = hub
        self._output = output
        self._inspect = inspect
        self._own_writes = own_writes or OwnWrites(wanted=False)
        self._locks = locks
        self._installation = installation
        # Written by the tasks that plan and spawn: the keeper's and the reloader's, never both at a time.
        self._interpreters_seen = {host_python}
        """The interpreters that are known to be able to run a child of ours. Bounded by what the operator declares."""
        self._compared: Path | None = host_python
        """The interpreter whose lycomm need not be compared before the next spawn: it has just been."""
        self._lock: InstanceLock | None = None
        """Held from the first spawn until :meth:`release`."""
        self._last: Life | None = None
        """The child that was spawned last."""
        self._planned: ProjectPlan | None = None
        """The plan of the last spawn, also of one that failed."""
        self._has_run = False
        """A child of this process has been ready."""

    async def plan(self) -> ProjectPlan:
        """How the process is started today. Call it before a child that works is ended for a new one.

        Raises:
            ProcessFailed: no new one can be started, and why.
        """
        self._compared = None
        plan = await self._plan()
        self._compared = plan.python
        return plan

    async def _plan(self) -> ProjectPlan:
        """Inspect the folder and the interpreter, in threads. Raises as :meth:`plan` does."""
        plan = await in_thread(self._inspect, self._spec)
        try:
            await self._ask_interpreter(plan)
        except ProcessFailed:
            hidden = await self._hidden_packages(plan)
            if hidden:
                raise ProcessFailed(hidden) from None  # without a cause, which may be one that passes
            raise
        return plan

    async def _ask_interpreter(self, plan: ProjectPlan) -> None:
        """Find out whether the interpreter has lycomm, and the version that the host runs. Raises ProcessFailed."""
        if plan.python not in self._interpreters_seen:
            # Asked once: a child that cannot import us can only say so in a traceback.
            problem = await in_thread(why_no_host_in, plan.python, plan.folder)
            if problem is not None:
                raise ProcessFailed(problem)
            self._interpreters_seen.add(plan.python)
        if self._installation is not None and plan.python != self._compared:
            environment = child_environment(self._spec, {})
            await in_thread(self._installation.compare, plan.python, plan.folder, environment)

    async def hidden_packages(self) -> str:
        """After a start that has failed: what in the project's folder was loaded in place of a package, in one line.

        Takes 0.1 s, and some seconds if there is anything of the kind. Empty: there is not, or it cannot be told now.
        """
        return "" if self._planned is None else await self._hidden_packages(self._planned)

    async def _hidden_packages(self, plan: ProjectPlan) -> str:
        if self._installation is None:
            return ""
        try:
            return "; ".join(await in_thread(hidden_packages, plan, child_environment(self._spec, {})))
        except (RuntimeError, MemoryError):  # no thread can be started
            return ""

    async def spawn(
        self, wake: asyncio.Event, *, standby: bool = False, still_wanted: Callable[[], bool] = lambda: True
    ) -> Life:
        """A new child. *wake* is set at whatever is heard of it.

        Args:
            standby: another child of this process still serves; it has the channels until it is gone.
            still_wanted: asked last, when the plan and the lock are there, which may take seconds.

        Raises:
            NoLongerWanted: *still_wanted* has said no.
            ProcessFailed: it cannot be started, or runs already under another host.
            OSError, RuntimeError, MemoryError: there is a shortage; ``comm.shortage`` tells. As after every error, no
                child is there, and all that was made for it has been given back.
        """
        plan = self._planned = await self._plan()
        self._compared = None
        lock = await self._locked(plan)
        life = Life(self._spec.name, _poster(), wake)
        await self.before_spawn(life)
        if not still_wanted():
            raise NoLongerWanted
        life.oom_kills = oom_kills()
        # `theirs` closes our copies of what the child has inherited, whether or not it was spawned. `undo` gives back
        # what is ours, and only when there is no child.
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            transport, link = open_link()
            theirs.callback(link.close)
            undo.callback(_forget, transport)
            leash = open_leash()
            theirs.callback(leash.handles.close)
            life.belongings.callback(leash.release)
            undo.callback(leash.release)
            loan = terminal.lend(self._spec.name) if self._spec.terminal else None
            pipe = None
            if loan is not None:
                undo.callback(loan.end)
            else:
                pipe = self._output.open_pipe()
                undo.callback(pipe.abort)
            record = self._own_writes.open(life.serves_at)
            undo.callback(record.finish)
            given: list[ChildHandles] = [link, leash.handles, lock.handles, record]
            self._has_run = self._has_run or (self._last is not None and self._last.ready)
            if self._has_run:
                given.append(Variable(RAN_BEFORE, "1"))
            if self._spec.reload is Reload.OVERLAP:
                given.append(SharedPort(beside=standby))
            life.child = Child.spawn(
                self._spec,
                plan,
                given,
                life.on_exit,
                output=None if pipe is None else pipe.fileno,
                keyboard=loan is not None,
            )
            undo.pop_all()
        # There is a child. From here on, `life.belongings` has what is given back at its end.
        if loan is not None:
            loan.begin(life.child.resize)
            life.belongings.callback(loan.end)
        if pipe is not None:
            pipe.start()
            life.belongings.callback(pipe.finish, OUTPUT_SECONDS)
        life.belongings.callback(record.finish)
        self._last = life
        self.on_spawn(life)
        try:
            lock.note_child(life.child.pid)
            life.session = self._hub.connect(self._spec.name, transport, life, standby=standby)
        except BaseException:  # also a cancellation: it must not run without a session
            with anyio.CancelScope(shield=True):
                life.link_closed.set()  # nothing is read from it
                await stopping.end_at_once(self._spec, life)
            raise
        return life

    async def _locked(self, plan: ProjectPlan) -> InstanceLock:
        """The lock of this process, held. Raises AlreadyRuns (a ProcessFailed), or OSError for a shortage."""
        if self._lock is None:
            self._lock = self._locks.for_process(self._spec.name, plan.folder)
        await in_thread(self._lock.acquire)  # held already: returns at once
        return self._lock

    def release(self) -> None:
        """Allow another host to run the process. Only while no child is there and none is being spawned."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


async def _nothing(life: Life) -> None:
    pass


def _forget(transport: Transport) -> None:
    """Close a link that no thread has begun to read."""
    transport.close()
    getattr(transport, "release", transport.close)()


def _poster() -> Callable[[Callable[[], None]], None]:
    """Has things done on the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def post(action: Callable[[], None]) -> None:
        call_soon(loop, action)  # if it has ended, so has everybody's interest

    return post
