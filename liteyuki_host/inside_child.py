"""Keeps a bot process from becoming a host: mostly a script that starts a host was named as the bot's own."""

from __future__ import annotations

import os
import sys

from liteyuki_host._child.codes import CANNOT_START
from liteyuki_host.comm.errors import HostError
from liteyuki_host.comm.process.current import peek
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.transport import LINK_VARIABLE

__all__ = ["refuse_inside_child"]


def refuse_inside_child() -> None:
    """Return if this process is no host's child.

    Raises:
        HostError: the launcher of a bot runs this script.
        SystemExit: the host has started this script in place of an interpreter, so no launcher runs. The code tells the
            host that no other try can succeed.
    """
    if LINK_VARIABLE in os.environ:  # the launcher of a bot would have taken it out
        name = os.environ.get("LYCOMM_PROCESS", "?")
        sys.stderr.write(
            f"this program was started as the bot {name}, but starts a host: "
            "python of its process must be a Python interpreter\n"
        )
        raise SystemExit(CANNOT_START)

    exchange = peek()
    if isinstance(exchange, Node) and exchange.attached:
        raise HostError(
            f"this script starts a host, but it runs as the host's child {exchange.process!r}; the child needs the "
            "script that calls nonebot.run(): name it as `entry` of the process in [tool.lycomm.processes]"
        )
