"""One run of a bot: started as an operator would, asked a few things, ended with one Ctrl+C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.compatibility import exchanges
from tests.compatibility.platforms import PLATFORMS, Platform
from tests.compatibility.project import NB, Project

INTERRUPTED = 130
"""What shells say of a program that Ctrl+C has ended."""

READY_SECONDS = 60.0
"""Plugins that look for a browser or draw a first picture take 20 s on a busy machine."""

LISTENING_SECONDS = 5.0
"""From the end of the start-up hooks to the open port."""

SETTLE_SECONDS = 2.0
"""What an adapter gets to try a connection and to log that it failed; most try again after 3 s."""

STOP_SECONDS = 30.0
"""From Ctrl+C to the end; lycomm's own steps take at most 16 s by default."""

LEFT_SECONDS = 2.0
"""What processes of the bot get to end after it."""

FAILED = re.compile(r"\[ERROR\] host \| child nonebot ")
"""The host's line for a bot that did not start. It starts it again then, which ``nb run`` does not."""

READY = re.compile(r"\| Application startup complete(d)?\.")
LISTENS = re.compile(r"\| Uvicorn running on ")
SHUTDOWN_HOOK = "witness: shutdown hook"


def take_signals() -> None:
    """Have SIGINT and SIGTERM end this program as Ctrl+C does.

    A shell has SIGINT ignored in what it starts in the background. The bots would inherit that and ignore Ctrl+C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@dataclass
class Record:
    """What came of one run."""

    ready_seconds: float | None = None
    exit_code: int | None = None
    lines: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    left: int = 0


def nb(project: Project) -> Sequence[str]:
    """``nb run``."""
    return [*NB, "run"]


def lycomm(project: Project) -> Sequence[str]:
    """``lycomm run`` of the project's environment."""
    return [str(project.python.with_name("lycomm")), "run"]


async def run(project: Project, command: Sequence[str]) -> Record:
    """Run the project's bot by *command* from start to end."""
    project.write()
    candidate = project.candidate
    platform = PLATFORMS[candidate.platform]() if candidate.platform else None
    async with contextlib.AsyncExitStack() as stack:
        if platform:
            await stack.enter_async_context(platform.serving(project.platform_port))
        program = await stack.enter_async_context(started(command, project.folder, project.environment()))
        record = Record(lines=program.lines)
        record.ready_seconds = await program.appears(READY, READY_SECONDS, unless=FAILED)
        if record.ready_seconds is None:
            record.lines = list(program.lines)  # without those of the next start
        else:
            await _ask(project, program, platform, record)
        record.exit_code = await program.interrupt()
        record.left = await program.leave(LEFT_SECONDS)
    return record


async def _ask(project: Project, program: Program, platform: Platform | None, record: Record) -> None:
    candidate = project.candidate
    if candidate.has_server:
        await program.appears(LISTENS, LISTENING_SECONDS)
        record.answers |= await exchanges.ask_port(project.bot_port)
    if candidate.client:
        record.answers |= await exchanges.CLIENTS[candidate.client](project.bot_port)
    if platform:
        record.answers |= await exchanges.with_platform(candidate.platform, platform, project.bot_port)
    await program.ends(SETTLE_SECONDS)


class Program:
    """A command in a process group of its own, and the lines it prints. Made by :func:`started`."""

    def __init__(self, process: subprocess.Popen[bytes], output: asyncio.StreamReader, began: float) -> None:
        self.lines: list[str] = []
        self._process = process
        self._output = output
        self._began = began
        # Not asyncio's own processes: their end is only told when nobody has their output open any more, and what is
        # left behind has it open.
        self._end = asyncio.create_task(asyncio.to_thread(process.wait))
        self._tree: dict[int, psutil.Process] = {}
        self._news = asyncio.Condition()
        self._output_ended = False
        self._reader = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def _read(self) -> None:
        rest = b""
        while chunk := await self._output.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            async with self._news:
                self.lines += [line.decode("utf-8", "replace") for line in lines]
                self._news.notify_all()
        async with self._news:
            self.lines += [rest.decode("utf-8", "replace")] if rest else []
            self._output_ended = True
            self._news.notify_all()

    async def appears(
        self, pattern: re.Pattern[str], timeout: float, *, unless: re.Pattern[str] | None = None
    ) -> float | None:
        """Wait until a line has *pattern*.

        Returns:
            Seconds since the start; None if it does not come in time, or a line has *unless* before.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._until(pattern, unless), timeout)
        return None

    async def _until(self, pattern: re.Pattern[str], unless: re.Pattern[str] | None) -> float | None:
        seen = 0
        async with self._news:
            while True:
                for line in self.lines[seen:]:
                    if pattern.search(line):
                        return time.monotonic() - self._began
                    if unless and unless.search(line):
                        return None
                if self._output_ended:
                    return None
                seen = len(self.lines)
                await self._news.wait()

    async def ends(self, timeout: float) -> bool:
        """Wait until it has ended, for at most *timeout* seconds. Returns whether it has."""
        await asyncio.wait([self._end], timeout=timeout)
        return self.ended

    async def interrupt(self) -> int | None:
        """Press Ctrl+C once and wait for the end. Returns the exit code, None if it does not end in time."""
        self._look()
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGINT)
        await self.ends(STOP_SECONDS)
        return self._process.returncode

    async def leave(self, seconds: float) -> int:
        """Kill what is still there after *seconds*, and wait for the last lines. Returns how many were killed."""
        running = [process for process in self._tree.values() if process.is_running()]
        _, left = await asyncio.to_thread(psutil.wait_procs, running, seconds)
        self.kill()
        await asyncio.wait([self._reader], timeout=seconds)
        return len(left)

    def _look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._tree[process.pid] = process

    def kill(self) -> None:
        """End by force what is left."""
        self._look()
        for process in self._tree.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Leave nothing running, whatever has happened."""
        self.kill()
        self._reader.cancel()
        await asyncio.gather(self._reader, self._end, return_exceptions=True)


@contextlib.asynccontextmanager
async def started(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Program]:
    """Start *command* in *folder*; at the end of the block nothing of it is left running."""
    began = time.monotonic()
    process = await asyncio.to_thread(
        subprocess.Popen,
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), process.stdout
    )
    program = Program(process, output, began)
    try:
        yield program
    finally:
        await program.close()
        transport.close()
