"""What a program that runs trio is told by the host's awaitable functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from liteyuki_host import Host
from liteyuki_host.comm.errors import AsyncioNeeded

DEADLINE = 20.0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    (tmp_path / "bot.py").write_text("import nonebot\nnonebot.init()\nnonebot.run()\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    host = Host()
    yield host
    host.stop()


@pytest.mark.parametrize("name", ["serve", "astart_process", "astop_process", "arestart_process", "wait_ready"])
def test_trio_is_refused_in_words(host: Host, name: str) -> None:
    arguments = ["nonebot"] if name == "wait_ready" else []
    with pytest.raises(AsyncioNeeded, match="runs on trio"):
        trio.run(getattr(host, name), *arguments)


def test_a_refused_host_can_be_served_later(host: Host) -> None:
    with pytest.raises(AsyncioNeeded):
        trio.run(host.serve)
    host.stop()
    asyncio.run(asyncio.wait_for(host.serve(), DEADLINE))  # a host that has begun once is refused
