from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from launch_kit import free_port

from liteyuki_host._child import listening
from liteyuki_host._child.listening import Listening
from liteyuki_host._child.trouble import CannotRun

CONFIG = SimpleNamespace(host="127.0.0.1", port=8080)
V11 = {"OneBot V11": "ws://127.0.0.1:8080/onebot/v11/ws"}


@pytest.mark.parametrize(
    ("args", "kwargs", "address"),
    [
        ((), {}, "http://127.0.0.1:8080"),
        (("0.0.0.0", 1234), {}, "http://0.0.0.0:1234"),
        ((), {"port": 1234}, "http://127.0.0.1:1234"),
        ((), {"host": "::1", "port": None}, "http://[::1]:8080"),
        ((), {"ssl_certfile": "x.pem"}, "https://127.0.0.1:8080"),
        ((), {"uds": "/run/bot"}, "unix:/run/bot"),
        ((), {"port": 0}, "http://127.0.0.1:8080"),  # uvicorn's drivers take 0 for "not given" as well
    ],
)
def test_where_run_will_listen(args: tuple[Any, ...], kwargs: dict[str, Any], address: str) -> None:
    assert Listening.of(CONFIG, args, kwargs).address == address


def test_where_a_socket_of_somebody_else_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        where = Listening.of(CONFIG, (), {"fd": bound.fileno()})
        assert where == Listening("127.0.0.1", port, bound=True)
        assert bound.fileno() >= 0


def test_a_port_of_the_systems_choice_has_no_address() -> None:
    assert Listening("127.0.0.1", 0).address is None
    assert Listening("127.0.0.1", 0).details(["OneBot V11"]) == {}


@pytest.mark.parametrize(
    ("adapters", "details"),
    [(["OneBot V11", "Console"], V11), (["Console"], {}), ([], {})],
)
def test_which_adapters_have_an_address_of_their_own(adapters: list[str], details: dict[str, str]) -> None:
    assert Listening("127.0.0.1", 8080).details(adapters) == details


def test_over_tls_the_websocket_is_a_secure_one() -> None:
    assert Listening("h", 1, tls=True).details(["OneBot V11"]) == {"OneBot V11": "wss://h:1/onebot/v11/ws"}


async def test_a_free_port_is_free_also_while_old_connections_linger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        port = server.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # first, so that TIME_WAIT is on the server's port
    await Listening("127.0.0.1", port).wait_until_free()


async def test_a_port_in_use_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CannotRun, match=f"port {port} on 127.0.0.1 is in use by another program"):
            await Listening("127.0.0.1", port).wait_until_free()
        await Listening("127.0.0.1", port, bound=True).wait_until_free()  # ours to use


async def test_a_port_that_is_just_becoming_free_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = Listening("127.0.0.1", server.getsockname()[1])
        waiting = asyncio.create_task(where.wait_until_free())
        done, _ = await asyncio.wait([waiting], timeout=0.15)  # at least two tries
        assert not done
    await asyncio.wait_for(waiting, 5)


async def test_an_address_that_is_not_this_machines_is_told_at_once() -> None:
    with pytest.raises(CannotRun, match=r"cannot listen on port 8080 on 192\.0\.2\.1: .*; correct HOST or PORT"):
        await Listening("192.0.2.1", 8080).wait_until_free()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_open_is_when_it_accepts(host: str) -> None:
    port = free_port()
    waiting = asyncio.create_task(Listening(host, port).wait_until_open())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    server = await asyncio.start_server(_ignore, host, port)
    await asyncio.wait_for(waiting, 5)
    server.close()
    await server.wait_closed()


async def _ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
