from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launch_kit import StartHost, accepts, free_port, make_project
from loguru import logger

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


# Two incarnations of one bot.

needs_sharing = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="Windows cannot open a port twice")


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.record["message"]), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@contextlib.asynccontextmanager
async def serve(where: Listening) -> AsyncIterator[asyncio.Server]:
    """As uvicorn does with ``fd=``."""
    assert where.own is not None
    sock = socket.fromfd(where.own.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=sock)
    try:
        yield server
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "where", [Listening("h", 1, bound=True), Listening("h", 1, uds="/run/bot"), Listening("127.0.0.1", 0)]
)
def test_without_a_port_of_its_own_there_is_nothing_to_share(where: Listening, warnings: list[str]) -> None:
    assert where.share("fastapi", beside=False) is where
    assert warnings == []


@needs_sharing
def test_a_driver_without_uvicorn_cannot_share(warnings: list[str]) -> None:
    where = Listening("127.0.0.1", free_port())
    assert where.share("other+httpx", beside=False) is where
    assert warnings == ['driver other+httpx takes no open socket: reload = "overlap" does not work with it, use "swap"']


def test_a_system_that_cannot_share_says_so(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    where = Listening("127.0.0.1", free_port())
    assert where.share("fastapi", beside=False) is where
    assert warnings == ['this system cannot open a port twice: reload = "overlap" does not work here, use "swap"']


@needs_sharing
async def test_a_host_that_does_not_exist_is_told_when_it_is_bound() -> None:
    where = Listening("host.invalid", 8080).share("fastapi", beside=False)
    with pytest.raises(CannotRun, match="cannot listen on port 8080 on host"):
        await where.wait_until_free()


@needs_sharing
async def test_the_second_incarnation_is_open_when_it_is_and_not_when_the_first_one_is() -> None:
    old = Listening("127.0.0.1", free_port()).share("fastapi+httpx", beside=False)
    new = Listening("127.0.0.1", old.port).share("quart", beside=True)
    await old.wait_until_free()
    async with serve(old) as old_server:
        await asyncio.wait_for(old.wait_until_open(), 5)
        await new.wait_until_free()
        opening = asyncio.ensure_future(new.wait_until_open())
        done, _ = await asyncio.wait([opening], timeout=0.1)
        assert not done  # although the port accepts
        async with serve(new):
            await asyncio.wait_for(opening, 5)
            old_server.close()
            await old_server.wait_closed()
            for _ in range(20):  # all of them at the new one
                _, writer = await asyncio.open_connection("127.0.0.1", new.port)
                writer.close()
                await writer.wait_closed()
    assert old.address == new.address == f"http://127.0.0.1:{new.port}"
    with pytest.raises(ConnectionRefusedError):  # nobody keeps it open behind the servers' backs
        await asyncio.open_connection("127.0.0.1", new.port)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system chooses")
async def test_new_connections_go_to_the_newest_one_so_that_none_waits_where_the_port_is_closed() -> None:
    port = free_port()
    with contextlib.ExitStack() as ends:

        async def listen(*, beside: bool) -> socket.socket:
            where = Listening("127.0.0.1", port).share("fastapi", beside=beside)
            await where.wait_until_free()
            assert where.own is not None
            server = ends.enter_context(where.own.dup())
            server.listen()
            server.setblocking(False)
            await asyncio.wait_for(where.wait_until_open(), 5)
            return server

        def accepted(server: socket.socket) -> int:
            for _ in range(20):
                ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    ends.enter_context(server.accept()[0])
                    count += 1
            return count

        old = await listen(beside=False)
        assert accepted(old) == 20
        for _ in range(2):  # the second time it is not the first one of the port that ends
            new = await listen(beside=True)
            assert accepted(new) == 20
            old.close()
            assert accepted(new) == 20
            old = new


@needs_sharing
async def test_another_bot_cannot_share_the_port_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PORT_SECONDS", 0.2)
    one = Listening("127.0.0.1", free_port()).share("fastapi", beside=False)
    other = Listening("127.0.0.1", one.port).share("fastapi", beside=False)
    await one.wait_until_free()
    async with serve(one):
        await asyncio.wait_for(one.wait_until_open(), 5)
        with pytest.raises(CannotRun, match="is in use by another program"):
            await other.wait_until_free()
    assert other.own is not None
    other.own.close()


@needs_sharing
async def test_beside_a_stranger_there_is_no_room_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PORT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        where = Listening("127.0.0.1", stranger.getsockname()[1]).share("fastapi", beside=True)
        with pytest.raises(CannotRun, match="is in use by another program"):
            await where.wait_until_free()
    assert where.own is not None
    where.own.close()


@needs_sharing
async def test_the_socket_is_as_the_server_would_have_made_it() -> None:
    where = Listening("127.0.0.1", free_port()).share("fastapi", beside=False)
    await where.wait_until_free()
    assert where.own is not None
    where.own.listen()
    with socket.create_connection(("127.0.0.1", where.port)), where.own.accept()[0] as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not where.own.get_inheritable()
    await where.wait_until_open()


@needs_sharing
def test_of_a_name_with_several_addresses_ipv4_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET6, ("::1", 1, 0, 0)), (socket.AF_INET, ("127.0.0.1", 1))]
    monkeypatch.setattr(Listening, "_places", lambda self: both)
    where = Listening("localhost", 1).share("fastapi", beside=False)
    assert where.own is not None
    assert where.own.family is socket.AF_INET
    where.own.close()


@needs_sharing
@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_two_real_bots_on_one_port(start_host: StartHost, tmp_path: Path) -> None:
    port = free_port()
    for name, sharing in (("old", "alone"), ("new", "beside")):
        project = make_project(tmp_path / name, port=port)
        host = start_host(project, env={"LYCOMM_SHARE_PORT": sharing})
        host.line(rf"child nonebot ready in \d+\.\d s: http://127\.0\.0\.1:{port}$")
        if name == "old":
            old = host
    old.stop()
    assert all(accepts(port) for _ in range(20))
    host.stop()
    assert not accepts(port)
