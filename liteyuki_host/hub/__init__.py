"""The authority in the host: who is connected, who talks with whom, and the one order of all writes."""

from liteyuki_host.hub.hub import Hub
from liteyuki_host.hub.listener import SessionListener
from liteyuki_host.hub.session import Session

__all__ = ["Hub", "Session", "SessionListener"]
