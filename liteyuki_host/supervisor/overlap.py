"""What ``reload = "overlap"`` needs: two incarnations of a bot that are there at the same time, on one port."""

from __future__ import annotations

import sys

from liteyuki_host._child.codes import ALONE, BESIDE, SHARE_PORT
from liteyuki_host.supervisor.handles import Variable


def can_overlap(address: str | None, platform: str = sys.platform) -> bool:
    """Whether a second incarnation can be ready while the one that runs still serves.

    Args:
        address: what the one that runs listens on. None: nothing, or a port of the system's choice.
    """
    if address is None:
        return True
    # A Unix socket's file belongs to one server, and would be removed by the one that ends.
    return platform != "win32" and not address.startswith("unix:")


class SharedPort(Variable):
    """For a child of a process that is reloaded by overlap."""

    def __init__(self, *, beside: bool) -> None:
        """
        Args:
            beside: another incarnation serves at this moment.
        """
        super().__init__(SHARE_PORT, BESIDE if beside else ALONE)
