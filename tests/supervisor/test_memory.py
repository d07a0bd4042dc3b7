from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from liteyuki_host.supervisor.memory import is_stopped, oom_kills, tree_memory

MB = 1024 * 1024
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")

# Each says that it is there, and ends with its standard input.
SLEEPER = "print('up', flush=True); import sys; sys.stdin.read()"
LARGE = f"import mmap; reserved = mmap.mmap(-1, 500 * {MB}); ballast = bytearray(b'x') * (50 * {MB}); {SLEEPER}"
LARGE_WITH_LARGE_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {LARGE!r}], stdout=subprocess.PIPE)
child.stdout.readline()
ballast = bytearray(b"x") * (50 * {MB})
print(child.pid, flush=True)
sys.stdin.read()
child.wait()
"""


class Running(subprocess.Popen[str]):
    """A program that has written its first line."""

    def __init__(self, program: str) -> None:
        super().__init__([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.stdout is not None
        self.first_line = self.stdout.readline().strip()


Run = Callable[[str], Running]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts programs; leaving ends them."""
    started: list[Running] = []

    def start(program: str) -> Running:
        started.append(Running(program))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its standard input, and waits
            pass


def ended_but_not_waited_for(process: Running) -> int:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process.pid


def a_pid_of_nobody(run: Run) -> int:
    process = run(SLEEPER)
    process.kill()
    process.wait()
    return process.pid


def test_the_memory_of_a_child_counts_what_it_started(run: Run) -> None:
    child = run(LARGE_WITH_LARGE_CHILD)
    grandchild = int(child.first_line)
    tree, alone = tree_memory(child.pid), tree_memory(grandchild)
    assert tree is not None
    assert alone is not None
    assert 50 * MB < alone < 100 * MB
    assert 100 * MB < tree < 200 * MB


def test_a_descendant_that_ends_while_it_is_asked_counts_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    child, ended = run(SLEEPER), run(SLEEPER)
    in_the_list_only = psutil.Process(ended.pid)
    ended.kill()
    ended.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [in_the_list_only])
    assert (tree_memory(child.pid) or 0) > MB


def test_a_child_that_ends_while_it_is_asked_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    child, descendant = run(SLEEPER), run(SLEEPER)

    def end_it_now(self: psutil.Process, recursive: bool) -> list[psutil.Process]:
        child.kill()
        child.wait()
        return [psutil.Process(descendant.pid)]

    monkeypatch.setattr(psutil.Process, "children", end_it_now)
    assert tree_memory(child.pid) is None


def test_nothing_is_known_of_a_process_that_is_gone(run: Run) -> None:
    pid = a_pid_of_nobody(run)
    assert tree_memory(pid) is None
    assert is_stopped(pid) is None


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="Windows has no zombies; macOS lets Python see them since 3.13")
def test_nothing_is_known_of_a_process_that_only_waits_for_its_parent(run: Run) -> None:
    pid = ended_but_not_waited_for(run(SLEEPER))
    assert tree_memory(pid) is None
    assert is_stopped(pid) is None


@posix_only
def test_a_stopped_process_is_told_from_one_that_sleeps(run: Run) -> None:
    process = run(SLEEPER)
    assert is_stopped(process.pid) is False
    process.send_signal(signal.SIGSTOP)
    try:
        os.waitpid(process.pid, os.WUNTRACED)
        assert is_stopped(process.pid) is True
        assert (tree_memory(process.pid) or 0) > MB
    finally:
        process.send_signal(signal.SIGCONT)
    os.waitpid(process.pid, os.WCONTINUED)
    assert is_stopped(process.pid) is False


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as Linux has it")
def test_a_process_that_a_debugger_holds_is_stopped(run: Run) -> None:
    held = run(
        "import ctypes, os, signal; traced = ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0\n"
        "print('traced' if traced else 'refused', flush=True)\n"
        "if traced: os.kill(os.getpid(), signal.SIGSTOP)"
    )
    if held.first_line == "refused":
        pytest.skip("this system allows no ptrace")
    try:
        os.waitpid(held.pid, os.WUNTRACED)
        assert psutil.Process(held.pid).status() == psutil.STATUS_TRACING_STOP
        assert is_stopped(held.pid) is True
    finally:
        held.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts them")
def test_linux_counts_its_oom_kills() -> None:
    count = oom_kills()
    assert count is not None
    assert count >= 0


@pytest.fixture
def linux(tmp_path: Path) -> Callable[..., int | None]:
    """oom_kills() of a system with these files."""

    def count(**files: str) -> int | None:
        names = {
            "vmstat": "proc/vmstat",
            "cgroup": "proc/self/cgroup",
            "own": "cgroups/bots/lycomm/memory.events",
            "top": "cgroups/memory.events",
        }
        for key, text in files.items():
            file = tmp_path / names[key]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return oom_kills(proc=tmp_path / "proc", cgroups=tmp_path / "cgroups")

    return count


VMSTAT = "nr_free_pages 12\noom_kill 40\ndrop_pagecache 7\n"
CGROUP = "4:memory:/old/hierarchy\n0::/bots/lycomm\n"
EVENTS = "low 0\nhigh 9\nmax 8\noom 7\noom_kill 2\noom_group_kill 5\n"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"vmstat": VMSTAT}, 40),
        ({"vmstat": VMSTAT, "cgroup": CGROUP, "own": EVENTS}, 42),
        pytest.param({"cgroup": CGROUP, "own": EVENTS}, 2, id="vmstat is hidden"),
        pytest.param({"vmstat": VMSTAT, "cgroup": CGROUP, "top": EVENTS}, 42, id="seen from inside a container"),
        pytest.param({"vmstat": VMSTAT, "cgroup": "0::/\n", "top": EVENTS}, 42, id="with a cgroup name space"),
        pytest.param({"vmstat": VMSTAT, "cgroup": CGROUP}, 40, id="without the memory controller"),
        pytest.param({"vmstat": VMSTAT, "cgroup": "4:memory:/bots\n", "top": EVENTS}, 40, id="cgroup v1 only"),
        pytest.param({"vmstat": "nr_free_pages 12\n"}, None, id="an old kernel"),
        pytest.param({}, None, id="another system"),
    ],
)
def test_kills_for_memory_are_counted_wherever_they_show(
    linux: Callable[..., int | None], files: dict[str, str], count: int | None
) -> None:
    assert linux(**files) == count


def test_importing_it_does_not_import_psutil() -> None:
    program = "import sys, liteyuki_host.supervisor.memory; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
