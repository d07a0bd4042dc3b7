"""Channels: named duplex pipes between two processes."""

from __future__ import annotations

import sys
import time
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import Callback, redelivered
from liteyuki_host.comm.channel.end import ChannelEnd, ChannelStatistics, Lease
from liteyuki_host.comm.channel.registering import check_callback, refuse_forgotten_parentheses
from liteyuki_host.comm.channel.unit import Taken
from liteyuki_host.comm.codec import decode_payload, decode_plain, encode_plain, encode_quickly, may_be_plain
from liteyuki_host.comm.errors import (
    ChannelClosed,
    ChannelFull,
    ChannelTaken,
    HostNotAttached,
    ReceiveTimeout,
    ReentrantCall,
    RequestTimeout,
    ValueRefused,
    ValueTooLarge,
    ValueUnreadable,
)
from liteyuki_host.comm.process import epoch as handles
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.checkpoints import checkpoint, is_cancelled, may_go_on
from liteyuki_host.comm.waiting.loops import event_loops, on_event_loop, refuse_event_loop
from liteyuki_host.comm.waiting.monitor import Held, refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

__all__ = [
    "Channel",
    "active_channel",
    "blocking_receive_hook",
    "get_channel",
    "get_channels",
    "passive_channel",
    "set_channel",
]

R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)  # so that a plain `Channel` is a Channel[Any]
else:
    T = TypeVar("T")

blocking_receive_hook: ContextVar[Callable[[], None] | None] = ContextVar("lycomm_blocking_receive", default=None)
"""Called by ``receive()`` without a timeout before it blocks: how a start-up hook that never returns is found."""

_modules = sys.modules

DEFAULT_REQUEST_TIMEOUT = 30.0  # seconds; a chat user has given up by then


class Registers(Protocol[T]):
    """A decorator for callbacks that take messages of type ``T``; what :meth:`Channel.on_receive` returns."""

    def __call__(self, function: Callable[[T], R], /) -> Callable[[T], R]:
        """Register *function* and return it."""
        ...


