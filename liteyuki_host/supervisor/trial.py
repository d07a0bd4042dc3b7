"""Can the changed code start? Asked in a throw-away process, while the bot that runs goes on.

The process loads the project as a real start does and ends where the driver would run: no start-up hook, no port, no
link. What the project does when it is imported happens in it too.

How a trial goes
----------------

1. *Spawn* (:class:`_Attempt`): the child is started like a bot, with ``--trial``. It gets a leash, so that it ends with
   the host, a transport that carries one line, and a pipe for what it prints.
2. *Verdict*: when it has loaded the project, or has failed to, it writes one line of JSON (``_child/trial_run.py``).
   One that takes too long, or ends without a verdict, has failed; its printed output is part of the answer then.
3. *End*: it is killed with everything that it has started, whatever it said, and also when the trial is cancelled.

Threads. Two daemon threads read, one the verdict (it ends with the transport) and one the output (it ends with
:meth:`_Tail.finish`). Both are started before the child, so that no child is left without a reader when the system has
no thread to give. Everything else is on the event loop.
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
"""Bytes of what the trial prints that are kept, the last ones; a NoneBot traceback with its values is about 8 KB."""

VERDICT_BYTES = 65_536
"""Bytes of the verdict, at most; a longer one is not read to its end, and counts as none."""

GONE_SECONDS = 5.0
"""Seconds for a trial that has closed its pipe to be gone, and for one that was killed."""

STACKS_SECONDS = 0.5
"""Seconds for a trial that has taken too long to write the stacks of its threads."""

LAST_WORDS_SECONDS = 1.0
"""Seconds for the thread that reads the verdict to end."""


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
    # What it prints goes into our log, so colors would only be odd characters there.
    spec = replace(spec, env={**spec.env, "NO_COLOR": "1"})
    with contextlib.ExitStack() as belongings:
        given: list[ChildHandles] = []
        if own_writes is not None:
            record = own_writes.open(lambda moment: False)  # a trial never serves
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
            with anyio.CancelScope(shield=True):  # cancelled or not, nothing of it may go on running
                await attempt.end()
    if output.text:
        logger.debug(f"child {spec.name}: the trial printed:\n{output.text}")
    if verdict is None:
        return TrialFailure(end, output.text)
    on_verdict(verdict)
    return _judge(verdict, known_failed)


def _judge(verdict: dict[str, Any], known_failed: Collection[str]) -> TrialFailure | None:
    """Return why a project with that verdict cannot start; None: it can. A plugin that cannot be loaded counts, unless
    the running bot does without it, too."""
    if "error" in verdict:
        return TrialFailure(verdict["error"])
    # In the order of loading. The first one is named: a plugin that needs another fails after it, and because of it.
    failed = [words for name, words in verdict["failed_plugins"].items() if name not in known_failed]
    if not failed:
        return None
    others = len(failed) - 1
    return TrialFailure(
        failed[0] + (f" (and {others} more plugin{'s' if others > 1 else ''} cannot be loaded)" * (others > 0))
    )


def seconds_for(spec: ProcessSpec) -> float:
    """Return the seconds that loading *spec*'s project may take. A bot with a terminal may have more time, since
    somebody may be asked something; in a trial nobody is, so the default is the most."""
    return min(spec.ready_timeout, ProcessSpec.ready_timeout) if spec.terminal else spec.ready_timeout


class _Attempt:
    """One throw-away process, from its spawn to its end. For use on the event loop.

    Call :meth:`verdict`, then :meth:`end`, then :meth:`close`.
    """

    def __init__(self, spec: ProcessSpec, plan: ProjectPlan, output: _Tail, given: Sequence[ChildHandles]) -> None:
        """
        Args:
            given: what it inherits besides its link and its leash; they stay the caller's.

        Raises:
            ProcessFailed, OSError, RuntimeError, MemoryError: the system refused; nothing is left then.
        """
        loop = asyncio.get_running_loop()
        self._said: asyncio.Future[bytes] = loop.create_future()  # its first line, or what there was of it at the end
        self._gone: asyncio.Future[int] = loop.create_future()  # how it has ended
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
            # The child has its copies. As long as ours are open, its end would not be seen.
            handles.close()
            self._leash.handles.close()

    async def verdict(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        """Wait for what it says, for *timeout* seconds at most. Returns that; or None, and words that tell how it has
        ended without."""
        done, _ = await asyncio.wait({self._said}, timeout=timeout)
        if not done:
            # Have it print where it is. A process that does not handle that signal yet dies of it, which is due anyway.
            self._child.show_stacks(lambda: None)
            await asyncio.wait({self._gone}, timeout=STACKS_SECONDS)
            return None, (
                f"it was not loaded in {timeout:g} s (an import that does not return, or a loop of its own in place of "
                "nonebot.run()?)"
            )
        with contextlib.suppress(ValueError):  # no line, or half of one: it ended before it could say anything
            return json.loads(self._said.result()), ""
        await asyncio.wait({self._gone}, timeout=GONE_SECONDS)
        how = describe_exit(self._gone.result()) if self._gone.done() else "closed all its files"
        was = "was " if how.startswith("killed") else ""
        return None, f"it {was}{how} while it was loaded"

    async def end(self) -> None:
        """Kill it with everything that it has started, and wait for its end."""
        self._child.kill()
        await asyncio.wait({self._gone}, timeout=GONE_SECONDS)

    def close(self) -> None:
        """Give back what belongs to it. Waits for the thread that reads the verdict, ``LAST_WORDS_SECONDS`` at most."""
        self._leash.release()
        self._transport.close()  # wakes the reader
        if self._reader.ident is not None:
            self._reader.join(LAST_WORDS_SECONDS)
        # While the thread may be inside the transport, its descriptor must not be given back and used for something
        # else.
        if not self._reader.is_alive():
            _release(self._transport)


class _Tail:
    """Reads what the trial prints and keeps the end of it.

    Attributes:
        fileno: the end of the pipe that the child inherits.
    """

    def __init__(self, name: str) -> None:
        self.text = ""
        """Set by :meth:`finish`."""
        self._read_end, self.fileno = os.pipe()
        for end in (self._read_end, self.fileno):
            descriptors.close_in_forks(end)
        self._over = False  # set by finish(); the thread ends at its next read
        self._reader = DaemonThread(self._read, name=f"lycomm-trial-output-{name}")
        try:
            self._reader.start()
        except BaseException:
            self._close()
            raise

    def finish(self) -> None:
        """End the reading: the trial is gone. A process that has left its group may still hold the pipe, and is not
        waited for."""
        self._over = True
        os.write(self.fileno, b"\n")  # wakes the thread, behind everything that the trial wrote
        self._reader.join()
        self._close()

    def _close(self) -> None:
        """Close both ends of the pipe."""
        for end in (self._read_end, self.fileno):
            descriptors.close(end)

    def _read(self) -> None:
        """Read until :meth:`finish`. Run by the thread."""
        tail = bytearray()
        while not self._over and (block := os.read(self._read_end, OUTPUT_BYTES)):
            tail += block
            del tail[:-OUTPUT_BYTES]
        self.text = tail.decode("utf-8", "replace").strip()


def _read_line(transport: Transport) -> bytes:
    """Read up to the end of the first line; return what there is when the other side ends before. Run by a thread."""
    line = bytearray()
    buffer = memoryview(bytearray(4096))
    with contextlib.suppress(OSError):
        while b"\n" not in line and len(line) < VERDICT_BYTES and (count := transport.read_into(buffer)):
            line += buffer[:count]
    return bytes(line)


def _release(transport: Transport) -> None:
    """Give the transport's descriptors back. Only when no thread can be inside it."""
    transport.close()
    getattr(transport, "release", transport.close)()


def _settling(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """Return a function that sets the future's result, for use in other threads. It does nothing when the loop is
    closed: nobody waits then."""

    def settle(result: Any) -> None:
        call_soon(loop, _settle, future, result)

    return settle


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
