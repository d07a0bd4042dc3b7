"""Keeps one declared process in the state that was last wanted.

Whoever asks for a start, a stop or a restart only changes what is wanted; the keeper's own task acts on it.
So no two operations can run into each other, each is idempotent, and what was said last becomes true.

Everything in here happens on the host's event loop. What comes from other threads (the link, the thread that
waits for the child's end) is posted there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from loguru import logger

from liteyuki_host._child.codes import CANNOT_START
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.transport import open_link
from liteyuki_host.supervisor.exits import describe_exit, describe_failed_start
from liteyuki_host.supervisor.ladder import climb, first_of, rungs_for
from liteyuki_host.supervisor.life import HubLike, Life, ProcessStatus, SupervisorEvents
from liteyuki_host.supervisor.process import Child, why_no_host_in
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State

if TYPE_CHECKING:
    from liteyuki_host.project import ProjectPlan

LINK_GRACE_SECONDS = 0.5
"""From a broken link to the kill. Mostly the process is ending just then, and its exit code says why."""

GREETING_SECONDS = 2.0
"""For a child that is to stop right after its spawn to come up, so that it can be asked in words."""

LAST_WORDS_SECONDS = 1.0
"""From the child's end to the end of its link: what it sent before is still being read."""


class Verdict(Enum):
    """Why watching a child has come to an end."""

    EXITED = auto()
    """It is gone, and nobody had asked."""
    ASKED = auto()
    """Somebody wants it stopped or restarted."""
    NOT_READY = auto()
    LINK_LOST = auto()
    """The process is there, but cannot be reached any more."""


@dataclass(eq=False)
class _Waiter:
    """Somebody waits until the process is ready."""

    future: asyncio.Future[None]
    start: int
    """The earliest start that counts: after a restart was asked, the child that was there does not."""
    patient: bool
    """Waits through failed starts as long as another one follows."""


