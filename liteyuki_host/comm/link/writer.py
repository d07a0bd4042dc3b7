"""Who writes to a link, and when. Callable from any thread.

A lone message is written by its sender at once. Who keeps sending is batched: the first
:data:`INLINE_BURST` messages of a burst go out one by one, then they queue until :data:`WRITE_SIZE` bytes are
together or the flusher thread takes what is there. Short ones are put on a stage meanwhile (``Stage`` in
``protocol/stage.py``), which takes no lock, and queue many at a time. What the transport does not take at once is the
flusher's to write, so that the event loop, the reader and whoever holds a lock can send without waiting; what may pile
up is bounded by the streams' credit. Only a thread that says that it may wait writes its rest itself: in the hands of
the flusher it would wait for the interpreter's lock, which the busy sender holds, while the peer has nothing to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

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
from liteyuki_host.comm.protocol.connection import WRITE_SIZE, Connection
from liteyuki_host.comm.protocol.ledger import Ledger
from liteyuki_host.comm.protocol.messages import Control
from liteyuki_host.comm.protocol.stage import Stage
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.loops import on_event_loop, running_loop
from liteyuki_host.comm.waiting.waiting import MAIN_THREAD, NOTHING, Nothing, Waiters

if TYPE_CHECKING:
    import asyncio

__all__ = ["Shortcut", "Writer"]


class Shortcut(Protocol):
    """See :meth:`Writer.shortcut`."""

    def __call__(self, payload: bytes, alone: bool = True) -> bool: ...


class Writer:
    """See the module's docstring. The sending half of a link.

    Args:
        name: for the thread's name and for messages.
    """

    __slots__ = (
        "_flush_idle",
        "_left",
        "_leftover",
        "_name",
        "_thread",
        "_turning",
        "_wake",
        "armed",
        "burst",
        "closed",
        "connection",
        "ended",
        "flushing",
        "grants_of",
        "last_write",
        "lock",
        "quiet",
        "transport",
        "writing",
        "written",
    )

    def __init__(self, transport: Transport, connection: Connection, name: str) -> None:
        self.transport = transport
        self.connection = connection
        self._name = name
        self.lock = threading.Lock()  # guards the connection's outbound half and what follows
        self.closed = False  # no more data is accepted; what was accepted before is still written
        self.ended = False  # nothing is sent any more; then it is closed too
        self.written = Waiters()  # woken when a writer has given the transport all there was
        self.quiet = False
        """Nothing waits to be written but grants, and nobody writes: who has a message may write it there and then.
        Set by :meth:`_note_quiet`; the greeting waits until :meth:`start`."""
        self.writing = False  # somebody holds the writing role
        self._leftover: list[bytes | memoryview] = []  # what a non-blocking write did not take; the flusher's
        self._left: Callable[[], None] | None = None  # called when nobody writes any more
        self.last_write = 0.0
        self.burst = 0
        self.armed = False  # the flusher has been woken and has not yet looked
        self.grants_of: Ledger | None = None  # ... and only for grants, which may wait for a message: one they are of
        self._turning: asyncio.AbstractEventLoop | None = None  # it is about to write what its turn has sent
        self._flush_idle = threading.Condition(self.lock)
        self.flushing = 0  # callers that wait for it
        self._wake = threading.Lock()  # released to wake the flusher
        self._wake.acquire()
        self._thread = DaemonThread(self._flush_forever, name=f"lycomm-write-{name}")

    def start(self) -> None:
        """Start the flusher, and send the greeting."""
        self._thread.start()
        self.write_queued()

    def end(self, left: Callable[[], None]) -> None:
        """Nothing is sent any more. *left* is called by whoever writes just now when that has come to its end."""
        with self.lock:
            self.ended = True
            self.close()
            self._left = left
            self._flush_idle.notify_all()
            self.written.wake()
            self._wake_flusher()  # it ends

    def close(self) -> None:
        """Accept no more data: from now on every sender learns that the link is over. What was accepted is still
        written. The caller holds the lock."""
        self.closed = True
        self.quiet = False
        self.connection.unstage()

    def give_up(self) -> None:
        """Nothing is sent any more, in a copy of the process that the link belongs to. The lock is left alone: a thread
        may have it that is not there in the copy."""
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
    ) -> bool:
        """Send on *stream*; False when it has no credit.

        Args:
            one_of_many: the caller knows that more will follow: as if a burst had been going on.
            may_wait: the caller holds no lock and may be blocked until the peer reads, as long as the link lives. On an
                event loop and in the main thread, which Ctrl+C may interrupt in the middle of a write, it is not.

        Raises:
            LinkClosed: the link is over, or closed for data; nothing was queued.
        """
        lock = self.lock
        connection = self.connection
        lock.acquire()
        try:
            if self.closed:
                raise LinkClosed(f"the link to {self._name} is over")
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
                    self._arm()
                    return True
            self.writing = True
            self.quiet = False
            buffers = connection.data_to_send()
        finally:
            lock.release()
        self._write(buffers, may_wait=may_wait)
        return True

    def shortcut(self, stream: Stream) -> Shortcut:
        """A function that sends a short message without flags, if one of the two cheap ways is open. False: none is,
        nothing was done, and :meth:`send` is the way.

        ``shortcut(payload, alone=True)``. The ways, each what ``send`` does, in half of the time:

        - It joins others of its stream that wait already to be written: nearly all messages of a burst. On the stage,
          if that is open; else in the queue, and the stage is open from then on.
        - It is written by itself, unless *alone* is False: questions and answers, and the first of a burst.
        """
        return sender(self, stream)

    def take_back(self, stage: Stage, payload: bytes) -> bool:
        """Take back what may have come too late onto a stage; False: it has been sent."""
        with self.lock:
            return stage.take_back(payload)

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
        with self.lock:
            if self.ended:
                return
            self.connection.send_control(message)
            begun = self.begin()
        self.write_begun(begun)

    def open_stream(self, kind: str, name: str, join: Callable[[Stream], None] | None = None) -> Stream:
        """The stream for (*kind*, *name*), announced to the peer if it is new.

        Args:
            join: gives the stream a receiver, when it has none. Called before the peer can know of the stream: its
                first message may be here before this call returns.
        """
        with self.lock:
            stream = self.connection.open_stream(kind, name)
            if join is not None and stream.receiver is None:
                join(stream)
            begun = self.begin()
        self.write_begun(begun)
        return stream

    # --- what was consumed --------------------------------------------------------------------------------------

    def consumed(self, stream: Stream, cost: int) -> None:
        """Count *cost* bytes of *stream* as consumed; a grant follows when it is worth a frame, else soon. For any
        number of consumers at once."""
        self.used(stream, cost)
        self.grant(stream)

    def used(self, stream: Stream, cost: int) -> None:
        """Count *cost* bytes of *stream* as consumed. The next message on it carries the grant, or :meth:`grant`."""
        with self.lock:
            stream.consume(cost)

    def grant(self, stream: Stream) -> None:
        """Have the peer told what was consumed of *stream*: at once when that is worth a frame, else soon."""
        if stream.owes_much:
            self.write_queued()
        elif not self.armed:  # else the flusher has not looked yet at what is owed
            with self.lock:
                if not (self.writing or self.ended):
                    self._arm(grants_of=stream)

    # --- waiting for the transport ------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued has been given to the transport; False after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        with self.lock:
            if not self.ended:
                self._arm()
                self._wake_flusher()  # it may be waiting for more
            self.flushing += 1
            try:
                while not self.ended and (self.writing or self.connection.wants_to_send):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._flush_idle.wait(left):
                        return False
            finally:
                self.flushing -= 1
        return not self.ended

    async def replies_written(self) -> None:
        """Wait until at most a window of bytes is queued: what bounds replies, which have no credit."""

        def attempt() -> bool | Nothing:
            few = self.connection.pending <= self.connection.window
            return True if few or self.ended else NOTHING

        await self.written.wait_async(attempt, None)

    # --- the role -----------------------------------------------------------------------------------------------
    # Whoever sets `writing` under the lock holds it and writes outside the lock. Before leaving, the holder
    # looks at the queue again under the lock, so nothing queued meanwhile is forgotten.

    def write_queued(self) -> None:
        """Write what there is, as far as the transport takes it without waiting, unless somebody writes already."""
        with self.lock:
            begun = self.begin()
        self.write_begun(begun)

    def begin(self) -> list[bytes | memoryview] | None:
        """Take the writing role and what there is to write. None: there is nothing, or somebody else has the role and
        will look again. The caller holds the lock, and goes on with :meth:`write_begun` without it. Whoever has queued
        something does this before it lets go of the lock, or arms the flusher."""
        if self.writing or self.ended:
            return None
        buffers = self.connection.data_to_send()
        if not buffers:
            return None  # no role for nothing: what is queued from now on would be left to one who does not look again
        self.writing = True
        self.quiet = False
        return buffers

    def write_begun(self, buffers: list[bytes | memoryview] | None) -> None:
        if buffers is not None:
            self._write(buffers)

    def _note_quiet(self) -> None:
        """Who writes, or is armed to, has changed. The caller holds the lock."""
        self.quiet = not (
            self.writing or self.closed or (self.armed and self.grants_of is None) or self.connection.has_output
        )

    def _write(self, buffers: list[bytes | memoryview], *, may_wait: bool = False) -> None:
        """Write *buffers*, and what else there is, as far as the transport takes it without waiting. The caller holds
        the writing role, and loses it."""
        while True:
            try:
                taken = self.transport.try_write(buffers)
                size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
                if taken < size and may_wait and _can_wait():
                    self.transport.write_all(_after(buffers, taken))
                    taken = size
                    may_wait = False  # once: others may go on for ever, and the caller wants to return
            except OSError:
                self.write_failed()
                return
            more = self._next_buffers(buffers, taken, size)
            if more is None:
                return
            buffers = more

    def write_on(self, buffers: list[bytes | memoryview], taken: int) -> None:
        """The caller, who holds the writing role and loses it, has written *taken* bytes of *buffers*."""
        more = self._next_buffers(buffers, taken, sum(map(len, buffers)))
        if more is not None:
            self._write(more)

    def _next_buffers(
        self, buffers: list[bytes | memoryview], taken: int, size: int
    ) -> list[bytes | memoryview] | None:
        """What to write when *taken* of the *size* bytes of *buffers* have been; None: the role has been given up."""
        with self.lock:
            if taken < size and not self.ended:  # else the flusher may have ended: it would never give the role up
                self._leftover = _after(buffers, taken)
                self._arm()  # the role goes to the flusher, which may be waiting for more
                self._wake_flusher()
                return None
            return self._more_to_write() or None

    def _more_to_write(self) -> list[bytes | memoryview]:
        """What should be written now that all there was has been. Nothing: the role has been given up. The caller holds
        the lock."""
        connection = self.connection
        if not self.ended and (connection.has_output or connection.owes_much):
            return connection.data_to_send()
        if connection.owing and not (self.armed or self.ended):  # the flusher has looked while we were writing
            self._arm(grants_of=next(iter(list(connection.owing)), None))
        self._leave()
        return []

    def _leave(self) -> None:
        """Give the role up. The caller holds the lock."""
        self.writing = False
        self._note_quiet()
        # Its end, not its beginning: a slow system call must not make every message of a burst look lone.
        self.last_write = time.perf_counter()
        if self.flushing:
            self._flush_idle.notify_all()
        if self.written.callbacks:
            self.written.wake()
        if self._left is not None:
            self._left()

    def write_failed(self) -> None:
        """The peer is gone. What arrived from it is still read; the reader ends the link."""
        with self.lock:
            self._leave()
        self.transport.close()

    # --- the flusher --------------------------------------------------------------------------------------------

    def _arm(self, *, grants_of: Ledger | None = None) -> None:
        """Wake the flusher. The caller holds the lock.

        Args:
            grants_of: there is nothing to write but grants, of this stream among others.
        """
        if grants_of is None and not self._leftover and (loop := running_loop()) is not self._turning:
            self._turning = loop
            if loop is not None:
                loop.call_soon(self._flush_turn)  # sooner than the flusher, unless the loop is blocked from now on
        if not self.armed:
            self.armed = True
            self.grants_of = grants_of
            self._wake_flusher()
        elif grants_of is None and self.grants_of is not None:
            self.grants_of = None
            self._wake_flusher()
        self._note_quiet()

    def _wake_flusher(self) -> None:
        if self._wake.locked():  # else it has been woken and has not got to it
            self._wake.release()

    def _flush_turn(self) -> None:
        """What one turn of the event loop has sent is together."""
        with self.lock:
            self._turning = None
            if not self.writing:
                self.armed, self.grants_of = False, None  # the flusher finds nothing
                self._note_quiet()
            begun = self.begin()
        self.write_begun(begun)

    def _flush_forever(self) -> None:
        while True:
            self._wake.acquire()
            with self.lock:
                owing = self.grants_of
            if owing is not None:
                # A message may come along and carry them; a second wake-up ends the wait.
                consumed = owing.consumed
                if not self._wake.acquire(timeout=GRANT_DELAY) and owing.consumed != consumed:
                    self._wake.acquire(timeout=BUSY_GRANT_DELAY)
            elif time.perf_counter() - self.last_write <= BURST_GAP:
                delay = GATHER_DELAY
                while not (self._leftover or self.flushing or self.ended):
                    written = self.last_write
                    if self._wake.acquire(timeout=delay) or self.last_write == written:
                        break
                    delay = FLOOD_DELAY
            with self.lock:
                self.armed, self.grants_of = False, None
                if self.ended:
                    if self._leftover:  # the role was handed to us, and dies with us
                        self._leftover = []
                        self._leave()
                    return
                if not self._leftover:
                    if self.writing:
                        continue
                    self.writing = True
                    self.quiet = False
            try:
                self._write_blocking()
            except OSError:
                self.write_failed()

    def _write_blocking(self) -> None:
        """Like :meth:`_write`, waiting for the transport, and with what others have left over. Only the flusher may,
        which holds the writing role and loses it. Here, not in its loop, so that no name there keeps what was written
        for as long as nothing else is."""
        with self.lock:
            buffers, self._leftover = self._leftover, []
            if not (buffers or self.ended):
                buffers = self.connection.data_to_send()
            if not buffers:
                self._leave()
        while buffers:
            self.transport.write_all(buffers)
            with self.lock:
                buffers = self._more_to_write()


def _can_wait() -> bool:
    return not on_event_loop() and threading.get_ident() != MAIN_THREAD


def _after(buffers: list[bytes | memoryview], taken: int) -> list[bytes | memoryview]:
    """What is left of *buffers* behind the first *taken* bytes."""
    for index, buffer in enumerate(buffers):
        if taken < len(buffer):
            return [memoryview(buffer)[taken:], *buffers[index + 1 :]]
        taken -= len(buffer)
    return []
