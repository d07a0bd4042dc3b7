"""Which two processes a channel joins, and how messages travel between two children: through the host.

A channel has two ends, each a process. The host keeps a :class:`Route` for every channel. When one end is the host
itself, what the child sends goes into the host's own inbox. When both are children, each direction has a
:class:`Relay`, which takes messages off the sender's link, and an outbox, which puts them onto the receiver's::

    child a ──link──▶ Relay ──▶ Outbox ──link──▶ child b

Flow control. A message that a relay holds is not consumed, so the sender's window bounds what waits there, and
:meth:`Relay.sender_died` what dead incarnations of the sender leave. It counts as
consumed when the receiver's outbox has taken it: from then on the outbox is responsible for it, also over a restart of
the receiver.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.outbox import Outbox
from liteyuki_host.comm.errors import ChannelBroken
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["Relay", "Route"]


class Relay:
    """Hands on what one child sends on a channel: to another child, to the host's end, or to nobody yet.

    Payloads stay encoded. Methods may be called from any thread; they never wait for a peer.

    Args:
        monitor: that of the hub; None: one of its own.
    """

    def __init__(self, monitor: Monitor | None = None) -> None:
        # Guards `_waiting`, and keeps the order while messages are handed on.
        self._lock = (monitor or Monitor()).lock
        # Set once, under `_lock`; read without it by replies, which only need to know the target.
        self._target: Outbox | Inbox | None = None
        # Guarded by `_lock`: payload, flags, request id and source of each message that the target has no room for.
        self._waiting: deque[tuple[bytes, int, int, Any]] = deque()

    def set_target(self, target: Outbox | Inbox) -> None:
        """Hand messages to *target* from now on, those that have waited first."""
        with self._lock:
            self._target = target
        if isinstance(target, Outbox):
            target.on_room = self.pump
        self.pump()

    def deliver(self, payloads: list[bytes], flags: int, request_id: int, source: Any) -> None:
        """Take messages from the sender's link. Replies go past those that wait: they have no credit, and whoever waits
        for one must not depend on room for others."""
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
        """Hand on as many messages as the target has room for."""
        granted: dict[Any, int] = {}  # by source, the bytes that the target has taken over
        with self._lock:
            target, waiting = self._target, self._waiting
            while waiting:
                payload, flags, request_id, source = waiting[0]
                if isinstance(target, Outbox):
                    if not target.offer(payload, flags, request_id):
                        break
                    granted[source] = granted.get(source, 0) + len(payload) + MESSAGE_CHARGE
                elif target is not None:
                    # Not counted here: whoever consumes it from the inbox does that.
                    target.deliver([payload], flags, request_id, source)
                else:
                    break
                waiting.popleft()
        # Outside the lock: a grant may be written to the sender's link there and then.
        for source, cost in granted.items():
            source.consumed(cost)

    def sender_died(self, limit: int) -> int:
        """Keep at most *limit* bytes of what waits, the newest: the next incarnation may add a window of its own.
        Returns how many messages were dropped."""
        dropped = 0
        with self._lock:
            waiting = self._waiting
            cost = sum(len(payload) + MESSAGE_CHARGE for payload, *_ in waiting)
            while cost > limit and len(waiting) > 1:  # a single one may be larger
                cost -= len(waiting.popleft()[0]) + MESSAGE_CHARGE
                dropped += 1
        return dropped

    def stranded(self) -> int:
        """Count the messages that wait and are no requests. At the host's end they are lost; who has made a request is
        told by the end of the link."""
        with self._lock:
            return sum(1 for _, flags, _, _ in self._waiting if not flags & Flag.REQUEST)

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._waiting)


class Route:
    """A channel as the host knows it. Its attributes are guarded by the hub's lock.

    Args:
        monitor: that of the hub; None: one of its own.

    Attributes:
        kept: whether it exists as long as the host does, used or not: one of the two that every process has.
        declared_by: processes that have made the name known, each with the incarnation that did.
    """

    __slots__ = ("_monitor", "declared_by", "ends", "kept", "name", "outbox", "relays")

    def __init__(self, name: str, monitor: Monitor | None = None) -> None:
        self.name = name
        self.kept = False
        self.declared_by: dict[str, str] = {}
        self._monitor = monitor or Monitor()
        self.ends: list[str] = []
        """The processes that it joins: none, one or two names."""
        self.relays: dict[str, Relay] = {}
        """By sending child. None is needed for a child whose other end is known to be the host."""
        self.outbox: dict[str, Outbox] = {}
        """By receiving child; there only when both ends are children."""

    def other(self, process: str) -> str | None:
        """Name of the end that is not *process*; None as long as it is not known."""
        return next((end for end in self.ends if end != process), None)

    @property
    def waits(self) -> bool:
        """Whether messages between two children wait here."""
        return any(self.relays.values()) or any(outbox.backlog for outbox in self.outbox.values())

    def relay(self, process: str) -> Relay:
        """The relay of what the child *process* sends, made when it is first asked for."""
        return self.relays.setdefault(process, Relay(self._monitor))

    def fail_requests(self, receiver: str, unanswered: list[int], cause: str) -> None:
        """Tell the other child that its requests *unanswered* get no answer: the child *receiver* has ended, for this
        *cause*. Does nothing when the other end is the host, which knows by itself."""
        other = self.other(receiver)
        back = None if other is None else self.outbox.get(other)
        if back is None:
            return
        text = f"channel {self.name!r}: no answer can come any more ({cause}); whether the work was done is unknown"
        payload = codec.encode([ChannelBroken.__name__, text, ""])
        for request_id in unanswered:
            back.reply(payload, Flag.REPLY | Flag.ERROR, request_id)
