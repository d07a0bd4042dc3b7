"""Who reads the link. A seam: this is the portable reader, one daemon thread; a faster one may take its place."""

from __future__ import annotations

import threading
from typing import Protocol

from ..transport import Transport

__all__ = ["Inbound", "Reader", "ThreadReader"]


class Inbound(Protocol):
    """What a reader feeds: implemented by the link."""

    def get_buffer(self) -> memoryview:
        """Where the next bytes go."""
        ...

    def received(self, count: int) -> bool:
        """*count* bytes are in the buffer, 0 for the end; False when nothing more is to be read. Never raises."""
        ...


class Reader(Protocol):
    def start(self) -> None:
        """Begin reading."""
        ...


class ThreadReader:
    """One daemon thread that blocks in the transport.

    It works before the event loop exists, while it is blocked and while it shuts down. It ends with the stream;
    whoever closes the transport ends it early.
    """

    def __init__(self, transport: Transport, inbound: Inbound, name: str) -> None:
        self._transport = transport
        self._inbound = inbound
        self._thread = threading.Thread(target=self._run, name=f"lycomm-read-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most *timeout* seconds; at once when called from it."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        transport, inbound = self._transport, self._inbound
        more = True
        while more:
            try:
                count = transport.read_into(inbound.get_buffer())
            except OSError:  # the descriptor is gone; for the link that is the end like any other
                count = 0
            more = inbound.received(count)
