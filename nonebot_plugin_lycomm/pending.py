"""The answer that a restart owes to whoever asked for it.

It has to outlive the process that was asked, so it waits in the shared memory, which the host keeps: which
bot was asked, and the event, as JSON together with the name of its class. The next incarnation of the process
claims it when that bot connects again, rebuilds the event and replies to it.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any

from nonebot.adapters import Bot, Event
from nonebot.compat import type_validate_json

__all__ = ["EXPIRES_AFTER", "PendingReply", "key_of"]

EXPIRES_AFTER = 600.0
"""Seconds. Whoever asked longer ago than this no longer expects the answer, and would wonder about it."""


def key_of(process: str) -> str:
    """The shared memory key under which the pending reply of a process waits."""
    return f"lycomm:restart:{process}"


@dataclass(frozen=True)
class PendingReply:
    adapter: str
    self_id: str
    event_class: str
    """``module:qualified name``."""
    event: str
    """The event as JSON."""
    asked_at: float
    """Wall clock, seconds since the epoch: no other clock survives the process."""

    @classmethod
    def to(cls, bot: Bot, event: Event, *, asked_at: float) -> PendingReply:
        """Raises whatever pydantic raises for an event that has no JSON form."""
        # By alias, because that is how the model reads it back. No warnings: OneBot's Message is a list of
        # dataclasses, which pydantic serialises well and complains about.
        dumped = event.model_dump_json(by_alias=True, warnings=False)
        kind = type(event)
        return cls(bot.adapter.get_name(), bot.self_id, f"{kind.__module__}:{kind.__qualname__}", dumped, asked_at)

    @classmethod
    def from_value(cls, value: Any) -> PendingReply:
        """Read it back from the shared memory, which any process may have written to.

        Raises:
            ValueError: it is not a pending reply.
        """
        fields = {"adapter": str, "self_id": str, "event_class": str, "event": str, "asked_at": float}
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise ValueError(f"not a pending reply: {value!r:.100}")
        for name, kind in fields.items():
            if not isinstance(value[name], kind):
                raise ValueError(f"not a pending reply: its {name} is a {type(value[name]).__name__}")
        return cls(**value)

    def to_value(self) -> dict[str, Any]:
        return asdict(self)

    def is_for(self, bot: Bot) -> bool:
        return (self.adapter, self.self_id) == (bot.adapter.get_name(), bot.self_id)

    def rebuild_event(self) -> Event:
        """The event that the answer is a reply to.

        Raises:
            ValueError: its class is not an event's, or does not accept the JSON.
            ImportError, AttributeError: its class no longer exists.
        """
        module, _, qualname = self.event_class.partition(":")
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
        if not (isinstance(found, type) and issubclass(found, Event)):
            raise ValueError(f"{self.event_class} is not an event class")
        return type_validate_json(found, self.event)
