"""Base class for code that follows one child through its session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["SessionListener"]


class SessionListener:
    """Is told how a child fares. Every method does nothing; a subclass overrides those it needs.

    The methods are called by whichever thread reads the child's link, one at a time. They must return soon and must
    not raise. ``on_closed`` is the last one.
    """

    def on_hello(self, pid: int) -> None:
        """Called when the child has greeted."""

    def on_hooks_done(self, adapters: Sequence[str], failed_plugins: Sequence[str]) -> None:
        """Called when NoneBot's start-up hooks have returned.

        Args:
            adapters: names of the adapters that the bot has registered.
            failed_plugins: names of the plugins that could not be loaded; the bot runs without them.
        """

    def on_ready(self, address: str | None, details: Mapping[str, str]) -> None:
        """Called when the bot can be used.

        Args:
            address: where it listens; None when it opens no port.
            details: by adapter, the address that the adapter's client connects to.
        """

    def on_beat(self, late: float) -> None:
        """Called for each beat of the bot's event loop; *late*: seconds by which the loop ran it too late."""

    def on_pong(self) -> None:
        """Called when the child's link has answered :meth:`Session.ping`. The link needs no event loop for that."""

    def on_more_time(self, seconds: float, reason: str) -> None:
        """Called when the child asks for *seconds* more than its time limits allow, counted from now."""

    def on_drained(self, names: Sequence[str], not_begun: int, unfinished: int) -> None:
        """Called when the child has ended its drain: it begins no events any more.

        Args:
            names: of the handlers that have not finished.
            not_begun: events that arrived too late to be begun.
            unfinished: events that were begun and have not finished.
        """

    def on_shutdown_work(self, running: bool) -> None:
        """Called when a child that was interrupted during its start begins or ends its shutdown work: its shutdown
        hooks, and what the project does after them."""

    def on_own_exit(self, place: str) -> None:
        """Called when the bot's own code has called ``sys.exit()`` at *place*; the child ends."""

    def on_cannot_start(self, reason: str) -> None:
        """Called when the child ends before it is ready, and no start can succeed before somebody changes what *reason*
        says."""

    def on_closed(self, cause: str | None) -> None:
        """Called once, when the link is over. *cause* is None when the child has said goodbye."""
