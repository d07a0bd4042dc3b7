"""Can the changed code start? Asked in a throw-away process, while the bot that runs goes on.

The process loads the project as a real start does and ends where the driver would run: no start-up hook, no port, no
link. What the project does when it is imported happens in it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from liteyuki_host import descriptors
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.comm.threads import DaemonThread, call_soon
from liteyuki_host.comm.transport import open_link
from liteyuki_host.supervisor.exits import describe_exit
from liteyuki_host.supervisor.leash import open_leash
from liteyuki_host.supervisor.process import Child
from liteyuki_host.supervisor.spec import ProcessSpec

if TYPE_CHECKING:
    from liteyuki_host.comm.transport import ChildHandles, Transport
    from liteyuki_host.project import ProjectPlan
    from liteyuki_host.supervisor.own_writes import OwnWrites

OUTPUT_BYTES = 16_384
"""Of what the trial prints, the end; a NoneBot traceback with its values is about 8 KB."""

VERDICT_BYTES = 65_536

GONE_SECONDS = 5.0
"""For a trial that has closed its pipe to be gone, and for one that was killed."""

STACKS_SECONDS = 0.5
"""For a trial that has taken too long to write where it is."""

LAST_WORDS_SECONDS = 1.0
"""For what it wrote before its end to be read."""


@dataclass(frozen=True)
class TrialFailure:
    """Why the changed code cannot start."""

    words: str
    """``plugins/weather.py line 12: SyntaxError: invalid syntax``; one line."""
    output: str = ""
    """The end of what the trial printed, where the words do not tell enough."""

    def __str__(self) -> str:
        return f"{self.words}; it printed:\n{self.output}\n" if self.output else self.words


async def trial(
    spec: ProcessSpec,
    plan: ProjectPlan,
    *,
    known_failed: Collection[str] = (),
    timeout: float,
    on_verdict: Callable[[Mapping[str, Any]], None] = lambda verdict: None,
    own_writes: OwnWrites | None = None,
) -> TrialFailure | None:
    """Load the project in a process of its own, which is gone afterwards with all it started; also when cancelled.

    Args:
        known_failed: plugins that the running bot does without; the changed code may, too.
        timeout: seconds that the loading may take.
        on_verdict: called with what the child says when it has loaded the project, or failed to: ``error``, or
            ``failed_plugins`` (name to words), ``listens`` and ``note`` (see ``_child.trial_run``).
        own_writes: takes what the trial says it has written.

    Returns:
        None: it can start, as far as can be told without its start-up hooks.

    Raises:
        OSError, RuntimeError, MemoryError, ProcessFailed: it could not be tried, for a shortage (``comm.shortage``).
    """
    # Its lines are read here and not on a terminal.
    spec = replace(spec, env={**spec.env, "NO_COLOR": "1"})
    with contextlib.ExitStack() as belongings:
        given: list[ChildHandles] = []
        if own_writes is not None:
            record = own_writes.open(lambda moment: False)
            belongings.callback(record.finish)
            given.append(record)
        output = _Tail(spec.name)
        belongings.callback(output.finish)
        try:
            attempt = _Attempt(spec, plan, output, given)
        except ProcessFailed as exc:
            if is_shortage(exc):
                raise
            return TrialFailure(str(exc))
        belongings.callback(attempt.close)
        try:
            verdict, end = await attempt.verdict(timeout)
        finally:
            with anyio.CancelScope(shield=True):
                await attempt.end()
    if output.text:
        logger.debug(f"child {spec.name}: the trial printed:\n{output.text}")
    if verdict is None:
        return TrialFailure(end, output.text)
    on_verdict(verdict)
    return _judge(verdict, known_failed)


def _judge(verdict: dict[str, Any], known_failed: Collection[str]) -> TrialFailure | None:
    if "error" in verdict:
        return TrialFailure(verdict["error"])
    # The first one comes first: one that needs another plugin fails after it.
    failed = [words for name, words in verdict["failed_plugins"].items() if name not in known_failed]
    if not failed:
        return None
    others = len(failed) - 1
    return TrialFailure(
        failed[0] + (f" (and {others} more plugin{'s' if others > 1 else ''} cannot be loaded)" * (others > 0))
    )


def seconds_for(spec: ProcessSpec) -> float:
    """How long the loading of *spec*'s project may take. With a terminal the bot itself has no limit, since somebody
    may be asked something; in a trial nobody is."""
    return min(spec.ready_timeout, ProcessSpec.ready_timeout) if spec.terminal else spec.ready_timeout


class _Attempt:
    """One throw-away process, from its spawn."""

    def __init__(self, spec: ProcessSpec, plan: ProjectPlan, output: _Tail, given: Sequence[ChildHandles]) -> None:
        """
        Args:
            given: what it inherits besides its link and its leash; they stay the caller's.

        Raises:
            ProcessFailed, OSError, RuntimeError, MemoryError: the system refused; nothing is left then.
        """
        loop = asyncio.get_running_loop()
        self._said: asyncio.Future[bytes] = loop.create_future()
        self._gone: asyncio.Future[int] = loop.create_future()
        self._leash = open_leash()
        try:
            self._transport, handles = open_link()  # carries the verdict, nothing else
        except BaseException:
            self._leash.handles.close()
            self._leash.release()
            raise
        said = _settling(loop, self._said)
        name = f"lycomm-trial-{spec.name}"
        self._reader = DaemonThread(lambda: said(_read_line(self._transport)), name=name)
        try:
            self._reader.start()  # before the spawn: no child is without it when no thread can be started
            self._child = Child.spawn(
                spec,
                plan,
                [handles, self._leash.handles, *given],
                _settling(loop, self._gone),
                output=output.fileno,
                arguments=["--trial"],
            )
        except BaseException:
            self.close()
            raise
        finally:
            handles.close()
            self._leash.handles.close()

    async def verdict(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        """What it said; None: nothing, and the words tell how it ended instead."""
        done, _ = await asyncio.wait({self._said}, timeout=timeout)
        if not done:
            # Shows where it is. What does not listen to the signal yet dies of it, which is due anyway.
            self._child.show_stacks(lambda: None)
            await asyncio.wait({self._gone}, timeout=STACKS_SECONDS)
            return None, (
                f"it was not loaded in {timeout:g} s (an import that does not return, or a loop of its own in place of "
                "nonebot.run()?)"
            )
        with contextlib.suppress(ValueError):
            return json.loads(self._said.result()), ""
        await asyncio.wait({self._gone}, timeout=GONE_SECONDS)
        how = describe_exit(self._gone.result()) if self._gone.done() else "closed all its files"
        was = "was " if how.startswith("killed") else ""
        return None, f"it {was}{how} while it was loaded"

    async def end(self) -> None:
        self._child.kill()
        await asyncio.wait({self._gone}, timeout=GONE_SECONDS)

    def close(self) -> None:
        self._leash.release()
        self._transport.close()  # wakes the reader
        if self._reader.ident is not None:
            self._reader.join(LAST_WORDS_SECONDS)
        if not self._reader.is_alive():
            _release(self._transport)


class _Tail:
    """Reads what the trial prints and keeps the end of it."""

    def __init__(self, name: str) -> None:
        self.text = ""
        """Set by :meth:`finish`."""
        self._read_end, self.fileno = os.pipe()
        for end in (self._read_end, self.fileno):
            descriptors.close_in_forks(end)
        self._over = False
        self._reader = DaemonThread(self._read, name=f"lycomm-trial-output-{name}")
        try:
            self._reader.start()
        except BaseException:
            self._close()
            raise

    def finish(self) -> None:
        """The trial is gone; somebody who left its group may still hold the pipe, and is not waited for."""
        self._over = True
        os.write(self.fileno, b"\n")  # after all it wrote, and wakes the reader
        self._reader.join()
        self._close()

    def _close(self) -> None:
        for end in (self._read_end, self.fileno):
            descriptors.close(end)

    def _read(self) -> None:
        tail = bytearray()
        while not self._over and (block := os.read(self._read_end, OUTPUT_BYTES)):
            tail += block
            del tail[:-OUTPUT_BYTES]
        self.text = tail.decode("utf-8", "replace").strip()


def _read_line(transport: Transport) -> bytes:
    """Up to the first line's end; what is there, when there is none."""
    line = bytearray()
    buffer = memoryview(bytearray(4096))
    with contextlib.suppress(OSError):
        while b"\n" not in line and len(line) < VERDICT_BYTES and (count := transport.read_into(buffer)):
            line += buffer[:count]
    return bytes(line)


def _release(transport: Transport) -> None:
    transport.close()
    getattr(transport, "release", transport.close)()  # no thread is in it


def _settling(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """A function for other threads that sets the future's result."""

    def settle(result: Any) -> None:
        call_soon(loop, _settle, future, result)  # if it has ended, so has everybody's interest

    return settle


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
