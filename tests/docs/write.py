"""Write what is generated in both READMEs and in ``.env.example``: ``python -m tests.docs.write``."""

from __future__ import annotations

import sys

from tests.docs.pages import ROOT
from tests.docs.settings_texts import GENERATED, generated, problems_of_texts


def main() -> None:
    """Write the files that differ and name them. Exit with code 1 and the reasons when a text is missing."""
    if problems := problems_of_texts():
        sys.exit("\n".join(problems))
    for name in GENERATED:
        text = generated(name)
        if (ROOT / name).read_text("utf-8") != text:
            (ROOT / name).write_text(text, "utf-8", newline="\n")
            print(f"written: {name}")


if __name__ == "__main__":
    main()
