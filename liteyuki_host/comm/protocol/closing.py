"""How both sides of a link agree to close a stream, so that its numbers can be given to other streams.

Theory of operation
-------------------

**States of a stream.** *Open*: ``Stream.held`` is None. *Asked*: this side has sent ``Close`` and waits for the answer;
``held`` is a list and the ledger is shut, so that no message gets credit. *Closed*: it is out of the table; ``held``
stays a list, so that a thread that still has the object can send nothing with it.

**Who asks.** The child for channels, as it knows whether anything in it uses them. The host for topics, as it knows
whether publications are on their way. So two requests to close one stream never cross. The other side may refuse.

**When.** Only while the stream is *idle* on that side: everything sent has been acknowledged, everything received has
been consumed, and nothing waits to be written. Answers are never acknowledged, so the queue is searched for them.

- The asking side sends ``Close`` and then nothing more on the stream until it has the answer. New messages wait in the
  queue of their channel meanwhile, answers in :attr:`Stream.held`.
- The other side answers at once. If it does not use the stream, and the stream is idle there too, it forgets the stream
  and sends ``Closed``. Else it sends ``CloseRefused``, and the stream stays open on both sides.

**Why nothing is lost.** What the asking side had sent was acknowledged before it asked. What the other side had sent is
acknowledged when that side agrees; the ``Close`` itself carries the last grant. So no data is on its way then. Control
frames keep their order. A frame with one of the numbers that comes before the answer belongs to the old stream, one
that comes after it to a new stream. A grant might come after it, so none is sent for a stream that is shut unless it
grants something new (``Outbound._grant_frame``).

**A refused channel** counts as idle, whatever was sent on it: the child sends nothing more once it knows of the
refusal, and the host never grants what was sent before.

**Opened again.** The asking side may need the stream again while it waits. It opens a new one after ``Closed``, perhaps
with the same number. The other side may do so right after it has sent ``Closed``. If both do, their ``Open`` frames
cross, which is allowed for every stream (``streams.py``).

**Threads.** Everything here is called with the link's lock held (by ``link/closer.py``), except for
:meth:`Closing.stream` and :attr:`Closing.possible`, which only look.
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
    """The part of a connection that closes streams. It has no state of its own: that is in the streams and the table.
    The caller holds the link's lock, except for :meth:`stream` and :attr:`possible`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def possible(self) -> bool:
        """Whether the other side has greeted, and said in its greeting that it knows how streams are closed."""
        peer = self._connection.peer
        return peer is not None and peer.closes

    def stream(self, number: int, *, asked_by_us: bool) -> Stream:
        """Return the stream that a Close, or an answer to one, is about. By the link's reader, without the lock.

        Args:
            asked_by_us: True: the message is an answer. False: it is a Close of the peer.

        Raises:
            RemoteProtocolError: there is no such stream, it is one that is never closed, or the side that asks may not
                ask for a stream of this kind.
        """
        stream = self._connection.streams.get(number)
        if stream is None or stream.id < FIRST_NUMBER:
            raise RemoteProtocolError(f"stream {number} cannot be closed, as it was not opened")
        child_asks = stream.key[0] == "channel"
        if child_asks is not (asked_by_us is bool(self._connection.role)):
            raise RemoteProtocolError(f"stream {number} cannot be closed by that side")
        return stream

    def ask(self, stream: Stream) -> bool:
        """Ask the other side to close *stream*, which nobody here uses. From now on nothing is sent on it.

        Returns False, with nothing changed, if the stream is not idle, if the other side has been asked already, or if
        it does not know how streams are closed.
        """
        if not self.possible or stream.held is not None or not self._is_idle(stream):
            return False
        stream.hold()
        # With the grant: a GRANT frame of its own might be written after the Close.
        self._connection.send_control(Close(stream.id, stream.grant()))
        return True

    def answer(self, stream: Stream, *, willing: bool) -> bool:
        """Answer the other side's Close. Returns whether the stream is closed now.

        Args:
            willing: nobody here uses the stream. It is refused all the same if the stream is not idle.
        """
        closed = willing and self._is_idle(stream)
        if closed:
            self._connection.send_control(Closed(stream.id))
            stream.hold()  # for good: a thread that still has this stream finds no credit
            self._forget(stream)
        else:
            self._connection.send_control(CloseRefused(stream.id))
        return closed

    def answered(self, stream: Stream, *, closed: bool) -> None:
        """Act on the other side's answer to our Close: forget the stream, or send on it again.

        Raises:
            RemoteProtocolError: this side has not asked.
        """
        if stream.held is None:
            raise RemoteProtocolError(f"an answer about closing stream {stream.id}, which was not asked for")
        if closed:
            self._forget(stream)
            return
        connection = self._connection
        for batch in stream.let_go():  # the answers that have waited
            connection.queue.append(batch)
            connection.open_batch = None  # it is not the last of the queue any more
            connection.pending += batch.size
        # While the stream was shut, `_grant_frame` may have taken it out of `owing` just as a consumer counted more.
        if stream.consumed != stream.granted:
            connection.owing[stream] = None

    def _is_idle(self, stream: Stream) -> bool:
        """Whether nothing of *stream* is on its way, as far as this side knows. What is staged is queued first."""
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
        """Free the stream's numbers. Its source is detached, so that a late answer or count does not go to the stream
        that gets one of these numbers next."""
        self._connection.table.forget(stream)
        if stream.source is not None:
            stream.source.detach()
