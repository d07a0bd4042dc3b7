"""Sending a message in the general way: first use, no room, and calls that arrive in the middle of our own work.

Theory of operation
-------------------

A message is sent in one of four ways. Each is tried when the one before is not possible:

1. **The short way** (:meth:`SendingHandle._send_now`, and written out in ``Channel.send``): the end is known and
   usable, the value is plain, and the link has room. No lock is taken here. Nearly all messages go this way.
2. **The general way** (:meth:`SendingHandle._send_anyhow`): finds the end, encodes any value, and offers the message to
   the outbox, which may keep it until a link is up.
3. **Waiting for room**: in a thread by :meth:`SendingHandle._send_when_there_is_room`, in a task by ``Channel.asend``.
4. **Putting off** (:meth:`SendingHandle._put_off`): this thread is in the middle of lycomm's own work, or could not get
   the lock in time. Whoever holds the lock sends the message later, in order.

The handle keeps no state of a message. All methods may be called from any thread; no lock is held between them.
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
        """Queue a message by the short way, else by the general way.

        ``Channel.send`` has a copy of this method's body, because a call costs too much there. Keep the two alike.

        Returns:
            None if it was accepted; without room the end, the payload and the flags, to be offered again.
        """
        payload = None
        kind = type(data)
        if (
            self._epoch == handles.epoch
            and self._decoder is None
            and (kind is str or kind is dict or may_be_plain(kind))
            and (end := self._end).usable
        ):
            try:
                payload = encode_plain(data) if kind is str else encode_quickly(data)
            except Exception:  # the general way encodes it again and raises an error that names the place
                pass
            if payload is not None:
                if len(payload) > self._limit:
                    payload = None  # the general way raises ValueTooLarge
                elif end.outbox.shortcut(payload):
                    end.outbox.sent += 1
                    return None
        return self._send_anyhow(data, payload, False)

    def _send_anyhow(self, data: T, payload: bytes | None, may_wait: bool) -> tuple[ChannelEnd, bytes, int] | None:
        """Queue a message in the general way. May wait for the lock, but not for room.

        Args:
            payload: the encoded message, if it is known; then it has no flags.
            may_wait: see ``Link.send``.

        Returns:
            None if it was accepted or put off; without room the end, the payload and the flags, to be offered again.

        Raises:
            ValueRefused, ValueTooLarge, HostNotAttached, ChannelTaken, ReentrantCall: see ``Channel.send``.
        """
        exchange = self._exchange or current()
        monitor = exchange.monitor
        flags = 0
        if monitor.owned():  # called by a finalizer, a signal handler or a log sink inside lycomm's own work
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
        except Held:  # the lock was not to be had in time; nothing was sent
            if payload is None:
                payload, flags = self._encode(data)
            self._put_off(exchange, payload, flags)
            return None
        finally:
            # Calls that were put off while this thread had the lock are performed before it returns to the user.
            if monitor.due:
                monitor.settle()

    def _send_when_there_is_room(self, end: ChannelEnd, payload: bytes, flags: int) -> None:
        """Wait in this thread for room, as long as it takes, and send the message.

        Raises:
            ChannelClosed, ChannelTaken: sending became impossible meanwhile. Nothing was sent.
        """
        # Not part of `Channel.send`: a function whose variables are used by a closure is slower on every call. The
        # attempt only looks for room and does not send: the waiting thread may be reading the link for all others, and
        # must not block in a write that waits for the peer to read.
        size, outbox = len(payload), end.outbox
        while True:
            outbox.room.wait(lambda: self._still_sending(end) and (outbox.has_room(size) or NOTHING), None)
            try:
                # Another sender may have taken the room; then wait again.
                if outbox.offer(payload, flags, may_wait=True, patient=False):
                    return
            except Held:
                self._put_off(self._exchange or current(), payload, flags)
                return

    def _put_off(self, exchange: Exchange, payload: bytes, flags: int) -> None:
        """Have the message sent when lycomm's own work on this thread is done, or the lock has been released.

        Raises:
            ChannelTaken: this process is no end of the channel. Nothing will be sent.
            ReentrantCall: the channel is full, or too many calls have been put off. Nothing will be sent.
        """
        name = self.name
        end = exchange.end_if_used(name)
        if end is not None:
            if end.refused is not None:
                raise ChannelTaken(end.refused)
            # Only asked if this thread owns the lock. If it could not get the lock in time, it would wait again here.
            if exchange.monitor.owned() and end.outbox.bound and not end.outbox.has_room(len(payload)):
                raise ReentrantCall(
                    f"channel {name!r} is full, and send() was called by a finalizer, a signal handler or the like in "
                    "the middle of lycomm's own work, where it cannot wait for room"
                )

        def send() -> None:
            # The lease keeps the end while it is used: the handle may be gone by then.
            used, _lease = exchange.hold(name)
            used.accept(payload, flags)

        exchange.monitor.defer(send, f"channel {name!r}: send()", len(payload))

    def _offer(self, end: ChannelEnd, payload: bytes, flags: int, request_id: int) -> bool | Nothing:
        """Offer a message, as an attempt for ``Waiters``: NOTHING without room. Raises as :meth:`_still_sending`."""
        return self._still_sending(end) and end.outbox.try_offer(payload, flags, request_id)

    def _still_sending(self, end: ChannelEnd) -> bool:
        """Check again, after a wait, that this process may send. Returns True.

        Raises:
            ChannelTaken: the host has refused this process as an end.
            ChannelClosed: this process is shutting down.
        """
        end.use()
        if end.inbox.closed:
            raise self._closed()
        return True

    def _full(self) -> ChannelFull:
        """The error of a ``send`` without room on an event loop, where it must not wait."""
        return ChannelFull(
            f"channel {self.name!r} is full: {self._own_end().outbox.waiting():,} messages are not consumed yet, and "
            "waiting here would freeze the event loop; use `await channel.asend(...)`, or read the channel faster"
        )
