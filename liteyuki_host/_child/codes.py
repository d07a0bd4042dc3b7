"""What host and child tell each other without a link: exit codes, because the most telling failures happen before there
is one, and how the port is to be opened. Any other exit code is the bot's own business.
"""

from __future__ import annotations

CANNOT_START = 78
"""EX_CONFIG of sysexits.h: no start will work before somebody changes something (a missing adapter, the port)."""

SHORTAGE = 75
"""EX_TEMPFAIL of sysexits.h: the start failed for a shortage (files, threads, memory, disk) that may pass."""

NOT_UNDER_HOST = 2
"""Started by hand, without a link to a host."""

STARTUP_FAILED = 3
"""Uvicorn's own code: a start-up hook raised, or the port could not be bound."""

SHARE_PORT = "LYCOMM_SHARE_PORT"
"""Environment variable: a later incarnation of this bot is to open the same port while this one still serves."""

ALONE = "alone"
"""Its value where no other incarnation is there: a port in use is a mistake."""

BESIDE = "beside"
"""Its value where one is."""
