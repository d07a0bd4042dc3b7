"""Keeps one declared process in the state that was last wanted.

How it works
------------

Whoever asks for a start, a stop or a restart only changes the *wish*. One task, :meth:`Keeper.run`, acts on it. So no
two operations can run into each other, each is idempotent, and what was asked last becomes true. What the task does
next follows from two pieces of state alone, its *phase* and the wish (the full tables are in ``wish.py``)::

    phase         nothing asked, no child wanted    a child is wanted          a new child is wanted
    resting       waits                             begins a start             begins a start
    spawning      calls the start off               goes on                    goes on, and ends the child afterwards
    watching      ends the child                    goes on                    ends the child, if a new one can start
    ending        rests                             asks the restart policy    begins a start
    backing off   rests                             waits for the delay        begins a start

The wish, the phase and everything else that is known of the process are kept in one place, ``kept_process.py``. Parts
of the work have modules of their own: ``starting.py`` (a spawn and its failures), ``ending.py`` (the ways a child
ends), ``aftermath.py`` (what the restart policy says is carried out), ``succession.py`` (a second child that replaces
the first), ``watching.py`` (following a child).

Everything in here happens on the host's event loop, so there is no lock. What comes from other threads (the link, the
thread that waits for the child's end) is posted there, see ``life.py``. The task sleeps on one event,
``KeptProcess.wake``, which everybody sets who changes something. It clears the event before it looks, so that nothing
that happens while it looks is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.supervisor import stopping
from liteyuki_host.supervisor.aftermath import Aftermath
from liteyuki_host.supervisor.ending import Ending
from liteyuki_host.supervisor.exits import describe_exit
from liteyuki_host.supervisor.kept_process import SERVING, KeptProcess
from liteyuki_host.supervisor.life import Life, ProcessStatus, SessionLike, SupervisorEvents
from liteyuki_host.supervisor.process_hooks import ProcessHooks
from liteyuki_host.supervisor.spawning import NoLongerWanted, Spawner
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.starting import Starting
from liteyuki_host.supervisor.states import State, Story
from liteyuki_host.supervisor.succession import Succession
from liteyuki_host.supervisor.vigil import Renewal, Unhealthy
from liteyuki_host.supervisor.watching import Verdict, Watching, tell_of_failed_plugins
from liteyuki_host.supervisor.wish import Heard, Phase, Step, Wish


class Keeper:
    """One declared process. Its methods are for the host's event loop, except :meth:`status`."""

    def __init__(
        self,
        spec: ProcessSpec,
        spawner: Spawner,
        *,
        events: SupervisorEvents,
        on_unasked_end: Callable[[str, str], None],
        on_rest: Callable[[], None],
    ) -> None:
        """
        Args:
            on_unasked_end: called with the name and the cause when it is started again after an end that nobody
                asked for.
            on_rest: called whenever it may have come to rest: see :attr:`at_rest`.
        """
        self.spec = spec
        self.predecessors: Sequence[Keeper] = ()
        """Those it comes ``after``. Set once, before :meth:`run`."""
        self._on_rest = on_rest
        self._process = KeptProcess(spec, events)
        """All that changes is in there."""
        self._supervising = Boundary(f"child {spec.name}: its supervision")
        """Takes the errors of the task's own work, so that each kind is logged once and tried again later."""
        # The parts of the work. They share the process and keep nothing of it themselves.
        self._hooks = ProcessHooks(self._process, events)
        self._succession = Succession(self._process)
        aftermath = Aftermath(self._process, on_unasked_end)
        self._starting = Starting(self._process, spawner, aftermath)
        self._watching = Watching(self._process, self._hooks, self._starting, self._succession, self._supervising)
        self._ending = Ending(self._process, self._hooks, self._starting, aftermath, self._supervising)

    # --- asking: each returns at once -----------------------------------------------------------------------------

    def start(self, why: str = "asked") -> None:
        """Want a child. Has no effect on one that is there or is being started."""
        self._process.want_start(why)

    def stop(self, why: str = "asked") -> None:
        """Want no child."""
        self._process.want_stop(why)

    def restart(self, why: str = "asked") -> None:
        """Want a new child. Asked again before a start has begun, it is one restart."""
        self._process.want_restart(why)

    def terminated(self, session: SessionLike) -> None:
        """Act on a SIGTERM that somebody has sent to the child of *session*, which has passed it on.

        The child ends in order, as for a restart. Whether another one is started is decided as after a crash. Does
        nothing for a child that ends already.
        """
        process = self._process
        if process.is_ready and process.life is not None and process.life.session is session and not process.closed:
            self._watching.renew(Renewal("somebody has sent it SIGTERM", counted=True))

    def start_no_more(self) -> None:
        """Have nobody ask for a start from now on. A child that is there stays."""
        self._process.closed = True

    def close(self) -> None:
        """Stop, and accept no start any more; :meth:`run` returns when the child is gone."""
        self.start_no_more()
        self.stop("the host stops")

    def kill(self) -> None:
        """Stop without the ladder, also when it is being climbed already."""
        self.stop()
        self._process.hurry.set()

    def look_again(self) -> None:
        """Take note that a process that this one comes after has changed its state."""
        self._process.wake.set()

    # --- a second child that replaces the first: see `Succession` -------------------------------------------------

    def candidate(self, wake: asyncio.Event) -> contextlib.AbstractContextManager[None]:
        """Allow a second child inside the block, which is to :meth:`replace` the one that serves. The keeper begins no
        start meanwhile; it sets *wake* when the one that serves has gone."""
        return self._succession.candidate(wake)

    def replace(self, successor: Life, why: str) -> bool:
        """Let a child that is ready take the place of the one that serves. Returns whether it will: it is the keeper's
        then."""
        return self._succession.offer(successor, why)

    async def alone(self) -> None:
        """Wait until every child that was replaced has ended."""
        await self._succession.alone()

    # --- waiting for it -------------------------------------------------------------------------------------------

    async def started(self) -> None:
        """Wait, after :meth:`start`, until it is ready. Raises ProcessFailed when this start fails."""
        process = self._process
        if process.is_ready:
            return
        # A start that is under way counts. A child that was ready and is not any more is ending, whether or not that
        # has been noticed: then the next start counts.
        under_way = process.phase in (Phase.SPAWNING, Phase.WATCHING) and process.wish.wants_this_child
        this_one = under_way and process.state not in SERVING
        await self._ready_or_why(process.starts if this_one else process.starts + 1)

    async def restarted(self) -> None:
        """Wait, after :meth:`restart`, until it is ready again. Raises ProcessFailed when the new start fails."""
        await self._ready_or_why(self._process.starts + 1)  # the child that is there does not count

    async def ready(self) -> None:
        """Wait until it is ready, through failed starts. Raises ProcessFailed when nothing will start it any more."""
        process = self._process
        if process.state in (State.FAILED, State.STOPPED) and not process.wish.wants_child:
            cause = f": {process.last_exit}" if process.last_exit else ""
            raise ProcessFailed(f"{self.spec.name} is {process.state}{cause}")
        if not process.is_ready:
            await self._ready_or_why(0, patient=True)  # any start will do

    async def stopped(self) -> None:
        """Wait, after :meth:`stop`, until no child of this process is there.

        Raises ProcessFailed when a start overtakes the stop.
        """
        if self._process.phase.is_busy:  # also while a child is being spawned, which may come into being yet
            await self._process.gone_waiters.wait()

    async def _ready_or_why(self, start: int, *, patient: bool = False) -> None:
        """Wait until start number *start*, or a later one, is ready. Raises ProcessFailed."""
        if self._process.closed:
            raise ProcessFailed(f"{self.spec.name} is not started: the host is stopping")
        await self._process.ready_waiters.wait(start, patient=patient)

    # --- looking at it --------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state that people are shown."""
        return self._process.state

    @property
    def story(self) -> Story:
        """The last steps from state to state."""
        return self._process.story

    @property
    def hurry(self) -> asyncio.Event:
        """Set when the operator does not want to wait for an end in order."""
        return self._process.hurry

    @property
    def is_ready(self) -> bool:
        """Whether a child serves and may go on serving."""
        return self._process.is_ready

    @property
    def is_wanted(self) -> bool:
        """Whether a child is to be there."""
        return self._process.wish.wants_child

    @property
    def is_in_the_way(self) -> bool:
        """Whether those that come after this one have to wait. Not for one that nobody has asked for."""
        process = self._process
        return not process.is_ready and (process.wish.wants_child or process.state is State.FAILED)

    @property
    def at_rest(self) -> bool:
        """Whether no child of it is there, and nothing but a request or a change of its files would start one."""
        process = self._process
        if process.phase.is_busy or self._succession.under_way:
            return False
        return not process.wish.wants_child or any(other.is_in_the_way and other.at_rest for other in self.predecessors)

    @property
    def runs_elsewhere(self) -> bool:
        """Whether the last start was refused because another host runs it."""
        return self._starting.runs_elsewhere

    @property
    def failed_plugins(self) -> frozenset[str]:
        """Plugins that the child that serves runs without."""
        life = self._process.life
        return life.failed_plugins if life is not None else frozenset()

    @property
    def host_files(self) -> Mapping[Path, object] | None:
        """What the child that is there has loaded of the files of the host's settings; see `Life.host_files`."""
        life = self._process.life
        return life.host_files if life is not None else None

    def status(self) -> ProcessStatus:
        """A snapshot. From any thread."""
        return self._process.status()

    # --- the task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Act on the wish until closed, whatever fails meanwhile. Cancelled, it kills the child and waits for its
        end."""
        process = self._process
        try:
            # Closing leaves the wish as it is at first: a host that stops ends its processes one level after the
            # other. So a child may go on for a while here, but no start begins after it.
            while not process.closed:
                process.wake.clear()
                try:
                    await self._act()
                except Exception as error:
                    await self._wait_after(error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave_nothing()

    async def _act(self) -> None:
        """Do the next step of the phase RESTING: begin a start, or wait."""
        process = self._process
        if process.step is Step.BEGIN:
            if await self._its_turn():
                await self._live_once()
            return  # and look again: the wish may have changed meanwhile
        self._starting.release()  # from here on, another host may run the process
        if process.state not in (State.DECLARED, State.FAILED):
            process.enter(State.STOPPED, process.why)
            process.ready_waiters.tell_everybody(f"{self.spec.name} is stopped")
        self._on_rest()
        await process.wake.wait()

    async def _wait_after(self, error: Exception) -> None:
        """Log that the host's own work for this process has failed, and wait: until what is short may be back, or until
        something is heard of the process."""
        process = self._process
        with anyio.move_on_after(self._supervising.failed(error)):
            process.wake.clear()
            await process.wake.wait()

    async def _its_turn(self) -> bool:
        """Wait for those it comes after. Returns whether it is still to be started."""
        process = self._process
        told: set[str] = set()  # those that the log has named; their states may change without a new line
        while process.step is Step.BEGIN:
            process.wake.clear()
            missing = {other.spec.name: other.state for other in self.predecessors if other.is_in_the_way}
            if not missing:
                return True
            if told != missing.keys():
                told = set(missing)
                words = ", ".join(f"{name} ({state})" for name, state in missing.items())
                logger.info(f"child {self.spec.name} waits until these are ready: {words}")
                process.enter(State.DECLARED, f"waits for {words}")
            self._on_rest()
            await process.wake.wait()
        return False

    async def _live_once(self) -> None:
        """Go through the phases once: from the decision to start until no child is there, and the back-off where one is
        due."""
        process = self._process
        process.phase = Phase.SPAWNING
        process.hurry.clear()
        delay: float | None = None
        try:
            delay = await self._spawn_watch_and_end()
        except Exception as error:
            process.phase = Phase.ENDING
            delay = await self._ending.unsupervised(error)
        finally:
            # A child that is still there at this point means that this task is cancelled: `_leave_nothing` ends it.
            if process.life is None or process.life.is_gone:
                await self._succession.end_all()
                self._now_gone()
        if delay is not None:
            await self._back_off(delay)

    async def _spawn_watch_and_end(self) -> float | None:
        """Go through the phases from the spawn to the end of the child.

        Returns:
            the seconds until the next start, if the restart policy was asked and allows one.
        """
        process = self._process
        if process.wish is Wish.RESTART:  # of a process that does not run; otherwise `Ending.asked` has called them
            await self._hooks.before_restart()
            if process.step is Step.CALL_OFF:
                return None
        # From here on, whoever asks for a restart means the child after this one.
        process.hear(Heard.BEGUN)
        process.starts += 1
        why = process.why  # of this start; a stop may arrive while the child is spawned
        process.enter(State.STARTING, why)
        try:
            life = process.life = await self._starting.spawn()
        except NoLongerWanted:
            logger.debug(f"child {self.spec.name} is not started ({why}): {process.why}")
            return None
        except Exception as exc:
            return self._starting.failed(exc)
        logger.info(f"child {self.spec.name} started (pid {life.live_child.pid}): {why}")
        process.phase = Phase.WATCHING
        while True:  # once for each child that takes over from the one before
            try:
                verdict = await self._watching.follow(life)
            except Exception as error:  # the child is not to blame, and goes on
                await self._wait_after(error)
                continue
            if verdict is not Verdict.REPLACED:
                break
            life = self._take_over(life)
        process.phase = Phase.ENDING
        if isinstance(verdict, Unhealthy):
            return await self._ending.unhealthy(life, verdict)
        if verdict is Verdict.EXITED:
            return await self._ending.exited(life)
        await self._ending.asked(life)
        return None

    async def _back_off(self, delay: float) -> None:
        """Wait *delay* seconds, unless somebody asks for something meanwhile or has done so already."""
        process = self._process
        process.phase = Phase.BACKING_OFF
        if process.step is Step.GO_ON:  # else somebody has asked since the policy decided; people see no back-off then
            process.enter(State.BACKING_OFF, process.why)
        deadline = time.monotonic() + delay
        while process.step is Step.GO_ON and (left := deadline - time.monotonic()) > 0:
            process.wake.clear()
            with anyio.move_on_after(left):
                await process.wake.wait()
        process.phase = Phase.RESTING

    def _now_gone(self) -> None:
        """Note that no child is there."""
        process = self._process
        process.life = None
        process.memory = None
        process.phase = Phase.RESTING
        process.gone_waiters.tell()

    async def _leave_nothing(self) -> None:
        """End the task: no child is left, and nobody waits in vain."""
        process = self._process
        # The task may have been cancelled anywhere, so nothing is known but what is in `process`.
        process.closed = True
        process.want_stop()
        self._hooks.close()
        life = process.life
        if life is not None:  # only when the task was cancelled
            process.hurry.set()
            await stopping.end_at_once(self.spec, life)
            process.last_exit = describe_exit(life.exit_code)
        await self._succession.end_all()
        self._starting.release()
        if process.state not in (State.DECLARED, State.FAILED):
            process.enter(State.STOPPED, process.why)
        self._now_gone()

    def _take_over(self, old: Life) -> Life:
        """Let the successor serve from now on; the old child finishes its work and ends beside it."""
        process, name = self._process, self.spec.name
        life = process.life = self._succession.take()
        process.starts += 1
        logger.info(f"child {name}: pid {life.live_child.pid} takes over from pid {old.live_child.pid}")
        for state in (State.STARTING, State.READY):  # its start was the reloader's, but people are shown it here
            process.enter(state, process.why)
        tell_of_failed_plugins(life)
        self._succession.retire(self._ending.retire(old))
        return life
