"""Send a value from a child to the host."""

from __future__ import annotations

from typing import Any

from liteyuki_host.comm.testing import Pair

DEADLINE = 10.0  # seconds


def through(pair: Pair, value: Any, kind: Any = None) -> Any:
    """What *value* arrives as through a plain channel, or through one of the type *kind*."""
    there, here = pair.host_channel("x", kind), pair.child_channel("x", kind)
    here.send(value)
    return there.receive(DEADLINE)
