"""The authority in the host: who is connected, who talks with whom, and the one order of all writes."""

from .hub import Hub
from .session import Session, SessionListener

__all__ = ["Hub", "Session", "SessionListener"]
