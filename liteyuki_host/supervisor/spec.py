"""What the operator declared about one child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ProcessSpec:
    """One declared process. Nothing here is checked against the disk: that happens at each start.

    The three rungs of the stop ladder are counted one after another, so a child that ignores everything is
    killed ``stop_seconds + interrupt_seconds + terminate_seconds`` after it was first asked.
    """

    name: str
    """What people call it; also the first half of its channels' names (``NAME-passive``)."""

    project: Path
    """Folder of the NoneBot project. The child's working directory, so its ``.env`` is found."""

    entry: str | None = None
    """Script inside the project that ends in ``nonebot.run()``. None: what the project itself declares."""

    python: str | None = None
    """Interpreter. None: the project's own ``.venv`` where there is one, otherwise the host's."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the host's environment for this child; wins over it."""

    autostart: bool = True
    """Start it with the host. False: it waits for ``start``."""

    ready_seconds: float = 60.0
    """From spawn until ready (start-up hooks done, port open). Longer counts as a failed start."""

    stop_seconds: float = 6.0
    """First rung: what a child gets to end by itself after the stop message."""

    interrupt_seconds: float = 1.5
    """Second rung: after SIGINT (Windows: CTRL_BREAK)."""

    terminate_seconds: float = 1.5
    """Third rung: after SIGTERM; then it is killed. Windows has no such rung."""

    restart_delay: float = 1.0
    """Seconds between a child's unasked end and its next start."""
