"""The ways a child ends. Each brings the end about, or finds it, says so in the log, and asks what follows.

=================  ========================================  =====================================================
method             how it came to that                       what follows
=================  ========================================  =====================================================
``asked``          somebody wants it stopped or restarted    whatever was asked
``exited``         it is gone, and nobody had asked          the restart policy decides, unless somebody asks now
``unhealthy``      it is there and has to go                 as after ``exited``
``unsupervised``   the host's own work for it has failed     as after ``exited``
``retire``         its successor serves                      nothing: the process goes on
=================  ========================================  =====================================================

Each of the methods that the policy may follow returns the seconds until the next start; None when the policy was not
asked, or allows no further start.

All of it runs on the event loop of the host, so no lock is needed. A wish may change at each ``await``: somebody may
ask for a stop while the child is being ended. So what follows is decided as late as possible, by a look at
``process.step`` or ``process.wish`` after the last ``await`` that matters. ``Heard.ENDED`` marks the moment: what is
asked afterwards is meant for the next child.
"""

from __future__ import annotations

import time

import anyio
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.shortage import describe
from liteyuki_host.supervisor import exits, stopping
from liteyuki_host.supervisor.aftermath import Aftermath
from liteyuki_host.supervisor.exits import Kind, cause_of_exit, describe_exit
from liteyuki_host.supervisor.kept_process import KeptProcess
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.memory import oom_kills
from liteyuki_host.supervisor.process_hooks import ProcessHooks
from liteyuki_host.supervisor.starting import Starting
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.vigil import Unhealthy
from liteyuki_host.supervisor.wish import Heard, Step, Wish

__all__ = ["Ending"]


