"""Counts what one end of a channel receives while both ends send."""

from __future__ import annotations

from typing import Any


class Count:
    """What arrived at *me*: messages are ``[sender, number]``, the last one of each sender is ``[sender, None]``."""

    def __init__(self, me: str, expected: int) -> None:
        self.me = me
        self.expected = expected
        self.own = 0
        self.numbers: list[int] = []

    def add(self, message: Any) -> bool:
        """Count *message*; True when it was the other end's last."""
        sender, number = message
        if sender == self.me:
            self.own += 1
        elif number is None:
            return True
        else:
            self.numbers.append(number)
        return False

    def result(self) -> str:
        lost = self.expected - len(set(self.numbers))
        duplicated = len(self.numbers) - len(set(self.numbers))
        order = "kept" if self.numbers == sorted(self.numbers) else "broken"
        return f"{self.me}: own {self.own}, lost {lost}, duplicated {duplicated}, order {order}"
