"""Who reads the link. A seam: this is the portable reader, one daemon thread, to which ``shared_reader`` is held."""

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
    """See :attr:`ReadTarget.received`."""

    def __call__(self, count: int, wanted: Stream | None = None, turn: Turn | None = None) -> bool | Alone:
        """*count* bytes are in the buffer, 0 for the end. Never raises.

        Args:
            wanted: the caller waits for a message of this stream, of which none has arrived before.
            turn: that of the loop that reads.

        Returns:
            such a message, if it is all that has arrived: it is consumed by that. Else True, and False when nothing
            more is to be read.
        """
        ...


class ReadTarget(Protocol):
    """What a reader feeds: implemented by the link."""

    decoder: FrameDecoder
    """Whose ``free`` is where the next bytes go."""

    received: Receive

    monitor: Monitor
    """Settled by whoever reads, after what has been read was handled."""

    def failed(self, error: BaseException) -> bool:
        """End the link because of *error*, which nobody expects where it is read. Never raises. Returns False."""
        ...

    connection: Connection
    """Whose ``queue`` is what has not been written yet."""

    def write_queued(self) -> None:
        """Write it, as far as that needs no waiting. For a thread that is about to wait: perhaps for the answer."""
        ...


class Reader(Protocol):
    def start(self) -> None:
        """Begin reading."""
        ...

    def join(self, timeout: float) -> None:
        """Wait for the end of the reader's thread, at most *timeout* seconds; at once when called from it."""
        ...

    def at_end(self, release: Callable[[], None]) -> None:
        """There is nothing more to read: call *release* once the reader's thread is not in the transport any more."""
        ...

    def wait(self, gate: Gate, timeout: float) -> bool:
        """Wait until *gate*, which something that is read will open, is open; at most *timeout* seconds (-1: as long as
        it takes). Returns whether it is."""
        ...

    def lead(
        self, ready: Callable[[], object], deadline: float | None, wanted: Stream | None = None
    ) -> Alone | Nothing:
        """Read in this thread until *ready* says something true; or not, when that is not possible, at *deadline* (by
        ``time.monotonic``), and at the link's end. Then :meth:`wait` is the way.

        Args:
            wanted: see :class:`Receive`. What it brings ends it too, and is returned; else NOTHING.
        """
        ...

    def look(self) -> float:
        """Read what has arrived, without waiting, if this thread may read just now.

        Returns the seconds within which another thread will have handed on what has arrived; 0: nobody has anything.
        """
        ...

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """There is an event loop, which may read."""
        ...

    def detach_loop(self) -> None:
        """It is there no longer."""
        ...


class ThreadReader:
    """One daemon thread that blocks in the transport.

    It works before the event loop exists, while it is blocked and while it shuts down. It ends with the stream;
    whoever closes the transport ends it early.
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
        release()  # it was this thread that has read the end

    def wait(self, gate: Gate, timeout: float) -> bool:
        refuse_to_wait("a call that waits for something of a link")
        if self._inbound.connection.queue:
            self._inbound.write_queued()
        return gate.wait(timeout)

    def lead(
        self, ready: Callable[[], object], deadline: float | None, wanted: Stream | None = None
    ) -> Alone | Nothing:
        return NOTHING

    def look(self) -> float:
        has_arrived = getattr(self._transport, "has_arrived", None)  # of the memory transport; others cannot tell
        return HAND_ON_SECONDS if has_arrived is not None and has_arrived() else 0.0

    def attach_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def detach_loop(self) -> None:
        pass

    def _run(self) -> None:
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
