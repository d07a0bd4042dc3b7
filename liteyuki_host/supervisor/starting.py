"""The starts of one process as its keeper sees them: the spawn of a child, and what a failed one means.

How a child is spawned is ``spawning.py``'s. Here it is decided what to tell the operator when that fails, and whether
another try can succeed. Three kinds of failure are told apart, by ``exits.cause_of_failed_spawn``:

- *Final*: the declaration is wrong (no such folder, no interpreter, another host runs it). Nothing changes by trying.
- *Shortage*: the system refused something for now. It is tried again, as often as it takes.
- *Anything else*: it is tried again as after a crash, within the limits of the restart policy.
"""

from __future__ import annotations

import asyncio

from loguru import logger

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import remedy
from liteyuki_host.supervisor import exits
from liteyuki_host.supervisor.aftermath import Aftermath
from liteyuki_host.supervisor.exits import Cause, Kind
from liteyuki_host.supervisor.kept_process import KeptProcess
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.lock import AlreadyRuns
from liteyuki_host.supervisor.spawning import Spawner
from liteyuki_host.supervisor.wish import Step

__all__ = ["Starting"]


class Starting:
    """See the module's docstring. For the host's event loop only."""

    def __init__(self, process: KeptProcess, spawner: Spawner, aftermath: Aftermath) -> None:
        self._process = process
        self._spawner = spawner
        self._aftermath = aftermath
        self.runs_elsewhere = False
        """The last spawn was refused because another host runs the process. Written by :meth:`spawn`."""

    async def spawn(self) -> Life:
        """Spawn a child. It is told to ``process.wake`` whatever is heard of it.

        Raises:
            NoLongerWanted: a stop has arrived before there was a child.
            Exception: the spawn has failed: pass it to :meth:`failed`. No child is there.
        """
        process = self._process
        self.runs_elsewhere = False
        try:
            return await self._spawner.spawn(process.wake, still_wanted=lambda: process.step is Step.GO_ON)
        except AlreadyRuns:
            self.runs_elsewhere = True
            raise

    def failed(self, error: Exception) -> float | None:
        """Say in the log why :meth:`spawn` has failed. Returns the seconds until the next try; None when no try can
        succeed before somebody changes something, or the policy allows none."""
        process = self._process
        name = process.spec.name
        cause = exits.cause_of_failed_spawn(error)
        if cause.kind is Kind.CANNOT_START:
            self._aftermath.cannot_start(cause)
            return None
        if cause.kind is Kind.FAILED_START and not isinstance(error, ProcessFailed):
            logger.opt(exception=error).error(f"child {name} could not be started; please report this")
        decision = process.decide(cause)
        process.last_exit = cause.words
        helps = remedy(error)
        hint = f". What helps: {helps}" if helps else ""
        logger.error(f"child {name} {cause.words}; {decision.words}{hint}")
        return self._aftermath.carry_out(decision, cause, ended=False)

    async def why_no_new_one(self, asked: str) -> str | None:
        """Find out whether a child that works could be replaced by a new one, as far as can be told without a start.

        Args:
            asked: why it is to be replaced, for the log.

        Returns:
            why it could not, in words; they have been logged. None: it could.
        """
        try:
            await self._spawner.plan()
        except ProcessFailed as exc:
            logger.error(f"child {self._process.spec.name} is not restarted ({asked}): {exc}; the running bot stays")
            return str(exc)
        return None

    async def hidden_package(self) -> Cause | None:
        """Look whether a start has failed because a file in the project hides a package. May take seconds; ends early,
        with None, when somebody asks for something meanwhile. Only for the keeper's task: it waits for ``wake``."""
        process = self._process
        looking = asyncio.ensure_future(self._spawner.hidden_packages())
        looking.add_done_callback(lambda _: process.wake.set())
        try:
            while not looking.done() and process.step is Step.POLICY:  # any other step: somebody has asked
                process.wake.clear()
                await process.wake.wait()
            found = looking.result() if looking.done() else ""
        finally:
            looking.cancel()
        return exits.cannot_start(found) if found else None

    def release(self) -> None:
        """Allow another host to run the process: no child is there, and none is wanted."""
        self._spawner.release()
