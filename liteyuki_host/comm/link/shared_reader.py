"""The faster reader, on Linux: whoever waits reads; else the event loop does; else a guard thread.

A message that is read by the very thread that waits for it costs one system call. Read by a thread of its own it costs
a wake-up of that thread, a wake-up of the waiting one, and the interpreter's lock twice: three times as long, measured.

**The role.** One lock, the *role*, is held by whoever reads just now. Everybody may look whether there is something to
read; only its holder reads and hands on. So nothing is read twice, and a needless wake-up costs one failed try.

**Who takes it.** In this order:

1. A thread that waits for something of this link (:meth:`SharedReader.wait`) and finds the role free leads: it blocks
   in the read and hands on whatever comes, to others too, until its own gate is opened. Further threads that wait
   follow: they sleep at their gates, and whoever gives the role up calls one of them to lead.
2. The attached event loop, when nobody leads. It watches an epoll object of ours that contains the socket. Whoever
   reads mutes that object, so that the loop is not woken by what others read.
3. The guard, when there is no loop, or when it does not come within :data:`GRACE` seconds because it is blocked. The
   guard sleeps in the kernel until there is something; when the link is silent nothing wakes up.

**Why no wake-up is lost.** Who waits first enters the list of followers and then looks at the role once more; who gives
the role up first releases it and then looks at the list. One of the two sees the other. Muting is never relied on: a
loop that finds the role taken mutes, and unmutes if it was given up meanwhile; what slips through is the guard's.

The main thread never leads: Ctrl+C may raise KeyboardInterrupt there between any two lines, also between a message's
arrival and its receiver.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..transport import Transport
from ..waiting import Gate, running_loop
from .reader import Inbound

if TYPE_CHECKING:
    import asyncio

__all__ = ["GRACE", "PollableTransport", "SharedReader"]

GRACE = 0.005
"""Seconds that the guard gives a loop to read by itself: what a ping takes at least while the loop is blocked. Under
continuous traffic the guard wakes up as often at most."""

SLICE = 1.0
"""Seconds after which a leader looks whether its gate was opened by something else than what it reads. Nothing that
happens often needs that: a link's end wakes it."""

READS_AT_ONCE = 4
"""Reads, of a full buffer at most (512 KiB), after which the event loop gets to do something else."""

ANSWER_SECONDS = 0.001
"""Seconds between an answer and the next question of a thread that asks all the time. Who asks less often does not
notice the one wake-up that this saves."""

_MAIN = threading.main_thread().ident


