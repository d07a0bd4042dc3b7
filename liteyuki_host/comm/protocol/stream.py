"""Both directions of one numbered stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.protocol.ledger import Ledger, Owing
from liteyuki_host.comm.protocol.stage import Stage

if TYPE_CHECKING:
    from liteyuki_host.comm.protocol.batch import Batch

__all__ = ["DirectInbox", "Stream"]


class DirectInbox(Protocol):
    """What a link asks an inbox before it passes a lone message around its queue."""

    def pass_to_reader(self, size: int, source: Any) -> bool:
        """Whether the thread that reads, and waits for a message, may keep one of *size* bytes."""
        ...

    def pass_to_task(self, payload: bytes, source: Any, turn: Any) -> bool:
        """Whether the task that calls the callbacks has taken the message, for the end of the loop's *turn*."""
        ...


class Stream(Ledger):
    """Both directions of one numbered stream on one link: its :class:`Ledger`, and what it is for.

    Attributes:
        key: (kind, name), such as ``("channel", "nonebot-passive")``. Never changes.
        stage: where messages of a burst wait for the lock; see :class:`Stage`.
        receiver: gets arriving messages: an inbox, a subscription, a relay, ... Set once when the stream is joined.
        source: the sender as *receiver* sees it: reports what was consumed. Set together with *receiver*.
        inbox: *receiver*, when it is an inbox that may be handed a lone message directly; else None.
        user: told of new credit: an outbox; None where nobody waits for credit.
        alias: the other side's number for the same stream, when both have opened it at once; else 0. Set by the link's
            reader.
        refused: whether the host has refused the channel: what the child has sent is never granted. Set by the link's
            reader.
        held: answers that wait while the stream is being closed; None while it is open. Under the link's lock. A stream
            that has been closed stays so: who has not noticed sends nothing by it.
    """

    __slots__ = ("alias", "held", "inbox", "key", "receiver", "refused", "source", "stage", "user")

    def __init__(
        self,
        number: int,
        key: tuple[str, str],
        window: int = DEFAULT_WINDOW,
        *,
        owing: Owing | None = None,
        limited: bool = True,
        trusted: bool = False,
    ) -> None:
        super().__init__(number, window, owing=owing, limited=limited, trusted=trusted)
        self.key = key
        self.stage = Stage()
        self.receiver: Any = None
        self.source: Any = None
        self.inbox: DirectInbox | None = None
        self.user: Any = None
        self.alias = 0
        self.refused = False
        self.held: list[Batch] | None = None

    def hold(self) -> None:
        """Let nothing be sent from now on: the stream is about to be closed. The caller holds the link's lock."""
        self.held = []
        self.shut()

    def let_go(self) -> list[Batch]:
        """Let messages be sent again: the stream stays open. Returns the answers that have waited. The caller holds the
        link's lock."""
        held, self.held = self.held or [], None
        self.reopen()
        return held