class Channel(Generic[T]):
    """A named duplex pipe: both sides send and receive at once, in order, and nobody gets its own messages.

    A channel has two ends, and an end is a process: the first two that use it. ``{process}-passive`` and
    ``{process}-active`` exist for every process that the host knows, between the host and that process.

    ``Channel[str]("name")`` carries texts only: checked at ``send``, decoded to the type on the other side. Plain
    ``Channel("name")`` carries whatever can travel (see ``docs/values``).

    Objects of this class are handles: two with the same name are the same channel. They can be sent through
    channels, and arrive as working channels.

    Args:
        name: 1 to 200 printable characters.
        kind: the type of the messages, as in ``Channel[kind]``.
        exchange: for tests that hold both sides in one process; otherwise the process's own.
    """

    __slots__ = ("__orig_class__", "_decoder", "_end", "_epoch", "_exchange", "_kind", "_lease", "_limit", "_name")

    # A type checker takes `Channel("x", str)` for a Channel[str]. A `kind` that is no class, such as `str | None`, may
    # tell it nothing; Channel[str | None]("x") does.
    @overload
    def __init__(self, name: str, kind: type[T], *, exchange: Exchange | None = None) -> None: ...
    @overload
    def __init__(self, name: str, kind: None = None, *, exchange: Exchange | None = None) -> None: ...
    @overload
    def __init__(self: Channel[Any], name: str, kind: UnionType, *, exchange: Exchange | None = None) -> None: ...
    def __init__(self, name: str, kind: Any = None, *, exchange: Exchange | None = None) -> None:
        self._name = check_name(name, "channel")
        self._kind = kind
        self._exchange = exchange
        # What is remembered of the exchange, and until when that holds.
        self._epoch = -1
        self._end: ChannelEnd
        self._lease: Lease  # as long as we have it, the process keeps that end
        self._limit = codec.DEFAULT_MESSAGE_LIMIT
        self._decoder: codec.TypedDecoder[T] | Nothing | None = NOTHING  # until it is asked for

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    def __repr__(self) -> str:
        return f"Channel({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Channel) and other.name == self.name

    def __hash__(self) -> int:
        return hash(("channel", self.name))

    # --- sending --------------------------------------------------------------------------------------------

    def send(self, data: T) -> None:
        """Queue a message, from any thread.

        Returns once it is accepted: from then on it is received once, or handed to the next incarnation of the other
        process, or reported lost in the log. In a thread it waits for room, as long as that takes.

        Raises:
            ChannelFull: called on an event loop, and there is no room. Nothing was sent; ``asend`` waits for it.
            ValueRefused, ValueTooLarge: the value cannot travel, or is not what the channel carries. Nothing was sent.
            HostNotAttached: this process does not run under a host.
            ChannelTaken: two other processes are this channel's ends.
            ReentrantCall: called by a finalizer, a signal handler or a log sink in the middle of lycomm's own work, and
                there is no room, or too many such calls wait already. Nothing was sent.

        Called from there with room, the message is sent when that work is done: in order, before anything that this
        thread sends later. If it cannot be sent after all, that is logged, or it is reported as lost.
        """
        # As `_send_now`, written out: a call less is 6 % of what a short message costs.
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
            except Exception:  # said in our words below
                pass
            if payload is not None:
                if len(payload) > self._limit:
                    payload = None
                elif (outbox := end.outbox).shortcut(payload):
                    outbox.sent += 1
                    return
        refused = self._send_anyhow(data, payload, True)
        if refused is not None:
            if on_event_loop():
                self._still_sending(refused[0])
                raise self._full()
            refuse_to_wait(f"send() without room in channel {self.name!r}")
            self._send_when_there_is_room(*refused)

    async def asend(self, data: T) -> None:
        """Queue a message, waiting for room without blocking the loop. Cancelled, it sends nothing.

        Raises:
            ValueRefused, ValueTooLarge, HostNotAttached, ChannelTaken: as :meth:`send` does.
            ChannelClosed: this process is shutting down.
            AsyncioNeeded: awaited where asyncio does not run.
        """
        if not may_go_on():
            await checkpoint()
        refused = self._send_now(data)
        if refused is not None:
            end, payload, flags = refused
            await end.outbox.room.wait_async(lambda: self._offer(end, payload, flags, 0), None)

    async def request(self, data: T, *, timeout: float | None = DEFAULT_REQUEST_TIMEOUT) -> Any:
        """Send a message and wait for what the other side's callback returns for it.

        The first callback there whose filter takes the message answers.

        Args:
            timeout: seconds, counted from now and including the wait for room. None waits as long as the other
                process lives.

        Cancelled before it is sent, it asks nothing. Cancelled later, the other end may still do the work.

        Two ends whose callbacks ask each other on the same channel would wait for each other: each handles one message
        at a time. The request that closes the circle is answered by RequestCycle at once, if the callback itself awaits
        it. If a task that the callback has started does, that cannot be known, and RequestTimeout names the
        possibility.

        Raises:
            RequestTimeout: no answer in time. The other end may still do the work.
            RequestCycle: the callback there is itself waiting for the callback here that asks.
            RemoteError: its callback raised, or nothing there can answer.
            ChannelBroken: the other process ended before it answered. Whether the work was done is unknown.
            ChannelTaken: two other processes are this channel's ends.
            AsyncioNeeded: awaited where asyncio does not run.
        """
        if is_cancelled():
            await checkpoint()
        (self._exchange or current()).monitor.refuse_inside("request()")
        end = self._usable_end()
        payload, flags = self._encode(data)
        flags |= Flag.REQUEST
        number = end.new_request()
        if end.inbox.in_callback():
            flags |= Flag.BY_CALLBACK
            end.asked_by_callback = number
        try:
            left = timeout
            sent = self._offer(end, payload, flags, number)
            if sent is NOTHING:
                begun = time.monotonic()
                sent = await end.outbox.room.wait_async(lambda: self._offer(end, payload, flags, number), timeout)
                # Requests that were sent at once all wait for the same time, and share one timer.
                left = None if timeout is None else max(timeout - (time.monotonic() - begun), 0.0)
            answer = sent if sent is NOTHING else await end.reply_to(number, left)
            if answer is NOTHING:
                raise RequestTimeout(
                    f"channel {self.name!r}: no answer within {timeout} s; the other end may still do the work"
                    + end.possible_cycle()
                )
            try:
                return decode_payload(answer[1], answer[0] & Flag.RAW)
            except ValueUnreadable as error:
                raise ValueUnreadable(f"channel {self.name!r}: the answer: {error}") from error
        finally:
            end.forget_request(number)

    async def flush(self, *, timeout: float | None = None) -> None:
        """Wait until everything sent so far has been consumed on the other side.

        Raises:
            RequestTimeout: (a TimeoutError) not within *timeout* seconds.
            ChannelClosed: this process is shutting down.
            ChannelTaken: two other processes are this channel's ends; what was sent is lost, and reported.
            AsyncioNeeded: awaited where asyncio does not run.
        """
        if not may_go_on():
            await checkpoint()
        end = self._usable_end()
        outbox = end.outbox
        consumed = outbox.mark()

        def attempt() -> bool | Nothing:
            if end.refused is not None:
                raise ChannelTaken(end.refused)
            done = consumed()
            if done is NOTHING and end.inbox.closed:
                raise self._closed()
            return done

        if await outbox.room.wait_async(attempt, timeout) is NOTHING:
            raise RequestTimeout(f"channel {self.name!r}: {outbox.waiting():,} messages not consumed in {timeout} s")

    # --- receiving ------------------------------------------------------------------------------------------

    def on_receive(self, filter_func: Callable[[T], object] | None = None) -> Registers[T]:
        """Register a callback (passive mode).

        ``@channel.on_receive()`` on a sync or async function; it runs on the process's event loop (NoneBot's), so
        ``await bot.send(...)`` works in it. Messages are handled one at a time and in order; several callbacks each
        get every message, in the order of registration. Messages that no callback has handled yet are handed over too,
        however long ago they arrived. What a callback returns answers a request.

        A callback or filter that raises is logged with its name; the next message is handled as usual.

        Args:
            filter_func: sync or async; the callback gets only data for which it returns something true.

        Raises:
            TypeError: the parentheses were forgotten, or what is registered could never be called with a message.
            ChannelModeError: this process reads the channel with ``receive()``.
        """
        if filter_func is not None:
            if not callable(filter_func):
                raise TypeError("on_receive takes a filter function; write @channel.on_receive() with its parentheses")
            refuse_forgotten_parentheses(filter_func, "channel.on_receive", depth=1)
            check_callback(filter_func, "a filter", "data")

        def register(function: Callable[[T], R]) -> Callable[[T], R]:
            check_callback(function, "a callback", "data")
            end = self._own_end()
            end.monitor.refuse_inside("on_receive()")
            decode = decode_payload if self._typed() is None else self._decode
            callback = Callback(function, filter_func, decode)
            # The callback first: in passive mode, the loop may take the first message the moment it is claimed.
            end.callbacks.add(callback)
            try:
                end.inbox.use("passive")
                self._claim(end)
            except BaseException:
                end.callbacks.discard(callback)
                raise
            exchange = self._exchange or current()
            if exchange.loop is not None:
                end.inbox.attach_loop(exchange.loop)
            return function

        return register

    def remove(self, function: Callable[..., Any]) -> bool:
        """Unregister a callback; False when it was not registered.

        The channel stays in passive mode; without any callback its messages wait for the next one.
        """
        end = self._own_end()
        end.monitor.refuse_inside("remove()")
        return end.callbacks.remove(function) > 0

    def receive(self, timeout: float | None = None) -> T:
        """Wait in this thread for the next message (active mode).

        Args:
            timeout: seconds; None waits as long as the process lives. 0 takes what has arrived. On Linux that includes
                what lies in the link's socket and nobody has read yet; on macOS and Windows a thread reads the link
                all the time, and what it has not handed on counts as not arrived.

        Raises:
            ReceiveTimeout: nothing arrived in time; the channel is as it was.
            ValueUnreadable: the message cannot be decoded, or is not of the channel's type. It is consumed.
            ChannelClosed: this process is shutting down; end your loop.
            WouldBlockEventLoop: called on an event loop. Use ``areceive`` there, or a thread of its own.
            ChannelModeError: this process reads the channel with callbacks.
            HostNotAttached: this process does not run under a host.
            ReentrantCall: called by a finalizer, a signal handler or a log sink in the middle of lycomm's own work.
        """
        if event_loops.running() is not None or "trio" in _modules:
            refuse_event_loop(f"channel {self.name!r}: receive()", "channel.areceive()")
        end = self._end if self._epoch == handles.epoch else self._own_end()
        if end.monitor.owned():
            end.monitor.refuse_inside(f"channel {self.name!r}: receive()")
        if not end.usable or end.inbox.mode != "active":
            end = self._receiving_end()
        if timeout is None:
            announce = blocking_receive_hook.get()
            if announce is not None:
                announce()
        message = end.inbox.receive(timeout)
        if message is not NOTHING and not message[1] and self._decoder is None and not redelivered.get():
            try:
                value: T = decode_plain(message[0])
                return value
            except Exception:  # said in our words below
                pass
        return self._received(end, message, timeout)

    async def areceive(self, timeout: float | None = None) -> T:
        """Wait for the next message without blocking the loop. Cancelled, it takes no message.

        Args:
            timeout: seconds; None waits as long as the process lives. 0 takes what has arrived, after the loop has
                turned once.

        Raises:
            ReceiveTimeout, ValueUnreadable, ChannelClosed, ChannelModeError, HostNotAttached: as :meth:`receive` does.
            AsyncioNeeded: awaited where asyncio does not run.
        """
        end = self._receiving_end()
        if not may_go_on():
            await checkpoint()
        message = await end.inbox.arrived.wait_async(end.inbox.take, timeout)
        return self._received(end, message, timeout)

    async def __aiter__(self) -> AsyncIterator[T]:
        """Messages as they come; ends quietly when this process shuts down."""
        while True:
            try:
                data = await self.areceive()
            except ChannelClosed:
                return
            yield data

    def __iter__(self) -> Iterator[T]:
        """The same in a thread."""
        while True:
            try:
                data = self.receive()
            except ChannelClosed:
                return
            yield data

    @property
    def redelivered(self) -> bool:
        """Whether the message received last in this thread or task may have been seen by an earlier incarnation."""
        return redelivered.get()

    def statistics(self) -> ChannelStatistics:
        """The channel's figures in this process."""
        return self._own_end().statistics()

    # --- inside ---------------------------------------------------------------------------------------------

    def _own_end(self) -> ChannelEnd:
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
        end = self._own_end()
        if not end.usable:
            end.use()
        return end

    def _receiving_end(self) -> ChannelEnd:
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
            if not used.usable:
                used.use()
            used.outbox.accept(payload, flags)

        exchange.monitor.defer(send, f"channel {name!r}: send()", len(payload))

    def _encode(self, data: T) -> tuple[bytes, int]:
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

    def _refused(self, error: ValueRefused | ValueTooLarge) -> ValueRefused | ValueTooLarge:
        return type(error)(f"channel {self.name!r}: {error}")

    def _decode(self, payload: bytes, flags: int) -> Any:
        decoder = self._typed()
        if decoder is None:
            return decode_payload(payload, flags)
        return decoder.decode(codec.encode(payload) if flags & Flag.RAW else payload)

    def _typed(self) -> codec.TypedDecoder[T] | None:
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

    def _offer(self, end: ChannelEnd, payload: bytes, flags: int, request_id: int) -> bool | Nothing:
        return self._still_sending(end) and end.outbox.try_offer(payload, flags, request_id)

    def _still_sending(self, end: ChannelEnd) -> bool:
        """True; raises what keeps us from sending, which may have come while we waited."""
        end.use()
        if end.inbox.closed:
            raise self._closed()
        return True

    def _received(self, end: ChannelEnd, message: Taken | Nothing, timeout: float | None) -> T:
        if message is NOTHING:
            raise ReceiveTimeout(f"channel {self.name!r}: nothing arrived within {timeout} s")
        payload, flags, request_id, source = message
        if flags & Flag.REQUEST:
            end.refuse_request(request_id, source)
        again = bool(flags & Flag.REDELIVERED)
        if again or redelivered.get():
            redelivered.set(again)
        try:
            value: T = self._decode(payload, flags)
        except ValueUnreadable as error:
            raise ValueUnreadable(f"channel {self.name!r}: {error}") from error
        return value

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(f"channel {self.name!r} is closed: this process is shutting down")

    def _full(self) -> ChannelFull:
        return ChannelFull(
            f"channel {self.name!r} is full: {self._own_end().outbox.waiting():,} messages are not consumed yet, and "
            "waiting here would freeze the event loop; use `await channel.asend(...)`, or read the channel faster"
        )


