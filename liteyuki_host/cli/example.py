"""``lycomm settings``: every setting with its default, in English and Chinese, ready to be copied into ``.env``."""

from __future__ import annotations

from pathlib import Path

import liteyuki_host

PACKAGE = Path(liteyuki_host.__file__).parent
FILES = (PACKAGE / "env.example", PACKAGE.parent / ".env.example")
"""Where ``.env.example`` of the repository is: the build puts it into the package; a checkout has it at its top."""


def print_settings() -> None:
    file = next(file for file in FILES if file.is_file())
    print(file.read_text("utf-8"), end="")
