"""What happens to the processes, as hooks of the host's modules and as publications."""

from __future__ import annotations

from liteyuki_host import lifespan
from liteyuki_host.comm.topics import STATES_TOPIC, publish
from liteyuki_host.hub import Hub
from liteyuki_host.lifespan import Lifespan
from liteyuki_host.supervisor.life import Context
from liteyuki_host.supervisor.states import Transition


class ProcessEvents:
    """The supervisor's events. A failure of a hook is logged where it runs."""

    def __init__(self, hooks: Lifespan, hub: Hub) -> None:
        self._lifespan = hooks
        self._hub = hub

    async def before_process_shutdown(self, context: Context) -> None:
        await self._lifespan.fire(lifespan.BEFORE_PROCESS_SHUTDOWN, context.name, context)

    async def before_process_restart(self, context: Context) -> None:
        await self._lifespan.fire(lifespan.BEFORE_PROCESS_RESTART, context.name, context)

    async def after_restart(self, context: Context) -> None:
        await self._lifespan.fire(lifespan.AFTER_RESTART, context.name, context)

    def stepped(self, step: Transition) -> None:
        publish(
            STATES_TOPIC,
            {
                "process": step.process,
                "previous": str(step.previous),
                "state": str(step.state),
                "cause": step.cause,
                "at": step.at,
                "pid": step.pid,
                "restarts": step.restarts,
            },
            exchange=self._hub,
        )