class PollableTransport(Transport, Protocol):
    """A transport whose descriptor can be watched."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def try_read_into(self, buffer: memoryview) -> int | None:
        """Like ``read_into``, but None instead of waiting."""
        ...

    def read_into_within(self, buffer: memoryview, timeout: float) -> int | None:
        """Like ``read_into``, but None after *timeout* seconds."""
        ...


class SharedReader:
    """See the module's docstring."""

    __slots__ = (
        "_descriptor",
        "_followers",
        "_guard",
        "_guard_gone",
        "_inbound",
        "_led_by",
        "_led_until",
        "_listening",
        "_loop",
        "_over",
        "_reads",
        "_release",
        "_role",
        "_transport",
        "_watch",
    )

    def __init__(self, transport: PollableTransport, inbound: Inbound, name: str) -> None:
        self._transport = transport
        self._descriptor = transport.fileno()
        self._inbound = inbound
        self._role = threading.Lock()
        self._followers: deque[Gate] = deque()
        self._led_by: int | None = None  # the thread that led last
        self._led_until = 0.0
        self._reads = 0  # the guard sees by it whether anybody has read
        self._over = False  # there is nothing more to read
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: select.epoll | None = None  # what the loop watches, while it does
        self._listening = False  # what it was told last
        self._release: Callable[[], None] | None = None
        self._guard_gone = False
        self._guard = threading.Thread(target=self._stand_guard, name=f"lycomm-read-{name}", daemon=True)

    def start(self) -> None:
        self._guard.start()

    def join(self, timeout: float) -> None:
        """Wait for the guard's end, at most *timeout* seconds; at once when called from it."""
        if self._guard is not threading.current_thread():
            self._guard.join(timeout)

    def at_end(self, release: Callable[[], None]) -> None:
        # A descriptor that is closed wakes nobody who watches it, so the guard has to have seen the end before.
        self._release = release
        if self._guard_gone:
            release()

    # --- a thread that waits ------------------------------------------------------------------------------------

    def wait(self, gate: Gate, timeout: float) -> bool:
        """Wait until *gate* is open, and read meanwhile if nobody else does.

        Args:
            timeout: seconds; -1 waits as long as it takes.

        Returns whether it is open.
        """
        deadline = None if timeout < 0 else time.monotonic() + timeout
        if threading.get_ident() == _MAIN:
            return gate.wait(timeout)
        while not self._over:
            if self._role.acquire(blocking=False):
                if not self._lead(gate, deadline):
                    return gate.opened
                continue
            self._followers.append(gate)
            if not self._role.locked():  # given up before we could be seen
                self._forget(gate)
                continue
            woken = gate.wait(_left(deadline))
            called = not self._forget(gate)
            if gate.opened or not woken:
                if called:
                    self._call_next()  # somebody has to lead, and it will not be us
                return gate.opened
        return gate.opened or gate.wait(_left(deadline))

    def _lead(self, gate: Gate, deadline: float | None) -> bool:
        """Read until *gate* is open, *deadline* has come, or the link is over (only then True). The caller holds the
        role, and loses it."""
        if self._listening:
            self._listen(False)
        try:
            while not (gate.opened or self._over):
                seconds = SLICE
                if deadline is not None:
                    seconds = min(deadline - time.monotonic(), SLICE)
                    if seconds <= 0:
                        break
                count = self._transport.read_into_within(self._inbound.get_buffer(), seconds)
                if count is not None:
                    self._take(count)
        finally:
            self._led_by, self._led_until = threading.get_ident(), time.monotonic()
            self._give_up_role()
        return self._over and not gate.opened

    def expect_answer(self) -> None:
        """The calling thread is about to write. If it has just led, it asks and waits in turn, most likely: then the
        loop is not to be woken by the answer before the thread waits for it. If it does not wait, the guard reads."""
        if (
            self._listening
            and self._led_by == threading.get_ident()
            and time.monotonic() - self._led_until < ANSWER_SECONDS
        ):
            self._listen(False)

    # --- the role -----------------------------------------------------------------------------------------------

    def _take(self, count: int) -> None:
        """Hand on what was read. The caller holds the role."""
        self._reads += 1
        if not self._inbound.received(count):
            self._over = True
            self.detach_loop()

    def _read_what_is_there(self) -> None:
        """A few reads that do not wait. The caller holds the role, and loses it."""
        try:
            for _ in range(READS_AT_ONCE):
                if self._over:
                    break
                buffer = self._inbound.get_buffer()
                count = self._transport.try_read_into(buffer)
                if count is None:
                    break
                self._take(count)
                if count < len(buffer):
                    break
        finally:
            self._give_up_role()

    def _give_up_role(self) -> None:
        self._role.release()
        if not (self._followers and self._call_next()):
            self._listen(True)

    def _call_next(self) -> bool:
        """Call a follower to lead. False: there is none."""
        while self._followers:
            try:
                gate = self._followers.popleft()
            except IndexError:
                break
            if not gate.opened:  # that one is leaving anyway
                gate.call()
                return True
        return False

    def _forget(self, gate: Gate) -> bool:
        """Take a follower off the list. False: it is not there any more, it was called."""
        try:
            self._followers.remove(gate)
        except ValueError:
            return False
        return True

    # --- the event loop -----------------------------------------------------------------------------------------

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop* read when no thread waits. From any thread."""
        self.detach_loop()
        if not self._over:
            self._loop = loop
            _on(loop, lambda: self._watch_on(loop))

    def detach_loop(self) -> None:
        """No loop reads any more. From any thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            watch, self._watch, self._listening = self._watch, None, False
            _on(loop, lambda: self._unwatch_on(loop, watch))

    def _watch_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._over or self._loop is not loop or self._watch is not None:
            return
        watch = select.epoll()
        watch.register(self._descriptor, select.EPOLLIN)
        try:
            loop.add_reader(watch.fileno(), self._loop_reads)
        except NotImplementedError:  # a loop that watches no descriptors: the guard reads
            watch.close()
            return
        self._watch, self._listening = watch, True

    @staticmethod
    def _unwatch_on(loop: asyncio.AbstractEventLoop, watch: select.epoll | None) -> None:
        if watch is not None:
            if not loop.is_closed():
                loop.remove_reader(watch.fileno())
            watch.close()

    def _loop_reads(self) -> None:
        if self._role.acquire(blocking=False):
            self._read_what_is_there()
            return
        self._listen(False)
        if not self._role.locked():  # given up meanwhile, perhaps before we muted
            self._listen(True)

    def _listen(self, listening: bool) -> None:
        """Let the loop be woken by what arrives, or not. Costs a system call, of 0.4 µs."""
        watch = self._watch
        if watch is not None:
            self._listening = listening
            try:
                watch.modify(self._descriptor, select.EPOLLIN if listening else 0)
            except (OSError, ValueError):  # the loop or the link has just gone
                pass

    # --- the guard ----------------------------------------------------------------------------------------------

    def _stand_guard(self) -> None:
        once = select.EPOLLIN | select.EPOLLONESHOT
        with select.epoll() as watch:
            watch.register(self._descriptor, once)
            while not self._over:
                watch.poll()
                reads = self._reads
                if self._role.locked() or self._watch is not None:
                    time.sleep(GRACE)
                if self._reads == reads and self._role.acquire(blocking=False):
                    self._read_what_is_there()
                watch.modify(self._descriptor, once)
        self._guard_gone = True
        if self._release is not None:
            self._release()


def _left(deadline: float | None) -> float:
    return -1 if deadline is None else max(deadline - time.monotonic(), 0.0)


def _on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call *function* on the loop's thread, or here when the loop is closed."""
    if running_loop() is loop or loop.is_closed():
        function()
        return
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed meanwhile
        function()
