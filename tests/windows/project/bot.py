"""Starts the host of the tests' bot."""

import sys
from pathlib import Path

# Python for Windows without an installer (the one that Wine runs) does not look beside the script.
sys.path.insert(0, str(Path(__file__).parent))

from liteyuki_host import Host

if __name__ == "__main__":
    Host().run()
