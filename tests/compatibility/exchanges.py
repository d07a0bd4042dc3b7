"""What is asked of a running bot. Each function returns questions with their answers, in a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.compatibility.platforms import BOT, FRIEND, NOW, Platform
from tests.onebot_client import onebot_client

ANSWER_SECONDS = 15.0
NO_ANSWER = f"none in {ANSWER_SECONDS:g} s"

Answers = dict[str, str]


async def ask_port(port: int) -> Answers:
    """Ask the bot's own server for its first page."""
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError as error:
        return {"GET /": type(error).__name__}
    return {"GET /": str(response.status_code)}


async def onebot_v11(port: int) -> Answers:
    """Connect as a OneBot 11 implementation and have a friend write."""
    answer = NO_ANSWER
    with contextlib.suppress(OSError, asyncio.TimeoutError, TimeoutError):
        async with onebot_client(f"ws://127.0.0.1:{port}/onebot/v11/ws", reconnect_seconds=ANSWER_SECONDS) as client:
            await client.wait_connected(timeout=ANSWER_SECONDS)
            await client.send_private_message("ping")
            answer = (await client.wait_for_message(timeout=ANSWER_SECONDS)).text
    return {"message": answer}


async def onebot_v12(port: int) -> Answers:
    """Connect as a OneBot 12 implementation and have a friend write."""
    answer = NO_ANSWER
    with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, asyncio.TimeoutError, TimeoutError):
        answer = await asyncio.wait_for(_onebot_v12(port), ANSWER_SECONDS)
    return {"message": answer}


async def _onebot_v12(port: int) -> str:
    version = {"impl": "test", "version": "1", "onebot_version": "12"}
    self: dict[str, Any] = {"platform": "test", "user_id": BOT}
    status = {"good": True, "bots": [{"self": self, "online": True}]}
    message = [{"type": "text", "data": {"text": "ping"}}]
    events: list[dict[str, Any]] = [
        {"type": "meta", "detail_type": "connect", "version": version},
        {"type": "meta", "detail_type": "status_update", "status": status},
        {"type": "message", "detail_type": "private", "self": self, "message_id": "1"}
        | {"message": message, "alt_message": "ping", "user_id": FRIEND},
    ]
    url = f"ws://127.0.0.1:{port}/onebot/v12/ws"
    async with connect(url, subprotocols=[Subprotocol("12.test")], proxy=None) as socket:
        for number, event in enumerate(events):
            await socket.send(json.dumps({"id": str(number), "time": NOW, "sub_type": "", **event}))
        async for frame in socket:
            call = json.loads(frame)
            data = {"message_id": "2", "time": NOW}
            done: dict[str, Any] = {"status": "ok", "retcode": 0, "data": data, "message": "", "echo": call["echo"]}
            await socket.send(json.dumps(done))
            if call["action"] == "send_message":
                return "".join(part["data"]["text"] for part in call["params"]["message"])
    return "closed"


async def with_platform(name: str, platform: Platform, bot_port: int) -> Answers:
    """Wait until the bot has logged in at *platform*, have the friend write there, and tell what the bot asked for."""
    answers = {}
    if name != "echo":
        try:
            answers["message"] = await asyncio.wait_for(_friend_gets_answer(name, platform, bot_port), ANSWER_SECONDS)
        except (asyncio.TimeoutError, httpx.HTTPError):
            answers["message"] = NO_ANSWER
    answers["asked"] = ", ".join(sorted(platform.asked))
    return answers


async def _friend_gets_answer(name: str, platform: Platform, bot_port: int) -> str:
    await platform.connected.wait()
    if name == "feishu":
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(f"http://127.0.0.1:{bot_port}/feishu/app", json=platform.message("ping"))
    else:
        await platform.friend_writes("ping")
    return await platform.said.get()


CLIENTS: dict[str, Callable[[int], Awaitable[Answers]]] = {"onebot v11": onebot_v11, "onebot v12": onebot_v12}
