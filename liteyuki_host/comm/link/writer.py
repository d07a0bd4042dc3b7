"""The sending half of a link: who writes, and when. Callable from any thread.

Theory of operation
-------------------

**Queue.** Everything that is to be sent is queued in the :class:`Connection` first, under the lock. The exception is a
lone message, which :mod:`liteyuki_host.comm.link.sender` writes itself.

**Batching.** A lone message is written by its sender at once. A thread that keeps sending is batched: the first
:data:`INLINE_BURST` messages of a burst go out one by one, then they are queued until :data:`WRITE_SIZE` bytes are
together or the flusher thread takes what is there. Short ones are put on a stage meanwhile (``Stage`` in
``protocol/stage.py``), which takes no lock, and are queued many at a time.

**The writing role.** Whoever sets :attr:`Writer.writing` under the lock holds the role and writes outside the lock, so
that others can queue meanwhile. Before it gives the role up, the holder looks at the queue again, under the lock. So
nothing that was queued meanwhile is forgotten.

**The flusher.** One thread for each link. It writes what nobody else does: the end of a burst, grants that no message
has carried, and what a transport did not take at once. So the event loop, the reader and whoever holds a lock can send
without waiting. It is woken by the release of a lock that it acquires again and again, which costs less
than an ``Event``.

**A turn of the event loop.** What a turn has sent is written at its end (:meth:`Writer._flush_turn`), which is sooner
than the flusher wakes up.

**Bounds.** What may pile up in the queue is bounded by the streams' credit. Answers have none:
:meth:`Writer.replies_written` bounds them.

**Waiting.** Only a thread that says that it may wait finishes a partial write itself; the flusher would first have to
win the GIL, which the busy sender holds, while the peer has nothing to do.

**Failures.** An exception that nobody expects (no memory, Ctrl+C, a fault of ours) while the role is held ends the link
(:meth:`Writer.fail`): how much of a frame the peer has got is not known then, and a role that is never given up would
silence the link for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from liteyuki_host.comm.errors import LinkClosed
from liteyuki_host.comm.link.sender import sender
from liteyuki_host.comm.link.tuning import (
    BURST_GAP,
    BUSY_GRANT_DELAY,
    FLOOD_DELAY,
    GATHER_DELAY,
    GRANT_DELAY,
    INLINE_BURST,
)
from liteyuki_host.comm.protocol.connection import Connection
from liteyuki_host.comm.protocol.ledger import Ledger
from liteyuki_host.comm.protocol.messages import Control
from liteyuki_host.comm.protocol.outbound import WRITE_SIZE
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.loops import on_event_loop, running_loop
from liteyuki_host.comm.waiting.monitor import Held, Monitor
from liteyuki_host.comm.waiting.waiting import MAIN_THREAD, NOTHING, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

__all__ = ["Shortcut", "Writer"]


class Shortcut(Protocol):
    """See :meth:`Writer.shortcut`."""

    def __call__(self, payload: bytes, alone: bool = True) -> bool: ...


class Writer:
    """The sending half of a link, as the module describes it.

    Args:
        name: for the thread's name and for messages.
        monitor: guards this half of the link, with everything else of its exchange.

    Attributes:
        closed: no more data is accepted; what was accepted before is still written. Set under the lock.
        ended: nothing is sent any more; *closed* is set, too. Set under the lock.
        failure: what has ended the link from this side: an exception that nobody expects while something is written.
            Set once, by the thread that it was raised in; read at the link's end, which logs it.
        written: woken when a writer has given the transport all there was.
        quiet: nothing waits to be written but grants, and nobody writes: a sender may write its message there and then.
            Set by :meth:`_note_quiet` and by who takes the role, under the lock. False until :meth:`start`, as the
            greeting goes first.
        writing: a thread holds the writing role. Set under the lock.
        last_write: ``time.perf_counter()`` at the end of the last write. Set under the lock.
        burst: how many messages of the present burst have been written by their senders. Set under the lock.
        grants_of: what the flusher was woken for, if it was for grants alone, which may wait for a message that carries
            them: one of the streams that owe. Set under the lock.
        flushing: callers of :meth:`flush` that wait. Changed under the lock.
    """

    __slots__ = (
        "_handed_over",
        "_left",
        "_leftover",
        "_name",
        "_thread",
        "_turning",
        "_wake",
        "burst",
        "closed",
        "connection",
        "ended",
        "failure",
        "flushing",
        "grants_of",
        "last_write",
        "lock",
        "monitor",
        "owing",
        "quiet",
        "transport",
        "writing",
        "written",
    )

    def __init__(self, transport: Transport, connection: Connection, name: str, monitor: Monitor) -> None:
        self.transport = transport
        self.connection = connection
        self._name = name
        self.monitor = monitor
        self.lock = monitor.lock  # guards the connection's outbound half and what follows
        self.closed = False
        self.ended = False
        self.failure: BaseException | None = None
        self.written = Waiters()
        self.quiet = False
        self.writing = False
        self._leftover: list[
            bytes | memoryview
        ] = []  # what the transport did not take; written by the holder of the role, read by the flusher
        # The flusher has the role, and begins with the leftover. Set by the thread that had the role until then.
        self._handed_over = False
        self._left: Callable[[], None] | None = None  # called when nobody writes any more; set once, by `end`
        self.last_write = 0.0
        self.burst = 0
        self.owing = connection.owing
        self.owing.grant = self.grant
        self.grants_of: Ledger | None = None
        self._turning: asyncio.AbstractEventLoop | None = None  # the loop that will call _flush_turn at its turn's end
        self.flushing = 0
        self._wake = threading.Lock()  # released to wake the flusher
        self._wake.acquire()
        self._thread = DaemonThread(self._flush_forever, name=f"lycomm-write-{name}", core=True)

    @property
    def armed(self) -> bool:
        """Whether the flusher has been woken and has not looked yet. Set under the lock."""
        return self.owing.armed

    @armed.setter
    def armed(self, armed: bool) -> None:
        self.owing.armed = armed

    def start(self) -> None:
        """Start the flusher, and send the greeting."""
        self._thread.start()
        self.write_queued()

    def end(self, left: Callable[[], None]) -> None:
        """Send nothing any more, and let the flusher end. Nothing that is queued is written.

        Args:
            left: called when nobody writes, by the thread that gives the role up; at once by
                :meth:`look_whether_left`. The lock is held then. It may be called more than once.
        """
        with self.lock:
            self.ended = True
            self.close()
            self._left = left
            self.written.wake()
            self._wake_flusher()  # it ends

    def close(self) -> None:
        """Accept no more data: from now on every sender gets LinkClosed. What was accepted is still written. The caller
        holds the lock."""
        self.closed = True
        self.quiet = False
        self.connection.unstage()

    def give_up(self) -> None:
        """Send nothing any more, in a fork of the process that the link belongs to. The lock is not taken: the thread
        that holds it may not exist in the fork."""
        self.ended = self.closed = True
        self.quiet = False

    def look_whether_left(self) -> None:
        """If nobody writes, call what :meth:`end` was given; perhaps once more."""
        with self.lock:
            if self._left is not None and not self.writing:
                self._left()

    def join(self, timeout: float) -> None:
        """Wait for the flusher's end, at most *timeout* seconds; at once when called from it."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # --- sending ------------------------------------------------------------------------------------------------

    def send(
        self,
        stream: Stream,
        payload: bytes,
        flags: int = 0,
        request_id: int = 0,
        attempts: int = 0,
        *,
        one_of_many: bool = False,
        may_wait: bool = False,
        patient: bool = True,
    ) -> bool:
        """Send on *stream*; False when it has no credit.

        Args:
            one_of_many: the caller knows that more messages will follow, so this one is batched from the start.
            may_wait: the caller holds no lock and may be blocked until the peer reads, as long as the link lives. On an
                event loop and in the main thread, which Ctrl+C may interrupt in the middle of a write, it is not.
            patient: wait for the lock as long as it takes; False: no longer than a user's call may
                (``Monitor.take``).

        Raises:
            LinkClosed: the link is over, or closed for data; nothing was queued.
            Held: not *patient*, and the lock was not to be had in time; nothing was queued.
        """
        connection = self.connection
        monitor = self.monitor
        queued = False
        try:
            if not monitor.acquire(False):
                if patient:
                    monitor.acquire()
                elif not monitor.take():
                    raise Held
            if monitor.due and not patient:  # what was put off goes first
                monitor.perform()
            if self.closed:
                raise LinkClosed(f"the link to {self._name} is over")
            queued = True  # from here on, what nobody expects ends the link
            if self.writing or (self.armed and self.grants_of is None):
                if not connection.send(stream, payload, flags, request_id, attempts):
                    return False
                if self.writing or connection.pending < WRITE_SIZE:
                    return True  # a writer looks again before it leaves, and the flusher is on its way
            else:
                if not connection.send(stream, payload, flags, request_id, attempts):
                    return False
                self.burst = INLINE_BURST + 1 if one_of_many else self._written_in_a_row() + 1
                if self.burst > INLINE_BURST and connection.pending < WRITE_SIZE:
                    self._arm()  # it writes what the sender does not fill up to WRITE_SIZE
                    return True
            buffers = self._take_role()
        except BaseException as error:
            if queued:
                self.fail(error)
            raise
        finally:
            try:
                monitor.release()
            except RuntimeError:  # we have not got it
                pass
        try:
            self._write(buffers, may_wait=may_wait)
        except BaseException as error:
            self.fail(error)
            raise
        return True

    def shortcut(self, stream: Stream, *, outermost: bool = True) -> Shortcut:
        """Make a function that sends a short message without flags, if one of the two cheap ways is open. It returns
        False when none is; nothing was done then, and :meth:`send` is the way.

        ``shortcut(payload, alone=True)``. The ways, each what ``send`` does, in half of the time:

        - It joins others of its stream that wait already to be written: nearly all messages of a burst. On the stage,
          if that is open; else in the queue, and the stage is open from then on.
        - It is written by itself, unless *alone* is False: questions and answers, and the first of a burst.

        Args:
            outermost: the function is called by users, perhaps from inside (see ``waiting/monitor.py``), and refuses
                then. False: the caller may hold the lock.
        """
        return sender(self, stream, outermost)

    def take_back(self, stream: Stream, payload: bytes) -> bool:
        """Take back what may have come too late onto the stage of *stream*. False: it has been sent, or will be."""
        monitor = self.monitor
        try:
            monitor.enter()
            return stream.stage.take_back(payload)
        except Held:
            monitor.defer(lambda: self._send_what_is_left(stream, payload), "sending a message", len(payload))
            return False
        finally:
            monitor.leave()

    @staticmethod
    def _send_what_is_left(stream: Stream, payload: bytes) -> None:
        """Send *payload* if it was left on the stage. The caller holds the lock."""
        if stream.user is not None and stream.stage.take_back(payload):
            stream.user.accept(payload)

    def settle(self) -> None:
        """Give what is staged its place behind what has been sent."""
        with self.lock:
            self.connection.unstage()

    def _written_in_a_row(self) -> int:
        """Messages of one burst that were written one by one just before. The caller holds the lock."""
        connection = self.connection
        if connection.heard or time.perf_counter() - self.last_write > BURST_GAP:
            connection.heard = False
            self.burst = 0
        return self.burst

    def send_control(self, message: Control) -> None:
        """Send a control message, ahead of all data. Nothing happens when the link is over."""

        def queue() -> None:
            if not self.ended:
                self.connection.send_control(message)

        self.queue_and_write(queue)

    def open_stream(self, kind: str, name: str, join: Callable[[Stream], None] | None = None) -> Stream:
        """The stream for (*kind*, *name*), announced to the peer if it is new.

        Args:
            join: gives the stream a receiver, when it has none. Called before the peer can know of the stream: its
                first message may be here before this call returns.
        """

        def queue() -> Stream:
            stream = self.connection.open_stream(kind, name)
            if join is not None and stream.receiver is None:
                join(stream)
            return stream

        return self.queue_and_write(queue)

    # --- what was consumed --------------------------------------------------------------------------------------

    def consumed(self, stream: Stream, cost: int) -> None:
        """Count *cost* bytes of *stream* as consumed; a grant follows at once when it is worth a frame, else soon. For
        any number of consumers at once."""
        self.used(stream, cost)
        self.grant(stream)

    def used(self, stream: Stream, cost: int) -> None:
        """Count *cost* bytes of *stream* as consumed. The next message on it carries the grant, or :meth:`grant`."""
        with self.lock:
            stream.consume_quietly(cost)

    def grant(self, stream: Ledger) -> None:
        """Have the peer told what was consumed of *stream*: at once when that is worth a frame, else soon."""
        if stream.owes_much:
            self.write_queued()
        elif not self.armed:  # else the flusher has not looked yet at what is owed
            with self.lock:
                if not (self.writing or self.ended):
                    self._arm(grants_of=stream)

    # --- waiting for the transport ------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued has been given to the transport. Blocks the calling thread, which holds no lock.

        Args:
            timeout: seconds.

        Returns whether everything was; False also when the link has ended.
        """

        def attempt() -> bool | Nothing:
            with self.lock:
                idle = self.ended or not (self.writing or self.connection.wants_to_send)
            return idle or NOTHING

        with self.lock:
            self.flushing += 1  # the flusher does not gather any more
            if not self.ended:
                self._arm()
                self._wake_flusher()  # it may be waiting for more
        try:
            return self.written.wait(attempt, timeout) is True and not self.ended
        finally:
            with self.lock:
                self.flushing -= 1

    async def replies_written(self) -> None:
        """Wait until at most a window of bytes is queued: what bounds replies, which have no credit."""

        def attempt() -> bool | Nothing:
            few = self.connection.pending <= self.connection.window
            return True if few or self.ended else NOTHING

        await self.written.wait_async(attempt, None)

    # --- the writing role ---------------------------------------------------------------------------------------
    # A method that says "the caller holds the role, and loses it" has given it up when it returns: by _leave, or by
    # handing it over to the flusher together with what is left to write.

    def _take_role(self) -> list[bytes | memoryview]:
        """Take the writing role and return what there is to write; when there is nothing, the role stays free. The
        caller holds the lock, and has seen that the role is free."""
        try:
            buffers = self.connection.data_to_send()
            if buffers:
                self.writing = True
                self.quiet = False
            return buffers
        except BaseException as error:  # a part of it may have been taken off the queue
            self.fail(error)
            raise

    def write_queued(self) -> None:
        """Write what there is, as far as the transport takes it without waiting, unless somebody writes already."""
        self.queue_and_write(lambda: None)

    def queue_and_write(self, queue: Callable[[], T]) -> T:
        """Call *queue* with the lock held, then write what there is, as far as the transport takes it without waiting.
        If another thread has the writing role, that one writes it instead.

        Returns what *queue* has returned. An exception of *queue* is raised; nothing is written then.
        """
        buffers: list[bytes | memoryview] = []
        try:
            with self.lock:
                result = queue()
                if not (self.writing or self.ended):
                    # With nothing to write the role must stay free. Other threads would leave what they queue to its
                    # holder, and this one would not look at the queue again.
                    buffers = self._take_role()
            if buffers:
                self._write(buffers)
            return result
        except BaseException as error:
            if buffers:  # between the two steps, perhaps
                self.fail(error)
            raise

    def _note_quiet(self) -> None:
        """Set *quiet* anew. Called with the lock held, when *writing*, *closed*, *armed* or the queue has changed."""
        self.quiet = not (
            self.writing or self.closed or (self.armed and self.grants_of is None) or self.connection.has_output
        )

    def _write(self, buffers: list[bytes | memoryview], *, may_wait: bool = False) -> None:
        """Write *buffers*, and what has been queued since, as far as the transport takes it without waiting. The caller
        holds the writing role, and loses it. If this raises, the caller has to call :meth:`fail`.

        Args:
            may_wait: finish one partial write by waiting for the peer, if this thread can.
        """
        while True:
            try:
                taken = self.transport.try_write(buffers)
                size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
                if taken < size and may_wait and _can_wait():
                    self.transport.write_all(_after(buffers, taken))
                    taken = size
                    may_wait = False  # once: others may go on sending for ever, and the caller has to return
                more = self._next_buffers(buffers, taken, size)
            except OSError:
                self.write_failed()
                return
            if more is None:
                return
            buffers = more

    def write_on(self, buffers: list[bytes | memoryview], taken: int) -> None:
        """Go on after *taken* bytes of *buffers* have been written. The caller holds the writing role, and loses it. If
        this raises, the caller has to call :meth:`fail`."""
        more = self._next_buffers(buffers, taken, sum(map(len, buffers)))
        if more is not None:
            self._write(more)

    def _next_buffers(
        self, buffers: list[bytes | memoryview], taken: int, size: int
    ) -> list[bytes | memoryview] | None:
        """Return what to write next, when *taken* of the *size* bytes of *buffers* have been written.

        None: the role has been given up, since everything is written, or handed over to the flusher with the rest.
        """
        monitor = self.monitor
        if not monitor.take():
            if not self.ended:
                # Not to be had in time. The caller may hold a lock of the user's that the lock's present holder waits
                # for, so it must not wait longer. The flusher can: it gets the role, which stays taken meanwhile.
                self._leftover = _after(buffers, taken)
                self._handed_over = True
                self._wake_flusher()
                return None
            monitor.acquire()
        try:
            if taken < size and not self.ended:  # at the end there may be no flusher left that would give the role up
                self._leftover = _after(buffers, taken)
                self._handed_over = True
                self._arm()  # the flusher may be waiting for more
                self._wake_flusher()
                return None
            return self._more_to_write() or None
        finally:
            self.monitor.release()

    def _more_to_write(self) -> list[bytes | memoryview]:
        """Return what has been queued while the last write was made. Empty: there is nothing, and the role has been
        given up. The caller holds the lock."""
        connection = self.connection
        if not self.ended and (connection.has_output or connection.owes_much):
            return connection.data_to_send()
        if self.owing and not (self.armed or self.ended):  # the flusher has looked while we were writing
            self._arm(grants_of=next(iter(list(self.owing)), None))
        self._leave()
        return []

    def _leave(self) -> None:
        """Give the role up; no harm if the caller does not have it and nobody else does. The caller holds the lock."""
        self.writing = False
        self._note_quiet()
        # The end of the write, not its beginning: a slow system call must not make each message of a burst look lone.
        self.last_write = time.perf_counter()
        if self.written.callbacks:
            self.written.wake()
        if self._left is not None:
            self._left()

    def write_failed(self) -> None:
        """Give the role up and close the transport: the peer is gone. The reader still reads what has arrived, and ends
        the link when it comes to the end."""
        with self.lock:
            self._leave()
        self.transport.close()

    def fail(self, error: BaseException) -> None:
        """End the link because of *error*, which nobody expects here: no memory, Ctrl+C, a fault of ours. The caller
        has held the writing role, and loses it. The reader comes to the end of the transport then, and reports *error*
        as the link's cause."""
        if self.failure is None:
            self.failure = error
        self.write_failed()

    # --- the flusher --------------------------------------------------------------------------------------------

    def _arm(self, *, grants_of: Ledger | None = None) -> None:
        """Have what is queued written soon: by the flusher, and on an event loop by the end of its turn. The caller
        holds the lock.

        Args:
            grants_of: a stream that owes a grant, if there is nothing to write but grants. They wait for a message that
                may carry them.
        """
        if grants_of is None and not self._handed_over and (loop := running_loop()) is not self._turning:
            self._turning = loop
            if loop is not None:
                loop.call_soon(self._flush_turn)  # sooner than the flusher, unless the loop is blocked from now on
        if not self.armed:
            self.armed = True
            self.grants_of = grants_of
            self._wake_flusher()
        elif grants_of is None and self.grants_of is not None:
            self.grants_of = None
            self._wake_flusher()  # it may be waiting for a message to carry the grants
        self._note_quiet()

    def _wake_flusher(self) -> None:
        """Wake the flusher thread. From any thread, with the lock or without; more than once is harmless."""
        if self._wake.locked():  # else it has been woken and has not run yet
            try:
                self._wake.release()
            except RuntimeError:  # somebody else has just woken it
                pass

    def _flush_turn(self) -> None:
        """Write what one turn of the event loop has sent. Called by the loop, in no task."""

        def disarm() -> None:
            self._turning = None
            if not self.writing:
                self.armed, self.grants_of = False, None  # the flusher finds nothing
                self._note_quiet()

        self.queue_and_write(disarm)
        if self.monitor.due:
            self.monitor.settle()

    def _flush_forever(self) -> None:
        """Run the flusher until the link's end: the thread's boundary. An exception ends the link, with its cause."""
        while True:
            try:
                self._flush_until_ended()
            except BaseException as error:
                self.fail(error)
                if not self.ended:
                    continue  # until `end` is called; a writer may hand the role over before that
            return

    def _flush_until_ended(self) -> None:
        while True:
            self._wake.acquire()
            with self.lock:
                owing = self.grants_of
            # How long to gather. Each wait ends early when the flusher is woken once more: for a message instead of
            # grants, by `flush`, by a partial write, or by the link's end.
            if owing is not None:
                consumed = owing.consumed
                if not self._wake.acquire(timeout=GRANT_DELAY) and owing.consumed != consumed:
                    self._wake.acquire(timeout=BUSY_GRANT_DELAY)
            elif time.perf_counter() - self.last_write <= BURST_GAP:
                delay = GATHER_DELAY
                while not (self._handed_over or self.flushing or self.ended):
                    written = self.last_write
                    if self._wake.acquire(timeout=delay) or self.last_write == written:
                        break
                    delay = FLOOD_DELAY
            with self.lock:
                self.armed, self.grants_of = False, None
                if self.ended:
                    if self._handed_over:  # the role ends with this thread
                        self._handed_over, self._leftover = False, []
                        self._leave()
                    return
                if not self._handed_over:
                    if self.writing:  # that thread looks at the queue before it gives the role up
                        continue
                    self.writing = True
                    self.quiet = False
            try:
                self._write_blocking()
            except OSError:
                self.write_failed()
            if self.monitor.due:
                self.monitor.settle()

    def _write_blocking(self) -> None:
        """Write what others have left over and what is queued, waiting for the transport. The caller is the flusher,
        which holds the writing role, and loses it.

        A function of its own, so that its variables end with it: in the thread's loop they would keep what was written
        last in memory until the next write.
        """
        with self.lock:
            buffers, self._leftover, self._handed_over = self._leftover, [], False
            if not (buffers or self.ended):
                buffers = self.connection.data_to_send()
            if not buffers:
                self._leave()
        while buffers:
            self.transport.write_all(buffers)
            with self.lock:
                buffers = self._more_to_write()


def _can_wait() -> bool:
    """Whether this thread may be blocked until the peer reads: no event loop runs in it, and Ctrl+C cannot interrupt
    it in the middle of a write."""
    return not on_event_loop() and threading.get_ident() != MAIN_THREAD


def _after(buffers: list[bytes | memoryview], taken: int) -> list[bytes | memoryview]:
    """Return what is left of *buffers* behind the first *taken* bytes."""
    for index, buffer in enumerate(buffers):
        if taken < len(buffer):
            return [memoryview(buffer)[taken:], *buffers[index + 1 :]]
        taken -= len(buffer)
    return []
