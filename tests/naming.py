"""Names of test cases that are the same in every process: pytest-xdist compares them."""

from __future__ import annotations

import re

ADDRESS = re.compile(r"(?: at)? 0x[0-9a-fA-F]+| id='\d+'")


def shown(value: object, length: int = 40) -> str:
    """What ``repr`` shows of *value*, without addresses and with sets in order, cut to *length* characters."""
    text = f"{{{', '.join(sorted(map(repr, value)))}}}" if isinstance(value, set) else repr(value)
    return ADDRESS.sub("", text)[:length]
