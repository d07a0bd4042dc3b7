"""The host under which NoneBot bots run.

Names are resolved on first use, so that a bot process that needs only ``liteyuki_host.comm`` loads neither
the supervisor nor the settings.
"""

from __future__ import annotations

# Nothing that takes time is imported up here: a Ctrl+C in the first moments would show where the import was.
from liteyuki_host._lazy import resolve
from liteyuki_host._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from liteyuki_host.host import Host as Host
    from liteyuki_host.host import get_bot as get_bot

__all__ = ["Host", "__version__", "get_bot"]

_HOMES = {"Host": ".host", "get_bot": ".host"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from liteyuki_host.interrupts import WithoutTraceback

        with WithoutTraceback():
            from liteyuki_host.requirements import require

            require()
            return resolve(__name__, _HOMES, name)
    return resolve(__name__, _HOMES, name)  # which raises AttributeError
