"""Channels and the shared memory as dependencies of NoneBot handlers.

::

    @matcher.handle()
    async def _(memory: SharedMemory, orders: Annotated[Channel[Order], ChannelParam("orders")]) -> None:
        await memory.aincr("handled")
        await orders.asend(Order(...))
"""

from __future__ import annotations

from typing import Annotated, Any

from nonebot.params import Depends

from liteyuki_host.comm import Channel, active_channel, get_channel, passive_channel
from liteyuki_host.comm.storage import SharedMemory as _SharedMemory
from liteyuki_host.comm.storage import shared_memory

__all__ = ["ActiveChannel", "ChannelParam", "PassiveChannel", "SharedMemory"]


# Dependencies are async throughout: NoneBot runs a sync one in a worker thread, a detour for a name lookup.
async def _passive_channel() -> Channel[Any]:
    return passive_channel


async def _active_channel() -> Channel[Any]:
    return active_channel


async def _shared_memory() -> _SharedMemory:
    return shared_memory


PassiveChannel = Annotated[Channel[Any], Depends(_passive_channel)]
"""This process's channel for callbacks, ``{process}-passive``."""

ActiveChannel = Annotated[Channel[Any], Depends(_active_channel)]
"""This process's channel for ``receive()``, ``{process}-active``."""

SharedMemory = Annotated[_SharedMemory, Depends(_shared_memory)]
"""The memory that every process reads and writes."""


def ChannelParam(name: str) -> Any:
    """The channel called ``name``, looked up each time the handler runs.

    A handler that asks for a channel nobody has declared does not run: NoneBot logs its ``UnknownChannel``.
    """

    async def _named_channel() -> Channel[Any]:
        return get_channel(name)

    return Depends(_named_channel)
