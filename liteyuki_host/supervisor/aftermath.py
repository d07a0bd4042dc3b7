"""What follows an end that nobody asked for, or a start that failed: what the restart policy says is carried out."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from liteyuki_host.supervisor.exits import Cause
from liteyuki_host.supervisor.kept_process import KeptProcess
from liteyuki_host.supervisor.policy import Decision
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.wish import Heard

__all__ = ["Aftermath"]


class Aftermath:
    """Of one process. For the host's event loop only.

    The methods that follow an end return the seconds until the next start; None when nothing is started any more.
    """

    def __init__(self, process: KeptProcess, on_unasked_end: Callable[[str, str], None]) -> None:
        """
        Args:
            on_unasked_end: called with the name of the process and the cause when it is started again after an end
                that nobody had asked for.
        """
        self._process = process
        self._on_unasked_end = on_unasked_end

    def carry_out(self, decision: Decision, cause: Cause, *, ended: bool = True) -> float | None:
        """Do what the policy has decided, and tell whoever waits for the process.

        Args:
            ended: there was a child, and its end may concern the neighbours.
        """
        process = self._process
        failure = f"{process.spec.name} {cause.words}"
        if decision.state is State.BACKING_OFF:
            process.why = cause.words
            process.ready_waiters.tell(process.starts, failure)
            if ended:
                self._on_unasked_end(process.spec.name, cause.words)
            return decision.delay
        process.hear(Heard.GIVE_UP if decision.state is State.FAILED else Heard.STOP)
        process.enter(decision.state, cause.words)
        process.ready_waiters.tell_everybody(failure)
        return None

    def meant_to_end(self, cause: Cause) -> None:
        """Start it no more: it ended on purpose, by its own Ctrl+C or by ``driver.exit()``."""
        process = self._process
        process.hear(Heard.STOP, cause.words)
        logger.info(f"child {process.spec.name} ended by itself: {cause.words}; not starting it again")
        process.ready_waiters.tell_everybody(f"{process.spec.name} ended by itself: {cause.words}")

    def cannot_start(self, cause: Cause) -> None:
        """Start it no more: no start can succeed before somebody changes something."""
        process = self._process
        process.hear(Heard.GIVE_UP)
        process.last_exit = cause.words
        process.enter(State.FAILED, cause.words)
        logger.error(f"child {process.spec.name} cannot start: {cause.with_hint}")
        process.ready_waiters.tell_everybody(cause.words)
