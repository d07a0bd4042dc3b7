"""The short way of a message that has arrived alone.

A process that has just been woken up runs on a cold processor, where a message costs as much as the code that it runs
through: the general way (``Connection.receive``), cut for reading, takes twice as long as a pipe. So what it does for
the commonest messages is written here once more, in one piece, calling as little as possible.

Nothing depends on it. The function finds out first whether everything is as simple as it has to be; if it is not, it
has done nothing, and the general way is taken. ``tests/comm/link/test_short_ways.py`` holds both to the same results.
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
            if stream.take_in(ack, length + MESSAGE_CHARGE):
                user = stream.user
                if user is None:
                    link.on_credit(stream)
                elif user.backlog or user.on_room is not None or user.room.callbacks:  # else nobody waits for credit
                    user.credit()
            connection.heard = True
            payload = buffer[_HEADER_SIZE:count].tobytes()
            if not link.settled:
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
