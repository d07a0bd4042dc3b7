"""Nothing that a child starts outlives its job, however the job ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from windows_kit import ended, watched

from liteyuki_host.supervisor.job_object import CREATE_SUSPENDED, JobObject

assert sys.platform == "win32"

DEADLINE = 20.0  # seconds


@contextmanager
def started(script: Path, job: JobObject, flags: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A child in the job and a handle of the grandchild that it has started."""
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        creationflags=flags,
    )
    assert child.stdout is not None
    job.assign(child)
    with child.stdout as says, watched(int(says.readline().split()[0])) as grandchild:
        yield child, grandchild


@pytest.mark.parametrize("flags", [0, CREATE_SUSPENDED], ids=["running", "suspended"])
@pytest.mark.parametrize("how", ["terminate", "close"])
def test_a_job_ends_the_child_and_what_it_started(how: str, flags: int, children: Path, job: JobObject) -> None:
    with started(children / "parent.py", job, flags) as (child, grandchild):
        assert not ended(grandchild, 0)
        assert child.poll() is None
        getattr(job, how)()
        assert child.wait(DEADLINE) == (1 if how == "terminate" else child.returncode)
        assert ended(grandchild, DEADLINE)


def test_a_child_that_ends_leaves_its_own_children_to_the_job(children: Path, job: JobObject) -> None:
    with started(children / "parent.py", job, CREATE_SUSPENDED) as (child, grandchild):
        child.kill()
        child.wait(DEADLINE)
        assert not ended(grandchild, 0)
        job.close()
        assert ended(grandchild, DEADLINE)


def test_a_descendant_cannot_leave_the_job(job: JobObject) -> None:
    code = (
        "import subprocess, sys\n"
        "try:\n"
        "    flags = subprocess.CREATE_BREAKAWAY_FROM_JOB\n"
        "    subprocess.Popen([sys.executable, '-c', ''], creationflags=flags).wait()\n"
        "except PermissionError:\n"
        "    print('refused')\n"
    )
    # Not the launcher that a virtual environment's python.exe is: it has a job of its own.
    python = getattr(sys, "_base_executable", sys.executable)
    child = subprocess.Popen(
        [python, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        creationflags=CREATE_SUSPENDED,
    )
    job.assign(child)
    out, _ = child.communicate(timeout=DEADLINE)
    assert out.strip() == "refused"


def test_the_holders_death_closes_the_job(children: Path) -> None:
    """The host is killed: no code of ours runs any more, and child and grandchild end all the same."""
    holder = subprocess.Popen(
        [sys.executable, str(children / "holder.py"), str(children / "parent.py")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder.stdout as says:
        first, second = says.readline().split()
        with watched(int(first)) as child, watched(int(second)) as grandchild:
            assert not ended(child, 0)
            assert not ended(grandchild, 0)
            holder.kill()
            assert ended(child, DEADLINE)
            assert ended(grandchild, DEADLINE)
    holder.wait(DEADLINE)


def test_assigning_to_a_closed_job_says_so_and_lets_the_process_run(job: JobObject) -> None:
    job.close()
    job.close()
    job.terminate()
    child = subprocess.Popen(
        [sys.executable, "-c", "print('ran')"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        creationflags=CREATE_SUSPENDED,
    )
    with pytest.raises(OSError, match="closed"):
        job.assign(child)
    out, _ = child.communicate(timeout=DEADLINE)
    assert out.strip() == "ran"


def test_a_child_that_has_already_ended_is_left_alone(job: JobObject) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    child.wait(DEADLINE)
    job.assign(child)
