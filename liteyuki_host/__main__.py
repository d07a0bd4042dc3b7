"""``python -m liteyuki_host`` is the ``lycomm`` command."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Python has put the current folder in front, where a bot's json.py would take the place of Python's own. The
    # `lycomm` command has it not; the host adds it for its modules once its own are there.
    if sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

    from liteyuki_host.cli import main

    sys.exit(main())
