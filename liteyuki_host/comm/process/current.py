"""The exchange of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from liteyuki_host.comm.errors import HostError, LycommError
from liteyuki_host.comm.process.epoch import new_epoch

if TYPE_CHECKING:
    from liteyuki_host.comm.process.exchange import Exchange
    from liteyuki_host.comm.process.node import Node

__all__ = ["current", "current_node", "follow_current", "peek", "set_current"]

# The one place where a process keeps its exchange.
_current: Exchange | None = None
_bound: list[Callable[[Exchange], None]] = []
_current_lock = threading.RLock()


def current() -> Exchange:
    """This process's exchange. Without a host and before anything else it is a node of its own."""
    exchange = _current
    if exchange is None:
        with _current_lock:
            if _current is None:
                from liteyuki_host.comm.process.node import Node  # loaded on first use: the host never needs it

                set_current(Node())
            exchange = _current
    if exchange is None:
        raise LycommError("this process has no exchange")
    return exchange


def current_node() -> Node:
    """This process's node.

    Raises:
        HostError: this process is the host itself.
    """
    from liteyuki_host.comm.process.node import Node

    exchange = current()
    if not isinstance(exchange, Node):
        raise HostError("this process is the host; the bot's half cannot be used in it")
    return exchange


def peek() -> Exchange | None:
    """This process's exchange, if it has one already."""
    return _current


def set_current(exchange: Exchange | None) -> None:
    """Make *exchange* this process's own; None goes back to a fresh node on the next use."""
    global _current
    with _current_lock:
        _current = exchange
        new_epoch()
        if exchange is not None:
            for rebind in _bound:
                rebind(exchange)


def follow_current(rebind: Callable[[Exchange], None]) -> None:
    """Call *rebind* with the current exchange, and again whenever there is another. For module-level names."""
    with _current_lock:
        _bound.append(rebind)
        if _current is not None:
            rebind(_current)
