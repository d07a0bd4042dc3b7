"""The event loops of this process: who runs which, and calling something on one of them.

asyncio takes 11 MiB, more than all of lycomm in a child. So this module does not import it, and a process without event
loops never loads it for lycomm.

Two functions call something on a loop's thread, and both may be used from any thread. :func:`call_on` calls it at once
if the caller is on that thread, even in the middle of a task. :func:`call_soon_on` never does: the call is made outside
of any task, at the end of the read in progress (:class:`Turn`) or in a later turn of the loop.

No lock is used. An entry of ``reading`` is changed only on its loop's thread, and each operation of a dict is atomic.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from liteyuki_host.comm.errors import AsyncioNeeded, WouldBlockEventLoop
from liteyuki_host.comm.waiting.monitor import refuse_to_wait

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

    from liteyuki_host.comm.waiting.parking import Parked

__all__ = [
    "Turn",
    "call_on",
    "call_soon_on",
    "event_loops",
    "handed_over",
    "need_asyncio",
    "no_asyncio",
    "on_event_loop",
    "parked_type",
    "reading",
    "refuse_event_loop",
    "refuse_trio",
    "running_loop",
    "trio_runs",
    "turn_of",
]


class _EventLoops:
    """What of asyncio has been loaded.

    Attributes:
        running: the event loop that the calling thread runs just now: asyncio's own function, once somebody has
            imported that.
    """

    __slots__ = ("running",)

    def __init__(self) -> None:
        self.running: Callable[[], asyncio.AbstractEventLoop | None] = self._look

    def _look(self) -> asyncio.AbstractEventLoop | None:
        """Look whether asyncio has been imported. If so, its own function takes the place of this method."""
        # While asyncio is being imported, the package does not have this name yet.
        running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
        if running is None:
            return None
        self.running = running
        return self.running()


event_loops: Final = _EventLoops()


class _HandedOver:
    """Who has handed something to a loop that another thread runs.

    Attributes:
        by: the thread that was the last to do so. Of two at once one is forgotten.
    """

    __slots__ = ("by",)

    def __init__(self) -> None:
        self.by = 0


handed_over: Final = _HandedOver()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that the calling thread runs just now."""
    return event_loops.running()


def trio_runs() -> bool:
    """Whether the calling thread runs trio just now. lycomm's tasks are asyncio's; trio's loop must not be blocked."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_trio_token()
    except (AttributeError, RuntimeError):  # it is just being imported; or it does not run here
        return False
    return True


def refuse_trio() -> None:
    """Raise AsyncioNeeded when the calling thread runs trio."""
    if trio_runs():
        raise AsyncioNeeded(
            "lycomm's `a...` forms and hooks run on asyncio, and this task runs on trio. Run the program on asyncio, "
            "as NoneBot does, or call the form without the `a` in a thread: `await trio.to_thread.run_sync(...)`"
        )


def need_asyncio() -> None:
    """Raise AsyncioNeeded when the calling thread runs no event loop of asyncio."""
    if event_loops.running() is None:
        no_asyncio()


def no_asyncio() -> NoReturn:
    """Raise AsyncioNeeded: the calling thread runs no event loop of asyncio."""
    refuse_trio()
    raise AsyncioNeeded(
        "lycomm's `a...` forms and hooks run on asyncio, and this thread runs no event loop of it. Await them in a "
        "task of asyncio, or call the form without the `a`"
    )


def on_event_loop() -> bool:
    """Whether the calling thread is running an event loop just now, so that blocking it would freeze it."""
    return event_loops.running() is not None or trio_runs()


def refuse_event_loop(call: str, instead: str) -> None:
    """Refuse a *call* that waits where waiting would freeze others.

    Raises:
        WouldBlockEventLoop: this thread runs an event loop, of asyncio or trio.
        ReentrantCall: this thread reads a link, belongs to lycomm, or is in a log sink.
    """
    if event_loops.running() is not None:
        raise WouldBlockEventLoop(
            f"{call} waits, and on the event loop it would freeze the whole bot; "
            f"write `await {instead}` here, or call it in a thread of its own"
        )
    if trio_runs():
        raise WouldBlockEventLoop(
            f"{call} waits, and on trio's loop it would freeze everything; "
            "call it in a thread: `await trio.to_thread.run_sync(...)`"
        )
    refuse_to_wait(call)


@functools.cache
def parked_type() -> type[Parked]:
    """The class of the futures that waiting tasks await. Imported on first use, by a task: asyncio is loaded then."""
    from liteyuki_host.comm.waiting.parking import Parked

    return Parked


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Call *function* on the loop's thread: here, if that is this one, else soon. False: the loop is closed."""
    if event_loops.running() is loop:
        function()
        return True
    handed_over.by = threading.get_ident()
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True


class Turn:
    """Calls that are made on an event loop after one read of a link there. They may resume tasks and call users' code,
    because neither a task nor the reader is in the middle of its work then.

    Users' code may run the loop again from inside itself (``nest_asyncio``). asyncio runs the callback of a descriptor
    in one context for all its calls, and a context cannot be entered twice, so that the inner run could not read. So
    each call that leads to users' code leaves a new context behind for the next.

    Attributes:
        thread: the loop's thread. Written by the reader, before it puts the turn into ``reading``.
        due: the calls, oldest first. Used on the loop's thread only.
    """

    __slots__ = ("_context", "_handle", "due", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = 0
        self.due: list[Callable[[], object]] = []
        self._handle: Any = None
        self._context: Context | None = None

    def watches(self, descriptor: int) -> None:
        """Note that *descriptor* has just been given to ``loop.add_reader``. On the loop's thread."""
        try:  # asyncio has no public way to the handle
            handle = self.loop._selector.get_key(descriptor).data[0]  # type: ignore[attr-defined]
            self._handle, self._context = handle, handle._context
        except AttributeError:
            pass  # not asyncio's own loop. uvloop is one; it refuses to be run from inside itself

    def end(self) -> None:
        """Make the calls that are due. On the loop's thread, in no task, after everything has been read."""
        due = self.due
        if self._context is not None:
            self._handle._context = self._context.copy()
        try:
            while due:
                due.pop(0)()
        finally:
            while due:  # an exception that ends the process came out of one: the loop makes the others
                self.loop.call_soon(due.pop(0))


reading: Final[dict[asyncio.AbstractEventLoop, Turn]] = {}
"""The turns of the loops that read just now, each set and removed on its loop's thread."""


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn | None:
    """The turn of *loop*, if it is the calling thread that reads there just now."""
    turn = reading.get(loop)
    # What asyncio would say of the thread costs a system call.
    return turn if turn is not None and turn.thread == threading.get_ident() else None


def call_soon_on(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """Call *function* on the loop's thread, in no task, soon: after what is read there just now, else in a turn of its
    own. From any thread. False: the loop is closed."""
    turn = turn_of(loop)
    try:
        if turn is not None:
            turn.due.append(function)
        elif event_loops.running() is loop:
            loop.call_soon(function)
        else:
            handed_over.by = threading.get_ident()
            loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True
