"""Whether a version of pydantic will do for a bot under a host. NoneBot itself still runs on pydantic 1."""

from __future__ import annotations

import sys

__all__ = ["unfit"]


def unfit(version: str) -> str | None:
    """Say in one line why *version*, which this interpreter has, will not do, with the remedy; None: it does."""
    if not version.startswith("1."):
        return None
    from liteyuki_host.comm.command import shell_line

    install = shell_line(sys.executable, "-m", "pip", "install", "pydantic>=2.7")
    return f"pydantic {version} is installed, and lycomm needs pydantic 2: run `{install}`"
