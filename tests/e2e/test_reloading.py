"""New code for a running bot: one save is one restart, and a working bot is never taken down by a bad one."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from kit import HostProcess, eventually, free_port, host_process, running_host, write

pytestmark = pytest.mark.e2e

PLUGIN = """
    import nonebot
    from fastapi import FastAPI

    app: FastAPI = nonebot.get_app()

    @app.get("/version")
    def version() -> int:
        return {version}
"""


def project(folder: Path, port: int) -> Path:
    write(
        folder,
        {
            "pyproject.toml": "[tool.nonebot]\nadapters = []\nplugins = []\nplugin_dirs = ['plugins']\n",
            ".env": f"DRIVER=~fastapi\nPORT={port}\n",
            "plugins/mine.py": PLUGIN.format(version=1),
        },
    )
    return folder


def save(folder: Path, version: int | str) -> None:
    text = textwrap.dedent(PLUGIN).format(version=version)
    (folder / "plugins" / "mine.py").write_text(text, encoding="utf-8")


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=5) as answer:
        return str(answer.read().decode())


@contextmanager
def reloading_host(folder: Path, mode: str, **environ: str) -> Iterator[tuple[HostProcess, int]]:
    port = free_port()
    project(folder, port)
    with host_process(folder, LYCOMM_RELOAD=mode, **environ) as host:
        host.wait_for("child nonebot ready")
        assert ask(port) == "1"
        yield host, port
        assert host.stop() == 0


def started(host: HostProcess) -> int:
    return sum(bool(re.search(r"child nonebot.* started \(pid", line)) for line in host.lines)


def test_a_save_is_one_restart_with_the_new_code(tmp_path: Path) -> None:
    with reloading_host(tmp_path, "swap") as (host, port):
        save(tmp_path, 2)
        host.wait_for(r"child nonebot: plugins.mine\.py changed; trying it before the bot is restarted")
        host.wait_for(r"child nonebot is to restart: plugins.mine\.py changed")
        host.wait_for("child nonebot ready", count=2)
        assert ask(port) == "2"
        assert started(host) == 2


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("def", r"plugins.mine\.py line 9: "),
        ("1\n\nimport no_such_module", r"plugins.mine\.py line 11: .*no_such_module"),
        ("1\n\nraise RuntimeError('not today')", r"plugins.mine\.py line 11: .*not today"),
    ],
    ids=["syntax", "missing module", "raises"],
)
def test_broken_code_leaves_the_running_bot_alone(tmp_path: Path, broken: str, words: str) -> None:
    with reloading_host(tmp_path, "swap") as (host, port):
        save(tmp_path, broken)
        line = host.wait_for("child nonebot: the change cannot start: ")[0]
        assert re.search(words, line), line
        assert line.endswith("; the running bot stays")
        assert ask(port) == "1"
        assert started(host) == 1
        save(tmp_path, 3)
        host.wait_for("child nonebot ready", count=2)
        assert ask(port) == "3"


async def test_a_stop_while_the_new_code_is_tried_wins(tmp_path: Path) -> None:
    async with running_host(tmp_path, "one") as lab:
        lab.host.reload_process("one")
        await lab.host.astop_process("one")
        await eventually(lambda: not lab.host._supervisor._reloads)
        assert lab.host.status()[0]["state"] == "stopped"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
def test_overlap_never_leaves_the_port_unanswered(tmp_path: Path) -> None:
    with reloading_host(tmp_path, "overlap") as (host, port):
        answers: list[str] = []
        ended = threading.Event()

        def keep_asking() -> None:
            while not ended.is_set():
                try:
                    answers.append(ask(port))
                except OSError as error:
                    answers.append(f"{type(error).__name__}: {error}")
                time.sleep(0.02)  # fifty requests a second

        client = threading.Thread(target=keep_asking)
        client.start()
        try:
            save(tmp_path, 2)
            host.wait_for(r"child nonebot: pid \d+ takes over from pid \d+")
            host.wait_for("child nonebot stopped after the stop message")
        finally:
            ended.set()
            client.join()
        assert ask(port) == "2"
        assert {"1", "2"} >= set(answers), [answer for answer in answers if answer not in ("1", "2")]
        assert started(host) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
def test_overlap_keeps_the_old_bot_when_the_new_one_fails_in_a_hook(tmp_path: Path) -> None:
    with reloading_host(tmp_path, "overlap") as (host, port):
        hook = "9\n\n@nonebot.get_driver().on_startup\ndef fails() -> None:\n    raise RuntimeError('not today')\n"
        save(tmp_path, hook)
        host.wait_for("child nonebot: the new one exited 3 before it was ready: .*; the running bot stays")
        assert ask(port) == "1"
        assert "takes over" not in host.text


def pid_in(host: HostProcess, pattern: str) -> int:
    [line] = host.wait_for(pattern)
    match = re.search(pattern, line)
    assert match is not None
    return int(match[1])


SLOW_END = """2

import asyncio

@nonebot.get_driver().on_shutdown
async def slow() -> None:
    await asyncio.sleep(2)
"""

SLOW_START = SLOW_END.replace("shutdown", "startup")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
def test_overlap_waits_for_the_end_of_the_bot_that_was_replaced_before(tmp_path: Path) -> None:
    with reloading_host(tmp_path, "overlap") as (host, port):
        save(tmp_path, SLOW_END)
        host.wait_for("child nonebot stopped after")
        assert ask(port) == "2"
        save(tmp_path, 3)
        host.wait_for("takes over from pid", count=2)  # and the one before takes its time to end
        save(tmp_path, 4)
        host.wait_for("child nonebot stopped after", count=3)
        assert ask(port) == "4"
        steps = re.findall("beside the running bot|stopped after", host.text)
        assert steps == ["beside the running bot", "stopped after"] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot open a port twice")
def test_a_crash_while_the_new_bot_starts_beside_it_leaves_one_bot(tmp_path: Path) -> None:
    with reloading_host(tmp_path, "overlap", LYCOMM_BACKOFF_BASE="0") as (host, port):
        first = pid_in(host, r"child nonebot started \(pid (\d+)\)")
        save(tmp_path, SLOW_START)
        second = pid_in(host, r"a new one started \(pid (\d+)\) beside the running bot")
        os.kill(first, signal.SIGKILL)
        host.wait_for("the new one is not needed: the running bot ends")
        host.wait_for(r"child nonebot started \(pid \d+\)", count=2)
        assert not psutil.pid_exists(second), "the one that was to replace it is still there"
        host.wait_for("child nonebot ready", count=2)
        assert ask(port) == "2"
