"""Which bot of the same host listens on an address: for the words of a bot that wants it too."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from liteyuki_host.comm.errors import LycommError

if TYPE_CHECKING:
    from liteyuki_host.comm.process.node import Node

ANSWER_SECONDS = 2.0
"""For the host to say where its bots listen; it takes milliseconds."""


async def sibling_on(node: Node, host: str, port: int) -> str | None:
    """The name of the other bot of this host that listens there. None: none does, as far as the host can tell."""
    with contextlib.suppress(LycommError):
        statuses = await node.control("status", timeout=ANSWER_SECONDS)
        others = [status for status in statuses if status["name"] != node.process]
        return listener_among(others, host, port)
    return None


def listener_among(statuses: Sequence[Mapping[str, Any]], host: str, port: int) -> str | None:
    """The name of the first of these processes whose address keeps others from listening on *host* and *port*."""
    for status in statuses:
        if _is_in_the_way(status.get("address"), host, port):
            return str(status["name"])
    return None


def _is_in_the_way(address: str | None, host: str, port: int) -> bool:
    if address is None or address.startswith("unix:"):
        return False
    try:
        parts = urlsplit(address)
        return parts.port == port and _overlap(parts.hostname or "", host)
    except ValueError:
        return False


def _overlap(one: str, other: str) -> bool:
    """Whether two hosts may stand for the same interface: each is an address or a name."""
    first, second = _address(one), _address(other)
    if first is None or second is None:
        return one.lower() == other.lower()  # a name of which nothing is known
    if first.is_unspecified or second.is_unspecified:  # all interfaces; of both families on some systems
        return True
    return first == second or (first.is_loopback and second.is_loopback and "localhost" in (one, other))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if host.lower() == "localhost":
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
