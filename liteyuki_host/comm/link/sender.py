"""The short way of a message that is sent alone: questions and answers, and the first of a burst.

Why there is a second way
-------------------------

A process that has just been woken up runs on a cold processor, where a message costs as much as the code that it runs
through: the general way (``Writer.send``), cut for reading, takes twice as long as a pipe. So what it does for the
commonest messages is written here once more, in one piece, calling as little as possible.

Nothing depends on it. The function finds out first whether everything is as simple as it has to be; if it is not, it
has done nothing, and the general way is taken. ``tests/comm/link/test_short_ways.py`` holds both to the same results.

What it does, in this order
---------------------------

1. The stage is open (a burst is going on, see ``protocol/stage.py``): put the payload there, without the lock.
2. The caller may be inside lycomm already (``waiting/monitor.py``): refuse, so that the general way puts the call off.
3. Take the lock, but wait for it no longer than a user's call may.
4. Somebody writes, or is about to: join the last batch of the queue, if that is of this stream.
5. Nobody does: make a frame of its own and give it to the transport, while the lock is held. The write does not wait.
   What the transport does not take is left to ``Writer.write_on``, outside the lock.

An exception in step 5 ends the link: part of a frame may have been sent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from liteyuki_host.comm.link.tuning import BURST_GAP, INLINE_BURST
from liteyuki_host.comm.protocol.batch import PAYLOAD_HEADER, Batch
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE, STAGED_SIZE
from liteyuki_host.comm.protocol.frames import HEADER, Kind
from liteyuki_host.comm.protocol.outbound import LARGE, WRITE_SIZE

if TYPE_CHECKING:
    from liteyuki_host.comm.link.writer import Shortcut, Writer
    from liteyuki_host.comm.protocol.stream import Stream

__all__ = ["sender"]

_HEADER_SIZE: Final = HEADER.size
_MESSAGE: Final = Kind.MESSAGE  # names of this module are found sooner than attributes of a class


def sender(writer: Writer, stream: Stream, outermost: bool = True) -> Shortcut:
    """Return the function that ``Writer.shortcut`` documents, for *stream*.

    Everything that never changes is looked up once, here: a variable of an enclosing function is found sooner than a
    method through two objects.
    """
    connection, transport = writer.connection, writer.transport
    monitor = writer.monitor
    lock, unlock, take = monitor.acquire, monitor.release, monitor.take
    owned, due = monitor.owned, monitor.due
    at_once = transport.at_once
    send, pack, clock = transport.send, HEADER.pack, time.perf_counter
    unacknowledged, charge, charge_and_grant = stream.unacknowledged, stream.charge, stream.charge_and_grant
    stage, owing = stream.stage, writer.owing
    take_place, put = stage.places.pop, stage.payloads.append

    def join_others(payload: bytes, size: int) -> bool:
        """Add the payload to the last batch of the queue, if that is of this stream. The caller holds the lock.

        Returns False when it cannot join, and the general way has to find another. The stage is open afterwards: the
        next short messages of this burst need no lock.
        """
        if connection.staging is not None:  # what another burst has staged was sent before this one
            connection.unstage()
        batch = connection.open_batch
        if batch is None:
            return False
        cost = size + MESSAGE_CHARGE
        if stream.sent + cost > stream.limit or size >= LARGE or writer.closed:
            return False
        # Only if somebody is certain to look at the queue again: the present writer does before it gives the role up,
        # and the flusher has been woken. One that was woken for grants alone may wait longer than a message should.
        looks = writer.writing or (owing.armed and writer.grants_of is None and connection.pending < WRITE_SIZE)
        if not looks or batch.stream is not stream or batch.size >= WRITE_SIZE:
            return False
        batch.payloads.append(payload)
        batch.end = charge(cost)
        size += PAYLOAD_HEADER
        batch.size += size
        connection.pending += size
        connection.open_stage(stream)
        return True

    def send_alone(payload: bytes, alone: bool = True) -> bool:
        size = len(payload)
        if stage.open and size <= STAGED_SIZE and not due:
            try:
                take_place()
            except IndexError:  # the stage is full: the message goes to the queue below
                pass
            else:
                put(payload)
                # The stage may have been closed between the first look and `put`. Then the payload may lie there
                # unseen, and is taken back; or it was seen in time, and take_back says so.
                if stage.open or not writer.take_back(stream, payload):
                    return True
        elif connection.open_batch is None and not alone:  # read without the lock: it may change the next moment
            return False
        if outermost and alone and owned():  # called from inside: the general way puts it off
            return False
        role = False  # whether a write may have begun
        try:
            if not (lock(False) or take()) or (due and outermost):  # what was put off goes first
                return False
            if not (alone and writer.quiet):
                return join_others(payload, size)
            cost = size + MESSAGE_CHARGE
            if stream.sent + cost > stream.limit or size >= LARGE:  # no credit, or it is sent in pieces
                return False
            # Lone, if something was heard since or the last write is long ago. Some messages of a burst are written
            # like lone ones, too: one that is short must not wait for the flusher.
            if connection.heard or clock() - writer.last_write > BURST_GAP:
                connection.heard = False
                writer.burst = 1
            elif writer.burst < INLINE_BURST:
                writer.burst += 1
            else:
                return False
            role = True  # from here on, what nobody expects ends the link: a message may be sent in part
            start = stream.sent
            unacknowledged.append(Batch(stream, [payload], size + PAYLOAD_HEADER, start, start + cost))
            frame = pack(size, _MESSAGE, 0, stream.id, charge_and_grant(cost)) + payload
            # The lock is kept: the write does not wait, and what is queued meanwhile needs no second look then.
            try:
                taken = send(frame, at_once)
                writer.last_write = clock()
                if taken == size + _HEADER_SIZE:  # grants of other streams are too small for a frame: the flusher's
                    role = False
                    return True
            except BlockingIOError:
                taken = 0
            except OSError:
                taken = -1
            writer.writing = True  # take the role; the calls below give it up again
            writer.quiet = False
        except BaseException as error:
            if role:
                writer.fail(error)
            raise
        finally:
            try:
                unlock()
            except RuntimeError:  # we have not got it
                pass
            if due and not role:  # with the role, the calls below settle
                monitor.settle()
        try:
            if taken < 0:
                writer.write_failed()
            else:
                writer.write_on([frame], taken)
        except BaseException as error:
            writer.fail(error)
            raise
        if due:
            monitor.settle()
        return True

    return send_alone