class Ending:
    """See the module's docstring. Called by the keeper's task, in the phase ENDING; :meth:`retire` beside it."""

    def __init__(
        self, process: KeptProcess, hooks: ProcessHooks, starting: Starting, aftermath: Aftermath, supervising: Boundary
    ) -> None:
        """
        Args:
            supervising: takes the errors of the host's own work for the process.
        """
        self._process = process
        self._hooks = hooks
        self._starting = starting
        self._aftermath = aftermath
        self._supervising = supervising

    async def exited(self, life: Life) -> float | None:
        """Find out why the child has ended by itself."""
        process, name = self._process, self._process.spec.name
        process.hear(Heard.ENDED)  # what is asked from here on is asked after this end
        await stopping.close_link(process.spec, life)  # first: what the child has said before its end may tell why
        cause = cause_of_exit(
            life.exit_code,
            ready=life.ready,
            greeted=life.greeting.is_set(),
            own_exit=life.own_exit,
            reason=life.cannot_start,
            out_of_memory=life.oom_kills is not None and (oom_kills() or 0) > life.oom_kills,
        )
        if cause.kind in (Kind.FAILED_START, Kind.CANNOT_START):
            # An ImportError mostly, which a file of the project may explain better than the traceback does.
            cause = await self._starting.hidden_package() or cause
        process.last_exit = cause.words
        if process.step is not Step.POLICY:
            again = "; starting it again" if process.step is Step.BEGIN else ""
            logger.info(f"child {name} ended by itself: {cause.words}{again}")
            return None
        decision = process.decide(cause, ready_for=life.ready_for)
        if cause.kind is Kind.CANNOT_START:
            self._aftermath.cannot_start(cause)
            return None
        if decision.state is State.STOPPED:
            self._aftermath.meant_to_end(cause)
            self._tell_of_leftovers(life)
            return None
        logger.error(f"child {name} {cause.with_hint}; {decision.words}")
        self._tell_of_leftovers(life)
        return self._aftermath.carry_out(decision, cause)

    async def asked(self, life: Life) -> None:
        """End the child in order, for a stop or a restart. Which of the two is decided when the hooks have returned:
        somebody may change the wish meanwhile."""
        process = self._process
        if process.wish is Wish.RESTART:
            await self._hooks.before_restart()
        await self._hooks.before_shutdown()
        reason = "restart" if process.wish.wants_child else "stop"
        process.enter(State.STOPPING, process.why)
        logger.info(f"child {process.spec.name} is to {reason}: {process.why}")
        await self._drain_and_stop(life, reason)
        if process.wish is Wish.GIVEN_UP:  # a renewal that the policy did not allow; the child has worked until now
            process.enter(State.FAILED, process.why)

    async def unhealthy(self, life: Life, found: Unhealthy) -> float | None:
        """End a child that does not serve as it should: in order, or at once where nobody in it would act on a
        request. Its stacks are written to its output first, so that the operator can see what has blocked it."""
        process, name, words = self._process, self._process.spec.name, found.cause.words
        process.hear(Heard.ENDED)
        likely = f": {found.likely}" if found.likely else ""
        logger.error(f"child {name} {words}{likely}; {'killing' if found.kill else 'ending'} it")
        if found.state is not None:
            process.enter(found.state, words)
        if found.cause.kind is not Kind.LINK_LOST:  # then it mostly is ending already, and cannot be asked
            await stopping.show_stacks(life, process.hurry)
        process.enter(State.STOPPING, words)
        process.ready_waiters.tell(process.starts, f"{name} {words}")  # now, as the end may take long
        rung = await stopping.end(process.spec, life, words, process.hurry, kill=found.kill)
        process.last_exit = words
        how = describe_exit(life.exit_code)
        ended = f"child {name} ended after {rung or 'the loss of its link'} ({how})"
        if process.step is not Step.POLICY:
            logger.info(ended)
            return None
        decision = process.decide(found.cause, ready_for=life.ready_for)
        logger.info(f"{ended}; {decision.words}")
        return self._aftermath.carry_out(decision, found.cause)

    async def unsupervised(self, error: Exception) -> float | None:
        """End the child for certain: starting or ending it has failed half-way in the host, by *error*. A child that
        runs on without a keeper could never be stopped, and would run twice after the next start."""
        process, life = self._process, self._process.life
        process.hear(Heard.ENDED)
        self._supervising.failed(error)
        if life is not None:
            await stopping.end_at_once(process.spec, life)
        cause = exits.not_supervised(describe(error))
        process.last_exit = cause.words
        if process.step is not Step.POLICY:
            return None
        decision = process.decide(cause)
        logger.error(f"child {process.spec.name} {cause.words}; {decision.words}")
        return self._aftermath.carry_out(decision, cause)

    async def retire(self, old: Life) -> None:
        """Let the replaced child *old* finish its work and end, beside the one that serves. Cancelling it has no
        effect: the child would be left behind."""
        with anyio.CancelScope(shield=True):
            try:
                await self._hooks.before_shutdown()
                await self._drain_and_stop(old, "restart")
            except Exception as error:
                self._supervising.failed(error)
                await stopping.end_at_once(self._process.spec, old)
        self._hooks.after_restart()

    async def _drain_and_stop(self, life: Life, reason: str) -> None:
        """Let the child finish its work, end it by the stop ladder and say how that went."""
        process, name = self._process, self._process.spec.name
        asked_at = time.monotonic()
        await stopping.drain(process.spec, life, process.hurry)
        rung = await stopping.end(process.spec, life, reason, process.hurry)
        words = process.last_exit = describe_exit(life.exit_code)
        logger.info(
            f"child {name} stopped after {rung} in {time.monotonic() - asked_at:.1f} s ({words})"
            if rung is not None
            else f"child {name} had just ended by itself ({words})"
        )

    def _tell_of_leftovers(self, life: Life) -> None:
        """Warn of programs that the child had started and that were ended with it."""
        for program in life.live_child.left_behind:
            logger.warning(
                f"child {self._process.spec.name} had started {program}, which was ended with it. If that was to be "
                "the bot itself: restart it by nonebot_plugin_lycomm.restart_process()"
            )
