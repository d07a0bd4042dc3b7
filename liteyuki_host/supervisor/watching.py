"""Follows one child from its spawn until it is gone or has to go, and tells people how it fares.

``vigil.py`` judges how a child fares. This module acts on the judgement as long as the child stays: it sets the state
that operators see, and replaces a child that is too old or too large, if a new one can be started at all.

The loop in :meth:`Watching.follow` is driven by ``process.wake``, an event that is set whenever something is heard of
the child or asked for it, and by the time of the vigil's next look. Each round looks at everything anew, so it does not
matter which of the two has woken it. Everything runs on the event loop of the host; no lock is needed.
"""

from __future__ import annotations

import time
from enum import Enum, auto

import anyio
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.supervisor.exits import Cause, Kind
from liteyuki_host.supervisor.kept_process import SERVING, KeptProcess
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.process_hooks import ProcessHooks
from liteyuki_host.supervisor.starting import Starting
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.succession import Succession
from liteyuki_host.supervisor.vigil import Renewal, Unhealthy, Vigil
from liteyuki_host.supervisor.wish import Heard, Step, Wish
from liteyuki_host.wording import one_line

__all__ = ["Verdict", "Watching", "tell_of_failed_plugins"]


class Verdict(Enum):
    """Why following a child has come to an end, if not for a ``Unhealthy``."""

    EXITED = auto()
    """It is gone, and nobody had asked."""
    ASKED = auto()
    """Somebody wants it stopped or restarted."""
    REPLACED = auto()
    """Its successor is ready."""


class Watching:
    """See the module's docstring. Called by the keeper's task, in the phase WATCHING; :meth:`renew` by anybody."""

    def __init__(
        self,
        process: KeptProcess,
        hooks: ProcessHooks,
        starting: Starting,
        succession: Succession,
        supervising: Boundary,
    ) -> None:
        """
        Args:
            hooks: are called after a restart that was announced, when the child is ready.
            starting: is asked whether a new child could be started before this one is ended for it.
            succession: has the child that is to take over, if there is one.
            supervising: is told whenever a look at the child has succeeded.
        """
        self._process = process
        self._hooks = hooks
        self._starting = starting
        self._succession = succession
        self._supervising = supervising

    async def follow(self, life: Life) -> Verdict | Unhealthy:
        """Look at the child whenever something is heard of it, and at the moments that the vigil names. Returns why it
        is not to be followed any more."""
        process = self._process
        vigil = Vigil(process.spec, life)
        # The order matters. An end that has happened goes before one that was asked for: a child that is gone cannot be
        # asked to end. What was asked goes before a successor: after a stop, nobody takes over.
        while True:
            process.wake.clear()  # before looking: what happens from here on wakes us again
            if life.returncode is not None:
                return Verdict.EXITED
            if process.step is Step.END:
                if await self._restart_is_refused(life):
                    continue  # that took time: look at everything again
                return Verdict.ASKED
            if self._succession.has_successor:
                return Verdict.REPLACED
            # Usually both are found at once, as the hooks' end and the open port are told in a row.
            if life.hooks_done and process.state is State.STARTING:
                process.enter(State.HOOKS_DONE, "its start-up hooks have returned")
                logger.debug(f"child {process.spec.name}: its start-up hooks have returned")
            if life.ready and process.state not in SERVING:
                self._now_ready(life)
            found = await vigil.look()
            self._supervising.succeeded()
            process.memory = vigil.memory
            if isinstance(found, Unhealthy):
                return found
            if found is not None:
                await self._renew_if_possible(found, vigil)
            elif vigil.busy is not (process.state is State.BUSY):
                self._now_busy_or_not(vigil)
            until = vigil.next  # None: only when something is heard
            with anyio.move_on_after(None if until is None else max(until - time.monotonic(), 0)):
                await process.wake.wait()

    def renew(self, renewal: Renewal) -> None:
        """Ask for a restart of a child that serves.

        A renewal that counts is held against the process like a crash. When the policy allows no further restart, the
        child is ended in order and the process is given up.
        """
        process = self._process
        if renewal.counted:
            decision = process.decide(Cause(Kind.CRASH, renewal.why))
            if decision.state is not State.BACKING_OFF:
                logger.error(f"child {process.spec.name}: {renewal.why}; {decision.words}")
                process.hear(Heard.GIVE_UP, renewal.why)
                process.want_stop()  # the wish stays GIVEN_UP; this tells whoever waits
                return
        process.want_restart(renewal.why)

    def _now_ready(self, life: Life) -> None:
        """Tell everybody that the child is ready."""
        process, name = self._process, self._process.spec.name
        seconds = time.monotonic() - life.live_child.started_at
        process.enter(State.READY, f"ready in {seconds:.1f} s")
        logger.info(f"child {name} ready in {seconds:.1f} s" + (f": {life.address}" if life.address else ""))
        for what, where in life.details.items():
            logger.info(f"child {name}: {what} reverse WebSocket listens on {where}")
        tell_of_failed_plugins(life)
        process.ready_waiters.tell(process.starts, None)
        self._hooks.after_announced_restart()

    def _now_busy_or_not(self, vigil: Vigil) -> None:
        """Tell people that the event loop of the child has stood still for a while, or turns again."""
        process = self._process
        if vigil.busy:
            words = f"its event loop has not turned for {vigil.silent:.1f} s"
            process.enter(State.BUSY, words)
            logger.info(f"child {process.spec.name} is busy: {words}")
        else:
            process.enter(State.READY, "its event loop turns again")
            logger.info(f"child {process.spec.name} is ready again: its event loop turns")

    async def _renew_if_possible(self, renewal: Renewal, vigil: Vigil) -> None:
        """Replace a child that is too old or too large, unless no new one can be started."""
        if await self._starting.why_no_new_one(renewal.why) is None:
            self.renew(renewal)
        else:
            vigil.postpone_renewal()

    async def _restart_is_refused(self, life: Life) -> bool:
        """Find out, when a restart was asked, whether the child stays all the same: this one works, and no new one can
        be started. Whoever waits for the restart is told why. A stop is never refused."""
        process = self._process
        if process.wish is not Wish.RESTART or not life.reachable or process.hurry.is_set():
            return False
        why = await self._starting.why_no_new_one(process.why)
        if why is None or not process.wish.wants_child:  # the answer took time, and somebody may have asked for a stop
            return False
        process.hear(Heard.REFUSED)
        process.ready_waiters.tell(process.starts + 1, why)
        return True


def tell_of_failed_plugins(life: Life) -> None:
    """Warn of the plugins that a child which is ready runs without. The first ten are named."""
    failed = sorted(life.failed_plugins)
    if failed:
        few = ", ".join(one_line(name, 100) for name in failed[:10])
        names = few + (f" and {len(failed) - 10} more" if len(failed) > 10 else "")
        count, child = f"{len(failed)} plugin{'s' if len(failed) > 1 else ''}", f"child {life.name}"
        logger.warning(f"{child} runs without {count} that could not be loaded: {names}; its lines above say why")
