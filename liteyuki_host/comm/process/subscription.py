"""What a process has subscribed to."""

from __future__ import annotations

from typing import Any

from liteyuki_host.comm.channel.calling import Callback, Callbacks, call_each
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.unit import Here, Received
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.reporting import log
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["Subscription"]


class _LocalSource(Here):
    """Publications from this very process, which no link counts. Bytes, charged as on a link.

    Attributes:
        arrived: all that came; changed by publishers, who hold the lock.
        handled: all that callbacks are done with; changed by the one consumer.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.handled = 0

    @property
    def waiting(self) -> int:
        return self.arrived - self.handled

    def count(self, cost: int) -> None:
        self.handled += cost


class Subscription:
    """A process's subscription to one topic: a queue like a channel's, and the callbacks. It begins with the first
    callback and ends with the last; who subscribes again gets another one."""

    def __init__(self, topic: str, monitor: Monitor) -> None:
        self.topic = topic
        self.announced = False  # the host was told that this process wants the topic; changed under the lock
        self.callbacks = Callbacks(monitor)
        # Nothing is kept for a later subscriber: it gets what is published from its subscription on.
        self.inbox = Inbox(
            f"topic {topic}",
            self._handle,
            callbacks=self.callbacks,
            keep=False,
            failed=self._failed,
            monitor=monitor,
        )
        self.inbox.use("passive")
        self._local = _LocalSource()
        self._ended = False

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Any) -> None:
        """Take publications in. Called by the link's reader."""
        self.inbox.deliver(payloads, flags, request_id, source)
        if self._ended:  # on their way when the last callback went
            self.inbox.drain()

    def end(self) -> None:
        """End the subscription: the last callback is gone. What waits is dropped, and counts as consumed."""
        self._ended = True
        self.inbox.drain()

    def deliver_here(self, payload: bytes, flags: int, limit: int) -> bool:
        """Take a publication in without a link; False when more than *limit* bytes would wait. The caller holds the
        lock."""
        if not self.callbacks:
            return True
        cost = len(payload) + MESSAGE_CHARGE
        if self._local.waiting and self._local.waiting + cost > limit:
            return False
        self._local.arrived += cost
        self.inbox.deliver([payload], flags, 0, self._local)
        return True

    async def _handle(self, message: Received) -> None:
        await call_each(self.callbacks, message.payload, message.flags, self._failed)

    def _failed(self, what: str, callback: Callback, error: BaseException) -> None:
        log().opt(exception=error).error(
            f"topic {self.topic!r}: {what} of {callback.name} failed; the next message is handled as usual"
        )
