"""What a child is given besides its link, in the form that the spawn takes it (``ChildHandles``)."""

from __future__ import annotations

from typing import Any


class Variable:
    """An environment variable, and nothing else."""

    def __init__(self, name: str, value: str) -> None:
        self.environment = {name: value}
        self.popen_options: dict[str, Any] = {}

    def close(self) -> None:
        """There is nothing to give back."""
