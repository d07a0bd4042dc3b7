"""How both sides of a link agree that a stream is closed, and its numbers are free for others.

**Who asks.** The child for channels, as it knows whether anything in it uses them; the host for topics, as it knows
whether publications are on their way. So two requests to close one stream never cross. Either side agrees or refuses.

**When.** Only while the stream is *idle* on that side: everything sent has been acknowledged, everything received has
been consumed, and nothing waits to be written (answers are acknowledged by nobody, so the queue is searched for them).

- Who asks sends ``Close`` and then nothing more on the stream until the answer. New messages wait in their channel's
  queue meanwhile, answers in :attr:`Stream.held`.
- The other side answers at once. ``Closed``, if it does not use the stream and the stream is idle there too: it forgets
  the stream in the same step. Else ``CloseRefused``, and everything is as before.

**Why nothing is lost.** What the asking side had sent was acknowledged before it asked. What the other side had sent is
acknowledged when it agrees. Control frames keep their order and go ahead of all data, of which there is none: whatever
bears one of the numbers before the answer belongs to the old stream, whatever comes after it to a new one. On a stream
that is being closed no grant is sent that tells of nothing new (``Connection``), as it might come after that.

A channel that the host has refused counts as idle whatever has been sent: the child sends nothing more on it once it
knows, and what it had sent before is never granted.

**Opened again.** Who wants the stream again while it waits for the answer opens it anew after ``Closed``, perhaps by
the same number. The other side may do so at once. That both do is the crossing that ``Open`` has anyway.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from liteyuki_host.comm.errors import RemoteProtocolError
from liteyuki_host.comm.protocol.messages import Close, Closed, CloseRefused
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.protocol.streams import FIRST_NUMBER

if TYPE_CHECKING:
    from liteyuki_host.comm.protocol.connection import Connection

__all__ = ["Closing"]


class Closing:
    """The part of a connection that closes streams. The caller holds the link's lock, except for :meth:`stream`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def possible(self) -> bool:
        """Whether the other side knows how streams are closed."""
        peer = self._connection.peer
        return peer is not None and peer.closes

    def stream(self, number: int, *, asked_by_us: bool) -> Stream:
        """The stream that a Close, or an answer to one of ours, is about. For the link's reader.

        Raises:
            RemoteProtocolError: there is none, or that side may not ask.
        """
        stream = self._connection.streams.get(number)
        if stream is None or stream.id < FIRST_NUMBER:
            raise RemoteProtocolError(f"stream {number} cannot be closed, as it was not opened")
        child_asks = stream.key[0] == "channel"
        if child_asks is not (asked_by_us is bool(self._connection.role)):
            raise RemoteProtocolError(f"stream {number} cannot be closed by that side")
        return stream

    def ask(self, stream: Stream) -> bool:
        """Ask the other side to close *stream*, which nobody here uses. False: something is on its way, or the other
        side has been asked already, or would not understand."""
        if not self.possible or stream.held is not None or not self._is_idle(stream):
            return False
        stream.hold()
        self._connection.send_control(Close(stream.id, stream.grant()))
        return True

    def answer(self, stream: Stream, *, willing: bool) -> bool:
        """Answer the other side's Close; returns whether the stream is closed by that.

        Args:
            willing: nobody here uses it.
        """
        closed = willing and self._is_idle(stream)
        if closed:
            self._connection.send_control(Closed(stream.id))
            stream.hold()
            self._forget(stream)
        else:
            self._connection.send_control(CloseRefused(stream.id))
        return closed

    def answered(self, stream: Stream, *, closed: bool) -> None:
        """Do as the other side has answered our Close.

        Raises:
            RemoteProtocolError: there was none.
        """
        if stream.held is None:
            raise RemoteProtocolError(f"an answer about closing stream {stream.id}, which was not asked for")
        if closed:
            self._forget(stream)
            return
        connection = self._connection
        for batch in stream.let_go():
            connection.queue.append(batch)
            connection.open_batch = None
            connection.pending += batch.size
        if stream.consumed != stream.granted:
            connection.owing[stream] = None

    def _is_idle(self, stream: Stream) -> bool:
        """Whether nothing of *stream* is on its way as far as this side knows."""
        connection = self._connection
        if connection.staging is stream:
            connection.unstage()
        large = () if connection.large is None else (connection.large.batch,)
        return (
            (stream.is_settled or stream.refused)
            and not stream.stage.payloads
            and not any(batch.stream is stream for batch in chain(connection.queue, large))
        )

    def _forget(self, stream: Stream) -> None:
        self._connection.table.forget(stream)
        if stream.source is not None:
            stream.source.detach()  # of who answers late
