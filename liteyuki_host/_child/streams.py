"""The bot's standard streams, which it may have closed, replaced, or set to None."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["flush_streams"]


def flush_streams() -> None:
    """Write out what the standard streams have buffered. Never raises: the process ends right after."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(Exception):  # closed, or an object of the bot's own
                stream.flush()
