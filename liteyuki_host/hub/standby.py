"""What a successor does before its turn has come: kept, and done when its predecessor is gone."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["Standby"]

AT_ONCE = frozenset({"store", "publish", "topic"})
"""Kinds of streams on which messages need no turn: what arrives on a topic is nobody's anyway."""


class _Kept(NamedTuple):
    """What arrived at once on a channel."""

    stream: Stream
    payloads: list[bytes]
    flags: int
    request_id: int


class Standby:
    """Keeps the channels and topics that a session opens, and what it sends on the channels, in order.

    Nothing kept is granted, so the windows of its streams bound the messages; a link's stream numbers bound the rest.
    The session's link keeps; whoever dismisses the predecessor lets it all happen, on another thread. Each ``keep``
    method returns False once that is done: then the caller acts by itself, and in order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # before every other lock of the hub but that of comings and goings
        self._over = False
        self._wanted: dict[Stream, bool] = {}  # the streams it opened; False: a topic it has unsubscribed since
        self._messages: deque[_Kept] = deque()

    def keep_message(self, stream: Stream, payloads: list[bytes], flags: int, request_id: int) -> bool:
        # Who answers has been asked, so the turn has come, if only just now; and no window bounds answers.
        if stream.key[0] in AT_ONCE or flags & Flag.REPLY:
            return False
        with self._lock:
            if not self._over:
                self._messages.append(_Kept(stream, payloads, flags, request_id))
            return not self._over

    def keep_wish(self, stream: Stream, wanted: bool) -> bool:
        """The stream was opened; or its topic is *wanted* again, or no longer."""
        with self._lock:
            if not self._over:
                self._wanted[stream] = wanted
            return not self._over

    def end(self, session: Session) -> None:
        """Its turn has come: *session* does everything that was kept. What arrives meanwhile waits for that."""
        with self._lock:
            for stream, wanted in self._wanted.items():
                if wanted:
                    session.open(stream)
            while self._messages:
                kept = self._messages.popleft()
                if kept.stream.receiver is not None:  # else refused: not granted, so the child reports it as lost
                    session.deliver(*kept)
            self._over = True

    def given_up(self) -> Counter[str]:
        """The messages that were never delivered, by channel: its turn has not come, and will not."""
        counts: Counter[str] = Counter()
        with self._lock:
            for kept in self._messages:
                counts[kept.stream.key[1]] += len(kept.payloads)
        return counts
