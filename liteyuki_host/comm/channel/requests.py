"""The requests of one end of a channel: those that it has made and that wait for answers, and the answers it gives.

Theory of operation
-------------------

A request is a message with the flag ``REQUEST`` and a number; the answer comes back with the flag ``REPLY`` and the
same number. The numbers are this end's own, each used once. :class:`Requests` keeps one :class:`Answer` for each
request that is open, so that an answer wakes its own asker and nobody else.

Each entry is made and removed by its asker, in any thread or task that may ask (:meth:`Requests.new`,
:meth:`Requests.forget`). The link's reader gives the answer (:meth:`Requests.answered`); whoever ends the link, refuses
the channel or closes the process gives an error instead. No lock guards the entries: each step is one operation of a
dict, and what is given to an entry that has been removed is dropped.

Cycles
------

The callbacks of one end of a channel handle one message at a time. So while one of them awaits an answer, nothing else
that has arrived there is handled, and callbacks that ask each other may wait for each other: on one channel, on two, or
over several processes. Such a cycle is found by telling those who wait *what they wait for*:

- A request that a callback itself awaits is flagged ``BY_CALLBACK``. Its receiver keeps it in ``_waiting`` until it has
  been answered, in the queue and while it is handled.
- When a callback begins to await an answer (:meth:`Requests.block`), everything in ``_waiting`` now waits for that
  request: each of those who asked is sent its channel and number, as a reply with the flag ``WAITS``. So is whoever
  asks later, while the callback still waits (:meth:`Requests.arrived`).
- Who receives such a notice for a request that a callback of its own awaits, compares (:meth:`Requests.learn`). If the
  request named there was sent to the very channel whose callback waits, it can never be handled: it is answered with
  an error (:data:`CYCLE`), at once if it is in the queue, or when it arrives. Otherwise the notice is passed on to
  those who wait for this callback.

A notice names requests by their numbers, and every condition is checked where it is known, so a request is refused only
if it waits behind a callback that waits for it. The one exception: if somebody gives up in the very moment in which a
notice travels, a request may be refused that could now be answered. No order between channels is needed, and a notice
that gets lost leaves the cycle to the time limits.

Threads: ``_waiting`` is filled by the link's reader and emptied by the task that calls the callbacks. That task changes
``_blocked_on``. Both change first and look at the other's afterwards, so that one of the two sends the notice.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import CallbackTask, error_text
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.channel.unit import Received, Source
from liteyuki_host.comm.errors import (
    ChannelBroken,
    ChannelTaken,
    LycommError,
    RemoteError,
    RequestCycle,
    ValueUnreadable,
)
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer, Nothing

__all__ = ["Requests", "possible_cycle", "reply", "reply_error", "reply_failure"]

CYCLE = "lycomm: request cycle"
"""In the place of an error's type, in the answer to a request that could never be answered. No class is called so."""

MAX_HOPS = 16
"""Processes that pass a notice on, and notices that are kept for one callback: cycles are short, and a notice must not
go round for ever."""

MAX_TRACEBACK = 16 * 1024  # characters of a remote traceback that travel; its end says what happened


