"""Log lines of the core. loguru is loaded with the first one: most processes never need any, and it takes 14 MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Logger

__all__ = ["log"]


def log() -> Logger:
    """loguru's logger."""
    from loguru import logger

    return logger
