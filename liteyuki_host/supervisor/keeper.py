"""Keeps one declared process in the state that was last wanted.

Whoever asks for a start, a stop or a restart only changes what is wanted; the keeper's own task acts on it.
So no two operations can run into each other, each is idempotent, and what was said last becomes true.

Everything in here happens on the host's event loop. What comes from other threads (the link, the thread that
waits for the child's end) is posted there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path

import anyio
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import describe, remedy
from liteyuki_host.supervisor import exits, stopping
from liteyuki_host.supervisor.exits import Cause, Kind, cause_of_exit, describe_exit
from liteyuki_host.supervisor.hooks import Hooks
from liteyuki_host.supervisor.life import Context, Life, ProcessStatus, SessionLike, SupervisorEvents
from liteyuki_host.supervisor.lock import AlreadyRuns
from liteyuki_host.supervisor.memory import oom_kills
from liteyuki_host.supervisor.policy import Decision, Policy, Record, decide
from liteyuki_host.supervisor.spawning import NoLongerWanted, Spawner
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State, Story, Transition
from liteyuki_host.supervisor.vigil import Renewal, Trouble, Vigil
from liteyuki_host.supervisor.waiters import GoneWaiters, ReadyWaiters
from liteyuki_host.wording import one_line

SERVING = (State.READY, State.BUSY)


class Verdict(Enum):
    """Why watching a child has come to an end."""

    EXITED = auto()
    """It is gone, and nobody had asked."""
    ASKED = auto()
    """Somebody wants it stopped or restarted."""
    REPLACED = auto()
    """Its successor is ready."""
    IN_TROUBLE = auto()
    """It is there, and has to go."""


class Keeper:
    """One declared process. Its methods are for the event loop, except where they say otherwise."""

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
        self.state = State.DECLARED
        self.story = Story()
        self.predecessors: Sequence[Keeper] = ()
        """Those it comes ``after``."""
        self._spawner = spawner
        self._events = events
        self._on_unasked_end = on_unasked_end
        self._on_rest = on_rest
        self._policy = Policy.of(spec)

        self._wanted = False
        self._why = "with the host"  # the last start, stop or restart was asked
        self._restart_asked = False  # not yet acted on by a new start
        self._restarting = False  # hooks of a restart: `before` has been called, `after` has not
        self._at_once = False  # somebody asked again: no back-off
        self._closing = False
        self._given_up = False  # it is stopped because it needed restarts too often
        self.runs_elsewhere = False
        """The last start was refused because another host runs it."""
        self.hurry = asyncio.Event()  # no ladder: kill
        self._hooks = Hooks(spec, events, self.hurry)
        self._wake = asyncio.Event()  # something has changed: look again

        self._life: Life | None = None
        self._successor: Life | None = None  # ready, and to take the place of the life
        self._retiring: set[asyncio.Task[None]] = set()  # the ends of replaced children
        self._candidate: asyncio.Event | None = None  # wakes who tries one; None: there is none
        self._busy = False  # between the decision to start and the end of that child
        self._ending = False  # within that: it is decided that this child ends
        self._starts = 0
        self._record = Record()
        self._last_exit: str | None = None
        self._memory: int | None = None
        self._ready_waiters = ReadyWaiters()
        self._gone_waiters = GoneWaiters()
        self._supervising = Boundary(f"child {spec.name}: its supervision")

    # What is wanted. Each returns at once.

    def start(self, why: str = "asked") -> None:
        if self._closing:
            return
        if not (self._wanted or self._ending):
            # A stop that nobody has acted on yet: it will not happen now.
            self._gone_waiters.tell(f"{self.spec.name} was asked to start again")
        if not self._wanted:
            self._why = why
            self._forget_failures()
        self._wanted = self._at_once = True
        self._wake.set()

    def _forget_failures(self) -> None:
        """Somebody starts it by hand: what it was given up for counts no more."""
        self._record = Record()
        self._given_up = False

    def stop(self, why: str = "asked") -> None:
        if self._wanted:
            self._why = why
        self._wanted = self._restart_asked = self._restarting = False
        self._ready_waiters.tell_everybody(f"{self.spec.name} was asked to stop")
        self._wake.set()

    def restart(self, why: str = "asked") -> None:
        if self._closing:
            return
        if not self._restart_asked:
            self._why = why
        if not self._wanted:
            self._forget_failures()
        self._wanted = self._at_once = self._restart_asked = True
        self._wake.set()

    @contextlib.contextmanager
    def candidate(self, wake: asyncio.Event) -> Iterator[None]:
        """Meanwhile there may be a second child, which is to :meth:`replace` the one that serves.

        The keeper starts none before that is over. It sets *wake* when the one that serves has gone.
        """
        self._candidate = wake
        try:
            yield
        finally:
            self._candidate = None
            self._wake.set()

    def replace(self, successor: Life, why: str) -> bool:
        """Let a child that is ready take the place of the one that serves. Returns whether it will: it is the
        keeper's then."""
        if not self.is_ready or self._successor is not None:
            return False
        successor.wake = self._wake
        self._successor, self._why = successor, why
        self._wake.set()
        return True

    def terminated(self, session: SessionLike) -> None:
        """Somebody has sent SIGTERM to the child of *session*, which has passed it on.

        It ends in order, as for a restart. Whether another one is started is decided as after a crash. Does nothing
        for a child that ends already.
        """
        if self.is_ready and self._life is not None and self._life.session is session and not self._closing:
            self._restart_as_asked(Renewal("somebody has sent it SIGTERM", counted=True))

    def start_no_more(self) -> None:
        """From now on nobody can ask for a start."""
        self._closing = True

    def close(self) -> None:
        """Stop, and accept no start any more; :meth:`run` returns when the child is gone."""
        self._closing = True
        self.stop("the host stops")

    def kill(self) -> None:
        """Stop without the ladder, also when it is being climbed already."""
        self.stop()
        self.hurry.set()

    def look_again(self) -> None:
        """A process that this one comes after has changed its state."""
        self._wake.set()

    # Waiting for it.

    async def started(self) -> None:
        """After :meth:`start`: until ready. Raises ProcessFailed when this start fails."""
        if not self.is_ready:
            # One that was ready and is not any more is ending, whether or not that has been noticed.
            this_one = self._busy and not (self._ending or self._leaving() or self.state in SERVING)
            await self._ready_or_why(self._starts if this_one else self._starts + 1)

    async def restarted(self) -> None:
        """After :meth:`restart`: until ready again. Raises ProcessFailed when the new start fails."""
        await self._ready_or_why(self._starts + 1)

    async def ready(self) -> None:
        """Until ready, through failed starts. Raises ProcessFailed when nothing will start it any more."""
        if self.state in (State.FAILED, State.STOPPED) and not self._wanted:
            cause = f": {self._last_exit}" if self._last_exit else ""
            raise ProcessFailed(f"{self.spec.name} is {self.state}{cause}")
        if not self.is_ready:
            await self._ready_or_why(0, patient=True)

    async def stopped(self) -> None:
        """After :meth:`stop`: until no child of this process is there.

        Raises ProcessFailed when a start overtakes the stop.
        """
        if self._busy:
            await self._gone_waiters.wait()

    async def alone(self) -> None:
        """Until every child that was replaced has ended."""
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _ready_or_why(self, start: int, *, patient: bool = False) -> None:
        if self._closing:
            raise ProcessFailed(f"{self.spec.name} is not started: the host is stopping")
        await self._ready_waiters.wait(start, patient=patient)

    @property
    def is_ready(self) -> bool:
        # Whoever has just seen the link break and asks must not be told of the child that is ending.
        reachable = self._life is not None and self._life.reachable
        return self.state in SERVING and reachable and not self._leaving()

    @property
    def is_wanted(self) -> bool:
        return self._wanted

    @property
    def failed_plugins(self) -> frozenset[str]:
        """Plugins that the child that serves runs without."""
        return self._life.failed_plugins if self._life is not None else frozenset()

    @property
    def host_files(self) -> Mapping[Path, object] | None:
        """What the child that is there has loaded of the files of the host's settings; see `Life.host_files`."""
        return self._life.host_files if self._life is not None else None

    @property
    def at_rest(self) -> bool:
        """Whether no child of it is there, and nothing but a request or a change of its files would start one."""
        if self._busy or self._retiring or self._candidate is not None:
            return False
        return not self._wanted or any(other.is_in_the_way and other.at_rest for other in self.predecessors)

    def _leaving(self) -> bool:
        return not self._wanted or self._restart_asked

    def status(self) -> ProcessStatus:
        """From any thread."""
        life = self._life
        child = life.child if life is not None else None
        return ProcessStatus(
            name=self.spec.name,
            state=self.state,
            pid=child.pid if child is not None else None,
            started_at=child.started_at if child is not None else None,
            restarts=self._restarts,
            last_exit=self._last_exit,
            memory=self._memory if child is not None else None,
            address=life.address if life is not None else None,
            details=life.details if life is not None else {},
        )

    @property
    def _restarts(self) -> int:
        return max(self._starts - 1, 0)

    # The task.

    async def run(self) -> None:
        """Reconcile until closed, whatever fails meanwhile. Cancelled, it kills the child and waits for its end."""
        try:
            while not self._closing:
                self._wake.clear()
                try:
                    await self._reconcile()
                except Exception as error:
                    await self._wait_after(error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave_nothing()

    async def _reconcile(self) -> None:
        if self._wanted:
            if await self._its_turn():
                await self._live_once()
            return
        self._spawner.release()
        if self.state not in (State.DECLARED, State.FAILED):
            self._enter(State.STOPPED, self._why)
            self._ready_waiters.tell_everybody(f"{self.spec.name} is stopped")
        self._on_rest()
        await self._wake.wait()

    async def _wait_after(self, error: Exception) -> None:
        """Our own work for this process has failed. Log it, and give what is short time to come back; or less, if
        something is heard of the process."""
        with anyio.move_on_after(self._supervising.failed(error)):
            self._wake.clear()
            await self._wake.wait()

    async def _its_turn(self) -> bool:
        """Wait for those it comes after. Returns whether it is still to be started."""
        told: set[str] = set()
        while self._wanted:
            self._wake.clear()
            missing = {other.spec.name: other.state for other in self.predecessors if other.is_in_the_way}
            if not missing:
                return True
            if told != missing.keys():
                told = set(missing)
                words = ", ".join(f"{name} ({state})" for name, state in missing.items())
                logger.info(f"child {self.spec.name} waits until these are ready: {words}")
                self._enter(State.DECLARED, f"waits for {words}")
            self._on_rest()
            await self._wake.wait()
        return False

    @property
    def is_in_the_way(self) -> bool:
        """Whether those that come after this one have to wait. Not for one that nobody has asked for."""
        return not self.is_ready and (self._wanted or self.state is State.FAILED)

    async def _live_once(self) -> None:
        """From the decision to start until no child is there, and the back-off where one is due."""
        self._busy = True
        self.hurry.clear()
        decision: Decision | None = None
        try:
            decision = await self._start_watch_and_end()
        except Exception as error:
            decision = await self._end_unsupervised(error)
        finally:
            if self._life is None or self._life.is_gone:
                await self._successors_gone()
                self._now_gone()
        if decision is not None and self._wanted and not self._restart_asked:
            await self._back_off(decision)

    async def _start_watch_and_end(self) -> Decision | None:
        """Returns what the policy says about the end; None when somebody asked for it."""
        if self._restart_asked:
            await self._announce_restart()
            if not self._wanted:
                return None
        self._restart_asked = self._at_once = self._ending = self.runs_elsewhere = False
        self._starts += 1
        why = self._why  # of this start; a stop may arrive while the child is spawned
        self._enter(State.STARTING, why)
        try:
            life = self._life = await self._spawner.spawn(self._wake, still_wanted=lambda: self._wanted)
        except NoLongerWanted:
            logger.debug(f"child {self.spec.name} is not started ({why}): {self._why}")
            return None
        except Exception as exc:
            self.runs_elsewhere = isinstance(exc, AlreadyRuns)
            return self._after_failed_spawn(exc)
        logger.info(f"child {self.spec.name} started (pid {life.live_child.pid}): {why}")
        while True:
            try:
                verdict, trouble = await self._watch(life)
            except Exception as error:  # the child is not to blame, and goes on
                await self._wait_after(error)
                continue
            if verdict is not Verdict.REPLACED:
                break
            life = self._take_over(life)
        self._ending = True
        if verdict is Verdict.EXITED:
            return await self._after_unasked_exit(life)
        if verdict is Verdict.ASKED:
            await self._end_as_asked(life)
            return None
        assert trouble is not None
        return await self._end_in_trouble(life, trouble)

    # Watching.

    async def _watch(self, life: Life) -> tuple[Verdict, Trouble | None]:
        """Follow the child until it is gone or has to go."""
        vigil = Vigil(self.spec, life)
        while True:
            self._wake.clear()
            if life.returncode is not None:
                return Verdict.EXITED, None
            if self._leaving():
                if await self._restart_is_refused(life):
                    continue
                return Verdict.ASKED, None
            if self._successor is not None:
                return Verdict.REPLACED, None
            if life.hooks_done and self.state is State.STARTING:
                self._enter(State.HOOKS_DONE, "its start-up hooks have returned")
                logger.debug(f"child {self.spec.name}: its start-up hooks have returned")
            if life.ready and self.state not in SERVING:
                self._now_ready(life)
            found = await vigil.look()
            self._supervising.succeeded()
            self._memory = vigil.memory
            if isinstance(found, Trouble):
                return Verdict.IN_TROUBLE, found
            if found is not None:
                await self._renew(found, vigil)
            elif vigil.busy is not (self.state is State.BUSY):
                self._now_busy_or_not(vigil)
            until = vigil.next
            with anyio.move_on_after(None if until is None else max(until - time.monotonic(), 0)):
                await self._wake.wait()

    def _now_ready(self, life: Life) -> None:
        name = self.spec.name
        seconds = time.monotonic() - life.live_child.started_at
        self._enter(State.READY, f"ready in {seconds:.1f} s")
        logger.info(f"child {name} ready in {seconds:.1f} s" + (f": {life.address}" if life.address else ""))
        for what, where in life.details.items():
            logger.info(f"child {name}: {what} reverse WebSocket listens on {where}")
        self._tell_of_failed_plugins()
        self._ready_waiters.tell(self._starts, None)
        if self._restarting:
            self._restarting = False
            self._hooks.after_restart(self._context())

    def _tell_of_failed_plugins(self) -> None:
        failed = sorted(self.failed_plugins)
        if failed:
            few = ", ".join(one_line(name, 100) for name in failed[:10])
            names = few + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
            count, child = f"{len(failed)} plugin{'s' if len(failed) > 1 else ''}", f"child {self.spec.name}"
            logger.warning(f"{child} runs without {count} that could not be loaded: {names}; its lines above say why")

    def _now_busy_or_not(self, vigil: Vigil) -> None:
        if vigil.busy:
            words = f"its event loop has not turned for {vigil.silent:.1f} s"
            self._enter(State.BUSY, words)
            logger.info(f"child {self.spec.name} is busy: {words}")
        else:
            self._enter(State.READY, "its event loop turns again")
            logger.info(f"child {self.spec.name} is ready again: its event loop turns")

    async def _renew(self, renewal: Renewal, vigil: Vigil) -> None:
        if await self._says_why_no_new_one(renewal.why):
            vigil.postpone_renewal()
            return
        self._restart_as_asked(renewal)

    def _restart_as_asked(self, renewal: Renewal) -> None:
        """Restart in order, or stop for good when the policy allows no further restart."""
        if renewal.counted:
            decision = self._decide(Cause(Kind.CRASH, renewal.why), ready_for=0.0)
            if decision.state is not State.BACKING_OFF:
                logger.error(f"child {self.spec.name}: {renewal.why}; {decision.words}")
                self.stop(renewal.why)
                self._given_up = True
                return
        self.restart(renewal.why)

    async def _restart_is_refused(self, life: Life) -> bool:
        """A child that works is not ended for a new one that cannot be started; a stop is never refused."""
        if not self._restart_asked or not life.reachable or self.hurry.is_set():
            return False
        why = await self._says_why_no_new_one(self._why)
        if why is None or not self._wanted:
            return False
        self._restart_asked = self._at_once = False
        self._ready_waiters.tell(self._starts + 1, why)
        return True

    async def _says_why_no_new_one(self, asked: str) -> str | None:
        """Why the child that works stays as it is; logged. None: a new one can be started, as far as can be told."""
        try:
            await self._spawner.plan()
        except ProcessFailed as exc:
            logger.error(f"child {self.spec.name} is not restarted ({asked}): {exc}; the running bot stays")
            return str(exc)
        return None

    # What fails in the host.

    def _after_failed_spawn(self, error: Exception) -> Decision | None:
        """Returns when to try again; None when no try can succeed before somebody changes something."""
        cause = exits.cause_of_failed_spawn(error)
        if cause.kind is Kind.CANNOT_START:
            self._give_up(cause)
            return None
        if cause.kind is Kind.FAILED_START and not isinstance(error, ProcessFailed):
            logger.opt(exception=error).error(f"child {self.spec.name} could not be started; please report this")
        decision = self._decide(cause, ready_for=0.0)
        self._last_exit = cause.words
        helps = remedy(error)
        hint = f". What helps: {helps}" if helps else ""
        logger.error(f"child {self.spec.name} {cause.words}; {decision.words}{hint}")
        return self._carry_out(decision, cause, ended=False)

    async def _end_unsupervised(self, error: Exception) -> Decision | None:
        """Starting or ending the child has failed half-way in the host. End it for certain, and try again."""
        self._ending = True
        self._supervising.failed(error)
        if self._life is not None:
            await stopping.end_at_once(self.spec, self._life)
        cause = exits.not_supervised(describe(error))
        self._last_exit = cause.words
        if not self._wanted or self._restart_asked:
            return None
        decision = self._decide(cause, ready_for=0.0)
        logger.error(f"child {self.spec.name} {cause.words}; {decision.words}")
        return self._carry_out(decision, cause)

    # The ways a child ends.

    async def _after_unasked_exit(self, life: Life) -> Decision | None:
        self._at_once = False  # from here on it means: asked after this end
        await stopping.close_link(self.spec, life)
        name = self.spec.name
        cause = cause_of_exit(
            life.exit_code,
            ready=life.ready,
            greeted=life.greeting.is_set(),
            own_exit=life.own_exit,
            reason=life.cannot_start,
            out_of_memory=life.oom_kills is not None and (oom_kills() or 0) > life.oom_kills,
        )
        if cause.kind in (Kind.FAILED_START, Kind.CANNOT_START):
            cause = await self._hidden_package() or cause
        self._last_exit = cause.words
        if self._restart_asked or self._at_once or not self._wanted:
            again = "; starting it again" if self._wanted else ""
            logger.info(f"child {name} ended by itself: {cause.words}{again}")
            return None
        decision = self._decide(cause, _ready_for(life))
        if cause.kind is Kind.CANNOT_START:
            self._give_up(cause)
            return None
        if decision.state is State.STOPPED:
            # Its own Ctrl+C, or driver.exit(): it meant to end.
            self._wanted = False
            self._why = cause.words
            logger.info(f"child {name} ended by itself: {cause.words}; not starting it again")
            self._tell_of_leftovers(life)
            self._ready_waiters.tell_everybody(f"{name} ended by itself: {cause.words}")
            return None
        logger.error(f"child {name} {cause.with_hint}; {decision.words}")
        self._tell_of_leftovers(life)
        return self._carry_out(decision, cause)

    def _tell_of_leftovers(self, life: Life) -> None:
        for program in life.live_child.left_behind:
            logger.warning(
                f"child {self.spec.name} had started {program}, which was ended with it. If that was to be the bot "
                "itself: restart it by nonebot_plugin_lycomm.restart_process()"
            )

    async def _hidden_package(self) -> Cause | None:
        """Whether a failed start is due to a file that hides a package; looked for until something is asked."""
        looking = asyncio.ensure_future(self._spawner.hidden_packages())
        looking.add_done_callback(lambda _: self._wake.set())
        try:
            while not (looking.done() or self._restart_asked or self._at_once) and self._wanted:
                self._wake.clear()
                await self._wake.wait()
            found = looking.result() if looking.done() else ""
        finally:
            looking.cancel()
        return exits.cannot_start(found) if found else None

    async def _end_as_asked(self, life: Life) -> None:
        name = self.spec.name
        if self._restart_asked:
            await self._announce_restart()
        await self._hooks.before_shutdown(self._context())
        reason = "restart" if self._wanted else "stop"
        self._enter(State.STOPPING, self._why)
        logger.info(f"child {name} is to {reason}: {self._why}")
        await self._drain_and_stop(life, reason)
        if self._given_up and not self._wanted:
            self._enter(State.FAILED, self._why)

    async def _drain_and_stop(self, life: Life, reason: str) -> None:
        name = self.spec.name
        asked_at = time.monotonic()
        await stopping.drain(self.spec, life, self.hurry)
        rung = await stopping.end(self.spec, life, reason, self.hurry)
        words = self._last_exit = describe_exit(life.exit_code)
        logger.info(
            f"child {name} stopped after {rung} in {time.monotonic() - asked_at:.1f} s ({words})"
            if rung is not None
            else f"child {name} had just ended by itself ({words})"
        )

    async def _end_in_trouble(self, life: Life, trouble: Trouble) -> Decision | None:
        name, words = self.spec.name, trouble.cause.words
        likely = f": {trouble.likely}" if trouble.likely else ""
        logger.error(f"child {name} {words}{likely}; {'killing' if trouble.kill else 'ending'} it")
        if trouble.state is not None:
            self._enter(trouble.state, words)
        if trouble.cause.kind is not Kind.LINK_LOST:  # that one is ending, or cannot be helped
            await stopping.show_stacks(life, self.hurry)
        self._enter(State.STOPPING, words)
        self._ready_waiters.tell(self._starts, f"{name} {words}")
        rung = await stopping.end(self.spec, life, words, self.hurry, kill=trouble.kill)
        self._last_exit = words
        how = describe_exit(life.exit_code)
        ended = f"child {name} ended after {rung or 'the loss of its link'} ({how})"
        if not self._wanted or self._restart_asked:
            logger.info(ended)
            return None
        decision = self._decide(trouble.cause, _ready_for(life))
        logger.info(f"{ended}; {decision.words}")
        return self._carry_out(decision, trouble.cause)

    # A successor takes over.

    def _take_over(self, old: Life) -> Life:
        """The new child serves from now on; the old one finishes its work and ends beside it."""
        life, self._successor = self._successor, None
        assert life is not None
        self._life = life
        self._starts += 1
        name = self.spec.name
        logger.info(f"child {name}: pid {life.live_child.pid} takes over from pid {old.live_child.pid}")
        self._tell_of_failed_plugins()
        for state in (State.STARTING, State.READY):
            self._enter(state, self._why)
        task = asyncio.ensure_future(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return life

    async def _retire(self, old: Life) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._hooks.before_shutdown(self._context())
                await self._drain_and_stop(old, "restart")
            except Exception as error:
                self._supervising.failed(error)
                await stopping.end_at_once(self.spec, old)
        self._hooks.after_restart(self._context())

    async def _successors_gone(self) -> None:
        """Neither a replaced child nor one that was to replace is left when the next one starts."""
        successor, self._successor = self._successor, None
        if successor is not None:
            await stopping.end(self.spec, successor, "stop", self.hurry)
        while self._candidate is not None:
            self._candidate.set()
            self._wake.clear()
            await self._wake.wait()
        await self.alone()

    # Around a child's life.

    def _decide(self, cause: Cause, ready_for: float) -> Decision:
        jitter = random.uniform(-1, 1)
        now = time.monotonic()
        decision = decide(self._policy, self._record, cause, now=now, ready_for=ready_for, jitter=jitter)
        self._record = decision.record
        return decision

    def _carry_out(self, decision: Decision, cause: Cause, *, ended: bool = True) -> Decision | None:
        """What the policy says about an end that nobody asked for.

        Args:
            ended: there was a child, and its end may concern the neighbours.
        """
        failure = f"{self.spec.name} {cause.words}"
        if decision.state is State.BACKING_OFF:
            self._why = cause.words
            self._ready_waiters.tell(self._starts, failure)
            if ended:
                self._on_unasked_end(self.spec.name, cause.words)
            return decision
        self._wanted = self._restart_asked = self._restarting = False
        self._enter(decision.state, cause.words)
        self._ready_waiters.tell_everybody(failure)
        return None

    async def _back_off(self, decision: Decision) -> None:
        self._enter(State.BACKING_OFF, self._why)
        deadline = time.monotonic() + decision.delay
        while self._wanted and not (self._at_once or self._restart_asked):
            self._wake.clear()
            with anyio.move_on_after(max(deadline - time.monotonic(), 0)) as waiting:
                await self._wake.wait()
            if waiting.cancelled_caught:
                return

    def _give_up(self, cause: Cause) -> None:
        self._wanted = self._restart_asked = self._restarting = False
        self._last_exit = cause.words
        self._enter(State.FAILED, cause.words)
        logger.error(f"child {self.spec.name} cannot start: {cause.with_hint}")
        self._ready_waiters.tell_everybody(cause.words)

    def _now_gone(self) -> None:
        self._life = None
        self._memory = None
        self._busy = self._ending = False
        self._gone_waiters.tell()

    async def _leave_nothing(self) -> None:
        self._closing = True
        self.stop()
        self._hooks.close()
        life = self._life
        if life is not None:  # only when the task was cancelled
            self.hurry.set()
            await stopping.end_at_once(self.spec, life)
            self._last_exit = describe_exit(life.exit_code)
        await self._successors_gone()
        self._spawner.release()
        if self.state not in (State.DECLARED, State.FAILED):
            self._enter(State.STOPPED, self._why)
        self._now_gone()

    async def _announce_restart(self) -> None:
        """Once for each restart, however many have asked for it meanwhile."""
        if not self._restarting:
            self._restarting = True
            await self._hooks.before_restart(self._context())

    def _context(self) -> Context:
        status = self.status()
        return Context(self.spec.name, self._why, status.pid, status.uptime, status.restarts, status.last_exit)

    def _enter(self, state: State, cause: str) -> None:
        if state is self.state and state is not State.DECLARED:
            return
        pid = self.status().pid
        step = Transition(self.spec.name, self.state, state, cause, pid=pid, restarts=self._restarts)
        self.state = state
        self.story.add(step)
        try:
            self._events.stepped(step)
        except Exception as error:
            Boundary(f"child {self.spec.name}: telling of its state").failed(error)


def _ready_for(life: Life) -> float:
    return 0.0 if life.ready_at is None else time.monotonic() - life.ready_at