class Requests:
    """The requests that one end has made and that are not answered yet.

    Args:
        name: the channel's.
        outbox: where a request waits that has not been sent yet.

    Attributes:
        _open: by number, where the answer goes. Entries are made and removed by their askers.
        _asking: by number, the requests of the end whose callback awaits that answer itself. Changed with ``_open``.
        _waiting: by number, the senders of requests of callbacks that have arrived and are not answered. As bounded as
            the queue that they wait in.
        _handling: the number of the request that the callbacks here handle just now; 0: none. Written by their task.
        _blocked_on: requests that the callback in progress waits for: the one that it has made, then those that it has
            been told of. Each is a channel, a number and the hops that it took to learn. Empty while no callback waits.
        _unanswerable: numbers of requests that must not be queued when they arrive, as long as the callback waits.
        _dismissed: numbers of requests that have been answered with an error while they were in the queue.
        refused: the error of every request from now on, since the host has refused this process as an end; or None.
            Set by :meth:`refuse`, for good.
    """

    def __init__(self, name: str, outbox: Outbox) -> None:
        self._name = name
        self._outbox = outbox
        self._open: dict[int, Answer[tuple[int, bytes] | LycommError]] = {}
        self._asking: dict[int, Requests] = {}
        self._waiting: dict[int, Source] = {}
        self._handling = 0
        self._blocked_on: list[tuple[str, int, int]] = []
        self._unanswerable: set[int] = set()
        self._dismissed: set[int] = set()
        self.refused: ChannelTaken | None = None
        # Not from 1: an answer to this process's predecessor, by way of the host, must not look like one to us.
        self._numbers = itertools.count(int.from_bytes(os.urandom(3), "big") << 32)

    def __len__(self) -> int:
        """Count the requests that are open."""
        return len(self._open)

    # --- asking ---------------------------------------------------------------------------------------------

    def new(self, asking: Requests | None = None) -> int:
        """Return a number for a request, whose answer is kept from now until :meth:`forget`.

        Args:
            asking: those of the end whose callback makes the request and awaits the answer itself.

        Raises:
            ChannelTaken: the host has refused this process as an end.
        """
        number = next(self._numbers)
        self._open[number] = Answer()
        if asking is not None:
            self._asking[number] = asking
        if self.refused is not None:  # asked after the entry was made, which `refuse` may not have seen
            del self._open[number]
            self._asking.pop(number, None)
            raise ChannelTaken(*self.refused.args)
        return number

    async def reply_to(self, number: int, timeout: float | None) -> tuple[int, bytes] | Nothing:
        """Wait for the answer to one request, by its only asker.

        Args:
            timeout: seconds; None waits as long as the link lives.

        Returns:
            the answer's flags and payload, or NOTHING when the time is up.

        Raises:
            RemoteError: the callback at the other end failed, or nothing there could answer.
            RequestCycle: the other end has found that the request could never be answered.
            ChannelBroken: the other process ended first.
        """
        answer = await self._open[number].wait_async(timeout)
        if isinstance(answer, LycommError):
            raise answer
        if answer is not NOTHING and answer[0] & Flag.ERROR:
            type_name, text, trace = _read_error(answer[1])
            if type_name == ChannelBroken.__name__:  # said by the host, between the two ends
                raise ChannelBroken(text)
            if type_name == CYCLE:
                raise RequestCycle(text)
            raise RemoteError(type_name, text, trace)
        return answer

    def forget(self, number: int) -> None:
        """Drop the request: nobody waits any more, and a late answer is ignored."""
        self._open.pop(number, None)
        self._asking.pop(number, None)
        self._outbox.cancel_request(number)

    # --- what becomes of them -------------------------------------------------------------------------------

    def answered(self, number: int, flags: int, payload: bytes) -> None:
        """Hand an answer to its asker; one that nobody waits for is dropped. Called by the link's reader."""
        asked = self._open.get(number)
        if asked is None or asked.given:
            return
        if flags & Flag.WAITS:
            asking = self._asking.get(number)
            notice = _read_notice(payload)
            if asking is not None and notice is not None:
                asking.learn(*notice)
        else:
            asked.give((flags, payload))

    def fail(self, number: int, cause: str) -> None:
        """Raise ChannelBroken in the asker, unless the answer has come already."""
        self._give_error(
            number,
            ChannelBroken(
                f"channel {self._name!r}: no answer can come any more ({cause}); whether the work was done is unknown"
            ),
        )

    def fail_all(self, cause: str) -> None:
        """Raise ChannelBroken in every asker whose answer has not come."""
        for number in list(self._open):
            self.fail(number, cause)

    def refuse(self, reason: str) -> None:
        """Raise ChannelTaken in every asker, and in whoever asks from now on."""
        self.refused = ChannelTaken(reason)
        for number in list(self._open):
            self._give_error(number, ChannelTaken(reason))

    def _give_error(self, number: int, error: LycommError) -> None:
        asked = self._open.get(number)
        if asked is not None and not asked.given:
            asked.give(error)

    # --- cycles ---------------------------------------------------------------------------------------------

    def block(self, channel: str, number: int) -> None:
        """Note that the callback in progress here is about to make a request and to await its answer. Tells everybody
        who waits for this callback. Called by the task that calls the callbacks.

        Args:
            channel: where it asks.
            number: the request's.
        """
        self._blocked_on = [(channel, number, 0)]
        for waiting, source in list(self._waiting.items()):
            _tell(source, waiting, channel, number, 0)

    def unblock(self, number: int) -> None:
        """Note that the callback goes on, with an answer or without."""
        if self._blocked_on and self._blocked_on[0][1] == number:
            self._blocked_on = []
            self._unanswerable.clear()

    def learn(self, channel: str, number: int, hops: int) -> None:
        """Take in that the callback in progress here waits for a request, which somebody else's callback has made.
        Called by a link's reader.

        Args:
            channel, number: the request.
            hops: how many processes have passed this on.
        """
        blocked_on = self._blocked_on
        if not blocked_on:
            return  # it has gone on meanwhile
        if channel == self._name and number not in self._open:  # our own go to the other end
            self._refuse_to_handle(number)
        elif hops < MAX_HOPS and len(blocked_on) <= MAX_HOPS:
            blocked_on.append((channel, number, hops + 1))
            for waiting, source in list(self._waiting.items()):
                _tell(source, waiting, channel, number, hops + 1)

    def _refuse_to_handle(self, number: int) -> None:
        """Answer a request with an error, in the queue or when it arrives: the callback in progress here, behind which
        it waits, waits for it."""
        if len(self._unanswerable) < MAX_HOPS:
            self._unanswerable.add(number)
        source = self._waiting.get(number)
        if source is not None:
            self._dismissed.add(number)
            # Looked at after the note was made, as `begin` and `finish` look at the note after they have changed these.
            if self._handling == number or number not in self._waiting:
                self._dismissed.discard(number)
            else:
                self._refuse(number, source)

    def _refuse(self, number: int, source: Source) -> None:
        text = (
            f"channel {self._name!r}: the callback that would answer is waiting for the callback that asks, and both "
            "would wait for ever; answer before you ask back, or let a task of its own ask"
        )
        reply_error(CYCLE, text, "", number, source)

    def arrived(self, flags: int, number: int, source: Source) -> bool:
        """Take note of a request that has arrived. Called by the link's reader, before the request is queued. True: it
        could never be handled, and has been answered."""
        if not flags & Flag.BY_CALLBACK:
            return False
        if number in self._unanswerable and self._blocked_on:
            self._refuse(number, source)
            return True
        self._waiting[number] = source
        for channel, awaited, hops in list(self._blocked_on):
            _tell(source, number, channel, awaited, hops)
        return False

    def begin(self, number: int, source: Source) -> bool:
        """Note that a request is about to be handled. True: it is to be skipped, as it has been answered meanwhile.
        Called by the task that calls the callbacks."""
        self._handling = number
        if number not in self._dismissed:
            return False
        self._refuse(number, source)  # perhaps for the second time, which nobody hears
        self.finish(number)
        return True

    def finish(self, number: int) -> None:
        """Note that a request has been answered."""
        self._handling = 0
        self._waiting.pop(number, None)
        self._dismissed.discard(number)

    def forget_arrived(self) -> None:
        """Forget which requests have arrived: their link has ended."""
        self._waiting.clear()
        self._dismissed.clear()