class _OwnChannel(Channel[Any]):
    """One of the two channels of whatever this process is called; importable before that is known."""

    __slots__ = ("_suffix",)

    def __init__(self, suffix: str) -> None:
        super().__init__(suffix)
        self._suffix = suffix

    @property
    def name(self) -> str:
        return f"{(self._exchange or current()).process}-{self._suffix}"


active_channel: Channel[Any] = _OwnChannel("active")
"""``{process}-active`` of this process: meant for ``receive()`` in a thread of its own, or ``areceive()``."""

passive_channel: Channel[Any] = _OwnChannel("passive")
"""``{process}-passive`` of this process: meant for ``on_receive`` callbacks."""


@overload
def get_channel(name: str, kind: type[T]) -> Channel[T]: ...
@overload
def get_channel(name: str, kind: UnionType | None = None) -> Channel[Any]: ...
def get_channel(name: str, kind: Any = None) -> Channel[Any]:
    """The channel that some process has declared under *name*. Answers at once, from any process.

    Args:
        kind: the type of the messages, as in ``Channel(name, kind)``.

    Raises:
        UnknownChannel: (a KeyError) there is none.
    """
    current().check_known(check_name(name, "channel"))
    return Channel(name, kind)


def get_channels() -> dict[str, Channel[Any]]:
    """Every declared channel by name; a new dict each time."""
    return {name: Channel(name) for name in sorted(current().channel_names())}


