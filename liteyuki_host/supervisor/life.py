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
    """What the supervisor needs of a child's session; see ``hub.session.Session``."""

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
    """One child from its spawn until nothing of it is left: its parts, and what has been heard of it.

    How facts arrive
    ----------------

    A child is heard of on three threads: the one that reads its link, the one that waits for its end, and the host's
    event loop. The supervisor runs on the event loop and must not see half of a message. So a fact from another thread
    is posted to the loop as one function, which sets every attribute of that message, then the event that somebody may
    wait for, then ``wake`` (see :meth:`_heard`). Only the times of beats and pongs are set where they arrive.

    Attributes are written on the host's event loop unless they say otherwise. Moments are ``time.monotonic()``.

    Args:
        name: of the process.
        post: has a function called on the host's event loop, from any thread; drops it when the loop has ended.
        wake: set whenever something new has been heard.
    """

    def __init__(self, name: str, post: Callable[[Callable[[], None]], None], wake: asyncio.Event) -> None:
        self.name = name
        self._post = post
        self.wake = wake
        """Set when something new has been heard. Replaced by the keeper when this child takes over from another."""

        # The child's parts. Set once by the spawner.
        self.child: Child | None = None
        self.session: SessionLike | None = None
        self.belongings = contextlib.ExitStack()
        """What the host holds for this child; closed by whoever ends it, in a worker thread."""
        self.oom_kills: int | None = None
        """How many processes the system had ended for lack of memory when this one was spawned; None: not known."""

        # Its start.
        self.greeting = asyncio.Event()
        """Set when the child has greeted over its link."""
        self.hooks_done = False
        """Its start-up hooks have returned."""
        self.failed_plugins: frozenset[str] = frozenset()
        """Plugins that could not be loaded, and that it runs without."""
        self.host_files: Mapping[Path, object] | None = None
        """By file, what the files of the host's settings held for it when it was spawned; None: they do not concern it,
        or that is not known. Set by the spawner."""
        self.ready = False
        self.ready_at: float | None = None
        self.address: str | None = None
        """Where it listens; None before it is ready, and for a bot that opens no port."""
        self.details: Mapping[str, str] = {}
        """By adapter, the address that the adapter's client connects to."""

        # Signs of life. Written by the thread that reads the link, at once: the watchdog looks at them by itself, and
        # a beat is not worth waking the host's event loop for.
        self.beat_at: float | None = None
        """When its event loop has last shown that it turns."""
        self.pong_at: float | None = None
        """When its link has last answered a ping."""

        # Its own wishes.
        self.asked_until = 0.0
        """Until when the child has asked to be spared by the limits."""
        self.asked_why = ""

        # Its end.
        self.ending_at: float | None = None
        """When it was first asked to finish its work or to end."""
        self.drained = asyncio.Event()
        """Set when the child has told how its drain went; cleared by whoever asks again."""
        self.not_begun = 0
        """Events that came too late to be begun, as last told."""
        self.unfinished = 0
        """Events that were begun and not finished, as last told."""
        self.unfinished_names: tuple[str, ...] = ()
        """The handlers of those events, in words."""
        self.shutdown_work = False
        """It was interrupted during its start, and runs its shutdown hooks or what the project does after them."""
        self.shutdown_work_ended_at: float | None = None
        """When that was over; None before."""
        self.shutdown_work_told = asyncio.Event()
        """Set when `hooks_done` or one of these two has changed; cleared by whoever waits for that."""
        self.own_exit: str | None = None
        """The place in the bot's own code that ends it by ``sys.exit()``, in words."""
        self.cannot_start: str | None = None
        """What has to be changed before a start of the bot can work, in one line; it ends itself after it has told."""
        self.link_closed = asyncio.Event()
        """Set when the link is over."""
        self.link_closed_at: float | None = None
        self.link_cause: str | None = None
        """Why the link is over; None, once it is: the child has said goodbye."""
        self.gone = asyncio.Event()
        """Set when the process has ended."""
        self.returncode: int | None = None
        """As ``subprocess.Popen`` has it; None while the process runs."""

    # --- parts that are there from the spawn on -----------------------------------------------------------------

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

    # --- questions ----------------------------------------------------------------------------------------------

    @property
    def is_gone(self) -> bool:
        """Whether no child is there: it never was, or has ended."""
        return self.child is None or not self.child.alive

    @property
    def reachable(self) -> bool:
        """Whether it is ready and neither its link nor its process has ended, as far as has been heard."""
        return self.ready and self.link_closed_at is None and self.returncode is None

    @property
    def ready_for(self) -> float:
        """Seconds since it became ready; 0 when it never did."""
        return 0.0 if self.ready_at is None else time.monotonic() - self.ready_at

    def serves_at(self, moment: float) -> bool:
        """Whether it was serving at *moment*: ready, and neither asked to end nor ending."""
        ends = [at for at in (self.ending_at, self.link_closed_at) if at is not None]
        return self.ready_at is not None and self.ready_at <= moment < min(ends, default=float("inf"))

    def put_off(self, deadline: float) -> float:
        """The moment *deadline*, or the later one until which the child has asked for time."""
        return max(deadline, self.asked_until)

    def is_to_end(self) -> None:
        """Note that it is asked to finish its work or to end. The first call counts."""
        if self.ending_at is None:
            self.ending_at = time.monotonic()
        if self.child is not None:
            self.child.asked_to_end = True

    # --- SessionListener: called by the thread that reads the link ----------------------------------------------
    # The facts are set on `life`, which is this object, and not on `self`: there a type checker reports a name that
    # `__init__` does not have, where an assignment to `self` would define a new attribute.

    def on_hello(self, pid: int) -> None:
        self._heard(lambda life: life.greeting.set())

    def on_hooks_done(self, adapters: Sequence[str], failed_plugins: Sequence[str]) -> None:
        def record(life: Life) -> None:
            life.hooks_done = True
            life.failed_plugins = frozenset(failed_plugins)
            life.shutdown_work_told.set()

        self._heard(record)

    def on_ready(self, address: str | None, details: Mapping[str, str]) -> None:
        now = time.monotonic()

        def record(life: Life) -> None:
            life.hooks_done = True
            life.ready = True
            life.ready_at = now
            life.address = address
            life.details = dict(details)

        self._heard(record)

    def on_beat(self, late: float) -> None:
        life: Life = self
        life.beat_at = time.monotonic()

    def on_pong(self) -> None:
        life: Life = self
        life.pong_at = time.monotonic()

    def on_more_time(self, seconds: float, reason: str) -> None:
        until = time.monotonic() + seconds

        def record(life: Life) -> None:
            life.asked_until = until
            life.asked_why = reason

        self._heard(record)

    def on_drained(self, names: Sequence[str], not_begun: int, unfinished: int) -> None:
        def record(life: Life) -> None:
            life.unfinished_names = tuple(names)
            life.not_begun = not_begun
            life.unfinished = unfinished
            life.drained.set()

        self._heard(record)

    def on_shutdown_work(self, running: bool) -> None:
        ended_at = None if running else time.monotonic()

        def record(life: Life) -> None:
            life.shutdown_work = running
            life.shutdown_work_ended_at = ended_at
            life.shutdown_work_told.set()

        self._heard(record)

    def on_own_exit(self, place: str) -> None:
        def record(life: Life) -> None:
            life.own_exit = place

        self._heard(record)

    def on_cannot_start(self, reason: str) -> None:
        line = one_line(reason, REASON_LIMIT)

        def record(life: Life) -> None:
            life.cannot_start = line

        self._heard(record)

    def on_closed(self, cause: str | None) -> None:
        now = time.monotonic()

        def record(life: Life) -> None:
            life.link_closed_at = now
            life.link_cause = cause
            life.link_closed.set()

        self._heard(record)

    # --- called by the thread that waits for the child's end ----------------------------------------------------

    def on_exit(self, returncode: int) -> None:
        """Note that the process has ended, with this return code."""

        def record(life: Life) -> None:
            life.returncode = returncode
            life.gone.set()

        self._heard(record)

    def _heard(self, record: Callable[[Life], None]) -> None:
        """Have *record* called with this object on the host's event loop, and then wake whoever follows the child."""

        def on_loop() -> None:
            record(self)
            self.wake.set()

        self._post(on_loop)
