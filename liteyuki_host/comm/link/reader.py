"""Which thread reads a link: the interface of readers, and the portable one.

Theory of operation
-------------------

A link is read by one thread at a time, and everything that arrives is handled in that thread. A :class:`Reader`
decides which one it is. There are two readers, and the tests hold both to the same contract:

- :class:`ThreadReader`, here: one daemon thread, on every system and for every transport.
- ``SharedReader`` (``shared_reader.py``): on Linux, a waiting thread, the event loop or a guard thread. It is faster,
  as a message that is waited for needs no change of threads.

A reader reads into the buffer of its :class:`ReadTarget`, the link, and calls ``received`` with the count. It does not
look into the bytes, holds no lock of the link, and stops for good when ``received`` or ``failed`` returns False.

Callers that wait for something of the link use :meth:`Reader.lead`, :meth:`Reader.wait` or :meth:`Reader.look`
(``waiting/waiting.py``, ``channel/inbox.py``). So a reader may use their threads for reading; the portable one does
not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from liteyuki_host.comm.link.tuning import HAND_ON_SECONDS
from liteyuki_host.comm.protocol.connection import Connection
from liteyuki_host.comm.protocol.frames import FrameDecoder
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.comm.transport import Transport
from liteyuki_host.comm.waiting.loops import Turn
from liteyuki_host.comm.waiting.monitor import Monitor, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Gate, Nothing

if TYPE_CHECKING:
    import asyncio

__all__ = ["Alone", "ReadTarget", "Reader", "Receive", "ThreadReader"]


Alone = tuple[bytes, int, int, Any]
"""A message on its way to who waits for it: payload, flags, 0 (it is no request), and the stream's ``source``."""


class Receive(Protocol):
    """The type of :attr:`ReadTarget.received`. Implemented by ``receiver.py``."""

    def __call__(self, count: int, wanted: Stream | None = None, turn: Turn | None = None) -> bool | Alone:
        """Handle *count* bytes that were read into the decoder's buffer; 0: the stream has ended. Never raises an
        Exception: an error ends the link. Called by one thread at a time.

        Args:
            wanted: the stream of which the caller waits for a message, if it does; none of it waits in the queue.
            turn: of the loop that reads; None: the caller is no loop.

        Returns:
            the message that the caller waits for, if it is all that has arrived. It is consumed by that, and its
            queue does not get it. Else True to read on, or False when the link is over and nothing more is to be read.
        """
        ...


class ReadTarget(Protocol):
    """What a reader hands to what it has read. Implemented by the link; none of the attributes is ever replaced."""

    decoder: FrameDecoder
    """Its ``free`` is the buffer for the next read. Used by the thread that reads."""

    received: Receive

    monitor: Monitor
    """The thread that reads settles it (calls that were put off, log lines) when what it has read was handled and it
    holds no lock or role."""

    def failed(self, error: BaseException) -> bool:
        """End the link because of *error*, which the reader did not expect. Never raises an Exception. Returns False,
        so that the reader stops."""
        ...

    connection: Connection
    """Its ``queue`` has what was not written yet. Readers only look whether it is empty, without the lock."""

    def write_queued(self) -> None:
        """Write what is in the queue, as far as that needs no waiting. Called by a thread that is about to wait, as it
        may wait for the answer to a message in the queue."""
        ...


class Reader(Protocol):
    """Decides which thread reads a link. Every method may be called from any thread."""

    def start(self) -> None:
        """Begin reading. Called once, by the link.

        Raises:
            OSError, RuntimeError, MemoryError: there was no descriptor, thread or memory for it. Nothing is read then.
        """
        ...

    def join(self, timeout: float) -> None:
        """Wait for the end of the reader's thread, at most *timeout* seconds; at once when called from it."""
        ...

    def at_end(self, release: Callable[[], None]) -> None:
        """Have *release* called as soon as the reader's own thread cannot be inside the transport any more: at once, or
        later by that thread; perhaps twice. Called at the link's end, with the link's lock held."""
        ...

    def wait(self, gate: Gate, timeout: float) -> bool:
        """Block until *gate* is open, which something that is read opens. The caller holds no lock of lycomm.

        Args:
            timeout: seconds; -1: as long as it takes. The link's end has to open the gate too.

        Returns whether it is open, or whether its thread was called; the caller looks again.

        Raises:
            ReentrantCall: the calling thread must not wait: it reads, works for lycomm, or is in a log sink.
        """
        ...

    def lead(
        self, ready: Callable[[], object], deadline: float | None, wanted: Stream | None = None
    ) -> Alone | Nothing:
        """Read in this thread, if the reader allows that, until *ready* returns something true.

        May return before that at any time, and does so at *deadline* and at the link's end. The caller looks again and
        then uses :meth:`wait`.

        Args:
            ready: called before each read, without the link's lock.
            deadline: by ``time.monotonic``; None: there is none.
            wanted: a stream of which the caller waits for a message, see :class:`Receive`.

        Returns the message of *wanted*, if one was handed to this thread; else NOTHING.
        """
        ...

    def look(self) -> float:
        """Read what has arrived, without waiting, if this thread may read just now. For ``receive(timeout=0)``.

        Returns the seconds within which another thread will have handed on what has arrived; 0: nothing has.
        """
        ...

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop* read, if the reader makes use of it; no other loop from now on."""
        ...

    def detach_loop(self) -> None:
        """Let no loop read any more."""
        ...


class ThreadReader:
    """Reads in one daemon thread that blocks in the transport.

    So the link is read before the event loop exists, while that is blocked, and while it shuts down. The thread ends
    with the stream; closing the transport ends it early. All attributes are set once, by the constructor.
    """

    def __init__(self, transport: Transport, inbound: ReadTarget, name: str) -> None:
        self._transport = transport
        self._inbound = inbound
        self._thread = DaemonThread(self._run, name=f"lycomm-read-{name}", core=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most *timeout* seconds; at once when called from it."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def at_end(self, release: Callable[[], None]) -> None:
        release()  # the link ends where its end is read, so the thread has left the transport for good

    def wait(self, gate: Gate, timeout: float) -> bool:
        refuse_to_wait("a call that waits for something of a link")  # the thread that reads would wait for itself
        if self._inbound.connection.queue:
            self._inbound.write_queued()
        return gate.wait(timeout)

    def lead(
        self, ready: Callable[[], object], deadline: float | None, wanted: Stream | None = None
    ) -> Alone | Nothing:
        return NOTHING  # only the thread reads

    def look(self) -> float:
        has_arrived = getattr(self._transport, "has_arrived", None)  # of the memory transport; others cannot tell
        return HAND_ON_SECONDS if has_arrived is not None and has_arrived() else 0.0

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def detach_loop(self) -> None:
        pass

    def _run(self) -> None:
        """Read until the end: the thread's boundary."""
        transport, inbound = self._transport, self._inbound
        more: object = True
        while more:
            try:
                count = transport.read_into(inbound.decoder.free)
            except OSError:  # the descriptor is gone; for the link that is the end like any other
                count = 0
            except BaseException as error:  # no memory, perhaps: without this thread nobody would read
                more = inbound.failed(error)
            else:
                more = inbound.received(count)
            if inbound.monitor.due:
                inbound.monitor.settle()
