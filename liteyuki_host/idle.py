"""A host with nothing to do: why nothing runs, whether it stays, and what the operator can do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from liteyuki_host.settings import OnFailed
from liteyuki_host.supervisor.life import ProcessStatus
from liteyuki_host.supervisor.spec import ProcessSpec, Reload
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.supervisor import Supervisor


@dataclass(frozen=True)
class Idle:
    """Nothing runs, and nothing will start by itself."""

    why: str
    """What has become of each process, in words."""
    failed: bool
    """Whether a process has failed; otherwise all have ended as they were meant to."""
    elsewhere: bool
    """Every process that was to start runs under another host."""

    def why_it_ends(self) -> str:
        """The last line before the host ends, with what the operator can do."""
        if self.elsewhere:
            advice = "two hosts cannot run the same bots"
        elif self.failed:
            advice = 'correct the cause and start the host again; on_failed = "stay" would keep it up'
        else:
            advice = 'start the host again when it is needed; on_failed = "stay" would keep it up'
        return f"no process runs and none will start by itself: {self.why}; {advice}"

    def why_it_stays(self, reason: str) -> str:
        """The line of a host that stays, with what the operator can do."""
        again = f"`kill -HUP {os.getpid()}` tries failed ones again" if sys.platform != "win32" else "restart the host"
        advice = f"correct the cause, then {again}" if self.failed else "start one, or press Ctrl+C to end the host"
        return f"no process runs and none will start by itself: {self.why}; the host stays up ({reason}): {advice}"


async def until_of_no_use(
    supervisor: Supervisor, specs: Mapping[str, ProcessSpec], reason_to_stay: Callable[[], str | None]
) -> Idle:
    """Wait until nothing runs, nothing will start by itself, and there is no reason to stay.

    When there is one, that is said once, each time when the last process has come to rest.

    Args:
        reason_to_stay: asked when nothing runs; see :func:`why_stay`. A host all of whose bots run under another host
            is of no use, whatever it says.
    """
    while True:
        await supervisor.idle()
        status = supervisor.status()
        idle = Idle(
            "; ".join(_words(specs[each.name], each) for each in status),
            failed=any(each.state is State.FAILED for each in status),
            elsewhere=supervisor.runs_elsewhere,
        )
        reason = reason_to_stay()
        if reason is None or idle.elsewhere:
            return idle
        logger.warning(idle.why_it_stays(reason))
        await supervisor.active()


def why_stay(
    specs: Mapping[str, ProcessSpec], *, on_failed: OnFailed, modules: Sequence[str], hooks: bool
) -> str | None:
    """Return why a host without running processes is of use, in words; None when it is of none."""
    if on_failed is OnFailed.STAY:
        return 'on_failed = "stay"'
    if modules:
        return f"it has modules of its own: {', '.join(modules)}"
    if hooks:
        return "the program that made it has registered hooks"
    reloading = [name for name, spec in specs.items() if spec.reload is not Reload.OFF]
    if reloading:
        return f"a change of the files starts {', '.join(reloading)} again (reload)"
    return None


def _words(spec: ProcessSpec, status: ProcessStatus) -> str:
    if status.state is State.DECLARED:
        if spec.after and spec.autostart:
            return f"{spec.name} waits for {', '.join(spec.after)}"
        return f"{spec.name} is started only when asked (autostart = false)"
    cause = f" ({status.last_exit})" if status.last_exit else ""
    return f"{spec.name} {'has failed' if status.state is State.FAILED else 'has stopped'}{cause}"
