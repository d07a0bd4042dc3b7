"""Channels: what a process sends, what it receives, and how its callbacks are called.

Names are resolved on first use, so that the host's and the link's half load nothing of the handles.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liteyuki_host.comm.channel.channel import Channel as Channel
    from liteyuki_host.comm.channel.names import active_channel as active_channel
    from liteyuki_host.comm.channel.names import get_channel as get_channel
    from liteyuki_host.comm.channel.names import get_channels as get_channels
    from liteyuki_host.comm.channel.names import passive_channel as passive_channel
    from liteyuki_host.comm.channel.names import set_channel as set_channel

__all__ = ["Channel", "active_channel", "get_channel", "get_channels", "passive_channel", "set_channel"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = ".channel" if name == "Channel" else ".names"
        return getattr(importlib.import_module(home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
