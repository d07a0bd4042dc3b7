"""Channels: named duplex pipes between two processes."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from types import UnionType
from typing import Any, Protocol, TypeVar, overload

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import Callback, callback_of, redelivered
from liteyuki_host.comm.channel.end import ChannelEnd, ChannelStatistics
from liteyuki_host.comm.channel.handle import T, declare
from liteyuki_host.comm.channel.registering import check_callback, refuse_forgotten_parentheses
from liteyuki_host.comm.channel.requests import possible_cycle
from liteyuki_host.comm.channel.sending import SendingHandle
from liteyuki_host.comm.channel.unit import Taken
from liteyuki_host.comm.codec import decode_payload, decode_plain, encode_plain, encode_quickly, may_be_plain
from liteyuki_host.comm.errors import (
    ChannelClosed,
    ChannelTaken,
    ReceiveTimeout,
    RequestTimeout,
    ValueUnreadable,
)
from liteyuki_host.comm.process import epoch as handles
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.checkpoints import checkpoint, is_cancelled, may_go_on
from liteyuki_host.comm.waiting.loops import event_loops, on_event_loop, refuse_event_loop
from liteyuki_host.comm.waiting.monitor import refuse_to_wait
from liteyuki_host.comm.waiting.waiting import NOTHING, Nothing

__all__ = ["Channel", "blocking_receive_hook"]

R = TypeVar("R")

blocking_receive_hook: ContextVar[Callable[[], None] | None] = ContextVar("lycomm_blocking_receive", default=None)
"""Called by ``receive()`` without a timeout before it blocks: how a start-up hook that never returns is found."""

_modules = sys.modules

DEFAULT_REQUEST_TIMEOUT = 30.0  # seconds; a chat user has given up by then


class Registers(Protocol[T]):
    """A decorator for callbacks that take messages of type ``T``; what :meth:`Channel.on_receive` returns."""

    def __call__(self, function: Callable[[T], R], /) -> Callable[[T], R]:
        """Register *function* and return it."""
        ...


class Channel(SendingHandle[T]):
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

    __slots__ = ()

    # A type checker takes `Channel("x", str)` for a Channel[str]. A `kind` that is no class, such as `str | None`, may
    # tell it nothing; Channel[str | None]("x") does.
    @overload
    def __init__(self, name: str, kind: type[T], *, exchange: Exchange | None = None) -> None: ...
    @overload
    def __init__(self, name: str, kind: None = None, *, exchange: Exchange | None = None) -> None: ...
    @overload
    def __init__(self: Channel[Any], name: str, kind: UnionType, *, exchange: Exchange | None = None) -> None: ...
    def __init__(self, name: str, kind: Any = None, *, exchange: Exchange | None = None) -> None:
        super().__init__(name, kind, exchange)

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

        Callbacks that ask each other would wait for each other, as those of a channel handle one message at a time. A
        request that closes such a circle, over one channel or several, raises RequestCycle at once if the callbacks
        themselves await the answers. If a task that a callback has started does, that cannot be known, and
        RequestTimeout names the possibility.

        Raises:
            RequestTimeout: no answer in time. The other end may still do the work.
            RequestCycle: the callback that would answer is itself waiting for the callback here that asks.
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
        calling = callback_of.get()
        # Of the end whose callback asks, and handles nothing else until it has the answer; else None.
        asking = calling.requests if calling is not None and calling.is_current() else None
        number = end.requests.new(asking)
        try:
            if asking is not None:
                flags |= Flag.BY_CALLBACK
                asking.block(end.name, number)
            left = timeout
            sent = self._offer(end, payload, flags, number)
            if sent is NOTHING:
                begun = time.monotonic()
                sent = await end.outbox.room.wait_async(lambda: self._offer(end, payload, flags, number), timeout)
                # Requests that were sent at once all wait for the same time, and share one timer.
                left = None if timeout is None else max(timeout - (time.monotonic() - begun), 0.0)
            answer = sent if sent is NOTHING else await end.requests.reply_to(number, left)
            if answer is NOTHING:
                raise RequestTimeout(
                    f"channel {self.name!r}: no answer within {timeout} s; the other end may still do the work"
                    + possible_cycle(calling)
                )
            try:
                return decode_payload(answer[1], answer[0] & Flag.RAW)
            except ValueUnreadable as error:
                raise ValueUnreadable(f"channel {self.name!r}: the answer: {error}") from error
        finally:
            end.requests.forget(number)
            if asking is not None:
                asking.unblock(number)

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


def _name_of(channel: Channel[Any]) -> str:
    exchange = channel._exchange or current()
    if not exchange.monitor.owned():
        channel._own_end()  # in use from now on, while the object is there
    declare(exchange, channel.name, False)
    return channel.name


codec.referring(Channel, _name_of, Channel)
