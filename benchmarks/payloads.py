"""What is sent: the same four messages for everybody."""

from __future__ import annotations

from typing import Any

SMALL = "a message of thirty-five characters"
"""S: about what a command of a chat user is."""

EVENT: dict[str, Any] = {
    "time": 1763871904,
    "self_id": 2854196310,
    "post_type": "message",
    "message_type": "group",
    "sub_type": "normal",
    "message_id": -1873040512,
    "group_id": 987654321,
    "group_name": "机器人测试群 bot testing",
    "user_id": 123456789,
    "anonymous": None,
    "message": [
        {"type": "reply", "data": {"id": "-2098471230"}},
        {"type": "at", "data": {"qq": "2854196310", "name": "lycomm"}},
        {
            "type": "text",
            "data": {"text": " 今天的天气怎么样？ what will the weather be like tomorrow, and the day after?"},
        },
        {"type": "face", "data": {"id": "178", "sub_type": 1}},
        {
            "type": "image",
            "data": {
                "file": "5E7F3A91C04D4B6E8A2B7C1D9F0E3344.image",
                "url": "https://gchat.qpic.cn/gchatpic_new/123456789/987654321-2583960123-5E7F3A91C04D4B6E8A2B7C1D9F0E3344/0",
                "file_size": "184320",
                "sub_type": 0,
            },
        },
    ],
    "raw_message": "[CQ:reply,id=-2098471230][CQ:at,qq=2854196310] 今天的天气怎么样？ what will the weather be like "
    "tomorrow, and the day after?[CQ:face,id=178][CQ:image,file=5E7F3A91C04D4B6E8A2B7C1D9F0E3344.image,subType=0,"
    "file_size=184320]",
    "font": 0,
    "sender": {
        "user_id": 123456789,
        "nickname": "一个普通的用户",
        "card": "群名片",
        "sex": "unknown",
        "age": 0,
        "area": "",
        "level": "42",
        "role": "member",
        "title": "",
    },
    "message_seq": 4711,
    "real_id": 4711,
}
"""M: a OneBot v11 message event as a group sends it; about 1 KiB encoded."""

LARGE = bytes(range(256)) * 256
"""L: 64 KiB."""

EXTRA_LARGE = LARGE * 64
"""XL: 4 MiB, an image."""

PAYLOADS: dict[str, Any] = {"S": SMALL, "M": EVENT, "L": LARGE, "XL": EXTRA_LARGE}

WORDS = {"S": "a 35-character str", "M": "a 1 KiB event dict", "L": "64 KiB of bytes", "XL": "4 MiB of bytes"}
