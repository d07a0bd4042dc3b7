"""The short ways of messages that travel alone: questions and answers, and the first of a burst.

A process that has just been woken up runs on a cold processor, where a message costs as much as the code that it runs
through: the general ways (``Writer.send``, ``Connection.receive``), cut for reading, take twice as long as a pipe. So
what they do for the commonest messages is written here once more, in one piece each, calling as little as possible.

Nothing depends on it. Each function finds out first whether everything is as simple as it has to be; if it is not, it
has done nothing, and the general way is taken. ``tests/comm/link/test_alone.py`` holds both to the same results.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ..loops import Turn
from ..protocol.connection import LARGE, WRITE_SIZE
from ..protocol.credit import ACK_MASK, MESSAGE_CHARGE, PAYLOAD_HEADER, STAGED_SIZE, Run, Stream
from ..protocol.frames import HEADER, MAX_FRAME_PAYLOAD, Flag, Kind
from ..protocol.states import State
from .reader import Alone, Received

if TYPE_CHECKING:
    from .link import Link
    from .writer import Shortcut, Writer

__all__ = ["BURST_GAP", "INLINE_BURST", "receiver", "sender"]

BURST_GAP = 1e-3
"""Seconds after the last write from which a message counts as lone, even if no message was received meanwhile."""

INLINE_BURST = 4
"""Messages of a burst that are written one by one: a short burst must not wait for the flusher."""

_HEADER_SIZE: Final = HEADER.size
_MESSAGE: Final = Kind.MESSAGE  # names of this module are found sooner than attributes of a class
_REQUEST_OR_REPLY: Final = Flag.REQUEST | Flag.REPLY
_OPEN: Final = State.OPEN


def sender(writer: Writer, stream: Stream) -> Shortcut:
    """What ``Writer.shortcut`` returns."""
    connection, transport = writer.connection, writer.transport
    lock, unlock, at_once = writer.lock.acquire, writer.lock.release, transport.at_once
    send, pack, clock = transport.send, HEADER.pack, time.perf_counter
    owed, unacknowledged = connection.owed, stream.unacknowledged
    stage = stream.stage
    take_place, put = stage.places.pop, stage.payloads.append

    def join_others(payload: bytes, size: int) -> bool:
        if connection.staging is not None:
            connection.unstage()
        run = connection.open_run
        if run is None:
            return False
        end = stream.sent + size + MESSAGE_CHARGE
        if end > stream.limit or size >= LARGE or writer.ended:
            return False
        # Somebody is going to look: a writer before it leaves, or the flusher, which is on its way.
        looks = writer.writing or (writer.armed and writer.grants_of is None and connection.pending < WRITE_SIZE)
        if not looks or run.stream is not stream or run.size >= WRITE_SIZE:
            return False
        run.payloads.append(payload)
        stream.sent = run.end = end
        size += PAYLOAD_HEADER
        run.size += size
        connection.pending += size
        connection.open_stage(stream)
        return True

    def send_alone(payload: bytes, alone: bool = True) -> bool:
        size = len(payload)
        if stage.open and size <= STAGED_SIZE:
            try:
                take_place()
            except IndexError:  # it is full, and gets into the queue below
                pass
            else:
                put(payload)
                if stage.open or not writer.take_back(stage, payload):
                    return True
        elif connection.open_run is None and not alone:  # seen without the lock, as it may change the next moment
            return False
        lock()
        try:
            if not (alone and writer.quiet):
                return join_others(payload, size)
            end = stream.sent + size + MESSAGE_CHARGE
            if end > stream.limit or size >= LARGE:
                return False
            if connection.heard or clock() - writer.last_write > BURST_GAP:
                connection.heard = False
                writer.burst = 1
            elif writer.burst < INLINE_BURST:
                writer.burst += 1
            else:
                return False
            if stream.owed and owed[0] is stream:  # the header's ack is the grant; that of others follows
                owed.popleft()
                stream.owed = False
            unacknowledged.append(Run(stream, [payload], size + PAYLOAD_HEADER, stream.sent, end))
            stream.sent = end
            stream.granted = granted = stream.consumed
            frame = pack(size, _MESSAGE, 0, stream.id, granted & ACK_MASK) + payload
            # It does not wait, so the lock may be kept: nothing is queued meanwhile that would need another look.
            try:
                taken = send(frame, at_once)
                writer.last_write = clock()
                if taken == size + _HEADER_SIZE:  # what is owed to other streams is not worth a frame: the flusher's
                    return True
            except BlockingIOError:
                taken = 0
            except OSError:
                taken = -1
            writer.writing = True  # the role is ours, and given away below
            writer.quiet = False
        finally:
            unlock()
        if taken < 0:
            writer.write_failed()
        else:
            writer.write_on([frame], taken)
        return True

    return send_alone


def receiver(link: Link) -> Received:
    """What ``Inbound.received`` is for *link*."""
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
