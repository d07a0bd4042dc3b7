"""The reply that outlives the process that was asked."""

from __future__ import annotations

from typing import Any

import pytest
from nonebot.adapters.onebot.v11 import GroupMessageEvent, Message, PrivateMessageEvent

from nonebot_plugin_lycomm.pending import PendingReply
from tests.plugin.support import RecordingBot, in_group, in_private


def reply_of(bot: RecordingBot, **changes: Any) -> dict[str, Any]:
    return PendingReply.to(bot, in_group("/restart"), asked_at=1.5).to_value() | changes


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (in_group("/restart [now] & again", group_id=7), GroupMessageEvent),
        (in_private("/restart", user_id=8), PrivateMessageEvent),
    ],
    ids=["group", "private"],
)
def test_the_rebuilt_event_is_the_event(bot: RecordingBot, event: Any, kind: type) -> None:
    value = PendingReply.to(bot, event, asked_at=1.5).to_value()
    rebuilt = PendingReply.from_value(value).rebuild_event()
    assert type(rebuilt) is kind
    assert rebuilt == event
    assert isinstance(rebuilt.get_message(), Message)


def test_it_is_for_the_bot_that_was_asked_and_no_other(bot: RecordingBot) -> None:
    reply = PendingReply.from_value(reply_of(bot))
    assert reply.is_for(bot)
    assert not reply.is_for(RecordingBot(bot.adapter, "10002"))
    assert not PendingReply.from_value(reply_of(bot, adapter="Telegram")).is_for(bot)


@pytest.mark.parametrize(
    "value",
    [None, "x", [], {}, {"adapter": "OneBot V11"}],
    ids=repr,
)
def test_what_is_no_pending_reply_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a pending reply"):
        PendingReply.from_value(value)


def test_a_field_of_the_wrong_type_is_named(bot: RecordingBot) -> None:
    with pytest.raises(ValueError, match="its asked_at is a str"):
        PendingReply.from_value(reply_of(bot, asked_at="yesterday"))
    with pytest.raises(ValueError, match="not a pending reply"):
        PendingReply.from_value(reply_of(bot, extra=1))


@pytest.mark.parametrize(
    "name",
    ["subprocess:Popen", "os:getcwd", "nonebot.adapters.onebot.v11:Message"],
)
def test_only_an_event_class_is_called(bot: RecordingBot, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not an event class"):
        PendingReply.from_value(reply_of(bot, event_class=name)).rebuild_event()


def test_a_class_that_is_gone_is_an_import_error_or_an_attribute_error(bot: RecordingBot) -> None:
    with pytest.raises(ImportError):
        PendingReply.from_value(reply_of(bot, event_class="no_such_adapter:Event")).rebuild_event()
    with pytest.raises(AttributeError):
        PendingReply.from_value(reply_of(bot, event_class="nonebot.adapters.onebot.v11:NoSuchEvent")).rebuild_event()


def test_json_that_the_class_does_not_accept_is_a_value_error(bot: RecordingBot) -> None:
    with pytest.raises(ValueError, match="GroupMessageEvent"):
        PendingReply.from_value(reply_of(bot, event="{}")).rebuild_event()
