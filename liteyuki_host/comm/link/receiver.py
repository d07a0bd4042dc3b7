"""The short way of a message that has arrived alone.

Why there is a second way
-------------------------

A process that has just been woken up runs on a cold processor, where a message costs as much as the code that it runs
through: the general way (``Connection.receive``), cut for reading, takes twice as long as a pipe. So what it does for
the commonest messages is written here once more, in one piece, calling as little as possible.

Nothing depends on it. The function finds out first whether everything is as simple as it has to be; if it is not, it
has done nothing, and the general way is taken. ``tests/comm/link/test_short_ways.py`` holds both to the same results.

When it is taken
----------------

One read has brought exactly one whole frame, nothing of an earlier one is left in the decoder, and the frame is a plain
message: no request, no answer, no piece of a large one. Whoever reads the link calls it, which is one thread at a time.
Three ends are possible for the message, tried in this order:

1. the thread that reads is the one that waits for it (``Inbox.pass_to_reader``): the message is returned to it;
2. the loop that reads runs the only callback (``Inbox.pass_to_task``): it runs at the end of this turn;
3. the receiver's ``deliver`` queues it.

An exception ends the link with its cause; the reader is told by the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import HEADER, MAX_FRAME_PAYLOAD, Flag, Kind
from liteyuki_host.comm.protocol.states import State

if TYPE_CHECKING:
    from liteyuki_host.comm.link.link import Link
    from liteyuki_host.comm.link.reader import Alone, Receive
    from liteyuki_host.comm.protocol.stream import Stream
    from liteyuki_host.comm.waiting.loops import Turn

__all__ = ["receiver"]

_HEADER_SIZE: Final = HEADER.size
_MESSAGE: Final = Kind.MESSAGE  # names of this module are found sooner than attributes of a class
_NOT_PLAIN: Final = 0xFF & ~(Flag.RAW | Flag.REDELIVERED)
_OPEN: Final = State.OPEN


def receiver(link: Link) -> Receive:
    """Return the function that ``ReadTarget.received`` documents, for *link*."""
    connection = link.connection
    decoder, streams = connection.decoder, connection.streams
    buffer, unpack = decoder.buffer, HEADER.unpack_from

    def received(count: int, wanted: Stream | None = None, turn: Turn | None = None) -> bool | Alone:
        if decoder.filled or count < _HEADER_SIZE or connection.state is not _OPEN:
            return link.received_more(count)
        length, kind, flags, number, ack = unpack(buffer)
        stream = streams.get(number)
        if (
            kind != _MESSAGE
            or length != count - _HEADER_SIZE
            or length > MAX_FRAME_PAYLOAD
            or flags & _NOT_PLAIN
            or stream is None
        ):
            return link.received_more(count)
        try:
            if stream.take_in(ack, length + MESSAGE_CHARGE):  # nearly always: it answers what we have sent
                user = stream.user
                if user is None:
                    link.on_credit(stream)
                elif user.backlog or user.on_room is not None or user.room.callbacks:  # else nobody waits for credit
                    user.credit()
            connection.heard = True
            payload = buffer[_HEADER_SIZE:count].tobytes()  # the buffer is written over by the next read
            if not link.settled:  # the handler decides first, e.g. keeps it for a standby
                link.on_message(stream, [payload], flags, 0)
                return True
            inbox = stream.inbox
            if inbox is not None:
                if stream is wanted and inbox.pass_to_reader(length, stream.source):
                    return payload, flags, 0, stream.source
                if turn is not None and not flags and inbox.pass_to_task(payload, stream.source, turn):
                    return True
            if stream.receiver is None:
                link.on_message(stream, [payload], flags, 0)
            else:
                stream.receiver.deliver([payload], flags, 0, stream.source)
            return True
        except Exception as error:
            return link.failed(error)

    return received
