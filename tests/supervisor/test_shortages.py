"""What is short for a moment, at every step of a start: the start is tried again, and nothing half made is left."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from shortage_kit import descriptors_left, threads_left
from supervisor_kit import FAKE_PROJECT, Events, LogLines, Supervise, child, plan

from liteyuki_host import boundary
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.hub import Hub
from liteyuki_host.supervisor import process, stopping, vigil
from liteyuki_host.supervisor.lock import AlreadyRuns, HostLocks, InstanceLock
from liteyuki_host.supervisor.process_output import Output
from liteyuki_host.supervisor.spawning import Spawner
from liteyuki_host.supervisor.spec import ProcessSpec, Strategy
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.supervisor import Supervisor

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")]

NO_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
NO_PROCESS = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
NO_MEMORY = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "FIRST_DELAY", 0.05)


def status(supervisor: Supervisor, name: str = "bot") -> Any:
    return next(status for status in supervisor.status() if status.name == name)


class Refusing:
    """Stands in for a function and raises, as often as it is told to."""

    def __init__(self, function: Callable[..., Any], error: BaseException, times: float = 0) -> None:
        self.function, self.error, self.times = function, error, times
        self.refused = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.refused < self.times:
            self.refused += 1
            raise self.error
        return self.function(*args, **kwargs)


# Every step of one spawn.


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lycomm-")]


async def all_given_back(descriptors: int) -> None:
    """What just ends is waited for; what does not end is shown."""
    me = psutil.Process()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        gc.collect()
        if me.num_fds() <= descriptors and not ours() and not me.children():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"left: {me.num_fds() - descriptors} descriptors, threads {ours()}, processes {me.children()}")


@pytest.mark.parametrize("limit", [descriptors_left, threads_left], ids=lambda limit: limit.__name__)
async def test_two_hundred_spawns_that_fail_half_way_leave_nothing(limit: Any, tmp_path: Path) -> None:
    """With room for none of what a spawn needs, for one, for two, and so on until it succeeds; then from the start."""
    hub = Hub()
    hub.declare_process("bot")
    spec = ProcessSpec("bot", FAKE_PROJECT, env={"FAKE_CHILD": ""})
    output, python = Output("bot", show=()), Path(sys.executable)
    spawner = Spawner(spec, hub, output, inspect=plan, host_python=python, locks=HostLocks())
    before = psutil.Process().num_fds()
    failed: list[Exception] = []
    succeeded = room = 0
    while len(failed) + succeeded < 200:
        try:
            with limit(room):
                life = await spawner.spawn(asyncio.Event())
        except Exception as error:
            failed.append(error.with_traceback(None))
            room += 1
        else:
            await stopping.end_at_once(spec, life)
            succeeded, room = succeeded + 1, 0
    spawner.release()
    await all_given_back(before)
    hub.close("the test is over")
    assert len(failed) > 3 * succeeded > 0, (len(failed), succeeded)
    assert [error for error in failed if not is_shortage(error)] == []


@pytest.mark.parametrize(
    "error", [NO_PROCESS, FileNotFoundError(), MemoryError()], ids=lambda error: type(error).__name__
)
async def test_a_refused_spawn_closes_its_pipe(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe of its output, both ends, and the thread that reads it; and all else that was made for it."""
    hub = Hub()
    hub.declare_process("bot")
    spec = ProcessSpec("bot", FAKE_PROJECT)
    output = Output("bot", show=())
    spawner = Spawner(spec, hub, output, inspect=plan, host_python=Path(sys.executable), locks=HostLocks())
    before = psutil.Process().num_fds()
    refusing = refuse(monkeypatch, "subprocess.Popen", error, times=3)
    for _ in range(3):
        with pytest.raises((ProcessFailed, MemoryError)):
            await spawner.spawn(asyncio.Event())
    spawner.release()
    await all_given_back(before)
    assert refusing.refused == 3
    hub.close("the test is over")


# What becomes of the bot.


