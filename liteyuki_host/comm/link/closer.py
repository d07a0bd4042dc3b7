"""Closing streams of a link, from any thread.

``protocol/closing.py`` decides whether a stream may be closed; it neither locks nor writes. Each call here runs one
step of it with the link's lock held and then writes the frames which that step queued, by ``Writer.queue_and_write``:
if another thread has the writing role, that thread writes them. ``possible`` alone takes no lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from liteyuki_host.comm.protocol.stream import Stream

if TYPE_CHECKING:
    from liteyuki_host.comm.link.writer import Writer

__all__ = ["StreamCloser"]


class StreamCloser:
    """Calls ``Connection.closing`` under the link's lock and writes what it queued.

    Both attributes are set once, in the constructor.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._closing = writer.connection.closing

    @property
    def possible(self) -> bool:
        """Whether the other side knows how streams are closed. Not before it has greeted."""
        return self._closing.possible

    def ask(self, streams: Iterable[Stream]) -> None:
        """Ask the other side to close *streams*, which nobody here uses.

        Skips a stream with data on its way and one that the other side has been asked about already. Does nothing once
        the link has ended. Returns without waiting for the answer.
        """
        writer = self._writer

        def queue() -> None:
            if not writer.ended:
                for stream in streams:
                    self._closing.ask(stream)

        writer.queue_and_write(queue)

    def answer(self, stream: Stream, *, willing: bool) -> bool:
        """Answer the other side's request to close *stream*; returns whether this closed the stream.

        Args:
            willing: nobody here uses the stream. The request is refused all the same while data is on its way.
        """
        return self._writer.queue_and_write(lambda: self._closing.answer(stream, willing=willing))

    def answered(self, stream: Stream, *, closed: bool) -> None:
        """Act on the other side's answer: forget the stream, or resume sending on it after a refusal.

        Raises:
            RemoteProtocolError: the other side was not asked to close this stream.
        """
        self._writer.queue_and_write(lambda: self._closing.answered(stream, closed=closed))
