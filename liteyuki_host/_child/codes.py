"""Exit codes of a child that mean something to the supervisor. Everything else is the bot's own business.

Codes, not messages, because the most telling failures happen before there is a link.
"""

from __future__ import annotations

CANNOT_START = 78
"""EX_CONFIG of sysexits.h: no start will work before somebody changes something (a missing adapter, the port)."""

NOT_UNDER_HOST = 2
"""Started by hand, without a link to a host."""

STARTUP_FAILED = 3
"""Uvicorn's own code: a start-up hook raised, or the port could not be bound."""
