"""What the operator declared about one child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Restart(str, Enum):
    """What an end that nobody asked for leads to."""

    ALWAYS = "always"
    """A new start, also after it ended by itself with code 0."""
    ON_FAILURE = "on-failure"
    """A new start, unless it ended by itself with code 0."""
    NEVER = "never"

    def __str__(self) -> str:
        return self.value


class Reload(str, Enum):
    """What a change of the project's files leads to."""

    OFF = "off"
    SWAP = "swap"
    """Try the new code in a throw-away process; if it can start, stop the bot and start it anew."""
    OVERLAP = "overlap"
    """The same, and start the new one first: the old one is stopped once the new one is ready."""

    def __str__(self) -> str:
        return self.value


class Strategy(str, Enum):
    """Who is restarted when a process ends unasked, as in OTP."""

    ONE = "one"
    """It alone."""
    ALL = "all"
    """Every running process."""
    REST = "rest"
    """It, and the running processes that are declared after it."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ProcessSpec:
    """One declared process. Nothing here is checked against the disk: that happens at each start.

    The three rungs of the stop ladder are counted one after another, so a child that ignores everything is
    killed ``stop_timeout + interrupt_timeout + terminate_timeout`` after it was first asked.
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

    terminal: bool = False
    """It gets the host's own standard input and output, while the host has a terminal. Of one process at most."""

    restart: Restart = Restart.ON_FAILURE
    """What an end that nobody asked for leads to."""

    max_restarts: int = 10
    """Unasked restarts within ``restart_window``; one more, and the process has failed. 0: none at all."""

    restart_window: float = 600.0
    """Seconds over which restarts are counted. 600 with the back-off below: a bot that always crashes at once is
    given up after about five minutes; one that crashes every two minutes never."""

    backoff_base: float = 1.0
    """Seconds before the first restart in a row; doubled for each further one, with 20 % of jitter."""

    backoff_max: float = 60.0
    """Seconds that a restart waits at most. A run this long (at least 10 s) begins the row anew."""

    ready_timeout: float = 60.0
    """Seconds from spawn until ready (start-up hooks done, port open). Longer counts as a failed start."""

    loop_timeout: float = 30.0
    """Seconds that the bot's event loop may be blocked, once ready. Longer, and it is replaced. 0: not watched."""

    freeze_timeout: float = 30.0
    """Seconds that the whole process may be silent, once ready: stopped, or the interpreter's lock held. 0: not
    watched."""

    drain_timeout: float = 10.0
    """Seconds that running handlers get to finish before an asked stop or restart begins. 0: none."""

    stop_timeout: float = 6.0
    """First rung: seconds that a child gets to end by itself after the stop message."""

    interrupt_timeout: float = 1.5
    """Second rung: seconds after SIGINT (Windows: CTRL_BREAK)."""

    terminate_timeout: float = 1.5
    """Third rung: seconds after SIGTERM; then it is killed. Windows has no such rung."""

    memory_limit: int = 0
    """Bytes of resident memory of the child and all it started; above it is restarted as if asked. 0: no limit."""

    max_age: float = 0.0
    """Seconds after which it is restarted as if asked; varied by 10 %, so that several do not go at once. 0: never."""

    reload: Reload = Reload.OFF
    """What a change of its files leads to."""

    reload_dirs: Sequence[Path] = ()
    """Absolute folders that are watched; none: the project's."""

    after: Sequence[str] = ()
    """Names of processes that are to be ready before this one is started; it is stopped before them."""

    strategy: Strategy = Strategy.ONE
    """Who is restarted when this process ends unasked."""
