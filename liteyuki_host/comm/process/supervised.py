"""What a bot process tells its supervisor, and what it asks of it: the control messages of one link.

:class:`Supervised` lies between the general exchange and the node of a bot. It knows whether there is a host (the
*phase*), sends control messages, and waits for the answers to requests. Every method may be called from any thread,
unless it says otherwise. A control message has no credit: it is queued on the link and the call returns at once.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from liteyuki_host.comm import codec
from liteyuki_host.comm.errors import HostError, HostNotAttached, RequestTimeout
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.protocol import messages
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer

__all__ = ["MORE_TIME_LIMIT", "Phase", "Supervised"]

MORE_TIME_LIMIT = 3600.0
"""Seconds that one more_time() may ask for. A limit, so that a mistaken unit does not switch the watchdog off."""


class Phase(enum.Enum):
    """Whether a process has a host."""

    ALONE = "alone"
    """It has had none, or was reset: the process is its own host of the shared memory and of topics."""
    ATTACHED = "attached"
    """The host has greeted, and its shared memory has been loaded."""
    DETACHED = "detached"
    """The host is gone, or this process has said goodbye. It stays so until a new link or a reset."""


class Supervised(Exchange):
    """An exchange in a process that a supervisor may follow. See the module's docstring."""

    def __init__(self, process: str, *, message_limit: int) -> None:
        super().__init__(process, message_limit=message_limit)
        self._phase = Phase.ALONE
        self._numbers = itertools.count(1)  # of requests; each is used once
        # One waiter for each control request, put and taken off by its asker; None: the host has gone before it
        # answered.
        self._controls: dict[int, Answer[messages.ControlReply | None]] = {}

    @property
    def attached(self) -> bool:
        """Whether a host is there."""
        return self._phase is Phase.ATTACHED

    def hooks_done(self, *, adapters: Sequence[str], failed_plugins: Sequence[str] = ()) -> None:
        """Tell the host that the start-up hooks have returned, and which plugins could not be loaded."""
        self._tell(messages.HooksDone(list(adapters), list(failed_plugins)))

    def ready(self, *, address: str | None, details: Mapping[str, str]) -> None:
        """Tell the host that the bot can be reached, and where."""
        self._tell(messages.Ready(address, dict(details)))

    def beat(self, late: float) -> None:
        """Tell the host that the bot's event loop turns. To be called on that loop only."""
        self._tell(messages.Beat(late))

    def more_time(self, seconds: float, reason: str = "") -> None:
        """Ask the host to put off by *seconds* whatever limit runs against this process now: of its start, its
        blocked event loop, its drain or its stop. From any thread; without a host nothing happens.

        Args:
            seconds: from now; more than 0, at most ``MORE_TIME_LIMIT`` (an hour).
            reason: for the log.

        Raises:
            ValueError: *seconds* is not between 0 and the limit.
        """
        if not 0 < seconds <= MORE_TIME_LIMIT:
            raise ValueError(f"more_time() takes seconds between 0 and {MORE_TIME_LIMIT:g}, not {seconds!r}")
        if self.attached:
            self._tell(messages.MoreTime(float(seconds), reason[:200]))

    def drained(self, names: Sequence[str], not_begun: int, unfinished: int) -> None:
        """Tell the host that no new events are begun, and what would be lost if this process ended now.

        Args:
            names: handlers that still run, in words.
            not_begun: events that were taken and not begun.
            unfinished: events that were begun and are not finished.
        """
        self._tell(messages.Drained(list(names), not_begun, unfinished))

    def shutdown_work(self, *, running: bool) -> None:
        """Tell the host, in a start that was interrupted, whether the shutdown hooks, or what the project does after
        them, run."""
        self._tell(messages.ShutdownWork(running))

    def own_exit(self, place: str) -> None:
        """Tell the host that the bot's own code ends it by ``sys.exit()``, and where."""
        self._tell(messages.OwnExit(place))

    def cannot_start(self, reason: str) -> None:
        """Tell the host, before this process ends, what has to be changed before a start can work; one line."""
        self._tell(messages.CannotStart(reason))

    def request_restart(self, process: str | None = None) -> None:
        """Ask the host to restart *process* (None: this one). Returns at once; from any thread.

        Raises:
            HostNotAttached: there is no host.
        """
        self._attached_link("restart_process()")
        self._tell(messages.ControlRequest(0, "restart", process or self.process))

    async def control(self, verb: str, process: str | None = None, *, timeout: float = 10.0) -> Any:
        """Ask the host to do *verb* (``restart``, ``start``, ``stop``, ``reload``, ``status``) and wait for its answer.

        Raises:
            HostNotAttached: there is no host.
            HostError: it refused; the text says why.
            RequestTimeout: no answer within *timeout* seconds.
        """
        self._attached_link(f"asking the host to {verb}")
        number = next(self._numbers)
        answer = self._controls[number] = Answer()
        try:
            self._attached_link(f"asking the host to {verb}")  # again: its end since then has told nobody of us
            self._tell(messages.ControlRequest(number, verb, process))
            reply = await answer.wait_async(timeout)
        finally:
            self._controls.pop(number, None)
        if reply is None:
            raise HostNotAttached("the host went away before it answered")
        if reply is NOTHING:
            raise RequestTimeout(f"the host did not answer {verb!r} within {timeout} s")
        if reply.error is not None:
            raise HostError(reply.error)
        return codec.decode(reply.value)

    def _tell(self, message: messages.Control) -> None:
        link = self.link
        if link is None:
            return
        monitor = self.monitor
        if monitor.owned():  # asked for by a finalizer or signal handler in the middle of our work
            monitor.defer(lambda: link.send_control(message), "a message to the host", 0)
        else:
            link.send_control(message)
            self._settle()

    def _attached_link(self, what: str) -> Link:
        link = self.link
        if link is None or self._phase is not Phase.ATTACHED:
            if self._phase is Phase.DETACHED:
                raise HostNotAttached(f"{what} needs the host, which is gone: this process is shutting down")
            from liteyuki_host.comm.command import run_this_bot

            raise HostNotAttached(
                f"{what} needs the lycomm host, and this bot was started without one; "
                f"start it with `{run_this_bot()}` in the project's folder"
            )
        return link

    def _answer_control(self, reply: messages.ControlReply) -> None:
        """Wake who has asked; an answer that nobody waits for is dropped. Called by the link's reader."""
        answer = self._controls.get(reply.id)
        if answer is not None:
            answer.give(reply)

    def _fail_controls(self) -> None:
        """Wake everybody who has asked: the host is gone, and no answer will come."""
        for answer in list(self._controls.values()):
            if not answer.given:
                answer.give(None)
