"""Real hosts and real NoneBot children for end-to-end tests.

``HostProcess`` runs a host as its own process, as an operator would. ``running_host`` runs one on the test's loop, with
real children, so that a test can use the host's side of channels directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from ports import free_port as free_port

from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.host import Host

ROOT = Path(__file__).resolve().parents[2]
CHILDREN = ROOT / "tests" / "children"


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def lab_project(folder: Path, driver: str = "~none", port: int | None = None) -> Path:
    """A NoneBot project with the plugin of ``tests/children/lab.py``."""
    write(
        folder,
        {
            "pyproject.toml": '[tool.nonebot]\nadapters = []\nplugins = ["lab"]\nplugin_dirs = []\n',
            ".env": f"DRIVER={driver}\nPORT={port or free_port()}\n",
        },
    )
    shutil.copy(CHILDREN / "lab.py", folder / "lab.py")
    return folder


def _is_bot(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "liteyuki_host.launch" in process.cmdline()
    return False


GUARD_SECONDS = 5.0
"""What the shell beside each bot gets to see the end of its host, on a busy machine."""


class HostProcess:
    """A host in a process of its own, and what it prints."""

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("LYCOMM_")}
        env |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **environment}
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "liteyuki_host", "run"))],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._tree: dict[int, psutil.Process] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, *, count: int = 1, timeout: float = 30) -> list[str]:
        """Wait until *count* lines match; returns them."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [line for line in self.lines if re.search(pattern, line)]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError(f"{len(found)} of {count} lines match {pattern!r} in:\n" + self.text)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def tree(self) -> list[psutil.Process]:
        """The host's descendants, and all that were seen before."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                self._tree[process.pid] = process
        return list(self._tree.values())

    def child(self) -> psutil.Process:
        """The first child bot."""
        return self.children()[0]

    def children(self) -> list[psutil.Process]:
        """The bots, past ones as well."""
        return [process for process in self.tree() if _is_bot(process)]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 15) -> int:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("the host did not end in time:\n" + self.text) from None
        self._reader.join(5)  # its last lines
        return code

    def stop(self) -> int:
        """One Ctrl+C, and the exit code."""
        self.tree()
        self.send(signal.SIGINT)
        return self.wait()

    def close(self) -> None:
        """End whatever is left; what is left after a clean end is a failure."""
        left = [process for process in self.tree() if process.is_running() and process.status() != "zombie"]
        ended = self._process.poll() is not None
        if ended:  # the guards see the host's end a moment later
            left = psutil.wait_procs(left, timeout=GUARD_SECONDS)[1]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not ended:
            self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if ended and left:
            raise AssertionError(f"processes outlived the host: {left}\n{self.text}")


@contextlib.contextmanager
def host_process(folder: Path, *command: str, **environment: str) -> Iterator[HostProcess]:
    host = HostProcess(folder, *command, **environment)
    try:
        yield host
    finally:
        host.close()


class Lab:
    """A host on the test's loop, with lab children."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def channel(self, name: str, kind: Any = None) -> Channel[Any]:
        return Channel(name, kind, exchange=self.host.hub)

    async def ask(self, process: str, do: str, *, timeout: float = 30, **arguments: Any) -> Any:
        """Have a child do something and return the result."""
        return await self.channel(f"{process}-passive").request({"do": do, **arguments}, timeout=timeout)


@contextlib.asynccontextmanager
async def running_host(folder: Path, *processes: str, **settings: Any) -> AsyncIterator[Lab]:
    """A host with one lab child for each name, all ready; stopped at the end, with nothing left behind."""
    declared = {name: {"project": str(lab_project(folder / name))} for name in processes}
    host = Host(folder, processes=declared, **settings)
    serving = asyncio.get_running_loop().create_task(host.serve())
    try:
        for name in processes:
            await _ready(host, name, serving)
        yield Lab(host)
    finally:
        host.stop()
        await asyncio.wait_for(serving, 20)


async def _ready(host: Host, name: str, serving: asyncio.Task[None]) -> None:
    waiting = asyncio.ensure_future(host.wait_ready(name, 30))
    await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        serving.result()
    await waiting


async def eventually(check: Any, timeout: float = 10) -> Any:
    """Await *check* (sync or async) until it gives something true; the fact has no event to wait for."""
    deadline = time.monotonic() + timeout
    while True:
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout} s")
        await asyncio.sleep(0.01)
