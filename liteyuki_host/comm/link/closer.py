"""Closing streams of a link, from any thread. The rules are in ``protocol/closing.py``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from liteyuki_host.comm.protocol.stream import Stream

if TYPE_CHECKING:
    from liteyuki_host.comm.link.writer import Writer

__all__ = ["StreamCloser"]


class StreamCloser:
    """The calls of ``Connection.closing`` under the link's lock, each with the write that belongs to it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._closing = writer.connection.closing

    @property
    def possible(self) -> bool:
        """Whether the other side knows how streams are closed. Not before it has greeted."""
        return self._closing.possible

    def ask(self, streams: Iterable[Stream]) -> None:
        """Ask the other side to close *streams*, which nobody here uses. Those on which something is on its way are
        left alone, and so are those that it has been asked about already."""
        writer = self._writer

        def queue() -> None:
            if not writer.ended:
                for stream in streams:
                    self._closing.ask(stream)

        writer.queue_and_write(queue)

    def answer(self, stream: Stream, *, willing: bool) -> bool:
        """Answer the other side, which does not use *stream* any more; returns whether it is closed by that."""
        return self._writer.queue_and_write(lambda: self._closing.answer(stream, willing=willing))

    def answered(self, stream: Stream, *, closed: bool) -> None:
        """Do as the other side has answered. Raises RemoteProtocolError when it was not asked."""
        self._writer.queue_and_write(lambda: self._closing.answered(stream, closed=closed))