def possible_cycle(calling: CallbackTask | None) -> str:
    """What a request that got no answer in time may have waited for, as the end of a sentence.

    Args:
        calling: whose callback has made the request, or has started the task that did.
    """
    if calling is None:
        return ""
    return (
        f". A callback of channel {calling.channel!r} asked, or a task that it has started: if the answer takes "
        "another message on that channel, the two wait for each other; let the callback return first"
    )


# --- answering --------------------------------------------------------------------------------------------------


def reply(result: Any, message: Received) -> None:
    """Answer the request *message* with what its callback returned.

    Raises:
        ValueRefused, ValueTooLarge: that cannot travel. Nothing was sent.
    """
    if type(result) is bytes:
        message.source.reply(result, Flag.RAW, message.request_id)
    else:
        message.source.reply(codec.encode(result), 0, message.request_id)


def reply_failure(error: BaseException, message: Received) -> None:
    """Answer the request *message* with what its callback raised."""
    import traceback

    text = error_text(error)
    trace = "".join(traceback.format_exception(error))
    try:
        reply_error(type(error).__name__, text, trace, *message[2:])
    except LycommError:  # its text cannot travel
        reply_error(type(error).__name__, "(the message cannot be shown)", "", *message[2:])


def reply_error(type_name: str, text: str, trace: str, request_id: int, source: Source) -> None:
    """Answer a request of *source* with an error, cut to :data:`MAX_TRACEBACK` characters.

    Args:
        trace: the traceback, of which the end is kept.
    """
    payload = codec.encode([type_name, text[:MAX_TRACEBACK], trace[-MAX_TRACEBACK:]])
    source.reply(payload, Flag.ERROR, request_id)


def _tell(source: Source, waiting: int, channel: str, number: int, hops: int) -> None:
    """Tell the sender of the request *waiting* that it waits for request *number* on *channel*."""
    source.reply(codec.encode([channel, number, hops]), Flag.WAITS, waiting)


def _read_notice(payload: bytes) -> tuple[str, int, int] | None:
    """What :func:`_tell` has sent; None if it was somebody else."""
    try:
        channel, number, hops = codec.decode(payload)
    except (ValueError, TypeError):
        return None
    if isinstance(channel, str) and isinstance(number, int) and isinstance(hops, int):
        return channel, number, hops
    return None


def _read_error(payload: bytes) -> tuple[str, str, str]:
    """What an error reply says: the type's name, the text and the traceback."""
    try:
        type_name, text, trace = codec.decode(payload)
        return str(type_name), str(text), str(trace)
    except (ValueError, TypeError) as error:
        return ValueUnreadable.__name__, f"the other side answered with an error that cannot be read ({error})", ""
