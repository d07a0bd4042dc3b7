"""What concerns a host as a whole: many children, memory, start-up, idleness."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measures import Job
from benchmarks.payloads import PAYLOADS
from benchmarks.peers.base import DEADLINE, Result, bare_resident, over_bare, resident
from benchmarks.peers.lycomm import START_SECONDS, Stage, with_host, with_light_host
from benchmarks.peers.lycomm_light import PART, TOPIC
from benchmarks.processes import end_tree
from benchmarks.timing import rate

IDLE_CHILDREN = 5

IDLE_SHARE = 20.0
"""An idle host is watched so many times as long as the clock runs elsewhere: 10 s with half a second."""

SETTLE = 2.0
"""Seconds after everybody is ready before a host counts as idle."""


def measure(job: Job) -> Result:
    return WORK[job.workload + job.subject](job)


# Broadcast.


def _broadcast(job: Job) -> Result:
    names = [f"bot{number}" for number in range(job.children)]

    def work(stage: Stage) -> Result:
        return {"value": publications_per_second(stage, names) * len(names)}

    return with_host(job, names, work)


def publications_per_second(stage: Stage, listeners: Sequence[str]) -> float:
    """Each heard by all listeners, which say so after each part. Two parts are under way: a topic drops what a slow
    subscriber cannot hold."""
    from liteyuki_host.comm import get_channel, publish

    channels = [get_channel(f"{name}-active") for name in listeners]
    payload = PAYLOADS["M"]

    def part() -> None:
        for _ in range(PART):
            publish(TOPIC, payload)

    def all_have_it() -> None:
        for channel in channels:
            channel.receive(DEADLINE)

    def work(parts: int) -> float:
        began = time.perf_counter()
        part()
        for _ in range(parts - 1):
            part()
            all_have_it()
        all_have_it()
        return time.perf_counter() - began

    return rate(work, stage.job.seconds, first=1) * PART


# Memory.


def _memory_of_a_child(job: Job) -> Result:
    """Of the launcher and the child's half, which reads its channel and the shared memory in a thread, without NoneBot.
    Beside it, of one with an event loop: most of the difference is Python's asyncio."""

    def asked(stage: Stage) -> Result:
        stage.ask_thread("reader")
        return own(stage)

    def own(stage: Stage) -> Result:
        (status,) = stage.host.status()
        return over_bare(resident(status["pid"]))

    return {
        **with_light_host(job, ["bench"], "", asked),
        "with an event loop": with_light_host(job, ["bench"], "loop", own)["value"],
        "asyncio alone": over_bare(bare_resident("asyncio"))["value"],
    }


def _memory_of_the_host(job: Job) -> Result:
    with _own_host(1) as host:
        time.sleep(SETTLE)
        return {"value": resident(host.pid) / 2**20}


# Idleness.


def _idleness(job: Job) -> Result:
    with _own_host(IDLE_CHILDREN) as host:
        time.sleep(SETTLE)
        process = psutil.Process(host.pid)
        seconds = IDLE_SHARE * job.seconds
        cpu, switches = process.cpu_times(), _switches(host.pid)
        time.sleep(seconds)
        later = process.cpu_times()
        spent = later.user - cpu.user + later.system - cpu.system
        result = {"value": 100 * spent / seconds}
        if switches is not None:
            result["switches/s"] = ((_switches(host.pid) or switches) - switches) / seconds
        return result


def _switches(pid: int) -> int | None:
    """Context switches of all threads; None: this system does not tell."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
    except OSError:
        return None
    return total


@contextmanager
def _own_host(children: int) -> Iterator[subprocess.Popen[bytes]]:
    """A host in a process that has loaded nothing but it, with NoneBot children, all ready."""
    with tempfile.TemporaryDirectory(prefix="lycomm-benchmarks-") as name:
        folder = Path(name)
        for number in range(children):
            nonebot_project(folder / f"bot{number}", "~none")
        processes = {f"bot{number}": {"project": f"bot{number}"} for number in range(children)}
        (folder / "bot.py").write_text(_BOT.format(processes=processes))
        host = subprocess.Popen([sys.executable, "bot.py"], cwd=folder, stdin=subprocess.DEVNULL)
        try:
            until((folder / "ready").exists, DEADLINE + START_SECONDS * children)
            yield host
        finally:
            end_tree(host, politely=True)


_BOT = textwrap.dedent(
    """\
    from pathlib import Path
    from liteyuki_host import Host

    host = Host(processes={processes})


    @host.on_after_start
    async def tell():
        for process in host.status():
            await host.wait_ready(process["name"])
        Path("ready").touch()


    host.run()
    """
)


# Start-up.


def _start(job: Job) -> Result:
    with tempfile.TemporaryDirectory(prefix="lycomm-benchmarks-") as name:
        folder = Path(name, "bot")
        port = nonebot_project(folder, "~fastapi")
        (folder / "bot.py").write_text("from liteyuki_host import Host\n\nHost().run()\n")
        return time_to_port([sys.executable, "bot.py"], folder, port)


def nonebot_project(folder: Path, driver: str) -> int:
    """A bot without plugins of its own; returns its port."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "pyproject.toml").write_text("[tool.nonebot]\nadapters = []\nplugins = []\n")
    (folder / ".env").write_text(f"DRIVER={driver}\nPORT={port}\n")
    return port


def time_to_port(command: list[str], folder: Path, port: int) -> Result:
    """Seconds from the start of a program until the port accepts. This Python's environment is the active one."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    began = time.perf_counter()
    program = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    try:
        until(lambda: _accepts(port) or program.poll() is not None, DEADLINE)
        taken = time.perf_counter() - began
        if program.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with code {program.returncode} before it was ready")
        return {"value": taken}
    finally:
        end_tree(program, politely=True)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(check: Callable[[], Any], seconds: float) -> None:
    """Look every 5 ms: another process's state has nothing to wait on."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {seconds:g} s")
        threading.Event().wait(0.005)


WORK: dict[str, Callable[[Job], Result]] = {
    "broadcastM": _broadcast,
    "W4child": _memory_of_a_child,
    "W4host": _memory_of_the_host,
    "startready": _start,
    "idlehost": _idleness,
}