def set_channel(name: str, channel: Channel[Any]) -> None:
    """Make a channel known to all processes under its name, as long as this process lives.

    That holds for the last 20,000 names of a process. Earlier ones are known as long as some process uses the channel:
    has a Channel object of that name, a callback, or messages that wait in it.

    Raises:
        TypeError: *channel* is no Channel.
        ValueError: it has another name.
    """
    if not isinstance(channel, Channel):
        raise TypeError(f"set_channel takes a Channel, not {type(channel).__name__}")
    if channel.name != name:
        raise ValueError(f"the channel's own name is {channel.name!r}, not {name!r}; a channel has one name everywhere")
    _declare(current(), name, True)


def _declare(exchange: Exchange, name: str, keep: bool) -> None:
    """Make a channel known; put off when called by a finalizer or the like in the middle of lycomm's own work."""
    monitor = exchange.monitor
    if monitor.owned():
        monitor.defer(lambda: exchange.declare(name, keep=keep), f"declaring channel {name!r}", len(name))
        return
    exchange.declare(name, keep=keep)
    if monitor.due:
        monitor.settle()


def _name_of(channel: Channel[Any]) -> str:
    exchange = channel._exchange or current()
    if not exchange.monitor.owned():
        channel._own_end()  # in use from now on, while the object is there
    _declare(exchange, channel.name, False)
    return channel.name


codec.referring(Channel, _name_of, Channel)
