"""Checkpoints: where an ``a...`` form can be cancelled, and where it lets the event loop turn.

An ``await`` of something that does not wait returns to its caller without the event loop having run. A task that makes
only such calls keeps everything else from running, also the timer of the time limit that should end it. So every
``a...`` form looks here first:

- Is the task cancelled? Then nothing is done: :func:`checkpoint` raises the cancellation. A task can have been
  cancelled by ``task.cancel()`` in its own current step, or be in a cancelled scope of AnyIO.
- Has the loop turned within the last :data:`TURN_SECONDS`? Otherwise :func:`checkpoint` lets it turn once.

A form that is certain to wait needs only the first question, as a wait is a turn.

Time is what decides: neither asyncio nor uvloop tells how often it has turned, and a turn for each call would cost ten
times as much as a call that does not wait.

AnyIO offers :func:`anyio.current_effective_deadline` for the question about scopes. It takes 3 µs, four times as much
as ``asend``. So the scope is looked up where AnyIO keeps it; ``tests/comm/waiting/test_checkpoints.py`` holds that to
the public function's answers, which is also what is used if a release of AnyIO keeps it elsewhere.

Asking for the running loop takes 200 ns before Python 3.12, which makes a system call for it. So the task that has
called last is remembered, with its thread: if this thread is that one, and the task's loop is in a step of that task,
then it is this task that calls. Only otherwise is the loop asked for.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable
from threading import get_ident, local
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from liteyuki_host.comm.waiting.loops import event_loops, no_asyncio, refuse_trio

if TYPE_CHECKING:
    import asyncio

__all__ = ["CALLBACK_SECONDS", "TURN_SECONDS", "checkpoint", "had_turn", "is_cancelled", "may_go_on", "turn_is_due"]

TURN_SECONDS: Final = 500e-6
"""Seconds after which a call that does not wait lets the loop turn: how much longer other tasks wait at most. A turn of
an idle asyncio loop took 5 to 9 µs, 1 to 2 % of this time. Each also writes what was sent, so it is not shorter."""


CALLBACK_SECONDS: Final = 0.01
"""Seconds that the task which calls a channel's callbacks may take between two turns instead: by itself it lets the
loop turn between two messages, every 5 ms. So a callback that sends is seldom interrupted: to go on with it later, and
to count its message by itself, costs more than all else that is done for the message."""


def _no_task() -> None:
    """Stand in for a weak reference where no task is known."""


class _Pace:
    """What one thread knows of the event loop that it runs. Written by that thread alone.

    Attributes:
        until: ``time.monotonic()`` up to which the loop has turned recently enough.
        task: a weak reference to the task that has called last: it says whose pace this is, too.
        favoured: a weak reference to the task that *until* was set for by :meth:`had_turn`.
        thread: that thread, by ``threading.get_ident``. Never changes.
    """

    __slots__ = ("favoured", "task", "thread", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.task: Callable[[], asyncio.Task[Any] | None] = _no_task
        self.favoured: Callable[[], asyncio.Task[Any] | None] = _no_task
        self.thread = get_ident()


class _PaceOfThread(local):
    """One :class:`_Pace` for each thread, made on first use."""

    def __init__(self) -> None:  # run once in each thread
        self.pace = _Pace()


class _Tools:
    """What is taken of asyncio and AnyIO, which are loaded with the first event loop.

    Attributes:
        current_task: the task that a loop runs just now.
        state_of: the state of a task, given as a weak reference, at AnyIO; None if AnyIO knows nothing of it.
        latest: the pace of the task that has called last, in whatever thread: nearly always the right one.
    """

    __slots__ = ("current_task", "latest", "state_of")

    def __init__(self) -> None:
        self.latest = _Pace()
        self.current_task: Callable[[Any], Any] = self._first_task
        self.state_of: Callable[[Any], Any] = _unknown_state

    def _first_task(self, loop: Any) -> Any:
        import asyncio

        self.state_of = _find_states()
        if sys.version_info >= (3, 12):
            self.current_task = asyncio.current_task  # written in C since then
        else:
            self.current_task = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
        return self.current_task(loop)


class _UnknownState:
    """Stands for a task's state, and its scope, where AnyIO's own cannot be read."""

    @property
    def cancel_scope(self) -> _UnknownState:
        return self

    @property
    def _effectively_cancelled(self) -> bool:
        import anyio

        return anyio.current_effective_deadline() == -math.inf


def _unknown_state(task: Any) -> _UnknownState:
    return _UnknownState()


def _find_states() -> Callable[[Any], Any]:
    try:
        from anyio._backends._asyncio import CancelScope, _task_states

        if isinstance(CancelScope._effectively_cancelled, property):
            # By weak reference, which costs a third of asking the mapping itself.
            states: Callable[[Any], Any] = _task_states.data.get
            return states
    except (ImportError, AttributeError):
        pass
    return _unknown_state


_of_thread: Final = _PaceOfThread()
_tools: Final = _Tools()


def _caller() -> tuple[asyncio.Task[Any] | None, _Pace]:
    """Return the task that calls, None when the loop runs no task just now, and the pace of its thread, which becomes
    ``_tools.latest``.

    Raises:
        AsyncioNeeded: no event loop of asyncio runs here.
    """
    loop = event_loops.running()
    if loop is None:
        no_asyncio()
    task: asyncio.Task[Any] | None = _tools.current_task(loop)
    pace = _of_thread.pace
    if task is None:
        refuse_trio()  # which may run as a guest of asyncio
        return None, pace
    if pace.task() is not task:
        pace.task = weakref.ref(task)
        if pace.favoured() is not task:
            pace.until = min(pace.until, monotonic() + TURN_SECONDS)
    _tools.latest = pace
    return task, pace


def may_go_on() -> bool:
    """Whether the calling task is not cancelled, and the loop has turned recently. False: await :func:`checkpoint`.

    Raises:
        AsyncioNeeded: no event loop of asyncio runs here.
    """
    # `is_cancelled`, written out: each call is a tenth of what a short message costs.
    pace = _tools.latest
    task = pace.task()
    if task is None or pace.thread != get_ident() or _tools.current_task(task.get_loop()) is not task:
        task, pace = _caller()
        if task is None:
            return monotonic() < pace.until
    if task._must_cancel:  # type: ignore[attr-defined]
        return False
    state = _tools.state_of(pace.task)
    if state is not None and state.cancel_scope is not None and state.cancel_scope._effectively_cancelled:
        return False
    return monotonic() < pace.until


def is_cancelled() -> bool:
    """Whether the calling task is cancelled, and is to do nothing. True: await :func:`checkpoint`, which raises that.

    Raises:
        AsyncioNeeded: no event loop of asyncio runs here.
    """
    pace = _tools.latest
    task = pace.task()
    if task is None or pace.thread != get_ident() or _tools.current_task(task.get_loop()) is not task:
        task, pace = _caller()
        if task is None:
            return False
    if task._must_cancel:  # type: ignore[attr-defined]
        return True
    state = _tools.state_of(pace.task)
    return state is not None and state.cancel_scope is not None and bool(state.cancel_scope._effectively_cancelled)


def turn_is_due() -> bool:
    """Whether the calling thread's loop has not turned recently."""
    return monotonic() >= _of_thread.pace.until


def had_turn(calling: asyncio.Task[Any] | None = None) -> None:
    """Note that the calling thread's loop has turned just now.

    Args:
        calling: the task that is about to call callbacks, which has :data:`CALLBACK_SECONDS`.
    """
    pace = _of_thread.pace
    if calling is None:
        pace.until = monotonic() + TURN_SECONDS
    else:
        pace.favoured = weakref.ref(calling)
        pace.until = monotonic() + CALLBACK_SECONDS


async def checkpoint() -> None:
    """Let the loop turn once. Raises the cancellation of the calling task, if it is cancelled."""
    import asyncio

    await asyncio.sleep(0)
    while is_cancelled():  # AnyIO tells its tasks in a turn of its own, at the latest the next one
        await asyncio.sleep(0)
    had_turn()
