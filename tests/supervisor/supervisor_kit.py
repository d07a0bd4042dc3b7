"""Fakes and helpers of the supervisor's tests."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import re
import shutil
import sys
import tempfile
import threading
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from liteyuki_host.comm.transport import Transport
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import Transition
from liteyuki_host.supervisor.supervisor import Context, Supervisor

FAKE_PROJECT = Path(tempfile.mkdtemp(prefix="lycomm-test-")) / "fake_project"
"""A copy: the instance lock lies in the project's folder, and two test runs are not one bot."""
shutil.copytree(Path(__file__).parent / "fake_project", FAKE_PROJECT)
atexit.register(shutil.rmtree, FAKE_PROJECT.parent, ignore_errors=True)

DEADLINE = 15.0  # seconds, for anything that takes milliseconds on an idle machine


class FakeSession:
    """The host's end of the JSON lines that fake_project's children speak."""

    def __init__(self, process: str, transport: Transport, listener: Any) -> None:
        self.process = process
        self.stops: list[str] = []
        self._transport = transport
        self.listener = listener
        self._cause: str | None = "the link ended"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):  # as in the hub: the end of the link is told by on_closed
            self._transport.try_write([json.dumps(message).encode() + b"\n"])

    def stop(self, reason: str) -> None:
        self.stops.append(reason)
        self.tell(stop=reason)

    def drain(self, timeout: float) -> None:
        self.tell(drain=timeout)

    def watch(self, interval: float) -> None:
        self.tell(watch=interval)

    def ping(self) -> None:
        self.tell(ping=True)

    def dump_stacks(self) -> None:
        self.tell(dump_stacks=True)

    def close(self, cause: str) -> None:
        self._transport.close()

    def _read(self) -> None:
        buffer, rest = memoryview(bytearray(65536)), b""
        while count := self._transport.read_into(buffer):
            *lines, rest = (rest + bytes(buffer[:count])).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
        self._transport.close()
        self.listener.on_closed(self._cause)
        self._transport.release()  # type: ignore[attr-defined]  # the reading thread was the last user

    def _hear(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            self.listener.on_hello(message["hello"])
        elif "hooks_done" in message:
            self.listener.on_hooks_done(message["hooks_done"], message.get("failed_plugins", []))
        elif "ready" in message:
            self.listener.on_ready(message["ready"], message["details"])
        elif "beat" in message:
            self.listener.on_beat(message["beat"])
        elif "pong" in message:
            self.listener.on_pong()
        elif "more_time" in message:
            self.listener.on_more_time(message["more_time"], message.get("reason", ""))
        elif "drained" in message:
            self.listener.on_drained(message["drained"], message.get("refused", 0), message.get("unfinished", 0))
        elif "goodbye" in message:
            self._cause = None


class FakeHub:
    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []

    def connect(self, process: str, transport: Transport, listener: Any, *, standby: bool = False) -> FakeSession:
        session = FakeSession(process, transport, listener)
        self.sessions.append(session)
        return session


class Events:
    """Records the hooks in order; what is in ``fail`` raises after it was recorded."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.contexts: list[Context] = []
        self.steps: list[Transition] = []
        self.fail: set[str] = set()
        self.hang: set[str] = set()
        self.restarted = asyncio.Event()

    async def before_process_shutdown(self, context: Context) -> None:
        await self._record(f"before shutdown {context.name}", context)

    async def before_process_restart(self, context: Context) -> None:
        await self._record(f"before restart {context.name}", context)

    async def after_restart(self, context: Context) -> None:
        await self._record(f"after restart {context.name}", context)
        self.restarted.set()

    def stepped(self, step: Transition) -> None:
        self.steps.append(step)

    async def _record(self, event: str, context: Context) -> None:
        self.seen.append(event)
        self.contexts.append(context)
        if event in self.fail:
            raise RuntimeError(f"{event} failed on purpose")
        if event in self.hang:
            await asyncio.Event().wait()


class LogLines:
    """What the operator sees, as plain lines; a test may wait for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._new = asyncio.Event()

    def write(self, message: str) -> None:
        self.lines.append(message.rstrip("\n"))
        self._new.set()

    async def line(self, pattern: str, timeout: float = DEADLINE) -> str:
        async def look() -> str:
            while True:
                self._new.clear()
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                await self._new.wait()

        try:
            return await asyncio.wait_for(look(), timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.lines)) from None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.lines)


class Supervise(Protocol):
    def __call__(
        self, *specs: ProcessSpec, hub: FakeHub | None = None, events: Events | None = None
    ) -> AbstractAsyncContextManager[Supervisor]: ...


def plan(spec: ProcessSpec) -> ProjectPlan:
    return ProjectPlan(spec.project, Path(sys.executable), "toml", None)


def child(name: str = "bot", behaviour: str = "", **options: Any) -> ProcessSpec:
    """A declared process that runs fake_project with short seconds."""
    env = {"FAKE_CHILD": behaviour, **options.pop("env", {})}
    options = {"ready_timeout": 20.0, "stop_timeout": 10.0, "backoff_base": 0.05, **options}
    return ProcessSpec(name=name, project=options.pop("project", FAKE_PROJECT), env=env, **options)
