"""A OneBot v11 implementation that connects to a bot by reverse WebSocket, as NapCat or Lagrange would.

Real where the bot can see it: the handshake headers, the life-cycle event, every field that the standard
(github.com/botuniverse/onebot-11) gives an event, answers to API calls, reconnecting when the bot goes away.
No chat network behind it: what people write comes from the test, what the bot sends is kept for the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

__all__ = ["Call", "OneBotClient", "group_message", "onebot_client", "private_message", "text_of"]

RETRY_DELAY = 0.1
"""Seconds between two attempts to connect."""

Message = str | Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """One API call the bot made."""

    action: str
    params: dict[str, Any]
    connection: int
    """On which connection it came, counted from 1: a restarted bot calls on a later one."""

    @property
    def text(self) -> str:
        """The text of the message it sends."""
        return text_of(self.params["message"])


class OneBotClient:
    """Made by :func:`onebot_client`, which also ends it."""

    def __init__(self, url: str, *, self_id: int, access_token: str | None, reconnect_seconds: float) -> None:
        self.url = url
        self.self_id = self_id
        self.connections = 0
        """How often the bot has accepted us."""
        self.calls: list[Call] = []
        """Every call so far, the awaited ones too."""
        self._access_token = access_token
        self._reconnect_seconds = reconnect_seconds
        self._socket: ClientConnection | None = None
        self._unclaimed: list[Call] = []
        self._changed = asyncio.Condition()
        self._message_ids = itertools.count(1)

    @property
    def connected(self) -> bool:
        """Whether the bot can be written to."""
        return self._socket is not None

    # What people do.

    async def send_group_message(self, message: Message, **fields: Any) -> int:
        """Somebody writes in a group; returns the message id. Fields as in :func:`group_message`."""
        event = group_message(message, message_id=next(self._message_ids), **fields)
        await self.send_event(event)
        return int(event["message_id"])

    async def send_private_message(self, message: Message, **fields: Any) -> int:
        """A friend writes to the bot; returns the message id. Fields as in :func:`private_message`."""
        event = private_message(message, message_id=next(self._message_ids), **fields)
        await self.send_event(event)
        return int(event["message_id"])

    async def send_event(self, event: dict[str, Any]) -> None:
        """Any other event; ``time`` is filled in, and ``self_id`` is ours."""
        assert self._socket is not None, "not connected: wait_connected() first"
        await self._socket.send(json.dumps({"time": int(time.time())} | event | {"self_id": self.self_id}))

    # What the test waits for.

    async def wait_connected(self, *, connection: int = 1, timeout: float = 15.0) -> None:
        """Until the bot has accepted us for the n-th time. TimeoutError after ``timeout`` seconds."""
        await self._wait(
            lambda: (self.connections >= connection and self._socket is not None) or None,
            timeout,
            f"connection {connection}",
        )

    async def wait_for_call(self, action: str, timeout: float = 10.0) -> Call:
        """The oldest call of this action not returned before. TimeoutError after ``timeout`` seconds."""
        return await self._claim({action}, timeout, f"call of {action}")

    async def wait_for_message(self, timeout: float = 10.0) -> Call:
        """The same for a message, in whichever of the standard's three ways it is sent.

        NoneBot's ``bot.send(event, ...)`` is a ``send_msg``, for a group too.
        """
        return await self._claim({"send_msg", "send_group_msg", "send_private_msg"}, timeout, "message")

    async def _claim(self, actions: set[str], timeout: float, what: str) -> Call:
        def claim() -> Call | None:
            for call in self._unclaimed:
                if call.action in actions:
                    self._unclaimed.remove(call)
                    return call
            return None

        found = await self._wait(claim, timeout, what)
        assert isinstance(found, Call)
        return found

    async def _wait(self, look: Callable[[], Any], timeout: float, what: str) -> Any:
        async def wait() -> Any:
            async with self._changed:
                while (found := look()) is None:
                    await self._changed.wait()
                return found

        try:
            return await asyncio.wait_for(wait(), timeout)
        except asyncio.TimeoutError:
            seen = [(call.action, call.params) for call in self.calls]
            raise TimeoutError(
                f"no {what} within {timeout} s; connections so far: {self.connections}, calls: {seen}"
            ) from None

    # The connection.

    async def run(self) -> None:
        """Connect, serve, connect again, until cancelled. OSError when nobody listens for too long."""
        deadline = time.monotonic() + self._reconnect_seconds
        while True:
            try:
                # No proxy: the environment's is for the outside world.
                async with connect(self.url, additional_headers=self._headers(), proxy=None) as socket:
                    await self._serve(socket)
            except (OSError, InvalidHandshake, ConnectionClosed, EOFError) as error:
                if time.monotonic() > deadline:
                    away = f"not reachable for {self._reconnect_seconds} s"
                    raise OSError(f"{self.url}: {away}: {error}") from error
            if self._socket is not None:
                self._socket = None
                deadline = time.monotonic() + self._reconnect_seconds
            await asyncio.sleep(RETRY_DELAY)

    def _headers(self) -> dict[str, str]:
        headers = {
            "X-Self-ID": str(self.self_id),
            "X-Client-Role": "Universal",
            "User-Agent": "OneBot/11 lycomm-tests",
        }
        if self._access_token is not None:
            headers["Authorization"] = f"Bearer {self._access_token}"
        return headers

    async def _serve(self, socket: ClientConnection) -> None:
        self._socket = socket
        # The standard's first event on every connection; a bot that refuses us closes before it arrives.
        await self.send_event({"post_type": "meta_event", "meta_event_type": "lifecycle", "sub_type": "connect"})
        async with self._changed:
            self.connections += 1
            self._changed.notify_all()
        async for raw in socket:
            request = json.loads(raw)
            call = Call(request["action"], request.get("params") or {}, self.connections)
            await socket.send(json.dumps(self._answer(call) | {"echo": request.get("echo")}))
            async with self._changed:
                self.calls.append(call)
                self._unclaimed.append(call)
                self._changed.notify_all()

    def _answer(self, call: Call) -> dict[str, Any]:
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "send_group_msg": lambda: {"message_id": next(self._message_ids)},
            "send_private_msg": lambda: {"message_id": next(self._message_ids)},
            "send_msg": lambda: {"message_id": next(self._message_ids)},
            "get_login_info": lambda: {"user_id": self.self_id, "nickname": "bot"},
            "get_status": lambda: {"online": True, "good": True},
            "get_version_info": lambda: {
                "app_name": "lycomm-tests",
                "app_version": "1",
                "protocol_version": "v11",
            },
        }
        if call.action not in answers:
            return {"status": "failed", "retcode": 1404, "data": None}
        return {"status": "ok", "retcode": 0, "data": answers[call.action]()}


@contextlib.asynccontextmanager
async def onebot_client(
    url: str, *, self_id: int = 10001, access_token: str | None = None, reconnect_seconds: float = 30.0
) -> AsyncIterator[OneBotClient]:
    """A client that keeps connecting to ``url`` (``ws://host:port/onebot/v11/ws``) until the block ends.

    ``reconnect_seconds`` is how long the bot may be away before the client gives up; the block's end then
    raises what it failed with.
    """
    client = OneBotClient(url, self_id=self_id, access_token=access_token, reconnect_seconds=reconnect_seconds)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def group_message(message: Message, **fields: Any) -> dict[str, Any]:
    """The event of a message in a group, with every field of the standard; ``fields`` override those here."""
    event = _message_event(message, fields.get("user_id", 10000))
    event["sender"] |= {"card": "", "area": "", "level": "1", "role": "member", "title": ""}
    event |= {"message_type": "group", "sub_type": "normal", "group_id": 20001, "anonymous": None}
    return event | fields


def private_message(message: Message, **fields: Any) -> dict[str, Any]:
    """The event of a message from a friend, likewise."""
    event = _message_event(message, fields.get("user_id", 10000))
    return event | {"message_type": "private", "sub_type": "friend"} | fields


def _message_event(message: Message, user_id: int) -> dict[str, Any]:
    if isinstance(message, str):
        message = [{"type": "text", "data": {"text": message}}]
    segments = list(message)
    return {
        "time": int(time.time()),
        "self_id": 10001,
        "post_type": "message",
        "message_id": 1,
        "user_id": user_id,
        "message": segments,
        "raw_message": cq_code(segments),
        "font": 0,
        "sender": {"user_id": user_id, "nickname": "somebody", "sex": "unknown", "age": 0},
    }


def text_of(message: Message) -> str:
    """The text in a message, whichever of the two formats it is in."""
    if isinstance(message, str):
        return message
    return "".join(segment["data"]["text"] for segment in message if segment["type"] == "text")


def cq_code(segments: Sequence[dict[str, Any]]) -> str:
    """A message in the standard's string format, which ``raw_message`` is in."""
    parts = []
    for segment in segments:
        if segment["type"] == "text":
            parts.append(_escape(segment["data"]["text"]))
        else:
            data = {key: _escape(str(value)).replace(",", "&#44;") for key, value in segment["data"].items()}
            parts.append(f"[CQ:{segment['type']}" + "".join(f",{key}={value}" for key, value in data.items()) + "]")
    return "".join(parts)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("[", "&#91;").replace("]", "&#93;")
