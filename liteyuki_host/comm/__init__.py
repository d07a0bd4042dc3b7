"""The core that host and bot processes share: channels, topics, the shared memory, and the link under them.

Names are resolved on first use, like those of ``liteyuki_host``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liteyuki_host._lazy import resolve

if TYPE_CHECKING:
    from liteyuki_host.comm.channel.channel import Channel as Channel
    from liteyuki_host.comm.channel.names import active_channel as active_channel
    from liteyuki_host.comm.channel.names import get_channel as get_channel
    from liteyuki_host.comm.channel.names import get_channels as get_channels
    from liteyuki_host.comm.channel.names import passive_channel as passive_channel
    from liteyuki_host.comm.channel.names import set_channel as set_channel
    from liteyuki_host.comm.storage import SharedMemory as SharedMemory
    from liteyuki_host.comm.storage import shared_memory as shared_memory
    from liteyuki_host.comm.topics import apublish as apublish
    from liteyuki_host.comm.topics import publish as publish
    from liteyuki_host.comm.topics import subscribe as subscribe
    from liteyuki_host.comm.topics import unsubscribe as unsubscribe

__all__ = [  # noqa: RUF022  (grouped by module)
    # channel
    "Channel",
    "active_channel",
    "get_channel",
    "get_channels",
    "passive_channel",
    "set_channel",
    # topics
    "apublish",
    "publish",
    "subscribe",
    "unsubscribe",
    # storage
    "SharedMemory",
    "shared_memory",
]

_HOMES = {
    "Channel": ".channel.channel",
    "active_channel": ".channel.names",
    "get_channel": ".channel.names",
    "get_channels": ".channel.names",
    "passive_channel": ".channel.names",
    "set_channel": ".channel.names",
    "apublish": ".topics",
    "publish": ".topics",
    "subscribe": ".topics",
    "unsubscribe": ".topics",
    "SharedMemory": ".storage",
    "shared_memory": ".storage",
}


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)
