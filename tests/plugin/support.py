"""What the plugin's tests and their fixtures share."""

from __future__ import annotations

import asyncio
from typing import Any

from nonebot.adapters.onebot.v11 import Adapter, Bot, GroupMessageEvent, PrivateMessageEvent

from tests.onebot_client import group_message, private_message

SUPERUSER = 10000


def in_group(text: str, **fields: Any) -> GroupMessageEvent:
    """The event of a message in a group, as the adapter makes it of what comes over the WebSocket."""
    event = Adapter.json_to_event(group_message(text, **fields))
    assert isinstance(event, GroupMessageEvent)
    return event


def in_private(text: str, **fields: Any) -> PrivateMessageEvent:
    event = Adapter.json_to_event(private_message(text, **fields))
    assert isinstance(event, PrivateMessageEvent)
    return event


class RecordingBot(Bot):
    """A bot whose chat is a list."""

    def __init__(self, adapter: Adapter, self_id: str) -> None:
        super().__init__(adapter, self_id)
        self.sent: list[tuple[Any, str]] = []
        self.sent_one = asyncio.Event()

    async def send(self, event: Any, message: Any, **kwargs: Any) -> Any:
        self.sent.append((event, str(message)))
        self.sent_one.set()


class Logged(list[str]):
    """What was logged during a test, ``LEVEL message`` with the traceback of an exception below it."""

    def containing(self, part: str) -> list[str]:
        return [line for line in self if part in line]
