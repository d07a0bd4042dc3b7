"""Servers of chat platforms on this machine, as far as a bot with one friend who writes once needs them.

The real adapters hold them to the platforms: an answer in another form, and the adapter does not connect or finds no
message in it. Each platform's documentation was the model; no network is behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

BOT = "10001"
FRIEND = "10000"
NOW = 1_750_000_000
"""The time of all messages: what a bot logs of them is then the same in each run."""

POLL_SECONDS = 5.0
"""How long a request for updates is kept open; platforms take up to 50 s."""


class Platform:
    """A server that writes down what the bot asks, and what the bot says to its friend."""

    def __init__(self) -> None:
        self.port = 0
        self.said: asyncio.Queue[str] = asyncio.Queue()
        """What the bot has written to its friend."""
        self.asked: dict[str, int] = {}
        """Method and path of all requests, with their number."""
        self.connected = asyncio.Event()
        """Set when the bot is logged in: the friend may write."""
        self._socket: WebSocket | None = None

    async def friend_writes(self, text: str) -> None:
        """Have the friend send a message to the bot. Only while it is connected."""
        assert self._socket is not None
        await self._socket.send_json(self.message(text))

    def message(self, text: str) -> Any:
        """The platform's event for a message of the friend."""
        raise NotImplementedError

    async def answer(self, path: str, body: Any) -> Any:
        """Answer one request with a value for JSON; None for "not found"."""
        raise NotImplementedError

    async def log_in(self, socket: WebSocket) -> None:
        """Do what comes before the first event on a WebSocket. By default nothing does."""

    async def take(self, frame: Any, socket: WebSocket) -> None:
        """Take one frame of the bot. By default it is of no interest: a heartbeat."""

    def close(self) -> None:
        """Answer the requests that are kept open. By default none is."""

    # The server.

    async def _http(self, request: Request) -> Response:
        path = request.url.path
        self._note(f"{request.method} {path}")
        content = await request.body()
        body = json.loads(content) if content[:1] in (b"{", b"[") else dict(request.query_params)
        answer = await self.answer(path, body)
        if answer is None:
            return JSONResponse({"error": "not found"}, 404)
        return PlainTextResponse(answer) if isinstance(answer, str) else JSONResponse(answer)

    async def _websocket(self, socket: WebSocket) -> None:
        self._note(f"WebSocket {socket.url.path}")
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await self.log_in(socket)
            self._socket = socket
            self.connected.set()
            while True:
                await self.take(await socket.receive_text(), socket)
        self._socket = None

    def _note(self, what: str) -> None:
        self.asked[what] = self.asked.get(what, 0) + 1

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        """Listen on *port* of the loopback interface until the block ends."""
        self.port = port
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        routes = [Route("/{path:path}", self._http, methods=methods), WebSocketRoute("/{path:path}", self._websocket)]
        config = uvicorn.Config(
            Starlette(routes=routes), "127.0.0.1", port, log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve())
        try:
            await server.listening(task)
            yield
        finally:
            self.close()
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    """A server that leaves the signals alone and says when it listens."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._listening.set()

    async def listening(self, task: asyncio.Task[None]) -> None:
        """Wait until it listens. OSError if *task*, which runs it, ends before."""
        waiting = asyncio.create_task(self._listening.wait())
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            raise OSError(f"port {self.config.port} is not to be had")


class Echo(Platform):
    """No chat platform: what the clients of a driver are tried against."""

    async def answer(self, path: str, body: Any) -> Any:
        return "hello"

    async def take(self, frame: Any, socket: WebSocket) -> None:
        await socket.send_text(frame)


class Satori(Platform):
    LOGIN = {  # noqa: RUF012
        "sn": 1,
        "adapter": "test",
        "platform": "test",
        "status": 1,
        "user": {"id": BOT, "name": "bot"},
        "features": [],
    }

    async def log_in(self, socket: WebSocket) -> None:
        await socket.receive_text()  # IDENTIFY
        await socket.send_json({"op": 4, "body": {"logins": [self.LOGIN], "proxy_urls": []}})

    def message(self, text: str) -> Any:
        channel = {"id": f"private:{FRIEND}", "type": 1}
        body = {"sn": 1, "type": "message-created", "timestamp": NOW * 1000, "login": self.LOGIN, "channel": channel}
        body |= {"user": {"id": FRIEND, "name": "somebody"}, "message": {"id": "1", "content": text}}
        return {"op": 0, "body": body}

    async def answer(self, path: str, body: Any) -> Any:
        if path != "/v1/message.create":
            return None
        self.said.put_nowait(body["content"])
        return [{"id": "2", "content": body["content"]}]


class Telegram(Platform):
    def __init__(self) -> None:
        super().__init__()
        self._updates: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def friend_writes(self, text: str) -> None:
        self._updates.append({"update_id": len(self._updates) + 1, "message": self.message(text)})
        self._news.set()

    def message(self, text: str) -> Any:
        friend = {"id": int(FRIEND), "is_bot": False, "first_name": "somebody"}
        chat = {"id": int(FRIEND), "type": "private", "first_name": "somebody"}
        return {"message_id": 1, "date": NOW, "chat": chat, "from": friend, "text": text}

    async def answer(self, path: str, body: Any) -> Any:
        match path.rpartition("/")[2]:
            case "getMe":
                result: Any = {"id": int(BOT), "is_bot": True, "first_name": "bot", "username": "bot"}
            case "deleteWebhook":
                result = True
            case "getUpdates":
                self.connected.set()
                result = await self._newer_than(int(body.get("offset") or 0))
            case "sendMessage":
                self.said.put_nowait(body["text"])
                result = self.message(body["text"])
            case _:
                return None
        return {"ok": True, "result": result}

    def close(self) -> None:
        self._news.set()

    async def _newer_than(self, offset: int) -> list[dict[str, Any]]:
        if not (news := [update for update in self._updates if update["update_id"] >= offset]):
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), POLL_SECONDS)
            news = [update for update in self._updates if update["update_id"] >= offset]
        return news


class QQ(Platform):
    async def log_in(self, socket: WebSocket) -> None:
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 45000}})
        await socket.receive_text()  # identify
        user = {"id": BOT, "username": "bot", "bot": True}
        ready = {"version": 1, "session_id": "session", "user": user, "shard": [0, 1]}
        await socket.send_json({"op": 0, "s": 1, "t": "READY", "d": ready})

    async def take(self, frame: Any, socket: WebSocket) -> None:
        if json.loads(frame).get("op") == 1:
            await socket.send_json({"op": 11})

    def message(self, text: str) -> Any:
        author = {"id": FRIEND, "user_openid": FRIEND}
        message = {"id": "1", "author": author, "content": text, "timestamp": "2025-06-15T15:06:40+00:00"}
        return {"id": "C2C_MESSAGE_CREATE:1", "op": 0, "s": 2, "t": "C2C_MESSAGE_CREATE", "d": message}

    async def answer(self, path: str, body: Any) -> Any:
        match path.strip("/"):
            case "app/getAppAccessToken":
                return {"access_token": "token", "expires_in": "7200"}
            case "gateway/bot":
                limit = {"total": 1000, "remaining": 999, "reset_after": 14400000, "max_concurrency": 1}
                return {"url": f"ws://127.0.0.1:{self.port}/websocket", "shards": 1, "session_start_limit": limit}
            case "v2/users/10000/messages":
                self.said.put_nowait(body["content"])
                return {"id": "2", "timestamp": NOW}
        return None


class Milky(Platform):
    def message(self, text: str) -> Any:
        category = {"category_id": 0, "category_name": "friends"}
        friend = {"user_id": int(FRIEND), "nickname": "somebody", "sex": "unknown", "qid": "", "remark": ""}
        data = {"message_scene": "friend", "peer_id": int(FRIEND), "message_seq": 1, "sender_id": int(FRIEND)}
        data |= {"time": NOW, "segments": [{"type": "text", "data": {"text": text}}]}
        data |= {"friend": friend | {"category": category}}
        return {"event_type": "message_receive", "time": NOW, "self_id": int(BOT), "data": data}

    async def answer(self, path: str, body: Any) -> Any:
        match path:
            case "/api/get_login_info":
                data: Any = {"uin": int(BOT), "nickname": "bot"}
            case "/api/send_private_message":
                self.said.put_nowait("".join(part["data"]["text"] for part in body["message"]))
                data = {"message_seq": 2, "time": NOW}
            case _:
                return None
        return {"status": "ok", "retcode": 0, "data": data}


class Feishu(Platform):
    """It does not wait for a connection of the bot: it posts events to the bot's own server."""

    async def answer(self, path: str, body: Any) -> Any:
        match path.removeprefix("/open-apis/"):
            case "auth/v3/tenant_access_token/internal":
                return {"code": 0, "msg": "ok", "tenant_access_token": "token", "expire": 7200}
            case "bot/v3/info":
                self.connected.set()
                info = {"activate_status": 2, "app_name": "bot", "avatar_url": "http://127.0.0.1/", "ip_white_list": []}
                return {"code": 0, "msg": "ok", "bot": info | {"open_id": "ou_bot"}}
            case "im/v1/messages" | "im/v1/messages/om_1/reply":
                self.said.put_nowait(json.loads(body["content"])["text"])
                return {"code": 0, "msg": "ok", "data": {"message_id": "om_2"}}
        return None

    def message(self, text: str) -> Any:
        sender_id = {"union_id": "on_1", "user_id": "1", "open_id": "ou_1"}
        sender = {"sender_id": sender_id, "sender_type": "user", "tenant_key": "tenant"}
        message = {"message_id": "om_1", "create_time": str(NOW * 1000), "chat_id": "oc_1", "chat_type": "p2p"}
        message |= {"message_type": "text", "content": json.dumps({"text": text})}
        header = {"event_id": "1", "event_type": "im.message.receive_v1", "create_time": str(NOW * 1000)}
        header |= {"token": "verification", "app_id": "app", "tenant_key": "tenant"}
        return {"schema": "2.0", "header": header, "event": {"sender": sender, "message": message}}


PLATFORMS: dict[str, type[Platform]] = {
    "echo": Echo,
    "satori": Satori,
    "telegram": Telegram,
    "qq": QQ,
    "milky": Milky,
    "feishu": Feishu,
}
