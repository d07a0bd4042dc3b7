"""Performs what the children ask of their host: operations on processes, and signals that they have received."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from loguru import logger

from liteyuki_host.comm.errors import LycommError
from liteyuki_host.comm.protocol.messages import ControlRequest
from liteyuki_host.hub import Session
from liteyuki_host.supervisor.supervisor import Supervisor

__all__ = ["ChildRequests", "Operations"]

SAME_SIGNAL_SECONDS = 5.0
"""From a SIGHUP to the host until one that a bot has received is another request. A bot tells of its own one after a
second."""

SILENT = ("status", "terminated", "hung up")
"""Verbs that get no line in the log: they ask for nothing, or the supervisor says what comes of it."""


class Operations(Protocol):
    """What a host can be asked for. Each returns at once and may be called from any thread."""

    def restart_process(self, name: str | None = None) -> None: ...
    def start_process(self, name: str | None = None) -> None: ...
    def stop_process(self, name: str | None = None) -> None: ...
    def reload_process(self, name: str | None = None) -> None: ...
    def status(self) -> list[dict[str, Any]]: ...


class ChildRequests:
    """See the module's docstring. Methods may be called from any thread."""

    def __init__(self, host: Operations, supervisor: Supervisor, is_stopping: Callable[[], bool]) -> None:
        """
        Args:
            is_stopping: whether the host has been asked to end.
        """
        self._host = host
        self._supervisor = supervisor
        self._is_stopping = is_stopping
        self._hung_up_at = -SAME_SIGNAL_SECONDS
        """``time.monotonic()`` of the host's last SIGHUP. Written on the host's main thread, read by those of links."""

    def host_hung_up(self) -> None:
        """Note that the host itself has received SIGHUP, and reloads all processes for it."""
        self._hung_up_at = time.monotonic()

    def answer(self, session: Session, request: ControlRequest) -> None:
        """Do what the child of *session* asks for, and answer it. Called by the thread that reads its link."""
        process = request.process or session.process
        operations: dict[str, Callable[[], object]] = {
            "restart": partial(self._host.restart_process, process),
            "start": partial(self._host.start_process, process),
            "stop": partial(self._host.stop_process, process),
            "reload": partial(self._host.reload_process, process),
            "terminated": partial(self._terminated, session),
            "hung up": partial(self._hung_up, session.process),
            "status": self._host.status,
        }
        operation = operations.get(request.verb)
        if operation is None:
            session.reply_control(request.id, error=f"the host knows no {request.verb!r}; it knows {list(operations)}")
            return
        try:
            if request.verb not in SILENT:
                logger.info(f"{session.process} asks: {request.verb} {process}")
            session.reply_control(request.id, value=operation())
        except LycommError as error:
            session.reply_control(request.id, error=str(error))

    def _terminated(self, session: Session) -> None:
        """Act on a SIGTERM that a child has received, and nothing of the host since. A service manager that stops
        everything at once means the host too; then this is no end of its own."""
        if not self._is_stopping():
            self._supervisor.terminated(session.process, session)

    def _hung_up(self, process: str) -> None:
        """Act on a SIGHUP that a child has received. If the host has one as well, all are reloaded already."""
        if not self._is_stopping() and time.monotonic() - self._hung_up_at > SAME_SIGNAL_SECONDS:
            self._supervisor.reload(process, "somebody has sent it SIGHUP")
