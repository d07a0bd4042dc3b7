"""The ``lycomm`` command, also ``python -m liteyuki_host``."""

# Nothing that takes time is imported up here: a Ctrl+C in the first moments would show where the import was.
from __future__ import annotations

from liteyuki_host.interrupts import AtOnce, ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; *argv* is ``sys.argv[1:]`` by default. Returns the exit code."""
    with AtOnce():
        from liteyuki_host.cli.command_line import read_command, run_command

        command = read_command(argv)
    code = command if isinstance(command, int) else run_command(command)
    if argv is None:  # the process ends now: one more Ctrl+C would show a traceback of that
        ignore()
    return code
