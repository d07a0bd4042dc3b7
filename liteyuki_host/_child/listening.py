"""Where a NoneBot driver is going to listen, and whether it does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liteyuki_host._child.trouble import CannotRun

PROBE_INTERVAL_SECONDS = 0.02

PORT_SECONDS = 3.0
"""For a port in use to become free: after a host's violent end the bot it left needs up to 2 s to be gone."""

REVERSE_WEBSOCKETS = {"OneBot V11": "/onebot/v11/ws", "OneBot V12": "/onebot/v12/ws"}
"""Adapters whose clients connect to us, by their names, and the path each one adds to the server."""


@dataclass(frozen=True)
class Listening:
    """What the driver's ``run()`` was called with, over what the configuration says."""

    host: str
    port: int
    tls: bool = False
    uds: str | None = None
    """A Unix socket's path, instead of host and port."""
    bound: bool = False
    """Somebody has bound the socket for us (``fd=``)."""

    @classmethod
    def of(cls, config: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Listening:
        """From the arguments of ``driver.run(host, port, ...)``, as uvicorn's drivers understand them."""
        tls = bool(kwargs.get("ssl_certfile") or kwargs.get("ssl_keyfile"))
        fd = kwargs.get("fd")
        if fd is not None:
            with socket.socket(fileno=os.dup(fd)) as given:
                name = given.getsockname()
            if isinstance(name, tuple):
                return cls(name[0], name[1], tls, bound=True)
            return cls("", 0, tls, uds=name)
        host = (args[0] if args else kwargs.get("host")) or config.host
        port = (args[1] if len(args) > 1 else kwargs.get("port")) or config.port
        return cls(str(host), int(port), tls, uds=kwargs.get("uds"))

    @property
    def address(self) -> str | None:
        return self._url("http")

    def details(self, adapters: Sequence[str]) -> dict[str, str]:
        """Adapter to the address its client connects to."""
        base = self._url("ws")
        if base is None or self.uds is not None:
            return {}
        return {name: base + REVERSE_WEBSOCKETS[name] for name in adapters if name in REVERSE_WEBSOCKETS}

    def _url(self, scheme: str) -> str | None:
        if self.uds is not None:
            return f"unix:{self.uds}"
        if self.port == 0:
            return None  # the system chooses, and nothing public tells what
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{'s' if self.tls else ''}://{host}:{self.port}"

    async def wait_until_free(self) -> None:
        """Before the server binds: try it, so that a port in use is told in words.

        It also keeps :meth:`wait_until_open` from taking the other program's port for ours.

        Raises:
            CannotRun: it is not free for us, and did not become so in ``PORT_SECONDS``.
        """
        if self.bound or self.uds is not None or self.port == 0:
            return
        deadline = time.monotonic() + PORT_SECONDS
        while True:
            try:
                return self._try_to_bind()
            except OSError as exc:
                where = f"port {self.port} on {self.host}"
                if exc.errno != errno.EADDRINUSE:
                    words = exc.strerror or exc
                    raise CannotRun(f"cannot listen on {where}: {words}; correct HOST or PORT in .env") from exc
                if time.monotonic() >= deadline:
                    raise CannotRun(
                        f"{where} is in use by another program: end that program, or give this bot another PORT "
                        "in its .env"
                    ) from exc
            await asyncio.sleep(0.1)

    def _try_to_bind(self) -> None:
        kind = socket.SOCK_STREAM
        found = socket.getaddrinfo(self.host, self.port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in found:
            with socket.socket(family, kind) as probe:
                if sys.platform != "win32":  # as asyncio does: a port in TIME_WAIT is free
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(where)

    async def wait_until_open(self) -> None:
        """Until it accepts a connection."""
        if self.port == 0 and self.uds is None:
            return
        while True:
            with contextlib.suppress(OSError):
                _, writer = await self._connect()
                writer.close()
                return
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if sys.platform != "win32" and self.uds is not None:
            return await asyncio.open_unix_connection(self.uds)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return await asyncio.open_connection(host, self.port)
