"""Publish/subscribe: a topic is a name, and every subscriber in every process gets each publication once, in order.

The host orders all publications of all topics, so two processes never see two of them in different orders; a
publisher that subscribes gets its own like everybody else. A topic reaches who is subscribed when the host orders the
publication: there is no history, and what a process had not handled when it died is gone with it.

A slow subscriber holds nobody up: what does not fit into its process's queue (the channel window on the link and four
times as much in the host) is dropped for that process and reported with a count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.calling import Callback
from liteyuki_host.comm.channel.registering import check_callback
from liteyuki_host.comm.codec import decode_payload
from liteyuki_host.comm.errors import ChannelFull, ValueRefused, ValueTooLarge
from liteyuki_host.comm.process.current import current
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.names import check_name
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.checkpoints import checkpoint, may_go_on
from liteyuki_host.comm.waiting.loops import on_event_loop
from liteyuki_host.comm.waiting.monitor import Held

__all__ = ["STATES_TOPIC", "apublish", "publish", "subscribe", "unsubscribe"]

F = TypeVar("F", bound=Callable[[Any], Any])

STATES_TOPIC = "lycomm.states"
"""The host publishes each state transition of each process here: a dict of ``process``, ``previous``, ``state``,
``cause`` (words), ``at`` (``time.time()``), ``pid`` (None when there is none) and ``restarts``."""


def publish(topic: str, data: Any, *, exchange: Exchange | None = None) -> None:
    """Send *data* to every subscriber of *topic*, in every process, this one included. From any thread.

    Raises:
        ChannelFull: called on an event loop while the way to the host is full; ``apublish`` waits instead.
        ValueRefused, ValueTooLarge: the value cannot travel.
        ReentrantCall: called by a finalizer, a signal handler or a log sink in the middle of lycomm's own work, and too
            many such calls wait already. Called from there otherwise, it is published when that work is done.
    """
    exchange = exchange or current()
    payload, flags = _encode(topic, data, exchange.message_limit)
    may_wait = not on_event_loop()
    monitor = exchange.monitor
    try:
        if monitor.owned():
            raise Held
        published = exchange.publish(topic, payload, flags, may_wait=may_wait)
    except Held:
        published = True
        monitor.defer(lambda: _publish_late(exchange, topic, payload, flags), f"publish({topic!r})", len(payload))
    if monitor.due:
        monitor.settle()
    if not published:
        raise ChannelFull(
            f"topic {topic!r}: the way to the host is full, and waiting here would freeze the event loop; "
            "use `await apublish(...)`"
        )


async def apublish(topic: str, data: Any, *, exchange: Exchange | None = None) -> None:
    """Send *data* to every subscriber of *topic*, waiting for room without blocking the loop. Cancelled, it publishes
    nothing.

    Raises:
        ValueRefused, ValueTooLarge: the value cannot travel.
        AsyncioNeeded: awaited where asyncio does not run.
    """
    exchange = exchange or current()
    payload, flags = _encode(topic, data, exchange.message_limit)
    if not may_go_on():
        await checkpoint()
    if not exchange.publish(topic, payload, flags, may_wait=False):
        await exchange.wait_to_publish(lambda: exchange.publish(topic, payload, flags, may_wait=False))


def subscribe(topic: str, *, exchange: Exchange | None = None) -> Callable[[F], F]:
    """Register a sync or async callback for *topic*: ``@subscribe("news")``.

    It runs on the process's event loop, one publication at a time and in order. One that raises is logged with its
    name; the next publication is handled as usual.

    Raises:
        TypeError: the topic was forgotten, or what is registered could never be called with a publication.
        ValueError: the topic is no usable name.
    """
    if callable(topic):
        raise TypeError('@subscribe registers nothing without a topic; write @subscribe("topic")')
    check_name(topic, "topic")

    def register(function: F) -> F:
        check_callback(function, "a subscriber", "data")
        (exchange or current()).subscribe(topic, Callback(function, None, decode_payload))
        return function

    return register


def unsubscribe(topic: str, function: Callable[..., Any] | None = None, *, exchange: Exchange | None = None) -> int:
    """Take callbacks of *topic* away: *function*, or all of this process. Returns how many there were.

    Raises:
        TypeError, ValueError: the topic is no usable name.
    """
    check_name(topic, "topic")
    return (exchange or current()).unsubscribe(topic, function)


def _publish_late(exchange: Exchange, topic: str, payload: bytes, flags: int) -> None:
    """Publish what was put off. Its publisher is not there any more: without room it is reported as lost."""
    if not exchange.publish(topic, payload, flags, may_wait=False):
        why = "it was published by a finalizer, a signal handler or the like, and there was no room"
        exchange.losses.add(f"topic {topic}", 1, why)


def _encode(topic: str, data: Any, limit: int) -> tuple[bytes, int]:
    check_name(topic, "topic")
    if type(data) is bytes:
        if len(data) > limit:
            raise ValueTooLarge(f"topic {topic!r}: the value is {len(data):,} bytes, the limit is {limit:,} bytes")
        return data, Flag.RAW
    try:
        return codec.encode(data, limit), 0
    except (ValueRefused, ValueTooLarge) as error:
        raise type(error)(f"topic {topic!r}: {error}") from None
