"""Where a NoneBot driver is going to listen, and whether it does.

A bot that is reloaded without a gap (``reload = "overlap"``) is there twice for a moment, on one port. For that the
server gets a socket of ours with SO_REUSEPORT. As long as both listen, Linux gives new connections to the new one. What
waits in the old one's queue by then is accepted and read before it ends (``Draining.take_in_on``); a connection on
which no request has arrived is closed by uvicorn without an answer. macOS gives new connections to one of the two, and
what the old one had not yet accepted is reset: a client that connects in just that millisecond has to try again, as
OneBot clients do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger

from liteyuki_host._child.trouble import CannotRun

PROBE_INTERVAL_SECONDS = 0.02

PORT_SECONDS = 3.0
"""For a port in use to become free: after a host's violent end the bot it left needs up to 2 s to be gone."""

REVERSE_WEBSOCKETS = {"OneBot V11": "/onebot/v11/ws", "OneBot V12": "/onebot/v12/ws"}
"""Adapters whose clients connect to us, by their names, and the path each one adds to the server."""


SO_ATTACH_REUSEPORT_CBPF = 51
"""Linux from 4.5 on (<asm-generic/socket.h>); Python has no name for it."""

BPF_RETURN = 0x06
"""``BPF_RET | BPF_K`` of <linux/bpf_common.h>: ends the program with the number in the instruction."""

TAKE_A_SOCKET = {"fastapi", "quart"}
"""Drivers whose ``run(fd=)`` listens on a socket that is there already: those with uvicorn."""


SiblingOn = Callable[[str, int], Awaitable[str | None]]
"""Given host and port, the name of the bot of the same host that listens there."""


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
    own: socket.socket | None = None
    """Ours for the server (``fd=``), see :meth:`share`."""
    beside: bool = False
    """Another incarnation of this bot listens already."""

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

    def share(self, driver: str, *, beside: bool) -> Listening:
        """Where another incarnation can listen too: the same with :attr:`own`, to be passed on as ``fd=``.

        Unchanged where there is no port, and where it cannot be shared, which is logged.

        Args:
            driver: its type, ``fastapi+httpx`` for instance.
        """
        if self.bound or self.uds is not None or self.port == 0:
            return self
        if not hasattr(socket, "SO_REUSEPORT"):
            logger.warning('this system cannot open a port twice: reload = "overlap" does not work here, use "swap"')
            return self
        if TAKE_A_SOCKET.isdisjoint(driver.split("+")):
            logger.warning(
                f'driver {driver} takes no open socket: reload = "overlap" does not work with it, use "swap"'
            )
            return self
        try:
            family, _ = self._ours()
        except OSError:
            return self  # wait_until_free() puts it into words
        own = socket.socket(family, socket.SOCK_STREAM)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            own.setsockopt(socket.SOL_SOCKET, option, 1)
        # asyncio does so for each connection, but not where uvicorn has opened the socket by number, as a Unix one;
        # connections inherit it.
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _for_one_family(own)
        return replace(self, own=own, beside=beside)

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

    async def wait_until_free(self, sibling_on: SiblingOn | None = None) -> None:
        """Before the server binds: try it, so that a port in use is told in words. Binds :attr:`own`.

        It also keeps :meth:`wait_until_open` from taking the other program's port for ours.

        Args:
            sibling_on: asked which bot of the same host listens there, when somebody does.

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
                    sibling = None if sibling_on is None else await sibling_on(self.host, self.port)
                    if sibling is not None:
                        raise CannotRun(
                            f"{where} is used by bot {sibling} of this host: give one of them another PORT in its .env"
                        ) from exc
                    raise CannotRun(
                        f"{where} is in use by another program: end that program, or give this bot another PORT "
                        "in its .env"
                    ) from exc
            await asyncio.sleep(0.1)

    def _try_to_bind(self) -> None:
        # Also for a socket of our own: without this, two different bots could share a port by mistake.
        for family, where in () if self.beside else self._places():
            try_to_bind(family, where)
        if self.own is not None:
            self.own.bind(self._ours()[1])

    def _places(self) -> list[tuple[int, Any]]:
        return places_of(self.host, self.port)

    def _ours(self) -> tuple[int, Any]:
        """Of them the one for our own: IPv4 where a name (``localhost``) has both."""
        places = self._places()
        return min(places, key=lambda place: place[0] != socket.AF_INET)

    async def wait_until_open(self) -> None:
        """Until it accepts a connection."""
        if self.port == 0 and self.uds is None:
            return
        if self.own is not None:
            # A connection would not tell: it may be the other incarnation that accepts it.
            while not self.own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)
            if self.beside:
                _come_first(self.own)
            # The server has a copy. With ours the port would stay open behind its back when it closes.
            self.own.close()
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


def places_of(host: str, port: int) -> list[tuple[int, Any]]:
    """Family and address of every socket that a server for *host* and *port* opens. Raises OSError: unknown host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, where) for family, _, _, _, where in found]


def try_to_bind(family: int, where: Any) -> None:
    """Bind the address and let it go at once; nothing listens. Raises OSError: it is not to be had."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # as asyncio does: a port in TIME_WAIT is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _for_one_family(probe)
        probe.bind(where)


def _come_first(own: socket.socket) -> None:
    """Have new connections given to the listener *own*, the second one of its port, where the system can do that."""
    if sys.platform != "linux":
        return
    # A program for the kernel that chooses among the listeners, of one instruction: "return 1", the second. When that
    # is the only one left, there is no such number, and the kernel chooses by itself again.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 1))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):  # a kernel without it: it spreads them over both
        own.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def _for_one_family(sock: socket.socket) -> None:
    """As asyncio does: ``::`` is not also every IPv4 address."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
