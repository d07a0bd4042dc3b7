"""A bot that another one replaces on its port answers the requests that have reached it, also those it has not read."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_kit import Watched, watched
from launch_kit import DEADLINE, free_port, make_project

from liteyuki_host._child.codes import ALONE, SHARE_PORT
from liteyuki_host._child.drain import TAKE_IN_SECONDS
from liteyuki_host.comm.channel.channel import Channel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice"),
]

CLIENTS = 20

PLUGIN = """
import threading
import nonebot
from nonebot_plugin_lycomm import active_channel

app = nonebot.get_app()
go_on = threading.Event()

def listen():
    active_channel.receive()
    go_on.set()

@app.get("/block")
async def block():
    threading.Thread(target=listen, daemon=True).start()
    print("blocked", flush=True)
    go_on.wait()

@app.get("/version")
def version():
    return 1
"""


class Blocked:
    """A bot on a port that it may share, whose event loop is blocked."""

    def __init__(self, bot: Watched, port: int) -> None:
        self.bot = bot
        self._port = port
        self._clients = [self._ask("/block")]

    def wait(self) -> None:
        """Until the loop is blocked."""
        self.bot.line("^blocked$")

    def ask_many(self) -> None:
        self._clients += [self._ask("/version") for _ in range(CLIENTS)]

    def go_on(self) -> None:
        Channel[str]("nonebot-active", None, exchange=self.bot.hub).send("go on")

    def answers(self) -> list[bytes]:
        """The first line of each answer; empty where there is none."""
        return [_first_line(client) for client in self._clients]

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _ask(self, path: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self._port), DEADLINE)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: bot\r\nConnection: close\r\n\r\n".encode())
        return client


def _first_line(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as answer:
        try:
            return answer.readline().rstrip()
        except ConnectionError as error:
            return str(error).encode()


@pytest.fixture
def blocked(tmp_path: Path) -> Iterator[Blocked]:
    port = free_port()
    project = make_project(tmp_path / "bot", PLUGIN, port=port)
    with watched(project, **{SHARE_PORT: ALONE}) as bot:
        scene = Blocked(bot, port)
        try:
            scene.wait()
            yield scene
        finally:
            scene.close()


def test_requests_in_the_queue_are_answered(blocked: Blocked) -> None:
    bot = blocked.bot
    blocked.ask_many()
    bot.session.drain(DEADLINE)
    with pytest.raises(AssertionError, match="no report"):
        bot.until(lambda: bot.drained, "report", TAKE_IN_SECONDS / 10)
    blocked.go_on()
    bot.until(lambda: bot.drained, "report")
    assert bot.end() == 0
    assert blocked.answers() == [b"HTTP/1.1 200 OK"] * (1 + CLIENTS)


def test_a_blocked_loop_is_not_waited_for(blocked: Blocked) -> None:
    bot = blocked.bot
    bot.session.drain(DEADLINE)
    bot.until(lambda: bot.drained, "report", DEADLINE / 2)
    blocked.go_on()
    assert bot.end() == 0
