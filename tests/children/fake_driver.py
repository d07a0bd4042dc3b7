"""The driver of the plugin store's load test, behaviour for behaviour: it looks complete and can do nothing.

The store puts such a file beside the bot and sets ``DRIVER=fake``. ``run()`` returns at once, start-up hooks
never run, and whoever sets up a route, an ASGI application or a client connection gets NotImplementedError.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from nonebot.drivers import (
    ASGIMixin,
    HTTPClientMixin,
    HTTPServerSetup,
    Request,
    Response,
    WebSocket,
    WebSocketClientMixin,
    WebSocketServerSetup,
)
from nonebot.drivers import Driver as BaseDriver


class Driver(BaseDriver, ASGIMixin, HTTPClientMixin, WebSocketClientMixin):
    @property
    def type(self) -> str:
        return "fake"

    @property
    def logger(self) -> logging.Logger:
        return logging.getLogger("fake")

    def run(self, *args: Any, **kwargs: Any) -> None:
        super().run(*args, **kwargs)

    @property
    def server_app(self) -> Any:
        return None

    @property
    def asgi(self) -> Any:
        raise NotImplementedError

    def setup_http_server(self, setup: HTTPServerSetup) -> None:
        raise NotImplementedError

    def setup_websocket_server(self, setup: WebSocketServerSetup) -> None:
        raise NotImplementedError

    async def request(self, setup: Request) -> Response:
        raise NotImplementedError

    @asynccontextmanager
    async def websocket(self, setup: Request) -> AsyncGenerator[WebSocket, None]:
        raise NotImplementedError
        yield

    def get_session(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def stream_request(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError
