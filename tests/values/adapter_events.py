"""Events and messages of adapters as their platforms send them: what `test_adapters.py` lets travel.

Each maker takes a platform's own form of an event and has the adapter read it, as its connection does.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any

UTC = datetime.timezone.utc


def onebot_v11_group_message() -> Any:
    from nonebot.adapters.onebot.v11 import GroupMessageEvent

    return GroupMessageEvent.model_validate(
        {
            **{"time": 1763871904, "self_id": 2854196310, "post_type": "message", "message_type": "group"},
            **{"sub_type": "normal", "message_id": -1873040512, "group_id": 987654321, "user_id": 123456789},
            "message": [
                {"type": "at", "data": {"qq": "2854196310"}},
                {"type": "text", "data": {"text": " 今天的天气怎么样？"}},
                {"type": "image", "data": {"file": "5E7F.image", "url": "https://gchat.qpic.cn/5E7F/0"}},
            ],
            "original_message": [{"type": "text", "data": {"text": " 今天的天气怎么样？"}}],
            **{"raw_message": "[CQ:at,qq=2854196310] 今天的天气怎么样？", "font": 0},
            "sender": {"user_id": 123456789, "nickname": "用户", "card": "群名片", "role": "member", "level": "42"},
            "message_seq": 4711,
        }
    )


def onebot_v11_private_message() -> Any:
    from nonebot.adapters.onebot.v11 import PrivateMessageEvent

    return PrivateMessageEvent.model_validate(
        {
            **{"time": 1763871904, "self_id": 1, "post_type": "message", "message_type": "private"},
            **{"sub_type": "friend", "message_id": 7, "user_id": 2, "raw_message": "hi", "font": 0},
            "message": [{"type": "text", "data": {"text": "hi"}}],
            "original_message": [{"type": "text", "data": {"text": "hi"}}],
            "sender": {"user_id": 2, "nickname": "n", "sex": "unknown", "age": 0},
        }
    )


def onebot_v11_notice() -> Any:
    from nonebot.adapters.onebot.v11 import GroupUploadNoticeEvent

    return GroupUploadNoticeEvent.model_validate(
        {
            **{"time": 1763871904, "self_id": 1, "post_type": "notice", "notice_type": "group_upload"},
            **{"user_id": 2, "group_id": 3, "file": {"id": "/f", "name": "a.txt", "size": 10, "busid": 102}},
        }
    )


def onebot_v11_message() -> Any:
    from nonebot.adapters.onebot.v11 import Message, MessageSegment

    return Message([MessageSegment.reply(5), MessageSegment.at(2), MessageSegment.text("hi"), MessageSegment.face(178)])


def onebot_v12_group_message() -> Any:
    from nonebot.adapters.onebot.v12 import GroupMessageEvent

    return GroupMessageEvent.model_validate(
        {
            **{"id": "b6e65187", "time": datetime.datetime(2026, 1, 2, tzinfo=UTC), "type": "message"},
            **{"detail_type": "group", "sub_type": "", "message_id": "6283", "group_id": "12467", "user_id": "1234"},
            "self": {"platform": "qq", "user_id": "123234"},
            "message": [
                {"type": "mention", "data": {"user_id": "123234"}},
                {"type": "text", "data": {"text": "OneBot is not a bot"}},
            ],
            "alt_message": "@bot OneBot is not a bot",
        }
    )


def onebot_v12_notice() -> Any:
    from nonebot.adapters.onebot.v12 import FriendIncreaseEvent

    return FriendIncreaseEvent.model_validate(
        {
            **{"id": "b6e65187", "time": datetime.datetime(2026, 1, 2, tzinfo=UTC), "type": "notice"},
            **{"detail_type": "friend_increase", "sub_type": "", "user_id": "1", "qq.extra": {"deep": [1]}},
            "self": {"platform": "qq", "user_id": "123234"},
        }
    )


def onebot_v12_message() -> Any:
    from nonebot.adapters.onebot.v12 import Message, MessageSegment

    return Message([MessageSegment.mention("1"), MessageSegment.text("hi"), MessageSegment.image("f")])


def qq_group_at_message() -> Any:
    from nonebot.adapters.qq.event import GroupAtMessageCreateEvent

    return GroupAtMessageCreateEvent.model_validate(
        {
            **{"id": "ROBOT1.0_abc", "content": " /天气", "timestamp": "2026-01-02T00:00:00+08:00", "event_id": "e"},
            **{"group_id": "G", "group_openid": "GO"},
            "author": {"id": "A", "member_openid": "MO", "bot": False, "member_role": "member"},
            "attachments": [{"content_type": "image/png", "filename": "a.png", "url": "https://x/a.png", "size": 3}],
        }
    )


def qq_direct_message() -> Any:
    from nonebot.adapters.qq.event import C2CMessageCreateEvent

    return C2CMessageCreateEvent.model_validate(
        {
            **{"id": "ROBOT1.0_def", "content": "hi", "timestamp": "2026-01-02T00:00:00+08:00"},
            "author": {"id": "A", "user_openid": "UO"},
        }
    )


def qq_channel_message() -> Any:
    from nonebot.adapters.qq.event import AtMessageCreateEvent

    return AtMessageCreateEvent.model_validate(
        {
            **{"id": "m", "channel_id": "c", "guild_id": "g", "content": "<@!1> hi", "seq": 5, "seq_in_channel": "5"},
            **{"timestamp": "2026-01-02T00:00:00+08:00", "author": {"id": "2", "username": "u", "bot": False}},
            "member": {"joined_at": "2025-01-02T00:00:00+08:00", "roles": ["1"], "nick": "n"},
            "mentions": [{"id": "1", "username": "bot", "bot": True}],
        }
    )


def qq_notice() -> Any:
    from nonebot.adapters.qq.event import GroupAddRobotEvent

    return GroupAddRobotEvent.model_validate(
        {"timestamp": 1763871904, "group_openid": "GO", "op_member_openid": "MO", "event_id": "e"}
    )


def qq_message() -> Any:
    from nonebot.adapters.qq import Message, MessageSegment

    return Message([MessageSegment.mention_user("1"), MessageSegment.text("hi"), MessageSegment.image("https://x/a")])


def _satori(**more: Any) -> dict[str, Any]:
    return {
        **{"sn": 1, "timestamp": 1763871904000},
        "login": {
            **{"sn": 0, "status": 1, "adapter": "satori", "platform": "chronocat"},
            "user": {"id": "1", "name": "bot"},
        },
        "channel": {"id": "c", "type": 0, "name": "channel"},
        "user": {"id": "2", "name": "u", "avatar": "https://x/a.png"},
        **more,
    }


def satori_message() -> Any:
    from nonebot.adapters.satori.event import PublicMessageCreatedEvent

    return PublicMessageCreatedEvent.model_validate(
        _satori(
            type="message-created",
            guild={"id": "g", "name": "guild"},
            member={"nick": "n", "joined_at": 1763871904000},
            message={"id": "m", "content": '<at id="1"/> hello <b>world</b><img src="https://x/a.png"/>'},
        )
    )


def satori_notice() -> Any:
    from nonebot.adapters.satori.event import GuildMemberAddedEvent

    return GuildMemberAddedEvent.model_validate(
        _satori(type="guild-member-added", guild={"id": "g"}, member={"user": {"id": "2"}, "nick": "n"})
    )


def satori_segments() -> Any:
    from nonebot.adapters.satori import Message, MessageSegment

    return Message([MessageSegment.at("1"), MessageSegment.text("hi"), MessageSegment.image("https://x/a.png")])


def _telegram(update: dict[str, Any]) -> Any:
    from nonebot.adapters.telegram.event import Event

    return Event.parse_event(copy.deepcopy(update))


TELEGRAM_USER = {"id": 1, "is_bot": False, "first_name": "a", "username": "u", "language_code": "zh-hans"}


def telegram_private_message() -> Any:
    message = {
        **{"message_id": 1, "date": 1763871904, "from": TELEGRAM_USER, "text": "hi @u"},
        "chat": {"id": 1, "type": "private", "first_name": "a"},
        "entities": [{"type": "mention", "offset": 3, "length": 2}],
    }
    return _telegram({"update_id": 1, "message": message})


def telegram_group_message() -> Any:
    chat = {"id": -100, "type": "supergroup", "title": "group"}
    reply = {"message_id": 1, "date": 1763871900, "from": TELEGRAM_USER, "chat": chat, "text": "before"}
    message = {
        **{"message_id": 2, "date": 1763871904, "from": TELEGRAM_USER, "chat": chat, "caption": "a photo"},
        "photo": [{"file_id": "f", "file_unique_id": "u", "width": 90, "height": 51, "file_size": 1101}],
        "reply_to_message": reply,
    }
    return _telegram({"update_id": 2, "message": message})


def telegram_notice() -> Any:
    query = {"id": "4", "from": TELEGRAM_USER, "chat_instance": "i", "data": "button"}
    return _telegram({"update_id": 3, "callback_query": query})


def telegram_message() -> Any:
    from nonebot.adapters.telegram import Message
    from nonebot.adapters.telegram.message import Entity, File

    return Message([Entity.text("hi "), Entity.bold("bold"), File.photo("https://x/a.png")])


def _discord_message(**more: Any) -> dict[str, Any]:
    return {
        **{"id": "1", "channel_id": "2", "content": "hi <@3>", "timestamp": "2026-01-01T00:00:00+00:00", "type": 0},
        **{"edited_timestamp": None, "tts": False, "mention_everyone": False, "mention_roles": [], "pinned": False},
        "author": {"id": "3", "username": "u", "discriminator": "0", "avatar": None, "global_name": "U"},
        "mentions": [{"id": "3", "username": "u", "discriminator": "0", "avatar": None}],
        "attachments": [
            {"id": "4", "filename": "a.png", "size": 3, "url": "https://x/a.png", "proxy_url": "https://x/a"}
        ],
        "embeds": [{"title": "t", "type": "rich", "fields": [{"name": "n", "value": "v"}]}],
        **more,
    }


def discord_direct_message() -> Any:
    from nonebot.adapters.discord.event import DirectMessageCreateEvent

    return DirectMessageCreateEvent.model_validate(_discord_message())


def discord_guild_message() -> Any:
    from nonebot.adapters.discord.event import GuildMessageCreateEvent

    return GuildMessageCreateEvent.model_validate(
        _discord_message(
            guild_id="5",
            member={"roles": ["6"], "joined_at": "2025-01-01T00:00:00+00:00", "deaf": False, "mute": False, "flags": 0},
        )
    )


def discord_notice() -> Any:
    from nonebot.adapters.discord.event import GuildMessageReactionAddEvent

    return GuildMessageReactionAddEvent.model_validate(
        {
            **{"user_id": "1", "channel_id": "2", "message_id": "3", "guild_id": "4", "burst": False, "type": 0},
            "emoji": {"id": None, "name": "🎉"},
        }
    )


def discord_message() -> Any:
    from nonebot.adapters.discord import Message, MessageSegment

    return Message([MessageSegment.mention_user(1), MessageSegment.text("hi")])


def _feishu(event_type: str, event: dict[str, Any]) -> dict[str, Any]:
    names = ("event_id", "create_time", "token", "app_id", "tenant_key")
    return {"schema": "2.0", "header": {**dict.fromkeys(names, "1"), "event_type": event_type}, "event": event}


FEISHU_ID = {"union_id": "u", "user_id": "u", "open_id": "o"}


def feishu_private_message() -> Any:
    from nonebot.adapters.feishu.event import PrivateMessageEvent

    return PrivateMessageEvent.model_validate(
        _feishu(
            "im.message.receive_v1",
            {
                "sender": {"sender_id": FEISHU_ID, "sender_type": "user", "tenant_key": "k"},
                "message": {
                    **{"message_id": "m", "create_time": "1", "chat_id": "c", "chat_type": "p2p"},
                    **{"message_type": "text", "content": '{"text":"hi"}'},
                },
            },
        )
    )


def feishu_group_message() -> Any:
    from nonebot.adapters.feishu.event import GroupMessageEvent

    return GroupMessageEvent.model_validate(
        _feishu(
            "im.message.receive_v1",
            {
                "sender": {"sender_id": FEISHU_ID, "sender_type": "user", "tenant_key": "k"},
                "message": {
                    **{"message_id": "m", "create_time": "1", "chat_id": "c", "chat_type": "group"},
                    **{"message_type": "text", "content": '{"text":"@_user_1 hi"}'},
                    "mentions": [{"key": "@_user_1", "id": FEISHU_ID, "name": "bot", "tenant_key": "k"}],
                },
            },
        )
    )


def feishu_notice() -> Any:
    from nonebot.adapters.feishu.event import GroupDisbandedEvent

    detail = {"chat_id": "c", "operator_id": FEISHU_ID, "external": False, "operator_tenant_key": "k"}
    return GroupDisbandedEvent.model_validate(_feishu("im.chat.disbanded_v1", detail))


def feishu_message() -> Any:
    from nonebot.adapters.feishu import Message, MessageSegment

    return Message([MessageSegment.at("o"), MessageSegment.text("hi"), MessageSegment.image("img_key")])


KAIHEILA_USER = {
    **{"id": "1", "username": "u", "identify_num": "1234", "online": True, "avatar": "https://x/a.png"},
    **{"bot": False, "roles": [], "nickname": "n", "os": "Websocket", "status": 1},
}


def _kaiheila(extra: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        **{"channel_type": "GROUP", "type": 9, "target_id": "t", "author_id": "1", "content": "hi", "msg_id": "m"},
        **{"msg_timestamp": 1763871904000, "nonce": "", "user_id": "1", "self_id": "2", "extra": extra},
        **more,
    }


def kaiheila_channel_message() -> Any:
    from nonebot.adapters.kaiheila.event import ChannelMessageEvent

    extra = {
        **{"type": 9, "guild_id": "g", "channel_name": "c", "mention": [], "mention_all": False, "mention_roles": []},
        **{"mention_here": False, "author": KAIHEILA_USER, "nav_channels": []},
        "kmarkdown": {"raw_content": "hi", "mention_part": [], "mention_role_part": []},
    }
    event = {**extra, "content": "hi"}
    return ChannelMessageEvent.model_validate(
        _kaiheila(
            extra,
            **{"post_type": "message", "message_type": "group", "sub_type": "kmarkdown", "group_id": "t"},
            event=event,
        )
    )


def kaiheila_private_message() -> Any:
    from nonebot.adapters.kaiheila.event import PrivateMessageEvent

    extra = {"type": 9, "author": KAIHEILA_USER, "code": "x"}
    kmarkdown = {"raw_content": "hi", "mention_part": [], "mention_role_part": []}
    event = {**extra, "content": "hi", "kmarkdown": kmarkdown}
    return PrivateMessageEvent.model_validate(
        _kaiheila(
            extra,
            **{"channel_type": "PERSON", "post_type": "message", "message_type": "private", "sub_type": "kmarkdown"},
            event=event,
        )
    )


def kaiheila_notice() -> Any:
    from nonebot.adapters.kaiheila.event import ChannelAddReactionEvent

    body = {"channel_id": "3", "emoji": {"id": "[#128512;]", "name": "😀"}, "user_id": "1", "msg_id": "m"}
    return ChannelAddReactionEvent.model_validate(
        _kaiheila(
            {"type": "added_reaction", "body": body},
            **{"type": 255, "post_type": "notice", "notice_type": "added_reaction", "group_id": 3},
        )
    )


def kaiheila_message() -> Any:
    from nonebot.adapters.kaiheila import Message, MessageSegment

    return Message([MessageSegment.text("hi"), MessageSegment.image("https://x/a.png")])


MILKY_MEMBER = {
    **{"user_id": 2, "nickname": "n", "sex": "unknown", "group_id": 3, "card": "c", "title": "", "level": 1},
    **{"role": "member", "join_time": 1763871904, "last_sent_time": 1763871904},
}


def milky_group_message() -> Any:
    from nonebot.adapters.milky.event import GroupMessageEvent

    return GroupMessageEvent.model_validate(
        {
            **{"time": 1763871904, "self_id": 1},
            "data": {
                **{"message_scene": "group", "peer_id": 3, "message_seq": 5, "sender_id": 2, "time": 1763871904},
                "segments": [
                    {"type": "mention", "data": {"user_id": 1}},
                    {"type": "text", "data": {"text": " hi"}},
                ],
                "group": {"group_id": 3, "group_name": "g", "member_count": 10, "max_member_count": 200},
                "group_member": MILKY_MEMBER,
            },
        }
    )


def milky_friend_message() -> Any:
    from nonebot.adapters.milky.event import FriendMessageEvent

    friend = {"user_id": 2, "nickname": "n", "sex": "unknown", "qid": "", "remark": ""}
    friend["category"] = {"category_id": 0, "category_name": "c"}
    return FriendMessageEvent.model_validate(
        {
            **{"time": 1763871904, "self_id": 1},
            "data": {
                **{"message_scene": "friend", "peer_id": 2, "message_seq": 5, "sender_id": 2, "time": 1763871904},
                "segments": [{"type": "text", "data": {"text": "hi"}}],
                "friend": friend,
            },
        }
    )


def milky_notice() -> Any:
    from nonebot.adapters.milky.event import GroupNudgeEvent

    data = {
        **{"group_id": 3, "sender_id": 2, "receiver_id": 1, "display_action": "戳了戳", "display_suffix": ""},
        "display_action_img_url": "https://x/a.png",
    }
    return GroupNudgeEvent.model_validate({"time": 1763871904, "self_id": 1, "data": data})


def milky_message() -> Any:
    from nonebot.adapters.milky import Message, MessageSegment

    return Message([MessageSegment.mention(1), MessageSegment.text("hi"), MessageSegment.face("178")])


TRIED: dict[str, list[Callable[[], Any]]] = {
    "onebot.v11": [onebot_v11_group_message, onebot_v11_private_message, onebot_v11_notice, onebot_v11_message],
    "onebot.v12": [onebot_v12_group_message, onebot_v12_notice, onebot_v12_message],
    "qq": [qq_group_at_message, qq_direct_message, qq_channel_message, qq_notice, qq_message],
    "satori": [satori_message, satori_notice, satori_segments],
    "telegram": [telegram_private_message, telegram_group_message, telegram_notice, telegram_message],
    "discord": [discord_direct_message, discord_guild_message, discord_notice, discord_message],
    "feishu": [feishu_private_message, feishu_group_message, feishu_notice, feishu_message],
    "kaiheila": [kaiheila_channel_message, kaiheila_private_message, kaiheila_notice, kaiheila_message],
    "milky": [milky_group_message, milky_friend_message, milky_notice, milky_message],
}
