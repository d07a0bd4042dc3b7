"""Sending a message in the general way: first use, no room, and calls that arrive in the middle of our own work.

Nearly all messages take the short way that ``Channel.send`` writes out: a known end that can be used, a plain value,
and room on the link. What is left comes here.
"""

from __future__ import annotations

from liteyuki_host.comm.channel.end import ChannelEnd
from liteyuki_host.comm.channel.handle import Handle, T
from liteyuki_host.comm.codec import encode_plain, encode_quickly, may_be_plain
from liteyuki_host.comm.errors import ChannelFull, ChannelTaken, ReentrantCall
from liteyuki_host.comm.process import epoch as handles
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.waiting.monitor import Held
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

__all__ = ["SendingHandle"]


class SendingHandle(Handle[T]):
    """A handle that sends. ``Channel`` adds the public forms, which wait for room each in their own way."""

    __slots__ = ()

    def _send_now(self, data: T) -> tuple[ChannelEnd, bytes, int] | None:
        """Queue a message. Returns None; or, when there is no room, what has to be offered again."""
        payload = None
        kind = type(data)
        if (
            self._epoch == handles.epoch
            and self._decoder is None
            and (kind is str or kind is dict or may_be_plain(kind))
            and (end := self._end).usable
        ):
            # Nearly all messages.
            try:
                payload = encode_plain(data) if kind is str else encode_quickly(data)
            except Exception:  # said in our words below
                pass
            if payload is not None:
                if len(payload) > self._limit:
                    payload = None
                elif end.outbox.shortcut(payload):
                    end.outbox.sent += 1
                    return None
        return self._send_anyhow(data, payload, False)

    def _send_anyhow(self, data: T, payload: bytes | None, may_wait: bool) -> tuple[ChannelEnd, bytes, int] | None:
        """Queue a message in the general way. Returns None; or, when there is no room, what has to be offered again.

        Args:
            payload: the encoded message, if it is known.
            may_wait: see ``Link.send``.
        """
        exchange = self._exchange or current()
        monitor = exchange.monitor
        flags = 0
        if monitor.owned():
            if payload is None:
                payload, flags = self._encode(data)
            self._put_off(exchange, payload, flags)
            return None
        try:
            if self._epoch != handles.epoch or not self._end.usable:
                self._find_usable_end(exchange)
            end = self._end
            if payload is None:
                payload, flags = self._encode(data)
            return None if end.outbox.offer(payload, flags, may_wait=may_wait, patient=False) else (end, payload, flags)
        except Held:
            if payload is None:
                payload, flags = self._encode(data)
            self._put_off(exchange, payload, flags)
            return None
        finally:
            if monitor.due:
                monitor.settle()

    def _send_when_there_is_room(self, end: ChannelEnd, payload: bytes, flags: int) -> None:
        # Not in `send`: a function whose variables another one uses is slower throughout. While it waits it only looks
        # for room: it may be reading for everybody then, and the write may have to wait for the peer to read.
        size, outbox = len(payload), end.outbox
        while True:
            outbox.room.wait(lambda: self._still_sending(end) and (outbox.has_room(size) or NOTHING), None)
            try:
                if outbox.offer(payload, flags, may_wait=True, patient=False):
                    return
            except Held:
                self._put_off(self._exchange or current(), payload, flags)
                return

    def _put_off(self, exchange: Exchange, payload: bytes, flags: int) -> None:
        """Send when lycomm's own work on this thread is done, or the lock has been left."""
        name = self.name
        end = exchange.end_if_used(name)
        if end is not None:
            if end.refused is not None:
                raise ChannelTaken(end.refused)
            # Not for who waited for the lock in vain: to look for room is to wait for it again.
            if exchange.monitor.owned() and end.outbox.bound and not end.outbox.has_room(len(payload)):
                raise ReentrantCall(
                    f"channel {name!r} is full, and send() was called by a finalizer, a signal handler or the like in "
                    "the middle of lycomm's own work, where it cannot wait for room"
                )

        def send() -> None:
            used, _lease = exchange.hold(name)
            used.accept(payload, flags)

        exchange.monitor.defer(send, f"channel {name!r}: send()", len(payload))

    def _offer(self, end: ChannelEnd, payload: bytes, flags: int, request_id: int) -> bool | Nothing:
        return self._still_sending(end) and end.outbox.try_offer(payload, flags, request_id)

    def _still_sending(self, end: ChannelEnd) -> bool:
        """True; raises what keeps us from sending, which may have come while we waited."""
        end.use()
        if end.inbox.closed:
            raise self._closed()
        return True

    def _full(self) -> ChannelFull:
        return ChannelFull(
            f"channel {self.name!r} is full: {self._own_end().outbox.waiting():,} messages are not consumed yet, and "
            "waiting here would freeze the event loop; use `await channel.asend(...)`, or read the channel faster"
        )
