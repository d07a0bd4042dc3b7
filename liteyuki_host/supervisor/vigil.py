"""Judges one child from its spawn on: is it ready in time, does it answer, is it too large or too old?

Which question is asked depends on how far the child has come, and there is always just one:

- Its link is over: is the process gone soon after?
- It is not ready: is it ready within ``ready_timeout``?
- It is ready: does its event loop turn, does it run at all (``watchdog.py``)? If so: is it time for a new one, because
  of ``max_age`` or ``memory_limit``?

A child may ask for more time (``MoreTime``). Every limit is then put off until that time is over.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from liteyuki_host.boundary import Boundary, in_thread
from liteyuki_host.supervisor import exits
from liteyuki_host.supervisor.exits import Cause
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.memory import is_stopped, tree_memory
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.watchdog import Look, Watchdog

LINK_GRACE_SECONDS = 0.5
"""From a broken link to the kill. Mostly the process is ending just then, and its exit code says why."""

MEMORY_SECONDS = 5.0
"""Between two looks at the memory of a process. One takes about a millisecond."""

AGE_VARIANCE = 0.1
"""``max_age`` is varied by this share, so that bots that were started together do not go together."""

RENEWAL_AGAIN_SECONDS = 600.0
"""From a renewal that could not be made until it is due again: somebody has to do something about it first."""


@dataclass(frozen=True)
class Unhealthy:
    """The child is there, does not serve as it should, and has to be ended."""

    cause: Cause
    likely: str
    """What the reason probably is, for the log; may be empty."""
    state: State | None = None
    """The state that it enters before it is ended; None: it goes straight to STOPPING."""
    kill: bool = False
    """Asking it to end is of no use: nobody there would act on that."""


@dataclass(frozen=True)
class Renewal:
    """The child serves, and a new one is to take its place."""

    why: str
    counted: bool = False
    """Counts like a crash: a limit below what the bot needs must not restart it for ever."""


class Vigil:
    """Judges one child. For the host's event loop only; everything is written by :meth:`look`.

    Moments are ``time.monotonic()``.
    """

    def __init__(self, spec: ProcessSpec, life: Life) -> None:
        # Results of the last look.
        self.next: float | None = None
        """When to look again, if nothing is heard before; None: not before something is heard."""
        self.memory: int | None = None
        """Resident bytes of the child and all it started, as last measured; None: not known."""
        self.silent = 0.0
        """Seconds since its event loop should have shown that it turns."""
        self.busy = False
        """Its event loop has not turned for a while, which is no reason yet to end it."""

        # What is judged by.
        self._spec = spec
        self._life = life
        self._spawned_at = life.live_child.started_at
        self._oldest = self._spawned_at + spec.max_age * random.uniform(1 - AGE_VARIANCE, 1 + AGE_VARIANCE)
        """When it is too old; counts only with a ``max_age``."""
        self._weigh_at = time.monotonic()
        """When to measure the memory next."""
        self._renew_from = 0.0
        """No renewal before: the last one that was due could not be made."""
        self._watchdog: Watchdog | None = None
        """Judges the signs of life; made when the child is ready."""
        self._weighing = Boundary(f"child {spec.name}: measuring its memory")

    async def look(self) -> Unhealthy | Renewal | None:
        """Judge the child. Returns what there is to do about it now; None: nothing. Sets the results above.

        May take the time of one measurement of its memory, in a thread.
        """
        now, life, spec = time.monotonic(), self._life, self._spec
        # Each branch sets `next` to the moment at which its own answer may change.
        if life.link_closed_at is not None:
            # After a goodbye the interpreter may still be ending; a broken link explains itself soon.
            patience = spec.stop_timeout if life.link_cause is None else LINK_GRACE_SECONDS
            self.next = life.put_off(life.link_closed_at + patience)
            return _unreachable(spec, life) if now >= self.next else None
        if not life.ready:
            self.next = life.put_off(self._spawned_at + spec.ready_timeout)
            return _not_ready(spec, life) if now >= self.next else None
        return self._unhealthy(now) or await self._renewal(now)

    def postpone_renewal(self) -> None:
        """Report no renewal for a while: no new child can be started now, and the one that serves goes on."""
        self._renew_from = time.monotonic() + RENEWAL_AGAIN_SECONDS

    def _unhealthy(self, now: float) -> Unhealthy | None:
        """Judge the signs of life of a ready child, and ask for one where they are missing."""
        spec, life = self._spec, self._life
        if self._watchdog is None:
            # Beats are asked for from here on. A start may block the event loop for as long as ``ready_timeout``.
            self._watchdog = Watchdog(spec.loop_timeout, spec.freeze_timeout, now)
            life.live_session.watch(self._watchdog.interval)
        if not self._watchdog.interval:  # both limits are 0: the operator wants no such judgement
            self.next = None
            return None
        look = self._watchdog.look(now, beat_at=life.beat_at, pong_at=life.pong_at, excused_until=life.asked_until)
        self.next, self.silent, self.busy = look.next, look.silent, look.state is not State.READY
        if look.ping:
            life.live_session.ping()
        if look.state is State.BLOCKED:
            return Unhealthy(exits.blocked(spec.loop_timeout), "some plugin blocks it", State.BLOCKED, kill=True)
        if look.state is State.FROZEN:
            return self._frozen(look)
        return None

    def _frozen(self, look: Look) -> Unhealthy:
        """Tell a process that was stopped, by a signal or a debugger, from one whose interpreter's lock is held."""
        limits = [limit for limit in (self._spec.loop_timeout, self._spec.freeze_timeout) if 0 < limit <= look.silent]
        seconds = max(limits, default=look.silent)
        if is_stopped(self._life.live_child.pid):
            return Unhealthy(exits.frozen(seconds), "somebody has stopped it", State.FROZEN, kill=True)
        likely = (
            "native code holds Python's lock, a finalizer or signal handler waits inside lycomm, or the machine is "
            "overloaded"
        )
        return Unhealthy(exits.lock_held(seconds), likely, State.FROZEN, kill=True)

    async def _renewal(self, now: float) -> Renewal | None:
        """Whether a healthy child is to be replaced, for its age or its memory."""
        spec = self._spec
        if now < self._renew_from:
            self._at_latest(self._renew_from)
            return None
        if spec.max_age:
            self._at_latest(self._oldest)
            if now >= self._oldest:
                return Renewal(f"it has run for {now - self._spawned_at:,.0f} s (max_age)")
        if spec.memory_limit:
            if now >= self._weigh_at:
                await self._weigh()
                if self.memory is not None and self.memory > spec.memory_limit:
                    used, limit = _mebibytes(self.memory), _mebibytes(spec.memory_limit)
                    return Renewal(f"it uses {used} of memory, more than its limit of {limit}", counted=True)
            self._at_latest(self._weigh_at)
        return None

    async def _weigh(self) -> None:
        """Measure the memory. What cannot be measured now is measured the next time, and ends nothing."""
        try:
            self.memory = await in_thread(tree_memory, self._life.live_child.pid)
            self._weighing.succeeded()
        except Exception as error:
            self.memory = None
            self._weighing.failed(error)
        self._weigh_at = time.monotonic() + MEMORY_SECONDS

    def _at_latest(self, moment: float) -> None:
        """Look again at *moment*, or before."""
        self.next = moment if self.next is None else min(self.next, moment)


def _not_ready(spec: ProcessSpec, life: Life) -> Unhealthy:
    """What to say of a start that takes too long: which of its three parts has not ended."""
    if not life.greeting.is_set():
        likely = "it never reached the host"
    elif not life.hooks_done:
        likely = "a start-up hook does not return, or an import takes that long"
    else:
        likely = "its start-up hooks are done, but its port does not open"
    return Unhealthy(exits.not_ready(spec.ready_timeout), likely)


def _unreachable(spec: ProcessSpec, life: Life) -> Unhealthy:
    """What to say of a process that is there without a link: after a goodbye, it does not come to its end."""
    if life.link_cause is None:
        return Unhealthy(exits.stuck(spec.stop_timeout), "a thread that is not a daemon?", kill=True)
    return Unhealthy(exits.link_lost(life.link_cause), "", kill=True)


def _mebibytes(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"
