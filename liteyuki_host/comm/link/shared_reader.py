"""The faster reader, on Linux: a waiting thread reads; else the event loop does; else a guard thread.

Theory of operation
-------------------

A message that is read by the thread that waits for it costs one system call. Read by a thread of its own it costs a
wake-up of that thread, a wake-up of the waiting one, and the GIL twice: three times as long, measured.

**The role.** One lock, the *role*, is held by the thread that reads just now. Any thread may look whether there is
something to read; only the holder reads and hands on. So messages keep their order, nothing is read twice, and a
needless wake-up costs one failed try. The link's lock is another one; the role is never waited for, so the two cannot
block each other.

**Who takes it.** In this order:

1. A thread that waits for something of this link and finds the role free *leads* (:meth:`SharedReader.lead`). It blocks
   in the read and hands on whatever comes, also what is for others, until it has what it waits for. Further waiting
   threads *follow* (:meth:`SharedReader.wait`): they sleep at their gates, and whoever gives the role up calls one of
   them to lead. A leader that has read :data:`READS_FOR_OTHERS` times without getting what it waits for leaves reading
   to the loop and sleeps at its gate. One that has asked and waited in turn :data:`TURNS` times polls for its answer
   for :data:`SPIN_SECONDS` before it sleeps.
2. The attached event loop, when no thread leads. It watches an epoll object of ours that contains the socket
   (``loop_watch.py``). A leader mutes that object, so that the loop is not woken by what others read. A thread that
   leads again and again leaves it muted in between; when that thread does not come again, the guard reads once and
   unmutes the loop.
3. The guard, when there is no loop, or when the loop does not read within :data:`GRACE` because it is blocked. The
   guard sleeps in the kernel until there is something to read; while the link is silent, nothing wakes up.

   It also leads in place of the loop when the peer asks one question after another (:data:`QUESTIONS`) and each can be
   answered where it is read. In the host that is so with the shared memory, its locks, and what one child sends to
   another. A turn of an event loop costs more than such an answer.

**Why no wake-up is lost.** A waiting thread enters the list of followers first and looks at the role second; a thread
that gives the role up releases it first and looks at the list second. One of the two sees the other. Correctness never
depends on muting: a loop that finds the role taken mutes, and unmutes if the role was given up meanwhile; what still
slips through is read by the guard.

**The main thread never leads.** Ctrl+C may raise KeyboardInterrupt there between any two lines, also between the
arrival of a message and its receiver. The loop may run in the main thread; an interrupt while it reads ends the link.

**The end.** The thread that reads the end of the stream hands it on (``received(0)``, which ends the link) and then
sets ``_over``; every loop here stops at that. The end makes the socket readable, which wakes the guard. The descriptor
is closed only after the guard has gone (:meth:`SharedReader.at_end`).

**Finalizers.** Code of the user may run at any allocation, also in a thread that leads. If it would have to wait for
something of a link there, it is refused (``leading`` in ``waiting/monitor.py``), as that thread is the one that reads.
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
    """A transport whose descriptor can be watched by epoll."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
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
    """Reads one link in whichever thread is best placed, as the module describes it.

    The fields below are guarded by the role unless something else is said. Those read without it only decide how soon
    somebody reads, so that an old value costs time but no message.
    """

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
        self._role = threading.Lock()  # taken without waiting only
        # Gates of the threads that wait to be called, oldest first. No lock: each change is one step of the deque.
        self._followers: deque[Gate] = deque()
        self._led_by: int | None = None  # the thread that led last
        self._led_until = 0.0  # `time.monotonic()` when it stopped
        self._turns = 0  # how often it came again within TURN_SECONDS; read without the role to decide on muting
        self._spinner = Spinner(transport, inbound.decoder)
        # The last leader, if it gave up after READS_FOR_OTHERS. That thread reads it without the role, right after it
        # has led. If another thread has led in between, it finds None and follows instead: slower, not wrong.
        self._left_to_loop: int | None = None
        self._reads = 0  # reads that brought something, or the end; the guard compares it, without the role
        # Small reads in a row that gave the loop nothing to do, and when the last one was. Written on the loop's thread
        # after it gave the role up, and reset by the guard. A lost change has the guard lead a little sooner or later.
        self._questions = 0
        self._last_question = 0.0
        self._over = False  # the end was read, or the link has failed; never reset, read by all threads
        self._loop_watch = LoopWatch(self._descriptor, self._read_what_is_there)
        # Written by the writer's side and by the guard; each writes its own first and then reads the other's, so that
        # one of them releases, perhaps both. See `at_end`.
        self._release: Callable[[], None] | None = None
        self._guard_gone = False
        self._guard = DaemonThread(self._stand_guard, name=f"lycomm-read-{name}", core=True)

    def start(self) -> None:
        """Start the guard.

        Raises:
            OSError, RuntimeError, MemoryError: there was no descriptor, thread or memory for it. Nothing was started.
        """
        # Made here and not by the guard, so that the caller gets the error. Without it nobody would read.
        self._guarding = select.epoll()
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
        """Have *release* called once the guard has gone: now, or by the guard; perhaps by both. Closing a descriptor
        wakes nobody who watches it, so it has to stay open until the guard has seen the end."""
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
        """Read in this thread until it has what it waits for; see ``Reader.lead``.

        Returns NOTHING at once when another thread reads, in the main thread, and after the end. Else also when *ready*
        says so, at *deadline*, at the end, when reading is left to the loop, and when log lines are due, which run code
        of the user and so are written without the role. The caller looks again at what it waits for.

        Raises:
            ReentrantCall: this thread leads already; a finalizer has interrupted it.
        """
        thread = threading.get_ident()
        if thread in leading:
            refuse_to_wait("a call that waits for something of a link")
        if self._over or thread == MAIN_THREAD or not self._role.acquire(False):
            return NOTHING
        inbound, transport, watch = self._inbound, self._transport, self._loop_watch
        monitor = inbound.monitor
        due = monitor.due
        try:
            leading.add(thread)
            # Does this thread ask and wait in turn? Then it soon comes again, and a short poll is worth it.
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
            if inbound.connection.queue:  # perhaps the question whose answer this thread waits for
                inbound.write_queued()
            while not self._over:
                # For a queue, what `ready` would find out is written out here: this spares a call per message.
                if (queue.units or queue.closed) if queue is not None else ready():
                    break
                if reads == READS_FOR_OTHERS and watch.active:
                    self._left_to_loop = thread
                    self._turns = 0  # so that `finally` unmutes the loop
                    break
                if deadline is not None:
                    seconds = min(deadline - time.monotonic(), SLICE)
                    if seconds <= 0:
                        break
                if seconds != transport.read_timeout:
                    transport.set_read_timeout(seconds)
                try:
                    count = (spinner.read() if spinning else 0) or recv_into(decoder.free)
                except BlockingIOError:  # the read timeout is over: look at `ready` and the deadline
                    continue
                except ConnectionError:  # an end like any other
                    count = 0
                self._reads += 1
                reads += 1
                message = received(count, wanted)
                if message is True:
                    if due:
                        monitor.settle()
                        if due:  # log lines are left, which are written when the role has been given up
                            break
                    continue
                if message is not False:
                    return message  # the one of *wanted*, handed to this thread without its queue
                self._end()
            return NOTHING
        finally:
            self._led_until = time.monotonic()
            leading.discard(thread)
            self._role.release()
            # Somebody else has to read now: a follower, else the loop. A thread that comes again soon leaves the loop
            # muted; should it not come, the guard reads.
            if not (self._followers and self._call_next()) and self._turns < TURNS:
                watch.listen(True)
            if due:
                monitor.settle()

    def wait(self, gate: Gate, timeout: float) -> bool:
        """Wait until *gate* is open, and read meanwhile if nobody else does. From any thread.

        At the link's end the owner of the gate has to open it.

        Args:
            timeout: seconds; -1 waits as long as it takes.

        Returns whether it is open. Rarely True for a gate that was only called to lead, so the caller has to look again
        at what it waits for.

        Raises:
            ReentrantCall: this thread must not wait, because others wait for it.
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
            if self._left_to_loop == threading.get_ident():  # the guard reads if the loop is blocked or gone
                return gate.wait(_left(deadline)) or gate.opened
            self._followers.append(gate)
            if not self._role.locked():  # perhaps given up before this gate was in the list: try to lead again
                self._forget(gate)
                if deadline is not None and time.monotonic() >= deadline:
                    return gate.opened
                continue
            woken = gate.wait(_left(deadline))
            called = not self._forget(gate)
            if gate.opened or not woken:
                if called:
                    self._call_next()  # this thread leaves, so the call to lead has to go to another one
                return gate.opened
        return gate.opened or gate.wait(_left(deadline))

    def look(self) -> float:
        """Read what has arrived, without waiting, unless another thread reads or this is the main thread.

        Returns the seconds within which another thread will have handed on what has arrived: HAND_ON_SECONDS if
        something lies in the socket, BETWEEN_SECONDS if a thread holds the role and may just have read something; else
        0.
        """
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
        """Have nothing read any more, as the link is over. Called before its descriptor is closed."""
        self._over = True
        self._loop_watch.end()

    def _read_what_is_there(self, turn: Turn | None = None, *, again: bool = True) -> int:
        """Read at most :data:`READS_AT_ONCE` times without waiting, unless another thread reads. Called by the loop, by
        the guard, and by a thread that does not wait.

        Args:
            turn: of the loop that reads; None: the caller is no loop. Its calls are made when the role was given up.
            again: read on in the same turn if the last read brought much.

        Returns how many bytes the last read brought.
        """
        if not self._role.acquire(False):
            if turn is not None:
                self._loop_watch.listen(False)
                if not self._role.locked():  # given up meanwhile, and perhaps unmuted before this muted
                    self._loop_watch.listen(True)
            return 0
        count = 0
        transport, received, decoder = self._transport, self._inbound.received, self._inbound.decoder
        if turn is not None:
            turn.thread = threading.get_ident()
            had_turn()  # a callback that is called with what is read here then need not wait before it sends
            reading[turn.loop] = turn
        try:
            reads = READS_AT_ONCE
            while reads and not self._over:
                reads -= 1
                buffer = decoder.free
                room = len(buffer)  # before `received`: the buffer may be given back at the link's end
                try:
                    count = transport.recv_into(buffer, 0, transport.at_once)
                except BlockingIOError:
                    break
                except ConnectionError:  # an end like any other
                    count = 0
                self._reads += 1
                if not received(count, None, turn):
                    self._end()
                if count < room:  # no more was there
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
                if turn.due:  # there is work for the loop, so the guard must not read in its place
                    self._questions = 0
                    turn.end()
                else:
                    self._note_question(count)
        if count >= MUCH and again and turn is not None:
            self._read_on(turn)
        return count

    def _read_on(self, turn: Turn) -> None:
        """Read on in the same turn of the loop, at most about :data:`READ_ON_SECONDS`, as long as each round ends with
        a large read: while the last one was handled, its sender has probably written more."""
        until = time.monotonic() + READ_ON_SECONDS
        while self._read_what_is_there(turn, again=False) >= MUCH and time.monotonic() < until:
            pass

    def _note_question(self, size: int) -> None:
        """Count a read of *size* bytes with which the loop had nothing to do; start anew if it was large or late. On
        the loop's thread."""
        now = time.monotonic()
        soon = now - self._last_question < QUESTION_SECONDS
        self._questions = self._questions + 1 if soon and 0 < size <= QUESTION_SIZE else 0
        self._last_question = now

    def _call_next(self) -> bool:
        """Take the oldest follower off the list and call it to lead. False: there is none."""
        while self._followers:
            try:
                gate = self._followers.popleft()
            except IndexError:
                break
            if not gate.opened:  # else that thread has what it waits for and leaves
                gate.call()
                return True
        return False

    def _forget(self, gate: Gate) -> bool:
        """Take a follower off the list. False: it is not there any more, because it was called to lead."""
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
        """Sleep until there is something to read, see to it that somebody reads it, and so on. Each wake-up has to be
        asked for (ONESHOT): the guard is not woken again while others read the same bytes."""
        once = select.EPOLLIN | select.EPOLLONESHOT
        with self._guarding as watch:
            watch.register(self._descriptor, once)
            patience = 1
            while not self._over:
                watch.poll()  # without a deadline: closing the transport makes the socket readable
                try:
                    patience = self._look_after_it(patience)
                except Exception as error:
                    # Nothing has been taken from the socket then, so a shortage is waited out. Without a guard the link
                    # might never be read again.
                    if not is_shortage(error):
                        self._inbound.failed(error)
                        self._end()
                        return
                    time.sleep(SHORTAGE_SECONDS)
                watch.modify(self._descriptor, once)

    def _look_after_it(self, patience: int) -> int:
        """See to it that what lies in the socket is read: give a leader or the loop some time, then read it here.

        Args:
            patience: what :data:`GRACE` is multiplied by; no wait is longer than :data:`LONG_GRACE`. It doubles, up to
                64, each time the others were in time, so that the guard wakes up less often beside a loop that works.

        Returns the patience for the next time.
        """
        if self._questions >= QUESTIONS:
            self._lead_in_place_of_the_loop()
        reads = self._reads
        if self._role.locked() or self._loop_watch.active:
            time.sleep(max(GRACE, min(GRACE * patience, LONG_GRACE)))
        if self._reads == reads:
            self._read_what_is_there()
            return 1
        # A muted loop does not read, and the thread that muted it may not come again: do not wait long then.
        return min(2 * patience, 64) if self._loop_watch.listening else 1

    def _lead_in_place_of_the_loop(self) -> None:
        """Lead, if the role is free, until no question has come for :data:`NO_QUESTIONS_SECONDS`, a thread follows, a
        loop was given something to do by what was read here (:data:`handed_over`), or calls are due."""
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
                    break  # log lines are written without the role
        finally:
            self._questions = 0
            self._role.release()
            if not (self._followers and self._call_next()):
                self._loop_watch.listen(True)
            if self._inbound.monitor.due:
                self._inbound.monitor.settle()


def _left(deadline: float | None) -> float:
    """Return the seconds until *deadline*, at least 0; -1, which a lock takes as for ever, if there is none."""
    return -1 if deadline is None else max(deadline - time.monotonic(), 0.0)
