"""What is known of a process: one child from spawn to gone, a snapshot for people, and whom the supervisor talks to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from liteyuki_host.hub import SessionListener
from liteyuki_host.supervisor.process import Child
from liteyuki_host.supervisor.states import State, Transition
from liteyuki_host.wording import one_line

REASON_LIMIT = 600
"""Characters of a reason not to start. Some name a path and a command."""

if TYPE_CHECKING:
    from liteyuki_host.comm.transport import Transport

__all__ = ["Context", "HubLike", "Life", "ProcessStatus", "SessionLike", "SupervisorEvents"]


class SessionLike(Protocol):
    def stop(self, reason: str) -> None: ...
    def drain(self, timeout: float) -> None: ...
    def watch(self, interval: float) -> None: ...
    def ping(self) -> None: ...
    def dump_stacks(self) -> None: ...
    def close(self, cause: str) -> None: ...


class HubLike(Protocol):
    """What the supervisor needs of the hub."""

    def connect(
        self, process: str, transport: Transport, listener: SessionListener, *, standby: bool = False
    ) -> SessionLike: ...


@dataclass(frozen=True)
class Context:
    """What a hook around a process's life may want to know."""

    name: str
    cause: str
    """Why it ends or was restarted, in words: ``asked``, ``plugins/weather.py has changed``."""
    pid: int | None
    uptime: float | None
    """Seconds since the spawn of the child; None when there is none."""
    restarts: int
    """Starts after the first, for whatever reason."""
    last_exit: str | None
    """How the child before this one ended, in words."""


class SupervisorEvents(Protocol):
    """Told by the process's own task; a failure is logged and ends nothing.

    The two ``before`` events are waited for, up to ``stop_timeout`` of the process.
    """

    async def before_process_shutdown(self, context: Context) -> None: ...
    async def before_process_restart(self, context: Context) -> None: ...
    async def after_restart(self, context: Context) -> None: ...
    def stepped(self, step: Transition) -> None: ...


@dataclass(frozen=True)
class ProcessStatus:
    """A snapshot of one process."""

    name: str
    state: State
    pid: int | None
    started_at: float | None
    """``time.monotonic()`` of the spawn; None when it is not running."""
    restarts: int
    """Starts after the first, for whatever reason."""
    last_exit: str | None
    """How it last ended, in words."""
    memory: int | None
    """Resident bytes of it and all it started, as last measured; None without a ``memory_limit``."""
    address: str | None
    """Where it listens; None before it is ready, and for a bot that opens no port."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Adapter name to the address its client connects to."""

    @property
    def uptime(self) -> float | None:
        """Seconds since the spawn; None when it is not running."""
        return None if self.started_at is None else time.monotonic() - self.started_at


