"""Channels and memory as NoneBot dependencies."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from exceptiongroup import ExceptionGroup
from nonebot.params import DependParam
from nonebot.utils import flatten_exception_group
from nonebug import App

from liteyuki_host.comm.errors import UnknownChannel
from nonebot_plugin_lycomm import (
    ActiveChannel,
    Channel,
    ChannelParam,
    PassiveChannel,
    SharedMemory,
    active_channel,
    passive_channel,
    shared_memory,
)


async def test_a_handler_gets_this_processs_channels_and_the_memory(app: App) -> None:
    async def handler(passive: PassiveChannel, active: ActiveChannel, memory: SharedMemory) -> Any:
        return passive, active, memory

    async with app.test_dependent(handler, allow_types=[DependParam]) as ctx:
        ctx.should_return((passive_channel, active_channel, shared_memory))


async def test_a_handler_gets_a_channel_by_name_in_both_ways_of_writing_it(app: App) -> None:
    async def annotated(channel: Annotated[Channel[Any], ChannelParam("nonebot-passive")]) -> Any:
        return channel

    async def default(channel: Channel[Any] = ChannelParam("nonebot-passive")) -> Any:  # noqa: B008
        return channel

    for handler in (annotated, default):
        async with app.test_dependent(handler, allow_types=[DependParam]) as ctx:
            ctx.should_return(passive_channel)


async def test_a_channel_nobody_declared_is_a_clear_error(app: App) -> None:
    async def handler(channel: Annotated[Channel[Any], ChannelParam("nope")]) -> None:
        pytest.fail("the handler ran")

    # NoneBot solves dependencies in a task group, and logs what comes out of it.
    with pytest.raises(ExceptionGroup) as caught:
        async with app.test_dependent(handler, allow_types=[DependParam]):
            pass
    (error,) = flatten_exception_group(caught.value)
    assert isinstance(error, UnknownChannel)
    assert "nope" in str(error)
