"""Whether the environment of this process is just being changed: packages that are missing may be there in a moment."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, MutableMapping

RAN_BEFORE = "LYCOMM_RAN_BEFORE"
"""Environment variable: under this host the bot has been ready before, so it is not the bot that is incomplete."""

CHANGING_SECONDS = 60.0
"""An installer puts a new entry into ``site-packages`` for each package. The largest take it less than a minute."""


def is_changing(environ: MutableMapping[str, str], path: Iterable[str] = sys.path) -> bool:
    """Whether packages were installed or removed within ``CHANGING_SECONDS``, where this bot has run before."""
    if not environ.get(RAN_BEFORE):
        return False
    for folder in path:
        if os.path.basename(folder) in ("site-packages", "dist-packages"):
            with contextlib.suppress(OSError):
                if abs(time.time() - os.stat(folder).st_mtime) < CHANGING_SECONDS:
                    return True
    return False
