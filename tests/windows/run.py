"""Run this folder's tests on Windows, or on Linux with the real CPython for Windows on Wine.

    python tests/windows/run.py [options for pytest, as -k transport]

On Windows this is ``python -m pytest tests/windows``. Elsewhere the variable ``LYCOMM_WINDOWS_PYTHON`` names a
program that takes arguments as ``python.exe`` does and runs it on Wine, with this checkout, its dependencies and the
test extra's packages importable.

Wine is not Windows: what passes there "has been run on Wine", and not more. Known gaps of Wine 8:

- Console events need a console, which a process without a terminal has not: the test of CTRL_BREAK is skipped, and
  the others stop the host through a module loaded into it.
- Its pipes were seen to behave as the ones of Windows are documented to; how fast they are says nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    if sys.platform == "win32":
        command = [sys.executable]
    elif python := os.environ.get("LYCOMM_WINDOWS_PYTHON"):
        command = [os.path.abspath(python)]
    else:
        print("not on Windows: set LYCOMM_WINDOWS_PYTHON, see the top of this file", file=sys.stderr)
        return 2
    # Relative, because a path of this system means nothing to the other one.
    return subprocess.call([*command, "-m", "pytest", "tests/windows", *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