REFUSALS = [
    pytest.param("socket.socketpair", NO_FILES, id="socketpair"),
    pytest.param("os.pipe", NO_FILES, id="pipe"),
    pytest.param("subprocess.Popen", NO_PROCESS, id="fork"),
    pytest.param("subprocess.Popen", NO_MEMORY, id="memory of fork"),
    pytest.param("subprocess.Popen", MemoryError(), id="memory"),
    pytest.param("threading.Thread.start", RuntimeError("can't start new thread"), id="thread"),
    pytest.param("liteyuki_host.supervisor.lock_file._open", OSError(errno.ENOSPC, "No space left"), id="disk"),
    pytest.param("liteyuki_host.supervisor.lock_file._open", OSError(errno.EIO, "I/O error"), id="disk fault"),
]


@pytest.mark.parametrize(("where", "error"), REFUSALS)
async def test_a_start_is_refused_until_it_is_not(
    where: str, error: BaseException, supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = refuse(monkeypatch, where, error, times=3)
    async with supervise(child(backoff_base=0.05, max_restarts=1)) as supervisor:  # three are more than that
        await supervisor.wait_ready("bot", 20)
        assert refusing.refused == 3
        assert status(supervisor).restarts == 3
        told = [step.state for step in supervisor.history("bot")]
        assert told.count(State.BACKING_OFF) == 3
        assert State.FAILED not in told
    assert log_lines.count("child bot could not be started: .*; trying again in .* What helps: ") == 3
    assert log_lines.count("please report") == 0


def refuse(monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException, times: float) -> Refusing:
    from pydoc import locate

    function: Any = locate(where)
    refusing = Refusing(function, error, times)

    def stand_in(*args: Any, **kwargs: Any) -> Any:  # a function, which can be a method
        return refusing(*args, **kwargs)

    monkeypatch.setattr(where, stand_in)
    return refusing


async def test_an_error_that_nobody_knows_is_tried_again_within_the_limit(
    supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "subprocess.Popen", ZeroDivisionError(), times=float("inf"))
    async with supervise(child(backoff_base=0.01, max_restarts=2)) as supervisor:
        with pytest.raises(ProcessFailed, match="could not be started: ZeroDivisionError"):
            await supervisor.wait_ready("bot", 20)
        assert status(supervisor).state is State.FAILED
    assert log_lines.count("child bot could not be started; please report this") == 3


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC])
async def test_what_waiting_cannot_cure_is_final_at_once(
    number: int, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = refuse(monkeypatch, "subprocess.Popen", OSError(number, os.strerror(number)), times=float("inf"))
    async with supervise(child()) as supervisor:
        with pytest.raises(ProcessFailed):
            await supervisor.wait_ready("bot", 20)
        assert status(supervisor).state is State.FAILED
        assert refusing.refused == 1


async def test_neighbours_are_not_restarted_for_a_start_that_was_refused(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervise(child("one", strategy=Strategy.ALL), child("two")) as supervisor:
        await supervisor.wait_ready("two", 20)
        await supervisor.wait_ready("one", 20)
        two = status(supervisor, "two").pid
        await supervisor.astop("one")
        refuse(monkeypatch, "subprocess.Popen", NO_PROCESS, times=2)
        supervisor.start("one")
        await supervisor.wait_ready("one", 20)
        assert status(supervisor, "two").pid == two


async def test_a_stop_ends_the_waiting(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "subprocess.Popen", NO_PROCESS, times=float("inf"))
    async with supervise(child(backoff_base=60.0)) as supervisor:
        with pytest.raises(ProcessFailed, match="Resource temporarily unavailable"):
            await supervisor.astart("bot")
        await asyncio.wait_for(supervisor.astop("bot"), 5)
        assert status(supervisor).state is State.STOPPED


async def test_a_lock_that_cannot_be_had_for_a_shortage_is_not_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, nothing would keep a second host from running the bot too: for as long as it is wanted here."""
    refuse(monkeypatch, "liteyuki_host.supervisor.lock_file._open", NO_FILES, times=1)
    lock, other = InstanceLock.for_process("bot", tmp_path), InstanceLock.for_process("bot", tmp_path)
    with pytest.raises(OSError, match="Too many open files"):
        lock.acquire()
    lock.acquire()
    with pytest.raises(AlreadyRuns):
        other.acquire()
    lock.release()


# While it serves.


async def test_memory_that_cannot_be_measured_ends_nothing(
    supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "MEMORY_SECONDS", 0.02)
    async with supervise(child(memory_limit=1 << 40)) as supervisor:
        await supervisor.wait_ready("bot", 20)
        pid = status(supervisor).pid
        with descriptors_left(0):
            await log_lines.line("child bot: measuring its memory failed: Too many open files; trying again")
            assert status(supervisor).state is State.READY
        await log_lines.line("child bot: measuring its memory works again")
        assert status(supervisor).pid == pid
    assert log_lines.count("measuring its memory failed") == 1


async def test_a_watch_that_fails_leaves_the_bot_alone_and_goes_on(
    supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", 20)
        pid = status(supervisor).pid
        refuse(monkeypatch, "liteyuki_host.supervisor.vigil.Vigil.look", MemoryError(), times=3)
        await log_lines.line("child bot: its supervision failed: no memory left; trying again")
        await log_lines.line("child bot: its supervision works again")
        assert (status(supervisor).pid, status(supervisor).state) == (pid, State.READY)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # and an end is noticed
        await log_lines.line("child bot killed by SIGKILL")
        await supervisor.wait_ready("bot", 20)


async def test_a_child_that_cannot_be_ended_in_order_is_killed(
    supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervise(child(), child("other")) as supervisor:
        await supervisor.wait_ready("bot", 20)
        await supervisor.wait_ready("other", 20)
        refuse(monkeypatch, "liteyuki_host.supervisor.stopping.climb", MemoryError(), times=1)
        await asyncio.wait_for(supervisor.arestart("bot"), 20)
        assert status(supervisor, "other").restarts == 0
    assert log_lines.count("child bot: ending it in order failed: no memory left") == 1


async def test_the_thread_that_waits_for_the_end_survives_an_error(
    supervise: Supervise, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "os.waitid", NO_MEMORY, times=2)
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", 20)
        pid = status(supervisor).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await log_lines.line("child bot killed by SIGKILL")
        await supervisor.wait_ready("bot", 20)
    assert log_lines.count("child bot: waiting for its end failed: Cannot allocate memory") == 1


async def test_without_threads_a_bot_can_still_be_stopped(supervise: Supervise) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", 20)
        with threads_left(0):
            await asyncio.wait_for(supervisor.astop("bot"), 10)
        assert status(supervisor).state is State.STOPPED


async def test_who_is_told_of_states_may_fail(supervise: Supervise, log_lines: LogLines) -> None:
    class Failing(Events):
        def stepped(self, step: Any) -> None:
            raise MemoryError

    async with supervise(child(), events=Failing()) as supervisor:
        await supervisor.wait_ready("bot", 20)
    assert log_lines.count("child bot: telling of its state failed: no memory left") > 0


# Another interpreter is asked.


@pytest.mark.parametrize(
    ("script", "final"),
    [
        ("echo 'OSError: [Errno 24] Too many open files' >&2; exit 1", ""),
        ("echo MemoryError >&2; exit 1", ""),
        ("kill -9 $$", ""),
        ("echo 'lycomm?'; echo 'ImportError: no such thing' >&2; exit 1", "cannot run lycomm: ImportError"),
        ("echo 'lycomm?'; exit 3", "cannot run lycomm: exited 3"),
        ("exit 3", "is no Python interpreter that answers"),
    ],
)
def test_an_interpreter_that_was_short_of_something_is_asked_again(script: str, final: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    if final:
        assert final in str(process.why_no_host_in(python, tmp_path))
    else:
        with pytest.raises(ProcessFailed, match="cannot run lycomm"):
            process.why_no_host_in(python, tmp_path)


def test_a_probe_that_the_system_refuses_says_nothing_of_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "subprocess.Popen", NO_PROCESS, times=1)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        process.why_no_host_in(Path(sys.executable), tmp_path)
    assert subprocess.Popen is not None
