"""What a channel object knows: this process's end of the channel, and the type of the messages.

:class:`Handle` is the base of ``Channel``. It finds the end on first use, and again when the process's exchange has
changed (``process/epoch.py`` counts the changes), and it encodes and decodes messages.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.end import ChannelEnd, Lease
from liteyuki_host.comm.codec import decode_payload
from liteyuki_host.comm.errors import ChannelClosed, HostNotAttached, ValueRefused, ValueTooLarge
from liteyuki_host.comm.process import epoch as handles
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

__all__ = ["Handle", "T", "declare"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # so that a plain `Channel` is a Channel[Any]
else:
    T = TypeVar("T")


class Handle(Generic[T]):
    """A name, and what is remembered of the end that it stands for. Used from any thread.

    Attributes:
        _kind: the type of the messages as given to the constructor; None: that of ``Channel[type]``, or any.
        _exchange: given by tests that hold both sides in one process; None: the process's own, asked each time.
        _epoch: the epoch in which *_end*, *_lease* and *_limit* were found; they hold as long as it lasts. -1: never.
        _end: this process's end. Set with the epoch, and before it.
        _lease: kept only for its existence: as long as a handle has it, the process keeps the end.
        _limit: bytes that an encoded message may have.
        _decoder: checks and decodes typed messages; None for a channel that carries anything; NOTHING until the first
            use has worked out which.
    """

    __slots__ = ("__orig_class__", "_decoder", "_end", "_epoch", "_exchange", "_kind", "_lease", "_limit", "_name")

    def __init__(self, name: str, kind: Any, exchange: Exchange | None) -> None:
        self._name = check_name(name, "channel")
        self._kind = kind
        self._exchange = exchange
        self._epoch = -1
        self._end: ChannelEnd
        self._lease: Lease
        self._limit = codec.DEFAULT_MESSAGE_LIMIT
        self._decoder: codec.TypedDecoder[T] | Nothing | None = NOTHING

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    # --- the end --------------------------------------------------------------------------------------------

    def _own_end(self) -> ChannelEnd:
        """Return this process's end, found anew after the exchange has changed.

        Raises:
            ReentrantCall: it has to be found, and this thread is in the middle of lycomm's own work.
        """
        if self._epoch != handles.epoch:
            exchange = self._exchange or current()
            exchange.monitor.refuse_inside(f"the first use of channel {self.name!r} here")
            self._find_end(exchange)
        return self._end

    def _find_end(self, exchange: Exchange) -> None:
        """Take hold of this process's end, and remember until when that holds."""
        epoch = handles.epoch
        self._end, self._lease = exchange.hold(self.name)
        self._limit = exchange.message_limit
        self._epoch = epoch

    def _usable_end(self) -> ChannelEnd:
        """Return this process's end, and make it one of the channel's two ends on first use.

        Raises:
            HostNotAttached, ChannelTaken: it cannot become one.
        """
        end = self._own_end()
        if not end.usable:
            end.use()
        return end

    def _find_usable_end(self, exchange: Exchange) -> None:
        """Do what :meth:`_usable_end` does, but wait for the lock no longer than a user's call may.

        Raises:
            Held: it was not to be had in time.
        """
        monitor = exchange.monitor
        try:
            monitor.enter()
            if self._epoch != handles.epoch:
                self._find_end(exchange)
            if not self._end.usable:
                self._end.use()
        finally:
            monitor.leave()

    def _receiving_end(self) -> ChannelEnd:
        """Return this process's end in active mode. After the host has gone it is returned all the same: what has
        arrived can still be received, and then the inbox raises why there is no more."""
        end = self._own_end()
        if not end.usable and (not end.inbox.closed or end.refused is not None):
            try:
                end.use()
            except HostNotAttached:
                if not end.inbox.closed:
                    raise
        if end.inbox.mode != "active":
            end.inbox.use("active")
        return end

    def _claim(self, end: ChannelEnd) -> None:
        """Become an end, if that is possible yet: callbacks may be registered before there is a host."""
        try:
            end.use()
        except HostNotAttached:
            pass

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(f"channel {self.name!r} is closed: this process is shutting down")

    # --- values ---------------------------------------------------------------------------------------------

    def _encode(self, data: T) -> tuple[bytes, int]:
        """Return the payload and the flags of a message.

        Raises:
            ValueRefused, ValueTooLarge: it cannot travel, or is not what the channel carries.
        """
        decoder, limit = self._decoder, self._limit
        if decoder is NOTHING:
            decoder = self._typed()
        try:
            if type(data) is bytes and decoder is None:
                raw = cast(bytes, data)
                if len(raw) > limit:
                    raise ValueTooLarge(f"the value is {len(raw):,} bytes, the limit is {limit:,} bytes")
                return raw, Flag.RAW
            payload = codec.encode(data, limit)
        except (ValueRefused, ValueTooLarge) as error:
            raise self._refused(error) from None
        if decoder is not None:
            try:
                decoder.check(data, payload)
            except ValueRefused as error:
                raise ValueRefused(f"channel {self.name!r} carries {decoder.kind_name}, {error}") from None
        return payload, 0

    def _decode(self, payload: bytes, flags: int) -> Any:
        """Return the message of a payload. Raises ValueUnreadable."""
        decoder = self._typed()
        if decoder is None:
            return decode_payload(payload, flags)
        return decoder.decode(codec.encode(payload) if flags & Flag.RAW else payload)

    def _typed(self) -> codec.TypedDecoder[T] | None:
        """Return what checks and decodes messages of the channel's type; None if it carries anything."""
        decoder = self._decoder
        if decoder is NOTHING:
            kind = self._kind
            if kind is None:
                # Channel[str]("x"): the argument is known only after __init__ has returned.
                alias = getattr(self, "__orig_class__", None)
                arguments = typing.get_args(alias)
                kind = arguments[0] if arguments and not isinstance(arguments[0], TypeVar) else Any
            try:
                self._decoder = decoder = None if kind is Any else codec.TypedDecoder(kind)
            except ValueRefused as error:
                raise ValueRefused(f"channel {self.name!r}: {error}") from error
        return decoder

    def _refused(self, error: ValueRefused | ValueTooLarge) -> ValueRefused | ValueTooLarge:
        return type(error)(f"channel {self.name!r}: {error}")


def declare(exchange: Exchange, name: str, keep: bool) -> None:
    """Make a channel known; put off when called by a finalizer or the like in the middle of lycomm's own work."""
    monitor = exchange.monitor
    if monitor.owned():
        monitor.defer(lambda: exchange.declare(name, keep=keep), f"declaring channel {name!r}", len(name))
        return
    exchange.declare(name, keep=keep)
    if monitor.due:
        monitor.settle()
