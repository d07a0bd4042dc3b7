"""The faster reader, on Linux: whoever waits reads; else the event loop does; else a guard thread.

A message that is read by the very thread that waits for it costs one system call. Read by a thread of its own it costs
a wake-up of that thread, a wake-up of the waiting one, and the interpreter's lock twice: three times as long, measured.

**The role.** One lock, the *role*, is held by whoever reads just now. Everybody may look whether there is something to
read; only its holder reads and hands on. So nothing is read twice, and a needless wake-up costs one failed try.

**Who takes it.** In this order:

1. A thread that waits for something of this link and finds the role free leads (:meth:`SharedReader.lead`): it blocks
   in the read and hands on whatever comes, to others too, until it has what it waits for. Further threads that wait
   follow (:meth:`SharedReader.wait`): they sleep at their gates, and who gives the role up calls one of them to lead.
   A leader that has read for others only, time and again, leaves reading to the loop and sleeps at its gate. One that
   has asked and waited in turn looks for its answer for a moment before it sleeps (:data:`SPIN_SECONDS`).
2. The attached event loop, when nobody leads. It watches an epoll object of ours that contains the socket. Who leads
   mutes that object, so that the loop is not woken by what others read. A thread that leads again and again leaves it
   muted in between; when it does not come again, the guard reads once, and after it the loop.
3. The guard, when there is no loop, or when it does not come in time (:data:`GRACE`) because it is blocked. The
   guard sleeps in the kernel until there is something; when the link is silent nothing wakes up.

   It also takes the loop's place while that has nothing to do with what it reads: when the peer asks one question after
   another and who reads them can answer them (:data:`QUESTIONS`), the guard leads as a waiting thread does. In the host
   that is so with the shared memory, its locks, and what one child sends to another. A turn of an event loop costs more
   than such an answer.

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
from typing import TYPE_CHECKING, NamedTuple, Protocol

from liteyuki_host.comm.link.loop_watch import LoopWatch
from liteyuki_host.comm.link.reader import Alone, ReadTarget
from liteyuki_host.comm.link.spinning import Pollable, Spinner
from liteyuki_host.comm.link.tuning import (
    BETWEEN_SECONDS,
    GRACE,
    HAND_ON_SECONDS,
    LONG_GRACE,
    MUCH,
    NO_QUESTIONS_SECONDS,
    QUESTION_SECONDS,
    QUESTION_SIZE,
    QUESTIONS,
    READ_ON_SECONDS,
    READS_AT_ONCE,
    READS_FOR_OTHERS,
    SHORTAGE_SECONDS,
    SLICE,
    TURN_SECONDS,
    TURNS,
)
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.comm.threads import DaemonThread, core_threads
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.checkpoints import had_turn
from liteyuki_host.comm.waiting.loops import Turn, handed_over, reading
from liteyuki_host.comm.waiting.monitor import leading, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import MAIN_THREAD, NOTHING, Gate, Nothing

if TYPE_CHECKING:
    import asyncio

__all__ = ["PollableTransport", "ReaderStatistics", "SharedReader"]


class PollableTransport(Transport, Pollable, Protocol):
    """A transport whose descriptor can be watched."""

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        ...

    read_timeout: float | None
    """Seconds after which a ``recv_into`` that waits raises BlockingIOError; None: none has been set."""

    def set_read_timeout(self, seconds: float) -> None:
        """Set :attr:`read_timeout`. Costs a system call."""
        ...


class ReaderStatistics(NamedTuple):
    """What a :class:`SharedReader` does at this moment.

    Attributes:
        reading: whether some thread holds the role, so that it reads.
        led_by: the thread (``threading.get_ident``) that has led last; None: no thread ever has.
        followers: threads that sleep until they have what they wait for, or are called to lead.
        loop_listens: whether the attached event loop is woken by what arrives.
        reads: reads that have brought something, or the end.
        questions: small reads in a row that gave the loop nothing to do.
    """

    reading: bool
    led_by: int | None
    followers: int
    loop_listens: bool
    reads: int
    questions: int


class SharedReader:
    """See the module's docstring."""

    __slots__ = (
        "_descriptor",
        "_followers",
        "_guard",
        "_guard_gone",
        "_guarding",
        "_inbound",
        "_last_question",
        "_led_by",
        "_led_until",
        "_left_to_loop",
        "_loop_watch",
        "_over",
        "_questions",
        "_reads",
        "_release",
        "_role",
        "_spinner",
        "_transport",
        "_turns",
    )

    def __init__(self, transport: PollableTransport, inbound: ReadTarget, name: str) -> None:
        self._transport = transport
        self._descriptor = transport.fileno()
        self._inbound = inbound
        self._role = threading.Lock()
        self._followers: deque[Gate] = deque()
        self._led_by: int | None = None  # the thread that led last
        self._led_until = 0.0
        self._turns = 0  # how often it came again soon
        self._spinner = Spinner(transport, inbound.decoder)
        self._left_to_loop: int | None = None  # it, if it has given up because it read for others only
        self._reads = 0  # the guard sees by it whether anybody has read
        self._questions = 0  # read by the loop, one after the other
        self._last_question = 0.0
        self._over = False  # there is nothing more to read
        self._loop_watch = LoopWatch(self._descriptor, self._read_what_is_there)
        self._release: Callable[[], None] | None = None
        self._guard_gone = False
        self._guard = DaemonThread(self._stand_guard, name=f"lycomm-read-{name}", core=True)

    def start(self) -> None:
        self._guarding = select.epoll()  # here, where an error can be told: without it nobody would read
        try:
            self._guard.start()
        except BaseException:
            self._guarding.close()
            raise

    def join(self, timeout: float) -> None:
        """Wait for the guard's end, at most *timeout* seconds; at once when called from it."""
        if self._guard is not threading.current_thread():
            self._guard.join(timeout)

    def at_end(self, release: Callable[[], None]) -> None:
        # A descriptor that is closed wakes nobody who watches it, so the guard has to have seen the end before.
        self._release = release
        if self._guard_gone:
            release()

    def statistics(self) -> ReaderStatistics:
        """Return what the reader does at this moment. From any thread; takes no lock."""
        return ReaderStatistics(
            self._role.locked(),
            self._led_by,
            len(self._followers),
            self._loop_watch.listening,
            self._reads,
            self._questions,
        )

    # --- a thread that waits ------------------------------------------------------------------------------------

    def lead(
        self, ready: Callable[[], object], deadline: float | None, wanted: Stream | None = None
    ) -> Alone | Nothing:
        thread = threading.get_ident()
        if thread in leading:  # a finalizer waits for something while its thread reads for others
            refuse_to_wait("a call that waits for something of a link")
        if self._over or thread == MAIN_THREAD or not self._role.acquire(False):
            return NOTHING
        inbound, transport, watch = self._inbound, self._transport, self._loop_watch
        monitor = inbound.monitor
        due = monitor.due
        try:
            leading.add(thread)
            if thread != self._led_by or time.monotonic() - self._led_until > TURN_SECONDS:
                self._led_by, self._turns = thread, 0
            elif self._turns < TURNS:
                self._turns += 1
            if watch.listening:
                watch.listen(False)
            decoder, received, recv_into = inbound.decoder, inbound.received, transport.recv_into
            queue = None if wanted is None else wanted.receiver
            spinner = self._spinner
            spinning = spinner.allowed and self._turns >= TURNS
            seconds = SLICE
            reads = 0
            self._left_to_loop = None
            if inbound.connection.queue:
                inbound.write_queued()
            while not self._over:
                # A call that is worth sparing: `ready` says nothing else of a queue.
                if (queue.units or queue.closed) if queue is not None else ready():
                    break
                if reads == READS_FOR_OTHERS and watch.active:
                    self._left_to_loop = thread
                    self._turns = 0  # so that the loop listens
                    break
                if deadline is not None:
                    seconds = min(deadline - time.monotonic(), SLICE)
                    if seconds <= 0:
                        break
                if seconds != transport.read_timeout:
                    transport.set_read_timeout(seconds)
                try:
                    count = (spinner.read() if spinning else 0) or recv_into(decoder.free)
                except BlockingIOError:
                    continue
                except ConnectionError:  # an end like any other
                    count = 0
                self._reads += 1
                reads += 1
                message = received(count, wanted)
                if message is True:
                    if due:
                        monitor.settle()
                        if due:  # log lines, which are said when the role has been given up
                            break
                    continue
                if message is not False:
                    return message
                self._end()
            return NOTHING
        finally:
            self._led_until = time.monotonic()
            leading.discard(thread)
            self._role.release()
            if not (self._followers and self._call_next()) and self._turns < TURNS:  # else it comes again soon
                watch.listen(True)
            if due:
                monitor.settle()

    def wait(self, gate: Gate, timeout: float) -> bool:
        """Wait until *gate* is open, and read meanwhile if nobody else does.

        Args:
            timeout: seconds; -1 waits as long as it takes.

        Returns whether it is open.
        """
        deadline = None if timeout < 0 else time.monotonic() + timeout
        thread = threading.get_ident()
        if thread == MAIN_THREAD:
            return gate.wait(timeout)
        if thread in leading or thread in core_threads:
            refuse_to_wait("a call that waits for something of a link")
        while not self._over:
            self.lead(gate.is_open, deadline)
            if gate.opened:
                return True
            if self._left_to_loop == threading.get_ident():  # or to the guard, should the loop be blocked or gone
                return gate.wait(_left(deadline)) or gate.opened
            self._followers.append(gate)
            if not self._role.locked():  # given up before we could be seen
                self._forget(gate)
                if deadline is not None and time.monotonic() >= deadline:
                    return gate.opened
                continue
            woken = gate.wait(_left(deadline))
            called = not self._forget(gate)
            if gate.opened or not woken:
                if called:
                    self._call_next()  # somebody has to lead, and it will not be us
                return gate.opened
        return gate.opened or gate.wait(_left(deadline))

    def look(self) -> float:
        if threading.get_ident() != MAIN_THREAD:
            self._read_what_is_there()
        if self._over:
            return 0.0
        if self._is_readable():
            return HAND_ON_SECONDS
        return BETWEEN_SECONDS if self._role.locked() else 0.0

    def _is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    # --- the role -----------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Read nothing more: the link is over. Before its descriptor is closed."""
        self._over = True
        self._loop_watch.end()

    def _read_what_is_there(self, turn: Turn | None = None, *, again: bool = True) -> int:
        """A few reads that do not wait, if nobody else reads. Returns how many bytes the last one brought.

        Args:
            turn: that of the loop that reads.
            again: read on in the same turn, if that was much.
        """
        if not self._role.acquire(False):
            if turn is not None:
                self._loop_watch.listen(False)
                if not self._role.locked():  # given up meanwhile, perhaps before we muted
                    self._loop_watch.listen(True)
            return 0
        count = 0
        transport, received, decoder = self._transport, self._inbound.received, self._inbound.decoder
        if turn is not None:
            turn.thread = threading.get_ident()
            had_turn()  # so that a callback that is called with what is read here need not wait before it sends
            reading[turn.loop] = turn
        try:
            reads = READS_AT_ONCE
            while reads and not self._over:
                reads -= 1
                buffer = decoder.free
                room = len(buffer)  # now: at the link's end the buffer is given back
                try:
                    count = transport.recv_into(buffer, 0, transport.at_once)
                except BlockingIOError:
                    break
                except ConnectionError:  # an end like any other
                    count = 0
                self._reads += 1
                if not received(count, None, turn):
                    self._end()
                if count < room:
                    break
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl+C in the main thread: what was read may be lost
                self._inbound.failed(error)
            raise
        finally:
            self._role.release()
            if not (self._followers and self._call_next()) and not self._loop_watch.listening:
                self._loop_watch.listen(True)
            if turn is not None:
                del reading[turn.loop]
            if self._inbound.monitor.due:
                self._inbound.monitor.settle()
            if turn is not None:
                if turn.due:
                    self._questions = 0
                    turn.end()
                else:
                    self._note_question(count)
        if count >= MUCH and again and turn is not None:
            self._read_on(turn)
        return count

    def _read_on(self, turn: Turn) -> None:
        """What has been read is handled by now, and its sender has written more."""
        until = time.monotonic() + READ_ON_SECONDS
        while self._read_what_is_there(turn, again=False) >= MUCH and time.monotonic() < until:
            pass

    def _note_question(self, size: int) -> None:
        """The loop has read, and had nothing to do with it."""
        now = time.monotonic()
        soon = now - self._last_question < QUESTION_SECONDS
        self._questions = self._questions + 1 if soon and 0 < size <= QUESTION_SIZE else 0
        self._last_question = now

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
        """Let *loop* read when no thread waits. From any thread; nothing happens after the link's end."""
        self._loop_watch.attach(loop)

    def detach_loop(self) -> None:
        """Let no loop read any more. From any thread."""
        self._loop_watch.detach()

    # --- the guard ----------------------------------------------------------------------------------------------

    def _stand_guard(self) -> None:
        """Run the guard until there is nothing more to read. Whatever stops it ends the link, with its cause."""
        try:
            self._guard_until_over()
        except BaseException as error:
            self._inbound.failed(error)
            self._end()
        finally:
            self._guard_gone = True
            if self._release is not None:
                self._release()

    def _guard_until_over(self) -> None:
        once = select.EPOLLIN | select.EPOLLONESHOT
        with self._guarding as watch:
            watch.register(self._descriptor, once)
            patience = 1
            while not self._over:
                watch.poll()
                try:
                    patience = self._look_after_it(patience)
                except Exception as error:
                    # Nothing has been taken from the socket then. Without a guard the link might never be read again.
                    if not is_shortage(error):
                        self._inbound.failed(error)
                        self._end()
                        return
                    time.sleep(SHORTAGE_SECONDS)
                watch.modify(self._descriptor, once)

    def _look_after_it(self, patience: int) -> int:
        """There is something to read: see to it that it is. Returns the *patience* for the next time."""
        if self._questions >= QUESTIONS:
            self._lead_in_place_of_the_loop()
        reads = self._reads
        if self._role.locked() or self._loop_watch.active:
            time.sleep(max(GRACE, min(GRACE * patience, LONG_GRACE)))
        if self._reads == reads:
            self._read_what_is_there()
            return 1
        # What a muted loop is to read is not to wait long for a thread that may not come again.
        return min(2 * patience, 64) if self._loop_watch.listening else 1

    def _lead_in_place_of_the_loop(self) -> None:
        """Until no more questions come, somebody else wants to lead, or there is something for a loop again."""
        if not self._role.acquire(False):
            return
        self._loop_watch.listen(False)
        transport, received, decoder = self._transport, self._inbound.received, self._inbound.decoder
        spinner = self._spinner
        guard = threading.get_ident()
        handed_over.by = 0
        try:
            while not (self._over or self._followers or handed_over.by == guard):
                if transport.read_timeout != NO_QUESTIONS_SECONDS:
                    transport.set_read_timeout(NO_QUESTIONS_SECONDS)
                try:
                    count = (spinner.read() if spinner.allowed else 0) or transport.recv_into(decoder.free)
                except BlockingIOError:
                    break
                except ConnectionError:  # an end like any other
                    count = 0
                self._reads += 1
                if not received(count):
                    self._end()
                if self._inbound.monitor.due:
                    break  # log lines are said without the role
        finally:
            self._questions = 0
            self._role.release()
            if not (self._followers and self._call_next()):
                self._loop_watch.listen(True)
            if self._inbound.monitor.due:
                self._inbound.monitor.settle()


def _left(deadline: float | None) -> float:
    return -1 if deadline is None else max(deadline - time.monotonic(), 0.0)
