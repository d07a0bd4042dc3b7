"""The peers: whatever else connects two Python processes on one machine, and lycomm, which is one of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.base import Peer

_HOMES = {
    "lycomm": ".lycomm:Lycomm",
    "mp.Pipe": ".pipes:Pipe",
    "mp.Queue": ".pipes:Queue",
    "magicoca": ".pipes:Magicoca",
    "zmq + msgspec": ".zeromq:ZmqPair",
    "raw socketpair": ".sockets:RawSocketPair",
    "socketpair + msgspec": ".sockets:MsgspecSocketPair",
    "socketpair + msgspec batched": ".sockets:BatchedSocketPair",
    "redis list": ".redisdb:RedisList",
    "redis pubsub": ".redisdb:RedisPubSub",
    "UltraDict": ".stores:UltraDict",
    "shared-memory-dict": ".stores:SharedMemoryDict",
    "mp.Manager dict": ".stores:ManagerDict",
    "redis": ".redisdb:RedisStore",
    "local dict": ".stores:LocalDict",
    "local dict + msgspec": ".stores:EncodedDict",
    "nb run": ".nonebot:NbRun",
    "python, without a host": ".nonebot:PlainNoneBot",
}

NAMES = tuple(_HOMES)

REFERENCE = "mp.Pipe"
"""What everybody has: each figure is also given as a multiple of it."""

OURS = "lycomm"

LIMITS = (
    "raw socketpair",
    "socketpair + msgspec",
    "socketpair + msgspec batched",
    "local dict",
    "local dict + msgspec",
)
"""What nothing that does more can beat: not offered to anybody, and no peer in the question which is the best one."""


def peer(name: str) -> Peer:
    """The peer of that name. Only its own module is imported: what a process has loaded counts in some measures.

    Raises:
        ValueError: there is none.
    """
    if name not in _HOMES:
        raise ValueError(f"there is no peer {name!r}; there are {', '.join(NAMES)}")
    module, _, attribute = _HOMES[name].partition(":")
    made: Peer = getattr(importlib.import_module(module, __name__), attribute)()
    return made
