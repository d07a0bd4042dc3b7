"""Interface between a session and the hub that it belongs to.

The hub makes sessions, so ``hub.py`` imports ``session.py``. A session also calls its hub; it knows it by this protocol
alone, so that ``session.py`` does not import ``hub.py`` in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from liteyuki_host.comm.channel.end import StreamSource
from liteyuki_host.comm.process.losses import LossReport
from liteyuki_host.comm.protocol.messages import ControlRequest
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.storage.outcome import Outcome
from liteyuki_host.comm.waiting.monitor import Monitor

__all__ = ["SessionHub"]

S = TypeVar("S", contravariant=True)
"""The class of the sessions."""


class SessionHub(Protocol[S]):
    """What a session calls of the hub. Every method may be called from the thread that reads the session's link."""

    process: str
    """Name of the host as an end of channels."""
    window: int
    """Bytes that may be on their way per channel and direction."""
    message_limit: int
    """Bytes of one encoded value, at most."""
    authority: Authority
    """Orders the writes of the shared memory and the locks. Its ``lock`` is the hub's."""
    monitor: Monitor
    """The hub's lock, which also guards the session's link."""
    losses: LossReport
    """Takes the messages that were lost."""

    @property
    def revision(self) -> int:
        """Number of the last write of the shared memory."""
        ...

    # The child comes and goes.

    def admit(self, session: S) -> None:
        """Let a child that has greeted take part."""
        ...

    def dismiss(self, session: S, cause: str) -> None:
        """Take everything back that the child had: its link is over, for this *cause*."""
        ...

    # What it asks for.

    def control_requested(self, session: S, request: ControlRequest) -> None:
        """Pass a request to the supervisor on; the answer goes through ``Session.reply_control``."""
        ...

    def declare_for(self, session: S, name: str) -> None:
        """Make a channel known to every process, for the child.

        Raises:
            ValueError: the name is not allowed.
        """
        ...

    def withdraw_for(self, session: S, name: str) -> None:
        """Forget what the child has declared: it does not use the channel any more, but others may."""
        ...

    def open_channel(self, session: S, name: str) -> str | None:
        """Make the child an end of a channel. Returns why it cannot be one; None when it is."""
        ...

    def close_channel(self, session: S, stream: Stream) -> None:
        """Answer the child, which does not use a channel any more: close its stream, or keep it open."""
        ...

    def subscribe_session(self, session: S, topic: str, stream: Stream) -> None:
        """Deliver the publications of *topic* over *stream* from now on."""
        ...

    def unsubscribe_session(self, session: S, topic: str) -> None:
        """End the deliveries of *topic* to the child."""
        ...

    def topic_closed(self, session: S, stream: Stream) -> None:
        """Note that the child has agreed to close a topic's stream."""
        ...

    def publish(self, topic: str, payload: bytes, flags: int, *, may_wait: bool) -> bool:
        """Give a publication to every subscriber."""
        ...

    def sync_session(self, session: S, reply: Callable[[Outcome], None]) -> None:
        """Call *reply* when everything that any process has written is ordered and sent to the child."""
        ...

    def barrier_reached(self, session: S, number: int) -> None:
        """Note that the child has handed over everything that it had written before barrier *number*."""
        ...

    # Flow control of the shared memory.

    def memory_read(self) -> None:
        """Look again which writers have to wait: a child has read events of the shared memory, or is gone."""
        ...

    def withhold(self, source: StreamSource, cost: int) -> bool:
        """Keep back the credit for requests of *cost* bytes while some child has not read its memory events.

        Returns:
            whether the credit is kept back. If not, the caller gives it to *source* itself.
        """
        ...
