"""The short way of a message that has arrived alone.

A process that has just been woken up runs on a cold processor, where a message costs as much as the code that it runs
through: the general way (``Connection.receive``), cut for reading, takes twice as long as a pipe. So what it does for
the commonest messages is written here once more, in one piece, calling as little as possible.

Nothing depends on it. The function finds out first whether everything is as simple as it has to be; if it is not, it
has done nothing, and the general way is taken. ``tests/comm/link/test_short_ways.py`` holds both to the same results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from liteyuki_host.comm.protocol.credit import ACK_MASK, MESSAGE_CHARGE
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
_REQUEST_OR_REPLY: Final = Flag.REQUEST | Flag.REPLY
_OPEN: Final = State.OPEN


def receiver(link: Link) -> Receive:
    """What ``ReadTarget.received`` is for *link*."""
    connection, writer = link.connection, link.writer
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
            or flags & _REQUEST_OR_REPLY
            or stream is None
        ):
            return link.received_more(count)
        total = stream.received + length + MESSAGE_CHARGE
        if total - stream.consumed > stream.window:
            return link.received_more(count)
        try:
            if ack != stream.acknowledged & ACK_MASK:
                # Nearly always it is the one question that this answers.
                unacknowledged = stream.unacknowledged
                if len(unacknowledged) != 1:
                    return link.received_more(count)
                try:
                    end = unacknowledged[0].end
                    if end & ACK_MASK != ack:
                        return link.received_more(count)
                    unacknowledged.popleft()
                except IndexError:  # somebody has just given it up
                    return link.received_more(count)
                stream.acknowledged = end
                stream.limit = end + stream.reach
                user = stream.user
                if user is None:
                    link.on_credit(stream)
                elif user.backlog or user.on_room is not None or user.room.callbacks:  # who waits for that
                    user.credit()
            stream.received = total
            connection.heard = True
            payload = buffer[_HEADER_SIZE:count].tobytes()
            if not link.settled:
                link.on_message(stream, [payload], flags, 0)
                return True
            if stream is wanted and not stream.receiver.units:
                stream.receiver.received += 1
                stream.consumed += length + MESSAGE_CHARGE  # as `StreamSource.count`
                told = stream.owed
                if not told:
                    stream.owed = True
                    connection.owed.append(stream)
                if not (told or writer.armed) or stream.consumed - stream.granted >= stream.worth_a_frame:
                    writer.grant(stream)
                return payload, flags, 0, stream.source
            if turn is not None and not flags:
                taker = stream.taker
                if taker is not None and taker.free and taker.loop is turn.loop:
                    taker.free = False
                    taker.handed = payload, stream.source
                    stream.receiver.received += 1
                    turn.due.append(taker.take)
                    return True
            if stream.receiver is None:
                link.on_message(stream, [payload], flags, 0)
            else:
                stream.receiver.deliver([payload], flags, 0, stream.source)
            return True
        except Exception as error:
            return link.failed(error)

    return received
