"""Settings that NoneBot takes as they are, and cannot work with.

With ``LOG_LEVEL=LOUD`` a bot starts, and prints a traceback in place of each line of its log. With ``API_TIMEOUT=-1``
it starts, and no call of a platform ever succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from loguru import logger

from liteyuki_host._child.sources import Sources
from liteyuki_host.wording import one_line, short_repr

LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
"""Those that loguru comes with."""

USED_INSTEAD = "INFO"
"""NoneBot's default."""


def wrong_log_level(level: object, sources: Sources) -> str | None:
    """What is wrong with the value of ``LOG_LEVEL``; None: nothing. A level that the bot has added is good.

    Args:
        level: as NoneBot has read it.
        sources: for the place where it stands.
    """
    if not isinstance(level, str) or _exists(level):
        return None
    meant = level.strip().strip("\"'").upper()
    expected = meant if meant in LEVELS else f"one of {', '.join(LEVELS)}, or a number"
    return f"{sources.place('log_level')}: {short_repr(level)}: expected {expected}; {USED_INSTEAD} is used instead"


def doubtful_values(values: Mapping[str, Any], sources: Sources) -> list[str]:
    """Lines about times after which everything is given up at once.

    Args:
        values: of NoneBot's configuration, by name; some may be missing.
    """
    notes = []
    seconds = values.get("api_timeout")
    if isinstance(seconds, float | int) and not seconds > 0:  # not a number is not greater either
        notes.append(
            f"{sources.place('api_timeout')}: {short_repr(seconds)}: with most adapters each call of the platform "
            "would fail at once: expected seconds, more than 0"
        )
    expires = values.get("session_expire_timeout")
    if isinstance(expires, timedelta) and expires <= timedelta():
        notes.append(
            f"{sources.place('session_expire_timeout')}: no user could answer in time: expected a duration of more "
            "than 0, like 00:02:00"
        )
    return [one_line(note) for note in notes]


def forgiving(log_filter: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """NoneBot's filter of log lines, which raises for each line if ``LOG_LEVEL`` is no level: here it is INFO then."""

    def wanted(record: Any) -> bool:
        level = record["extra"].get("nonebot_log_level", USED_INSTEAD)
        if isinstance(level, str) and not _exists(level):
            return bool(record["level"].no >= logger.level(USED_INSTEAD).no)
        return log_filter(record)

    return wanted


def _exists(level: str) -> bool:
    try:
        logger.level(level)
    except ValueError:
        return False
    return True
