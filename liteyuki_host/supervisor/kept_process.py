"""Everything that the host knows of one declared process: its wish, its phase, its state, its child.

This is the one place where it is kept. :class:`~liteyuki_host.supervisor.keeper.Keeper` and the modules that do parts
of its work (``ending.py``, ``starting.py``, ``succession.py``) share one :class:`KeptProcess` and keep nothing of this
themselves.
"""

from __future__ import annotations

import asyncio
import random
import time

from liteyuki_host.boundary import Boundary
from liteyuki_host.supervisor.exits import Cause
from liteyuki_host.supervisor.life import Context, Life, ProcessStatus, SupervisorEvents
from liteyuki_host.supervisor.policy import Decision, Policy, Record, decide
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State, Story, Transition
from liteyuki_host.supervisor.waiters import GoneWaiters, ReadyWaiters
from liteyuki_host.supervisor.wish import STEPS, WISHES, Heard, Phase, Step, Wish

__all__ = ["SERVING", "KeptProcess"]

SERVING = (State.READY, State.BUSY)
"""The states in which a child serves."""


class KeptProcess:
    """One declared process. For the host's event loop only, except :meth:`status`.

    There is no lock: everything is read and written on one event loop, between two awaits.
    """

    def __init__(self, spec: ProcessSpec, events: SupervisorEvents) -> None:
        """
        Args:
            events: is told of each step from state to state.
        """
        self.spec = spec
        self._events = events
        self._policy = Policy.of(spec)

        # What is wanted. Written by whoever asks, through `hear`, and by `closed`.
        self.wish = Wish.STOPPED
        self.why = "with the host"
        """Why the wish, or the child that serves, is the present one; in words, for the log and for hooks."""
        self.closed = False
        """Nobody can ask for a start any more. Never becomes False again."""
        self.hurry = asyncio.Event()
        """Set when the operator does not want to wait: a child is killed without the stop ladder, and no hook is waited
        for. Cleared when the next start begins."""
        self.wake = asyncio.Event()
        """Set by everybody who changes something that the keeper's task has to look at; cleared by that task."""

        self.restart_announced = False
        """The hooks before a restart have been called, and those after it have not. Written by ``process_hooks.py``;
        reset here when no child is wanted any more."""

        # What is done. Written by the keeper's task.
        self.phase = Phase.RESTING
        self.state = State.DECLARED
        """What people are shown; changed by `enter` alone."""
        self.story = Story()
        self.starts = 0
        """Starts that have begun; the present one has this number."""
        self._record = Record()
        """What the restart policy has to know of the ends before. Emptied when somebody starts a process that was not
        wanted."""

        # What is known of its child. Written by the keeper's task.
        self.life: Life | None = None
        """The child that serves, or is to serve: from its spawn until it is gone."""
        self.last_exit: str | None = None
        """How the last child ended, in words."""
        self.memory: int | None = None
        """Resident bytes of the child and all it started, as last measured."""

        # Who waits.
        self.ready_waiters = ReadyWaiters()
        self.gone_waiters = GoneWaiters()

    # --- the wish -----------------------------------------------------------------------------------------------

    def want_start(self, why: str = "asked") -> None:
        """Want a child. Has no effect on one that is there or is being started, nor when the host stops."""
        if self.closed:
            return
        if not self.wish.wants_child:
            self._record = Record()
            if self.phase is not Phase.ENDING:  # nobody has acted on the stop yet, and nobody will
                self.gone_waiters.tell(f"{self.spec.name} was asked to start again")
        self.hear(Heard.START, why)
        self.wake.set()

    def want_stop(self, why: str = "asked") -> None:
        """Want no child."""
        self.hear(Heard.STOP, why)
        self.ready_waiters.tell_everybody(f"{self.spec.name} was asked to stop")
        self.wake.set()

    def want_restart(self, why: str = "asked") -> None:
        """Want a new child. Has no effect when the host stops. Asked again before a start has begun, it is one
        restart."""
        if self.closed:
            return
        if not self.wish.wants_child:
            self._record = Record()
        self.hear(Heard.RESTART, why)
        self.wake.set()

    def hear(self, heard: Heard, why: str | None = None) -> None:
        """Change the wish by the table of ``wish.py``.

        Args:
            why: in words. Counts when the wish turns from child to no child or back, and for the first of several
                restarts; who only repeats what is wanted already changes no reason.
        """
        before, self.wish = self.wish, WISHES[self.wish, heard]
        turned = before.wants_child is not self.wish.wants_child
        first_restart = self.wish is Wish.RESTART and before is not Wish.RESTART
        if why is not None and (turned or first_restart):
            self.why = why
        if not self.wish.wants_child:
            self.restart_announced = False

    @property
    def step(self) -> Step:
        """What the keeper's task does next."""
        return STEPS[self.phase, self.wish]

    @property
    def is_ready(self) -> bool:
        """Whether a child serves and may go on serving.

        False as soon as its link has ended, even before anybody has acted on that: whoever has just seen the link break
        must not be told of the child that is ending.
        """
        reachable = self.life is not None and self.life.reachable
        return self.state in SERVING and reachable and self.wish.wants_this_child

    # --- the restart policy -------------------------------------------------------------------------------------

    def decide(self, cause: Cause, *, ready_for: float = 0.0) -> Decision:
        """Ask the restart policy what follows an end that nobody asked for, and have it remember this end.

        Args:
            ready_for: seconds from ready to the end; 0 when the child never was ready.
        """
        jitter = random.uniform(-1, 1)
        now = time.monotonic()
        decision = decide(self._policy, self._record, cause, now=now, ready_for=ready_for, jitter=jitter)
        self._record = decision.record
        return decision

    # --- what others are told -----------------------------------------------------------------------------------

    def enter(self, state: State, cause: str) -> None:
        """Change the state people are shown, note the step in the story and tell the listener. A failure there is
        logged. The same state again is no step, except for DECLARED, whose cause changes."""
        if state is self.state and state is not State.DECLARED:
            return
        pid = self.status().pid
        step = Transition(self.spec.name, self.state, state, cause, pid=pid, restarts=self.restarts)
        self.state = state
        self.story.add(step)
        try:
            self._events.stepped(step)
        except Exception as error:
            Boundary(f"child {self.spec.name}: telling of its state").failed(error)

    @property
    def restarts(self) -> int:
        """Starts after the first, for whatever reason."""
        return max(self.starts - 1, 0)

    def status(self) -> ProcessStatus:
        """A snapshot. From any thread: each attribute is read once."""
        life = self.life
        child = life.child if life is not None else None
        return ProcessStatus(
            name=self.spec.name,
            state=self.state,
            pid=child.pid if child is not None else None,
            started_at=child.started_at if child is not None else None,
            restarts=self.restarts,
            last_exit=self.last_exit,
            memory=self.memory if child is not None else None,
            address=life.address if life is not None else None,
            details=life.details if life is not None else {},
        )

    def context(self) -> Context:
        """What hooks are told."""
        status = self.status()
        return Context(self.spec.name, self.why, status.pid, status.uptime, status.restarts, status.last_exit)
