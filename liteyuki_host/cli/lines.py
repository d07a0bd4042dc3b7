"""Exit codes of the ``lycomm`` command, and how it prints an error."""

from __future__ import annotations

import sys

from liteyuki_host.wording import one_line

STOPPED = 0
"""The command did what was asked."""

FAILED = 1
"""It could not be done: a bot cannot be started, or a module of the host cannot be loaded."""

WRONG_SETTING = 2
"""A setting or an option is wrong. ``argparse`` exits with this code too."""

INTERRUPTED = 128 + 2
"""Ctrl+C came before the host handled it: the code that a shell gives to a program that died of SIGINT."""


def fail(error: object, code: int) -> int:
    """Print each line of *error* to stderr as ``lycomm: ...``, and return *code*."""
    for line in str(error).split("\n"):
        print(f"lycomm: {one_line(line)}", file=sys.stderr)
    return code
