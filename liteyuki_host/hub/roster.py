"""Who is connected to the host, and in which role.

For each process at most one session *serves*: it has the process's channels and topics. A second one may be a
*standby*: it follows the shared memory, and takes over when the serving one is gone. Everything here is guarded by the
hub's lock, except that ``everybody`` and ``serving`` may be read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from liteyuki_host.hub.session import Session

__all__ = ["Roster"]


class Roster:
    """The connected children. See the module's docstring for the lock.

    Attributes:
        serving: by process, the session that has its channels and topics.
        standbys: by process, the session that takes over when the serving one is gone.
        everybody: all of them, standbys first; replaced as a whole. Kept, as every write of the shared memory goes
            through it.
    """

    def __init__(self) -> None:
        self.serving: dict[str, Session] = {}
        self.standbys: dict[str, Session] = {}
        self.everybody: tuple[Session, ...] = ()

    def join(self, session: Session, *, standby: bool) -> None:
        """Add a session, which follows the shared memory once :meth:`update` has been called."""
        (self.standbys if standby else self.serving)[session.process] = session

    def leave(self, session: Session) -> Session | None:
        """Remove a session; nothing happens if it is not there. Returns the standby that serves in its place now."""
        process = session.process
        successor: Session | None = None
        if self.serving.get(process) is session:
            del self.serving[process]
            successor = self.standbys.pop(process, None)
            if successor is not None:
                self.serving[process] = successor
        elif self.standbys.get(process) is session:
            del self.standbys[process]
        self.update()
        return successor

    def update(self) -> None:
        """Let ``everybody`` be who is there now."""
        self.everybody = (*self.standbys.values(), *self.serving.values())

    def broadcast(self, payload: bytes) -> None:
        """Send an event of the shared memory to everybody."""
        for session in self.everybody:
            session.send_memory(payload)
