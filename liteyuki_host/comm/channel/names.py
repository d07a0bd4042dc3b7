"""Channels by name: those of this process, and those that any process has declared."""

from __future__ import annotations

from types import UnionType
from typing import Any, overload

from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.comm.channel.handle import T, declare
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.names import check_name

__all__ = ["active_channel", "get_channel", "get_channels", "passive_channel", "set_channel"]


class _OwnChannel(Channel[Any]):
    """One of the two channels of whatever this process is called; importable before that is known."""

    __slots__ = ("_suffix",)

    def __init__(self, suffix: str) -> None:
        super().__init__(suffix)
        self._suffix = suffix

    @property
    def name(self) -> str:
        return f"{(self._exchange or current()).process}-{self._suffix}"


active_channel: Channel[Any] = _OwnChannel("active")
"""``{process}-active`` of this process: meant for ``receive()`` in a thread of its own, or ``areceive()``."""

passive_channel: Channel[Any] = _OwnChannel("passive")
"""``{process}-passive`` of this process: meant for ``on_receive`` callbacks."""


@overload
def get_channel(name: str, kind: type[T]) -> Channel[T]: ...
@overload
def get_channel(name: str, kind: UnionType | None = None) -> Channel[Any]: ...
def get_channel(name: str, kind: Any = None) -> Channel[Any]:
    """The channel that some process has declared under *name*. Answers at once, from any process.

    Args:
        kind: the type of the messages, as in ``Channel(name, kind)``.

    Raises:
        UnknownChannel: (a KeyError) there is none.
    """
    current().check_known(check_name(name, "channel"))
    return Channel(name, kind)


def get_channels() -> dict[str, Channel[Any]]:
    """Every declared channel by name; a new dict each time."""
    return {name: Channel(name) for name in sorted(current().channel_names())}


def set_channel(name: str, channel: Channel[Any]) -> None:
    """Make a channel known to all processes under its name, as long as this process lives.

    That holds for the last 20,000 names of a process. Earlier ones are known as long as some process uses the channel:
    has a Channel object of that name, a callback, or messages that wait in it.

    Raises:
        TypeError: *channel* is no Channel.
        ValueError: it has another name.
    """
    if not isinstance(channel, Channel):
        raise TypeError(f"set_channel takes a Channel, not {type(channel).__name__}")
    if channel.name != name:
        raise ValueError(f"the channel's own name is {channel.name!r}, not {name!r}; a channel has one name everywhere")
    declare(current(), name, True)