class Keeper:
    """One declared process. Its methods are for the event loop, except where they say otherwise."""

    def __init__(
        self,
        spec: ProcessSpec,
        hub: HubLike,
        *,
        events: SupervisorEvents,
        inspect: Callable[[ProcessSpec], ProjectPlan],
        host_python: Path,
    ) -> None:
        self.spec = spec
        self.state = State.DECLARED
        self._hub = hub
        self._events = events
        self._inspect = inspect
        self._interpreters_seen = {host_python}

        self._wanted = False
        self._restart_asked = False  # not yet acted on by a new start
        self._restarting = False  # hooks of a restart: `before` has been called, `after` has not
        self._at_once = False  # somebody asked again: no back-off
        self._closing = False
        self._hurry = asyncio.Event()
        self._wake = asyncio.Event()  # something has changed: look again

        self._life: Life | None = None
        self._busy = False  # between the decision to start and the end of that child
        self._ending = False  # within that: it is decided that this child ends
        self._starts = 0
        self._last_exit: str | None = None
        self._waiting_ready: list[_Waiter] = []
        self._waiting_gone: list[asyncio.Future[None]] = []
        self._announcements: set[asyncio.Task[None]] = set()

    # What is wanted. Each returns at once.

    def start(self) -> None:
        if self._closing:
            return
        if not (self._wanted or self._ending):
            # A stop that nobody has acted on yet: it will not happen now.
            self._tell_gone(f"{self.spec.name} was asked to start again")
        self._wanted = self._at_once = True
        self._wake.set()

    def stop(self) -> None:
        self._wanted = self._restart_asked = self._restarting = False
        self._tell_waiting(f"{self.spec.name} was asked to stop", everybody=True)
        self._wake.set()

    def restart(self) -> None:
        if not self._closing:
            self._wanted = self._at_once = self._restart_asked = True
            self._wake.set()

    def close(self) -> None:
        """Stop, and accept no start any more; :meth:`run` returns when the child is gone."""
        self._closing = True
        self.stop()

    def kill(self) -> None:
        """Stop without the ladder, also when it is being climbed already."""
        self.stop()
        self._hurry.set()

    # Waiting for it.

    async def started(self) -> None:
        """After :meth:`start`: until ready. Raises ProcessFailed when this start fails."""
        if not self._is_ready():
            this_one = self._busy and not self._ending and not self._leaving()
            await self._ready_or_why(self._starts if this_one else self._starts + 1)

    async def restarted(self) -> None:
        """After :meth:`restart`: until ready again. Raises ProcessFailed when the new start fails."""
        await self._ready_or_why(self._starts + 1)

    async def ready(self) -> None:
        """Until ready, through failed starts. Raises ProcessFailed when nothing will start it any more."""
        if self.state in (State.FAILED, State.STOPPED) and not self._wanted:
            cause = f": {self._last_exit}" if self._last_exit else ""
            raise ProcessFailed(f"{self.spec.name} is {self.state}{cause}")
        if not self._is_ready():
            await self._ready_or_why(0, patient=True)

    async def stopped(self) -> None:
        """After :meth:`stop`: until no child of this process is there.

        Raises ProcessFailed when a start overtakes the stop.
        """
        if self._busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_gone.append(future)
            await future

    async def _ready_or_why(self, start: int, *, patient: bool = False) -> None:
        if self._closing:
            raise ProcessFailed(f"{self.spec.name} is not started: the host is stopping")
        waiter = _Waiter(asyncio.get_running_loop().create_future(), start, patient)
        self._waiting_ready.append(waiter)
        try:
            await waiter.future
        finally:
            if waiter in self._waiting_ready:
                self._waiting_ready.remove(waiter)

    def _tell_waiting(self, failure: str | None, *, everybody: bool = False) -> None:
        """Release who waits for this start: it is ready (None) or it is not (why)."""
        for waiter in list(self._waiting_ready):
            counts = waiter.start <= self._starts and (failure is None or not waiter.patient)
            if not (counts or everybody):
                continue
            self._waiting_ready.remove(waiter)
            _release(waiter.future, failure)

    def _tell_gone(self, failure: str | None) -> None:
        waiting, self._waiting_gone = self._waiting_gone, []
        for future in waiting:
            _release(future, failure)

    def _is_ready(self) -> bool:
        # Whoever has just seen the link break and asks must not be told of the child that is ending.
        reachable = self._life is not None and self._life.link_closed_at is None
        return self.state is State.READY and reachable and not self._leaving()

    def _leaving(self) -> bool:
        return not self._wanted or self._restart_asked

    def status(self) -> ProcessStatus:
        """From any thread."""
        life = self._life
        child = life.child if life is not None else None
        return ProcessStatus(
            name=self.spec.name,
            state=self.state,
            pid=child.pid if child is not None else None,
            started_at=child.started_at if child is not None else None,
            restarts=max(self._starts - 1, 0),
            last_exit=self._last_exit,
            address=life.address if life is not None else None,
            details=life.details if life is not None else {},
        )

    # The task.

    async def run(self) -> None:
        """Reconcile until closed. Cancelled, it kills the child and waits for its end."""
        try:
            while not self._closing:
                self._wake.clear()
                if self._wanted:
                    await self._live_once()
                    continue
                if self.state not in (State.DECLARED, State.FAILED):
                    self._enter(State.STOPPED)
                    self._tell_waiting(f"{self.spec.name} is stopped", everybody=True)
                await self._wake.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave_nothing()

    async def _live_once(self) -> None:
        """From the decision to start until no child is there, and the back-off where one is due."""
        self._busy = True
        self._hurry.clear()
        try:
            back_off = await self._start_watch_and_end()
        finally:
            if self._life is None or self._life.child is None or not self._life.child.alive:
                self._now_gone()
        if back_off and self._wanted and not self._restart_asked:
            await self._back_off()

    async def _start_watch_and_end(self) -> bool:
        """Returns whether the next start has to wait."""
        if self._restart_asked:
            await self._announce_restart()
            if not self._wanted:
                return False
        self._restart_asked = self._at_once = self._ending = False
        self._starts += 1
        self._enter(State.STARTING)
        try:
            life = self._life = await self._spawn()
        except ProcessFailed as exc:
            self._give_up(str(exc))
            return False
        except Exception as exc:
            logger.exception(f"child {self.spec.name} could not be started")
            self._give_up(f"{type(exc).__name__}: {exc}")
            return False
        verdict = await self._watch(life)
        self._ending = True
        if verdict is Verdict.EXITED:
            return await self._after_unasked_exit(life)
        if verdict is Verdict.ASKED:
            await self._end_as_asked(life)
            return False
        await self._end_in_trouble(life, verdict)
        return True

    async def _spawn(self) -> Life:
        plan = await anyio.to_thread.run_sync(self._inspect, self.spec)
        if plan.python not in self._interpreters_seen:
            # Asked once: a child that cannot import us can only say so in a traceback.
            problem = await anyio.to_thread.run_sync(why_no_host_in, plan.python, plan.folder)
            if problem is not None:
                raise ProcessFailed(problem)
            self._interpreters_seen.add(plan.python)
        life = Life(self.spec.name, self._poster(), self._wake)
        transport, handles = open_link()
        try:
            life.child = Child.spawn(self.spec, plan, [handles], life.on_exit)
        except BaseException:
            transport.close()
            getattr(transport, "release", transport.close)()  # no thread of a link's is in it yet
            raise
        finally:
            handles.close()
        try:
            life.session = self._hub.connect(self.spec.name, transport, life)
        except BaseException:
            life.child.kill()
            raise
        logger.info(f"child {self.spec.name} started (pid {life.child.pid})")
        return life

    def _poster(self) -> Callable[[Callable[[], None]], None]:
        loop = asyncio.get_running_loop()

        def post(action: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody's interest
                loop.call_soon_threadsafe(action)

        return post

    async def _watch(self, life: Life) -> Verdict:
        """Follow the child until it is gone or has to go."""
        child = _of(life.child)
        while True:
            self._wake.clear()
            if life.returncode is not None:
                return Verdict.EXITED
            if self._leaving():
                return Verdict.ASKED
            if life.hooks_done and self.state is State.STARTING:
                self._enter(State.HOOKS_DONE)
            if life.ready and self.state is not State.READY:
                self._now_ready(life, child)

            now = time.monotonic()
            until: float | None = None
            if life.link_closed_at is not None:
                # After a goodbye the interpreter may still be ending; a broken link explains itself soon.
                patience = self.spec.stop_timeout if life.link_cause is None else LINK_GRACE_SECONDS
                until = life.link_closed_at + patience
                if now >= until:
                    return Verdict.LINK_LOST
            elif not life.ready:
                until = child.started_at + self.spec.ready_timeout
                if now >= until:
                    return Verdict.NOT_READY
            with anyio.move_on_after(None if until is None else until - now):
                await self._wake.wait()

    def _now_ready(self, life: Life, child: Child) -> None:
        self._enter(State.READY)
        name = self.spec.name
        seconds = time.monotonic() - child.started_at
        logger.info(f"child {name} ready in {seconds:.1f} s" + (f": {life.address}" if life.address else ""))
        for what, where in life.details.items():
            logger.info(f"child {name}: {what} reverse WebSocket listens on {where}")
        self._tell_waiting(None)
        if self._restarting:
            self._restarting = False
            # In a task of its own: such a hook may well ask for, and wait for, the next operation.
            task = asyncio.ensure_future(self._call("after_restart", self._events.after_restart))
            self._announcements.add(task)
            task.add_done_callback(self._announcements.discard)

    # The three ways a child ends.

    async def _after_unasked_exit(self, life: Life) -> bool:
        self._at_once = False  # from here on it means: asked after this end
        returncode = _of(life.returncode)
        await self._close_link(life)
        name = self.spec.name
        words = describe_exit(returncode)
        if not life.ready:
            words = describe_failed_start(returncode, greeted=life.greeting.is_set())
        self._last_exit = words
        if self._restart_asked or self._at_once or not self._wanted:
            again = "; starting it again" if self._wanted else ""
            logger.info(f"child {name} ended by itself: {words}{again}")
            return False
        if returncode == CANNOT_START and not life.ready:
            self._give_up(words)
            return False
        if returncode == 0:
            # Its own Ctrl+C, or driver.exit(): it meant to end.
            self._wanted = False
            hint = "" if life.ready else " (does its entry call nonebot.run()?)"
            logger.info(f"child {name} ended by itself: {words}{hint}; not starting it again")
            self._tell_waiting(f"{name} ended by itself: {words}", everybody=True)
            return False
        logger.error(f"child {name} {words}; starting it again in {self.spec.backoff_base:g} s")
        self._tell_waiting(f"{name} {words}")
        return True

    async def _end_as_asked(self, life: Life) -> None:
        name = self.spec.name
        if self._restart_asked:
            await self._announce_restart()
        await self._call("before_process_shutdown", self._events.before_process_shutdown)
        reason = "restart" if self._wanted else "stop"
        self._enter(State.STOPPING)
        asked_at = time.monotonic()
        rung = await self._climb(life, reason)
        words = self._last_exit = describe_exit(_of(life.returncode))
        seconds = time.monotonic() - asked_at
        logger.info(
            f"child {name} stopped after {rung} in {seconds:.1f} s ({words})"
            if rung is not None
            else f"child {name} had just ended by itself ({words})"
        )

    async def _end_in_trouble(self, life: Life, verdict: Verdict) -> None:
        name, spec = self.spec.name, self.spec
        if verdict is Verdict.NOT_READY:
            words = f"not ready in {spec.ready_timeout:g} s"
            if not life.greeting.is_set():
                likely = "it never reached the host"
            elif not life.hooks_done:
                likely = "a start-up hook does not return, or an import takes that long"
            else:
                likely = "its start-up hooks are done, but its port does not open"
            logger.error(f"child {name} {words}: {likely}; ending it")
        elif life.link_cause is None:
            words = f"said goodbye but was still there {spec.stop_timeout:g} s later"
            logger.error(f"child {name} {words} (a thread that is not a daemon?); killing it")
        else:
            words = f"lost its link to the host ({life.link_cause})"
            logger.error(f"child {name} {words}; killing it")
        self._enter(State.STOPPING)
        self._tell_waiting(f"{name} {words}")
        if verdict is Verdict.LINK_LOST:
            self._hurry.set()
        rung = await self._climb(life, words)
        self._last_exit = words
        again = f"; starting it again in {spec.backoff_base:g} s" if self._wanted else ""
        how = describe_exit(_of(life.returncode))
        logger.info(f"child {name} ended after {rung or 'the loss of its link'} ({how}){again}")

    async def _climb(self, life: Life, reason: str) -> str | None:
        child, session = _of(life.child), _of(life.session)
        # An interpreter that is just coming up answers SIGINT with a traceback: let it greet first.
        await first_of(life.greeting, life.link_closed, life.gone, self._hurry, timeout=GREETING_SECONDS)
        reachable = life.greeting.is_set() and not life.link_closed.is_set()
        ask = (lambda: session.stop(reason)) if reachable else None
        rungs = rungs_for(self.spec, child, ask)
        rung = await climb(self.spec.name, rungs, child, gone=life.gone, hurry=self._hurry)
        await self._close_link(life)
        return rung

    async def _close_link(self, life: Life) -> None:
        """After the child's end: read what it sent before, then forget the link."""
        await first_of(life.link_closed, timeout=LAST_WORDS_SECONDS)
        _of(life.session).close(f"{self.spec.name} {describe_exit(_of(life.returncode))}")

    # Around a child's life.

    async def _back_off(self) -> None:
        self._enter(State.BACKING_OFF)
        deadline = time.monotonic() + self.spec.backoff_base
        while self._wanted and not (self._at_once or self._restart_asked):
            self._wake.clear()
            with anyio.move_on_after(max(deadline - time.monotonic(), 0)) as waiting:
                await self._wake.wait()
            if waiting.cancelled_caught:
                return

    def _give_up(self, why: str) -> None:
        self._wanted = self._restart_asked = self._restarting = False
        self._last_exit = why
        self._enter(State.FAILED)
        logger.error(f"child {self.spec.name} cannot start: {why}")
        self._tell_waiting(why, everybody=True)

    def _now_gone(self) -> None:
        self._life = None
        self._busy = self._ending = False
        self._tell_gone(None)

    async def _leave_nothing(self) -> None:
        self._closing = True
        self.stop()
        for task in self._announcements:
            task.cancel()
        life = self._life
        if life is not None and life.child is not None:  # only when the task was cancelled
            life.child.kill()
            await life.gone.wait()
            await self._close_link(life)
            self._last_exit = describe_exit(_of(life.returncode))
        if self.state not in (State.DECLARED, State.FAILED):
            self._enter(State.STOPPED)
        self._now_gone()

    async def _announce_restart(self) -> None:
        """Once for each restart, however many have asked for it meanwhile."""
        if not self._restarting:
            self._restarting = True
            await self._call("before_process_restart", self._events.before_process_restart)

    async def _call(self, what: str, hook: Callable[[str], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(_run_hook(hook, self.spec.name))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            limit = None if what == "after_restart" else self.spec.stop_timeout
            await asyncio.wait({task, hurry}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                if not task.cancelled():
                    task.result()
            elif not self._hurry.is_set():
                logger.warning(f"{what} hooks of {self.spec.name} take longer than {limit:g} s; going on")
        except Exception:
            logger.exception(f"{what} hook of {self.spec.name} failed")
        finally:
            task.cancel()
            hurry.cancel()

    def _enter(self, state: State) -> None:
        self.state = state


async def _run_hook(hook: Callable[[str], Awaitable[None]], name: str) -> None:
    await hook(name)


def _release(future: asyncio.Future[None], failure: str | None) -> None:
    if future.done():
        return  # who waited has been cancelled
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(ProcessFailed(failure))


T = TypeVar("T")


def _of(value: T | None) -> T:
    """What is there by now: the child after its spawn, the return code after its end."""
    assert value is not None
    return value
