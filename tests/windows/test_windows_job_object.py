"""Nothing that a child starts outlives its job, however the job ends."""

from __future__ import annotations

import _winapi
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from liteyuki_host.supervisor.job_object import CREATE_SUSPENDED, JobObject

assert sys.platform == "win32"

DEADLINE = 20.0  # seconds

SYNCHRONIZE = 0x00100000


@pytest.fixture
def job() -> Iterator[JobObject]:
    job = JobObject.create()
    yield job
    job.close()


def start(script: Path, job: JobObject | None, flags: int = 0) -> tuple[subprocess.Popen[str], int]:
    """A child in the job and a handle of the grandchild that it has started."""
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        creationflags=flags,
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    )
    if job is not None:
        job.assign(child)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline().split()[0])
    return child, _winapi.OpenProcess(SYNCHRONIZE, False, grandchild)


def ended(process: int, seconds: float) -> bool:
    return bool(_winapi.WaitForSingleObject(process, int(seconds * 1000)) == _winapi.WAIT_OBJECT_0)


@pytest.mark.parametrize("flags", [0, CREATE_SUSPENDED], ids=["running", "suspended"])
@pytest.mark.parametrize("how", ["terminate", "close"])
def test_a_job_ends_the_child_and_what_it_started(how: str, flags: int, children: Path, job: JobObject) -> None:
    child, grandchild = start(children / "parent.py", job, flags)
    assert not ended(grandchild, 0)
    assert child.poll() is None
    getattr(job, how)()
    assert child.wait(DEADLINE) == (1 if how == "terminate" else child.returncode)
    assert ended(grandchild, DEADLINE)
    child.communicate()


def test_a_child_that_ends_leaves_its_own_children_to_the_job(children: Path, job: JobObject) -> None:
    child, grandchild = start(children / "parent.py", job, CREATE_SUSPENDED)
    child.kill()
    child.wait(DEADLINE)
    assert not ended(grandchild, 0)
    job.close()
    assert ended(grandchild, DEADLINE)
    child.communicate()


def test_a_descendant_cannot_leave_the_job(job: JobObject) -> None:
    code = (
        "import subprocess, sys\n"
        "try:\n"
        "    flags = subprocess.CREATE_BREAKAWAY_FROM_JOB\n"
        "    subprocess.Popen([sys.executable, '-c', ''], creationflags=flags)\n"
        "except PermissionError:\n"
        "    print('refused')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
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
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    )
    assert holder.stdout is not None
    pids = [int(pid) for pid in holder.stdout.readline().split()]
    processes = [_winapi.OpenProcess(SYNCHRONIZE, False, pid) for pid in pids]
    assert len(processes) == 2
    assert not any(ended(process, 0) for process in processes)
    holder.kill()
    assert all(ended(process, DEADLINE) for process in processes)
    holder.communicate()


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
