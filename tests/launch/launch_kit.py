"""A real host process over a real NoneBot project, and the lines both say."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

import psutil
from ports import free_port as free_port

MINI_HOST = Path(__file__).parent / "children" / "mini_host.py"
DEADLINE = 30.0  # seconds; importing NoneBot and FastAPI takes 1 to 2 of them here


class StartHost(Protocol):
    def __call__(self, project: Path, **spec: object) -> HostProcess: ...


class HostProcess:
    def __init__(self, project: Path, **spec: object) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LYCOMM_", "NONEBOT_"))}
        self.popen = subprocess.Popen(
            [sys.executable, str(MINI_HOST), json.dumps({"project": str(project), "backoff_base": 0.2, **spec})],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**env, "PYTHONUTF8": "1"},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._queue.put(line.decode("utf-8", "replace").rstrip("\n"))
        self._queue.put(None)

    def line(self, pattern: str, timeout: float = DEADLINE) -> str:
        """The first line, past or coming, that matches."""
        for line in self.lines:
            if re.search(pattern, line):
                return line
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def child_pid(self) -> int:
        match = re.search(r"pid (\d+)", self.line(r"child nonebot started \(pid \d+\)"))
        assert match
        return int(match[1])

    def stop(self) -> None:
        """One Ctrl+C; until everything has ended."""
        self.popen.send_signal(signal.SIGINT)
        self.wait()

    def wait(self) -> None:
        """Until the host and everybody who could still write to its output are gone."""
        self.popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert not self._reader.is_alive(), "somebody who was started by the host is still there"
        while (line := self._queue.get(timeout=DEADLINE)) is not None:
            self.lines.append(line)
        self._queue.put(None)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                for process in [*psutil.Process(self.popen.pid).children(recursive=True), self.popen]:
                    process.kill()
                raise
        self._reader.join(DEADLINE)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def until(condition: object, timeout: float) -> float:
    """Seconds until ``condition()`` holds. Only for facts about strangers' processes, which nothing reports."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout:
            raise AssertionError(f"not so within {timeout} s")
        time.sleep(0.01)
    return time.monotonic() - started


PYPROJECT = """\
[tool.nonebot]
plugin_dirs = ["plugins"]

[tool.nonebot.adapters]
nonebot-adapter-onebot = [{ name = "OneBot V11", module_name = "nonebot.adapters.onebot.v11" }]
"""


def make_project(
    folder: Path,
    plugin: str = "",
    *,
    port: int = 0,
    driver: str = "~fastapi",
    pyproject: str = PYPROJECT,
    bot: str = "",
) -> Path:
    """An ordinary NoneBot project with one plugin."""
    (folder / "plugins").mkdir(parents=True)
    (folder / ".env").write_text(f"DRIVER={driver}\nHOST=127.0.0.1\nPORT={port or free_port()}\n")
    if plugin:
        (folder / "plugins" / "mine.py").write_text(plugin)
    if pyproject:
        (folder / "pyproject.toml").write_text(pyproject)
    if bot:
        (folder / "bot.py").write_text(bot)
    return folder
