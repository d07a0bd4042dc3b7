"""The OneBot client that the end-to-end tests trust: its own behaviour, against a WebSocket server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from tests.onebot_client import OneBotClient, cq_code, onebot_client, text_of

DEADLINE = 5.0


class BotSide:
    """What a bot sees of the client."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handle(self, socket: ServerConnection) -> None:
        self.connections.put_nowait(socket)
        await socket.wait_closed()

    async def accept(self) -> ServerConnection:
        return await asyncio.wait_for(self.connections.get(), DEADLINE)


async def receive(socket: ServerConnection) -> dict[str, Any]:
    event = json.loads(await asyncio.wait_for(socket.recv(), DEADLINE))
    assert isinstance(event, dict)
    return event


async def call(socket: ServerConnection, action: str, **params: Any) -> dict[str, Any]:
    await socket.send(json.dumps({"action": action, "params": params, "echo": f"e-{action}"}))
    return await receive(socket)


@pytest.fixture
async def side() -> BotSide:
    return BotSide()


@pytest.fixture
async def server(side: BotSide) -> AsyncIterator[Server]:
    async with serve(side.handle, "127.0.0.1", 0) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[OneBotClient]:
    port = next(iter(server.sockets)).getsockname()[1]
    async with onebot_client(f"ws://127.0.0.1:{port}/onebot/v11/ws", access_token="secret") as client:
        yield client


async def test_it_introduces_itself_as_the_standard_says(client: OneBotClient, side: BotSide) -> None:
    socket = await side.accept()
    assert socket.request is not None
    assert socket.request.path == "/onebot/v11/ws"
    assert socket.request.headers["X-Self-ID"] == "10001"
    assert socket.request.headers["X-Client-Role"] == "Universal"
    assert socket.request.headers["Authorization"] == "Bearer secret"
    first = await receive(socket)
    assert first.pop("time") > 0
    assert first == {
        "self_id": 10001,
        "post_type": "meta_event",
        "meta_event_type": "lifecycle",
        "sub_type": "connect",
    }


async def test_message_events_have_every_field_of_the_standard(client: OneBotClient, side: BotSide) -> None:
    socket = await side.accept()
    await receive(socket)
    await client.wait_connected()
    common = {"time", "self_id", "post_type", "message_type", "sub_type", "message_id", "user_id"}
    common |= {"message", "raw_message", "font", "sender"}

    number = await client.send_group_message("a & [b]", group_id=7, user_id=8)
    event = await receive(socket)
    assert set(event) == common | {"group_id", "anonymous"}
    assert (event["message_id"], event["group_id"], event["user_id"]) == (number, 7, 8)
    assert event["raw_message"] == "a &amp; &#91;b&#93;"
    assert text_of(event["message"]) == "a & [b]"
    role = {"card", "area", "level", "role", "title"}
    assert set(event["sender"]) == {"user_id", "nickname", "sex", "age"} | role
    assert event["sender"]["user_id"] == 8

    other = await client.send_private_message("hi", user_id=9)
    event = await receive(socket)
    assert set(event) == common
    assert other != number
    assert set(event["sender"]) == {"user_id", "nickname", "sex", "age"}


def test_cq_code_escapes_commas_in_the_data_of_a_segment_only() -> None:
    segments = [{"type": "at", "data": {"qq": "1,2"}}, {"type": "text", "data": {"text": "a,b"}}]
    assert cq_code(segments) == "[CQ:at,qq=1&#44;2]a,b"


async def test_calls_are_answered_and_kept_in_order(client: OneBotClient, side: BotSide) -> None:
    socket = await side.accept()
    await receive(socket)
    answers = [await call(socket, "send_group_msg", group_id=1, message=text) for text in ("one", "two")]
    assert [(answer["status"], answer["retcode"], answer["echo"]) for answer in answers] == [
        ("ok", 0, "e-send_group_msg")
    ] * 2
    assert answers[0]["data"]["message_id"] != answers[1]["data"]["message_id"]
    assert (await call(socket, "get_login_info"))["data"]["user_id"] == 10001
    unknown = await call(socket, "no_such_action")
    assert (unknown["status"], unknown["retcode"], unknown["data"]) == ("failed", 1404, None)

    assert [(await client.wait_for_call("send_group_msg")).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(TimeoutError, match=r"no call of send_group_msg within 0.01 s; .*no_such_action"):
        await client.wait_for_call("send_group_msg", timeout=0.01)


async def test_a_message_may_be_sent_in_three_ways(client: OneBotClient, side: BotSide) -> None:
    socket = await side.accept()
    await receive(socket)
    actions = ["send_msg", "get_status", "send_group_msg", "send_private_msg"]
    for action in actions:
        await call(socket, action, message=action)
    actions.remove("get_status")
    assert [(await client.wait_for_message()).text for _ in actions] == actions


async def test_it_comes_back_when_the_bot_goes_away(client: OneBotClient, side: BotSide) -> None:
    for number in (1, 2, 3):
        socket = await side.accept()
        await client.wait_connected(connection=number)
        assert (await receive(socket))["sub_type"] == "connect"
        await call(socket, "send_msg", message=str(number))
        assert (await client.wait_for_call("send_msg")).connection == number
        await socket.close()


async def test_it_gives_up_when_nobody_listens_for_too_long(server: Server) -> None:
    port = next(iter(server.sockets)).getsockname()[1]
    server.close()
    await server.wait_closed()
    client = OneBotClient(f"ws://127.0.0.1:{port}", self_id=1, access_token=None, reconnect_seconds=0.05)
    with pytest.raises(OSError, match=r"not reachable for 0.05 s"):
        await asyncio.wait_for(client.run(), DEADLINE)
