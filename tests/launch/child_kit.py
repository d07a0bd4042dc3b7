"""A real child of a hub in the test itself, with no supervisor between them: the test asks, and hears what it says."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from launch_kit import DEADLINE

from liteyuki_host.comm.channel.channel import Channel
from liteyuki_host.comm.transport import open_link
from liteyuki_host.hub import Hub, SessionListener
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.process import Child
from liteyuki_host.supervisor.spec import ProcessSpec

T = TypeVar("T")


class Watched(SessionListener):
    """The child, what it prints, and the listener on its link."""

    def __init__(self, project: Path, **env: str) -> None:
        self.lines: list[str] = []
        self.beats: list[tuple[float, float]] = []  # when it came, and its `late`
        self.more_time: list[tuple[float, str]] = []
        self.drained: list[tuple[list[str], int, int]] = []
        """Names, events not begun, events unfinished."""
        self.failed_plugins: list[str] | None = None
        self.greeted = self.ready = self.closed = False
        self._exit: int | None = None
        self._changed = threading.Condition()
        self.hub = Hub()
        self.hub.declare_process("nonebot")
        transport, handles = open_link()
        output, childs_output = os.pipe()
        plan = ProjectPlan(project, Path(sys.executable), "toml", None)
        spec = ProcessSpec(name="nonebot", project=project, env=env)
        self.child = Child.spawn(spec, plan, [handles], self._on_exit, output=childs_output)
        os.close(childs_output)
        handles.close()
        self.session = self.hub.connect("nonebot", transport, self)
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    def until(self, look: Callable[[], T | None], what: str, timeout: float = DEADLINE) -> T:
        """The first true value of *look*, asked again whenever something has been heard."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (found := look()):
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} within {timeout} s; its lines:\n" + "\n".join(self.lines)
                self._changed.wait(left)
            return found

    def line(self, pattern: str, *, after: int = 0) -> int:
        """The number of the first line, past or coming, that matches; *after*: not among that many."""

        def look() -> int | None:
            numbers = range(after, len(self.lines))
            return next((n + 1 for n in numbers if re.search(pattern, self.lines[n])), None)

        return self.until(look, f"line like {pattern!r}") - 1

    def tell(self, message: object) -> None:
        """Send it on the bot's passive channel."""
        Channel[Any]("nonebot-passive", None, exchange=self.hub).send(message)

    def end(self) -> int:
        """Stop it; returns its exit code."""
        self.session.stop("the test is over")
        return self.wait()

    def wait(self) -> int:
        self.until(lambda: self._exit is not None and self.closed, "end")
        self._reader.join(DEADLINE)
        assert self._exit is not None
        return self._exit

    def clean_up(self) -> None:
        self.child.kill()
        self.wait()
        self.hub.close("the test is over")

    def _read(self, output: int) -> None:
        with open(output, encoding="utf-8", errors="replace") as file:
            for line in file:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _on_exit(self, returncode: int) -> None:
        with self._heard():
            self._exit = returncode

    # --- SessionListener ------------------------------------------------------------------------------------

    def on_hello(self, pid: int) -> None:
        with self._heard():
            self.greeted = True

    def on_hooks_done(self, adapters: Sequence[str], failed_plugins: Sequence[str]) -> None:
        with self._heard():
            self.failed_plugins = list(failed_plugins)

    def on_ready(self, address: str | None, details: Mapping[str, str]) -> None:
        with self._heard():
            self.ready = True

    def on_beat(self, late: float) -> None:
        with self._heard():
            self.beats.append((time.monotonic(), late))

    def on_more_time(self, seconds: float, reason: str) -> None:
        with self._heard():
            self.more_time.append((seconds, reason))

    def on_drained(self, names: Sequence[str], not_begun: int, unfinished: int) -> None:
        with self._heard():
            self.drained.append((list(names), not_begun, unfinished))

    def on_closed(self, cause: str | None) -> None:
        with self._heard():
            self.closed = True


@contextlib.contextmanager
def watched(project: Path, *, ready: bool = True, **env: str) -> Iterator[Watched]:
    """A child over *project*; the block begins when it is ready (or with its start) and ends it."""
    child = Watched(project, **env)
    try:
        if ready:
            child.until(lambda: child.ready, "readiness")
        yield child
    finally:
        child.clean_up()
