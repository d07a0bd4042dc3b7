"""The topics that children have subscribed to: who gets a publication, and what waits for a slow one.

For each topic and subscribed session there is an outbox, which puts publications onto that session's link. A subscriber
without room loses a publication, and that is reported: nobody who publishes waits for a slow subscriber.

Every method is called with the hub's lock held, or takes it. One lock for all topics and subscribers gives all of them
the publications in the same order.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.link.tuning import INLINE_BURST
from liteyuki_host.comm.process.losses import LossReport
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.monitor import Monitor

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["TOPIC_BACKLOG_WINDOWS", "Subscribers"]

PUBLICATION_GAP = 1e-3
"""Seconds after which a publication is not one of a row."""

TOPIC_BACKLOG_WINDOWS = 4
"""Windows of one topic that may wait in the host for one slow process, beside the one on its link."""


class Subscribers:
    """The subscriptions of all children. See the module's docstring.

    Args:
        losses: takes the publications that a subscriber had no room for.
        window: bytes that may be on their way per stream.
    """

    def __init__(self, monitor: Monitor, losses: LossReport, window: int) -> None:
        self._monitor = monitor
        self._lock = monitor.lock
        self._losses = losses
        self._window = window
        self._topics: dict[str, dict[Session, Outbox]] = {}  # without empty entries
        self._publications = 0  # in a row
        self._last_publication = 0.0  # by time.perf_counter

    def counts(self) -> dict[str, int]:
        """Count the subscribed children of each topic that has any."""
        with self._lock:
            return {topic: len(subscribers) for topic, subscribers in self._topics.items()}

    def deliver(self, topic: str, payload: bytes, flags: int) -> None:
        """Give a publication to every subscribed child. The caller holds the lock."""
        one_of_many = self._is_publishing_a_lot()
        for session, outbox in self._topics.get(topic, {}).items():
            if not outbox.offer(payload, flags, one_of_many=one_of_many) and not session.link.ended:
                outbox.lose(1, f"process {session.process} is too slow for it")
        self._last_publication = time.perf_counter()

    def _is_publishing_a_lot(self) -> bool:
        """Whether publications follow each other so fast that writing each one by itself would only wake everybody for
        everything. A link cannot see that: between two of its messages there are those to all the others."""
        if time.perf_counter() - self._last_publication > PUBLICATION_GAP:
            self._publications = 0
        self._publications += 1
        return self._publications > INLINE_BURST

    def subscribe(self, session: Session, topic: str, stream: Stream) -> None:
        """A child wants *topic*, over *stream*."""
        outbox = Outbox(
            window=0,
            backlog=TOPIC_BACKLOG_WINDOWS * self._window,
            on_lost=lambda count, why: self._losses.add(f"topic {topic}", count, why),
            monitor=self._monitor,
        )
        with self._lock:
            outbox.bind(session.link, stream)
            self._topics.setdefault(topic, {})[session] = outbox

    def unsubscribe(self, session: Session, topic: str) -> None:
        """A child no longer wants *topic*: drop what waits for it, and close the stream once the rest is consumed."""
        with self._lock:
            outbox = self._pop_subscriber(session, topic)
        stream = None if outbox is None else outbox.stream
        if outbox is None or stream is None:
            return
        closer = session.link.closer
        outbox.forget()
        outbox.on_room = lambda: closer.ask((stream,))  # again whenever something has been consumed
        closer.ask((stream,))

    def closed(self, session: Session, stream: Stream) -> None:
        """A topic's stream is closed. The child may have subscribed, and unsubscribed again, while it was asked."""
        topic = stream.key[1]
        with self._lock:
            outbox = self._topics.get(topic, {}).get(session)
            if outbox is not None and outbox.stream is stream:
                self._pop_subscriber(session, topic)

    def _pop_subscriber(self, session: Session, topic: str) -> Outbox | None:
        """Take *session* from the subscribers. The caller holds the lock."""
        subscribers = self._topics.get(topic)
        if subscribers is None:
            return None
        outbox = subscribers.pop(session, None)
        if not subscribers:
            del self._topics[topic]
        return outbox

    def drop(self, session: Session) -> None:
        """End all subscriptions of a child that is gone. The caller holds the lock."""
        for topic in list(self._topics):
            self._pop_subscriber(session, topic)