class Life(SessionListener):
    """One child from spawn to gone, and what has been heard of it. Also the listener on its link."""

    def __init__(self, name: str, post: Callable[[Callable[[], None]], None], wake: asyncio.Event) -> None:
        self.name = name
        self.child: Child | None = None
        self.session: SessionLike | None = None
        self.belongings = contextlib.ExitStack()
        """What the host holds for this child; closed by whoever ends it, in a worker thread."""
        self.greeting = asyncio.Event()
        self.ready_at: float | None = None
        self.oom_kills: int | None = None
        """How often the system had ended a process for lack of memory when this one was spawned."""
        self.hooks_done = False
        self.failed_plugins: frozenset[str] = frozenset()
        self.host_files: Mapping[Path, object] | None = None
        """By file, what the files of the host's settings held for it when it was spawned; None: they are no concern of
        its, or that is not known."""
        self.ready = False
        self.beat_at: float | None = None
        self.pong_at: float | None = None
        self.asked_until = 0.0
        """Until when the child has asked for more time; ``time.monotonic()``."""
        self.asked_why = ""
        self.unfinished = 0
        """Events that it had begun and not finished, when it last told."""
        self.unfinished_names: tuple[str, ...] = ()
        self.not_begun = 0
        self.shutdown_work = False
        """It was interrupted while it started, and runs its shutdown hooks, or what the project does after them."""
        self.shutdown_work_ended_at: float | None = None
        self.shutdown_work_told = asyncio.Event()
        """Set whenever one of these two changes; cleared by whoever waits for that."""
        self.own_exit: str | None = None
        """The place in the bot's own code that ends it by ``sys.exit()``, in words."""
        self.cannot_start: str | None = None
        """What has to be changed before a start of the bot can work, in one line; it ends itself after it has told."""
        self.address: str | None = None
        self.details: Mapping[str, str] = {}
        self.ending_at: float | None = None
        """When it was first asked to finish its work or to end."""
        self.link_closed_at: float | None = None
        self.link_cause: str | None = None
        """None after the end of the link: the child said goodbye."""
        self.returncode: int | None = None
        self.gone = asyncio.Event()
        self.link_closed = asyncio.Event()
        self.drained = asyncio.Event()
        self._post = post
        self.wake = wake

    @property
    def live_child(self) -> Child:
        assert self.child is not None  # from the spawn on
        return self.child

    @property
    def live_session(self) -> SessionLike:
        assert self.session is not None  # from the spawn on
        return self.session

    @property
    def exit_code(self) -> int:
        assert self.returncode is not None  # once it is gone
        return self.returncode

    @property
    def is_gone(self) -> bool:
        """Whether no child is there: it never was, or has ended."""
        return self.child is None or not self.child.alive

    @property
    def reachable(self) -> bool:
        return self.ready and self.link_closed_at is None and self.returncode is None

    def serves_at(self, moment: float) -> bool:
        """Whether it was serving at that moment (``time.monotonic()``): ready, and neither asked to end nor ending."""
        ends = [at for at in (self.ending_at, self.link_closed_at) if at is not None]
        return self.ready_at is not None and self.ready_at <= moment < min(ends, default=float("inf"))

    def is_to_end(self) -> None:
        """Call when it is asked to finish its work or to end; the first time counts."""
        if self.ending_at is None:
            self.ending_at = time.monotonic()
        if self.child is not None:
            self.child.asked_to_end = True

    def put_off(self, deadline: float) -> float:
        """The later one, if the child has asked for more time."""
        return max(deadline, self.asked_until)

    # SessionListener: called by whoever reads the link.

    def on_hello(self, pid: int) -> None:
        self._heard(then=self.greeting.set)

    def on_hooks_done(self, adapters: Sequence[str], failed_plugins: Sequence[str]) -> None:
        self._heard(hooks_done=True, failed_plugins=frozenset(failed_plugins), then=self.shutdown_work_told.set)

    def on_ready(self, address: str | None, details: Mapping[str, str]) -> None:
        now = time.monotonic()
        self._heard(hooks_done=True, ready=True, ready_at=now, address=address, details=dict(details))

    def on_beat(self, late: float) -> None:
        self.beat_at = time.monotonic()  # not worth waking the host's loop for: the watchdog looks by itself

    def on_pong(self) -> None:
        self.pong_at = time.monotonic()

    def on_more_time(self, seconds: float, reason: str) -> None:
        self._heard(asked_until=time.monotonic() + seconds, asked_why=reason)

    def on_drained(self, names: Sequence[str], not_begun: int, unfinished: int) -> None:
        self._heard(unfinished_names=tuple(names), not_begun=not_begun, unfinished=unfinished, then=self.drained.set)

    def on_shutdown_work(self, running: bool) -> None:
        ended_at = None if running else time.monotonic()
        self._heard(shutdown_work=running, shutdown_work_ended_at=ended_at, then=self.shutdown_work_told.set)

    def on_own_exit(self, place: str) -> None:
        self._heard(own_exit=place)

    def on_cannot_start(self, reason: str) -> None:
        self._heard(cannot_start=one_line(reason, REASON_LIMIT))

    def on_closed(self, cause: str | None) -> None:
        self._heard(link_closed_at=time.monotonic(), link_cause=cause, then=self.link_closed.set)

    # Called on the thread that waits for the child.

    def on_exit(self, returncode: int) -> None:
        self._heard(returncode=returncode, then=self.gone.set)

    def _heard(self, *, then: Callable[[], None] | None = None, **facts: object) -> None:
        def record() -> None:
            for fact, value in facts.items():
                setattr(self, fact, value)
            if then is not None:
                then()
            self.wake.set()

        self._post(record)
