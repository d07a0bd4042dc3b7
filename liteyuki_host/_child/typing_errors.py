"""Whether one word is another one with one typing error. Pure."""

from __future__ import annotations


def two_swapped(written: str, meant: str) -> bool:
    """``prot`` for ``port``: two letters beside each other."""
    if sorted(written) != sorted(meant):
        return False
    different = [at for at, pair in enumerate(zip(written, meant, strict=True)) if pair[0] != pair[1]]
    return len(different) == 2 and different[1] == different[0] + 1


def one_doubled(written: str, meant: str) -> bool:
    """``porrt`` for ``port``."""
    if len(written) != len(meant) + 1:
        return False
    return any(written[at] == written[at - 1] and _without(written, at) == meant for at in range(1, len(written)))


def one_missing(written: str, meant: str) -> bool:
    """``prt`` for ``port``."""
    return len(written) == len(meant) - 1 and any(_without(meant, at) == written for at in range(len(meant)))


def one_wrong(written: str, meant: str) -> bool:
    """``pory`` for ``port``."""
    return len(written) == len(meant) and sum(map(str.__ne__, written, meant)) == 1


def _without(text: str, at: int) -> str:
    return text[:at] + text[at + 1 :]
