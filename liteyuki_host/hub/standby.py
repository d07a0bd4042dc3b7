"""What a standby child does before its turn: it is kept, and performed when the predecessor is gone.

A standby child is started beside the child that it is to replace (``reload = "overlap"``). Both are connected. Channels
and topics belong to the older one until it ends; the shared memory, publishing and answers need no turn.

How the change of hands works
-----------------------------

The thread that reads the standby child's link calls the ``keep_...`` methods; the thread that dismisses the predecessor
calls :meth:`Standby.end`. ``_lock`` makes one of them wait for the other:

- Before :meth:`Standby.end`, a ``keep_...`` method keeps what it is given and returns True.
- While ``end`` runs, it waits for the lock. So what arrives meanwhile is performed after everything that was kept.
- Afterwards it returns False, and the caller performs what it has itself.

What is kept has bounds. Messages that wait here are not consumed, so each stream's window limits them; and there can be
no more streams than a link has numbers for.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple, Protocol

from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["Standby", "Successor"]

AT_ONCE = frozenset({"store", "publish", "topic"})
"""Kinds of streams whose messages need no turn. What a child sends on the stream of a topic is received by nobody."""


class Successor(Protocol):
    """What :class:`Standby` needs of the session whose turn has come."""

    def open(self, stream: Stream) -> None:
        """Join *stream* with its channel or topic."""
        ...

    def deliver(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> None:
        """Hand on what was sent on *stream*."""
        ...


class _Kept(NamedTuple):
    """Messages that arrived together on one stream; the fields are the arguments of ``LinkHandler.on_message``."""

    stream: Stream
    payloads: list[bytes]
    flags: int
    request_id: int


class Standby:
    """Keeps the channels and topics that a standby session opens, and what it sends on the channels, in order.

    Args:
        monitor: that of the hub; None: one of its own.
    """

    def __init__(self, monitor: Monitor | None = None) -> None:
        self._lock = (monitor or Monitor()).lock  # guards what follows
        self._over = False
        """The turn has come and everything that was kept has been performed."""
        self._wanted: dict[Stream, bool] = {}
        """The streams that the child has opened, in order. False: a topic that it has unsubscribed from since."""
        self._messages: deque[_Kept] = deque()
        """What was sent on channels, oldest first."""

    def keep_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> bool:
        """Keep messages that arrived on *stream*. Returns whether they were kept; otherwise the caller delivers them.

        Messages on the streams of ``AT_ONCE`` are never kept, and neither are replies: a child that replies was asked,
        so its turn has come. Replies have no credit either, so nothing would bound them here.
        """
        if stream.key[0] in AT_ONCE or flags & Flag.REPLY:
            return False
        with self._lock:
            if not self._over:
                self._messages.append(_Kept(stream, payloads, flags, request_id))
            return not self._over

    def keep_wish(self, stream: Stream, wanted: bool) -> bool:
        """Keep that *stream* was opened, or that its topic is *wanted* again or no longer. Returns whether it was kept;
        otherwise the caller acts on it."""
        with self._lock:
            if not self._over:
                self._wanted[stream] = wanted
            return not self._over

    def end(self, session: Successor) -> None:
        """Let the turn come: have *session* open and deliver everything that was kept. What arrives meanwhile waits
        until this is done."""
        with self._lock:
            for stream, wanted in self._wanted.items():
                if wanted:
                    session.open(stream)
            while self._messages:
                kept = self._messages.popleft()
                # Without a receiver the stream was just refused. Its messages are not consumed, so the child reports
                # them as lost.
                if kept.stream.receiver is not None:
                    session.deliver(*kept)
            self._over = True

    def given_up(self) -> Counter[str]:
        """Count, by channel, the messages that were kept and will never be delivered: the child has ended first."""
        counts: Counter[str] = Counter()
        with self._lock:
            for kept in self._messages:
                counts[kept.stream.key[1]] += len(kept.payloads)
        return counts
