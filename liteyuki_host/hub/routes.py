"""Which two processes a channel joins, and the way between two children, through the host."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.errors import ChannelBroken
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag

__all__ = ["Relay", "Route"]


class Relay:
    """Hands on what one child sends: to another child, to the host's end, or to nobody yet.

    Payloads stay encoded. What the target has no room for waits here and is not granted to the sender, so its window
    bounds what waits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._target: Outbox | Inbox | None = None
        self._waiting: deque[tuple[bytes, int, int, Any]] = deque()  # payload, flags, request id, source

    def set_target(self, target: Outbox | Inbox) -> None:
        """From now on messages go to *target*; those that waited go first."""
        with self._lock:
            self._target = target
        if isinstance(target, Outbox):
            target.on_room = self.pump
        self.pump()

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Any) -> None:
        """Called by the sender's link."""
        target = self._target
        if flags & Flag.REPLY:
            if isinstance(target, Outbox):
                target.reply(payloads[0], flags, request_id)
            elif target is not None:
                target.deliver(payloads, flags, request_id, source)
            return
        with self._lock:
            self._waiting.extend((payload, flags, request_id, source) for payload in payloads)
        self.pump()

    def pump(self) -> None:
        """Hand on what can be handed on. From any thread; never waits."""
        granted: dict[Any, int] = {}
        with self._lock:
            target, waiting = self._target, self._waiting
            while waiting:
                payload, flags, request_id, source = waiting[0]
                if isinstance(target, Outbox):
                    if not target.offer(payload, flags, request_id):
                        break
                    granted[source] = granted.get(source, 0) + len(payload) + MESSAGE_CHARGE
                elif target is not None:
                    target.deliver([payload], flags, request_id, source)  # granted by whoever consumes it there
                else:
                    break
                waiting.popleft()
        for source, cost in granted.items():
            source.consumed(cost)

    def __len__(self) -> int:
        return len(self._waiting)


class Route:
    """A channel as the host knows it: up to two ends, each a process's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ends: list[str] = []
        self.relays: dict[str, Relay] = {}  # by sending child, unless the host is known as the other end
        self.outbox: dict[str, Outbox] = {}  # by receiving child, when the other end is a child too

    def other(self, process: str) -> str | None:
        """The end that is not *process*, if it is known."""
        return next((end for end in self.ends if end != process), None)

    def relay(self, process: str) -> Relay:
        return self.relays.setdefault(process, Relay())

    def fail_requests(self, receiver: str, unanswered: list[int], cause: str) -> None:
        """Tell the other child that *receiver* died with these requests."""
        other = self.other(receiver)
        back = None if other is None else self.outbox.get(other)
        if back is None:
            return
        text = f"channel {self.name!r}: no answer can come any more ({cause}); whether the work was done is unknown"
        payload = codec.encode([ChannelBroken.__name__, text, ""])
        for request_id in unanswered:
            back.reply(payload, Flag.REPLY | Flag.ERROR, request_id)
