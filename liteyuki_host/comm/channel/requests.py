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

The callbacks of one end handle one message at a time. So a callback that awaits an answer on its own channel cannot
handle a request of the other end's callback that is needed for that answer. Such a request is flagged ``BY_CALLBACK``
and is answered with an error at once (:meth:`Requests.closes_a_cycle`).
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import callback_of, error_text
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

__all__ = ["Requests", "reply", "reply_error", "reply_failure"]

CYCLE = "lycomm: request cycle"
"""In the place of an error's type, in the answer to a request that could never be answered. No class is called so."""

MAX_TRACEBACK = 16 * 1024  # characters of a remote traceback that travel; its end says what happened


class Requests:
    """The requests that one end has made and that are not answered yet.

    Args:
        name: the channel's.
        outbox: where a request waits that has not been sent yet.

    Attributes:
        by_callback: the number of the request that the callback in progress here has made last on this channel; 0
            before the first. Written by the task that calls the callbacks, read by the link's reader. It counts as long
            as no answer has come.
        refused: the error of every request from now on, since the host has refused this process as an end; or None.
            Set by :meth:`refuse`, for good.
    """

    def __init__(self, name: str, outbox: Outbox) -> None:
        self._name = name
        self._outbox = outbox
        self._open: dict[int, Answer[tuple[int, bytes] | LycommError]] = {}
        self.by_callback = 0
        self.refused: ChannelTaken | None = None
        # Not from 1: an answer to this process's predecessor, by way of the host, must not look like one to us.
        self._numbers = itertools.count(int.from_bytes(os.urandom(3), "big") << 32)

    def __len__(self) -> int:
        """Count the requests that are open."""
        return len(self._open)

    # --- asking ---------------------------------------------------------------------------------------------

    def new(self) -> int:
        """Return a number for a request, whose answer is kept from now until :meth:`forget`.

        Raises:
            ChannelTaken: the host has refused this process as an end.
        """
        number = next(self._numbers)
        self._open[number] = Answer()
        if self.refused is not None:  # asked after the entry was made, which `refuse` may not have seen
            del self._open[number]
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
        self._outbox.cancel_request(number)

    # --- what becomes of them -------------------------------------------------------------------------------

    def answered(self, number: int, flags: int, payload: bytes) -> None:
        """Hand an answer to its asker; one that nobody waits for is dropped. Called by the link's reader."""
        asked = self._open.get(number)
        if asked is not None and not asked.given:
            asked.give((flags, payload))

    def fail(self, number: int, cause: str) -> None:
        """Raise ChannelBroken in the asker, unless the answer has come already."""
        self._fail(
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
            self._fail(number, ChannelTaken(reason))

    def _fail(self, number: int, error: LycommError) -> None:
        asked = self._open.get(number)
        if asked is not None and not asked.given:
            asked.give(error)

    # --- cycles ---------------------------------------------------------------------------------------------

    def closes_a_cycle(self, flags: int, request_id: int, source: Source) -> bool:
        """Answer a request at once that could never be answered otherwise. Called by the link's reader, before the
        request is queued.

        That is so when a callback of this channel asks, there, while the callback in progress here awaits an answer on
        this channel: each end handles one message at a time, so neither goes on. An answer to our own request that
        was sent before this one has arrived before it, so ours is still open.
        """
        asked = self._open.get(self.by_callback)
        if not flags & Flag.BY_CALLBACK or asked is None or asked.given:
            return False
        text = (
            f"channel {self._name!r}: the callbacks of both ends ask each other on this channel, and would wait for "
            "ever; ask on another channel, or answer before you ask back"
        )
        reply_error(CYCLE, text, "", request_id, source)
        return True

    def possible_cycle(self) -> str:
        """What a request that got no answer in time may have waited for, as the end of a sentence."""
        if callback_of.get() != self._name:
            return ""
        return (
            ". A callback of this channel asked, or a task that it has started: if the other end's callback asks back "
            "on this channel, the two wait for each other; ask on another channel"
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


def _read_error(payload: bytes) -> tuple[str, str, str]:
    """What an error reply says: the type's name, the text and the traceback."""
    try:
        type_name, text, trace = codec.decode(payload)
        return str(type_name), str(text), str(trace)
    except (ValueError, TypeError) as error:
        return ValueUnreadable.__name__, f"the other side answered with an error that cannot be read ({error})", ""
