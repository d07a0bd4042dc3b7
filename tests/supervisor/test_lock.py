"""The same bot never runs twice: real processes over real lock files."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from loguru import logger
from shortage_kit import descriptors_left

from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor import lock as lock_module
from liteyuki_host.supervisor import lock_file
from liteyuki_host.supervisor.lock import AlreadyRuns, HostLocks, InstanceLock, holder_of, started_at

fcntl = pytest.importorskip("fcntl", reason="on Windows the host alone holds the lock")

DEADLINE = 20.0

RACER = """
import os, sys
from pathlib import Path
from liteyuki_host.supervisor.lock import AlreadyRuns, InstanceLock

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
lock = InstanceLock.for_process("bot", folder)
print("up", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    while True:
        try:
            lock.acquire()
            break
        except AlreadyRuns:
            os.sched_yield()
    os.close(os.open(folder / "there can be only one", os.O_CREAT | os.O_EXCL))
    os.sched_yield()
    os.unlink(folder / "there can be only one")
    lock.release()
"""

HOST = """
import os, subprocess, sys, time
from pathlib import Path
from liteyuki_host.supervisor.lock import InstanceLock

lock = InstanceLock.for_process("bot", Path(sys.argv[1]))
lock.acquire()
forked = os.fork()
if forked == 0:
    time.sleep(600)
handles = lock.handles
child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[2]], env={**os.environ, **handles.environment}, start_new_session=True,
    stdout=subprocess.PIPE, text=True, **handles.popen_options,
)
handles.close()
words = child.stdout.readline()
lock.note_child(child.pid)
print(forked, child.pid, words, flush=True)
time.sleep(600)
"""

CHILD = """
import os, subprocess, sys, time
from liteyuki_host._child.guard import arm
arm(os.environ)
forked = os.fork()
if forked == 0:
    time.sleep(600)
print(forked, subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
time.sleep(600)
"""


class Host:
    """Another host with one child that holds the lock too. Each has forked a process, the child also started one."""

    def __init__(self, project: Path) -> None:
        self.popen = subprocess.Popen([sys.executable, "-c", HOST, project, CHILD], stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        pids = self.popen.stdout.readline().split()
        self.fork, self.child, self.grandchild_fork, self.grandchild = (psutil.Process(int(pid)) for pid in pids)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(DEADLINE)

    def close(self) -> None:
        self.kill()
        for process in (self.fork, self.child, self.grandchild_fork, self.grandchild):
            if process.is_running():
                process.kill()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[InstanceLock]:
    lock = InstanceLock.for_process("bot", tmp_path)
    yield lock
    lock.release()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).strip()), format="{message}", level="WARNING")
    yield lines
    logger.remove(sink)


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "ORPHAN_SECONDS", 0.2)


def is_free(project: Path, name: str = "bot") -> bool:
    other = InstanceLock.for_process(name, project)
    try:
        other.acquire()
    except AlreadyRuns:
        return False
    other.release()
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_hosts_racing_for_it_are_never_both_in(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, tmp_path, "200"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "up\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, errors = racer.communicate(timeout=DEADLINE)
        assert (racer.returncode, errors) == (0, "")
    assert is_free(tmp_path)


def test_it_is_taken_once_and_kept_through_restarts(tmp_path: Path, lock: InstanceLock) -> None:
    lock.acquire()
    lock.acquire()
    assert not is_free(tmp_path)
    lock.release()
    lock.release()
    assert is_free(tmp_path)


def test_another_name_for_the_same_project_is_the_same_bot(tmp_path: Path, lock: InstanceLock) -> None:
    lock.acquire()
    assert not is_free(tmp_path, "another")


def test_another_way_to_the_same_folder_is_the_same_bot(tmp_path: Path, lock: InstanceLock) -> None:
    lock.acquire()
    (tmp_path / "link").symlink_to(tmp_path)
    assert not is_free(tmp_path / "link")


def test_git_does_not_see_the_folder(tmp_path: Path, lock: InstanceLock) -> None:
    lock.acquire()
    assert (tmp_path / ".lycomm" / ".gitignore").read_text() == "*\n"


def test_a_refusal_names_the_other_host(host: Host, lock: InstanceLock) -> None:
    started = time.monotonic()
    with pytest.raises(AlreadyRuns) as refusal:
        lock.acquire()
    assert time.monotonic() - started < 1
    since = time.strftime("%Y-%m-%d %H:", time.localtime())
    words = str(refusal.value)
    assert words.startswith(f"the bot already runs under another host (pid {host.popen.pid}, since {since}")
    assert words.endswith(", as bot): stop that one first")


@pytest.mark.usefixtures("short_patience")
def test_a_child_goes_on_holding_it_when_its_host_is_killed(
    host: Host, lock: InstanceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders: list[Any] = []  # instead of ending what they have left behind
    monkeypatch.setattr(InstanceLock, "_end_leftovers", lambda self, holder: bool(holders.append(holder)))
    host.kill()
    with pytest.raises(AlreadyRuns):
        lock.acquire()
    (holder,) = holders
    assert not holder.host_lives()
    assert [child.pid for child in holder.children] == [host.child.pid]


def test_what_host_and_child_have_started_or_forked_does_not_hold_it(host: Host, lock: InstanceLock) -> None:
    host.kill()
    host.child.kill()
    host.child.wait(DEADLINE)
    lock.acquire()
    assert all(process.is_running() for process in (host.fork, host.grandchild_fork, host.grandchild))


@pytest.mark.usefixtures("short_patience")
def test_the_leftover_of_a_killed_host_is_ended(host: Host, lock: InstanceLock, warnings: list[str]) -> None:
    host.kill()
    lock.acquire()
    assert warnings == [f"child bot: ended a leftover of an earlier host (pid {host.child.pid})"]
    _, alive = psutil.wait_procs([host.child, host.grandchild, host.grandchild_fork], DEADLINE)
    assert not alive


def test_a_leftover_may_end_by_itself_first(host: Host, lock: InstanceLock, warnings: list[str]) -> None:
    host.kill()
    ending = threading.Timer(0.2, host.child.kill)
    ending.start()
    lock.acquire()
    ending.join()
    assert warnings == []
    assert host.grandchild.is_running()


@pytest.mark.usefixtures("short_patience")
def test_a_stranger_with_the_pid_of_a_leftover_is_left_alone(host: Host, lock: InstanceLock, tmp_path: Path) -> None:
    host.kill()
    path = tmp_path / ".lycomm" / "host.lock"
    record = json.loads(path.read_text())
    child = {**record["children"][0], "started": record["children"][0]["started"] - 1}
    path.write_text(json.dumps({**record, "children": [child]}))
    with pytest.raises(AlreadyRuns, match=rf"under a host that cannot be seen from here \(pid {host.popen.pid} there"):
        lock.acquire()
    assert host.child.is_running()


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("record", ["", "{", "[]", '{"host": "x"}'])
def test_a_record_that_cannot_be_read_is_no_reason_to_start(lock: InstanceLock, tmp_path: Path, record: str) -> None:
    lock.acquire()
    (tmp_path / ".lycomm" / "host.lock").write_text(record)
    with pytest.raises(AlreadyRuns, match=r"^the bot already runs under another host: stop that one first$"):
        InstanceLock.for_process("bot", tmp_path).acquire()


def test_release_frees_it_whoever_has_inherited_it(lock: InstanceLock, tmp_path: Path) -> None:
    lock.acquire()
    inherited = lock.handles
    children = [subprocess.Popen(["sleep", seconds], **inherited.popen_options) for seconds in ("0", "600")]
    try:
        os.waitid(os.P_PID, children[0].pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert not is_free(tmp_path)
        lock.release()
        assert is_free(tmp_path)
    finally:
        for child in children:
            child.kill()
            child.wait(DEADLINE)


def test_the_handles_are_closed_after_the_spawn_and_the_lock_is_not(lock: InstanceLock, tmp_path: Path) -> None:
    lock.acquire()
    lock.handles.close()
    assert not is_free(tmp_path)


def test_the_record_tells_of_the_children_that_live(lock: InstanceLock, tmp_path: Path) -> None:
    lock.acquire()
    path = tmp_path / ".lycomm" / "host.lock"
    child = subprocess.Popen(["sleep", "600"])
    try:
        lock.note_child(os.getppid())
        lock.note_child(child.pid)
        record = json.loads(path.read_text())
        assert (record["host"], record["host_started"]) == (os.getpid(), started_at(os.getpid()))
        assert record["children"] == [
            {"name": "bot", "pid": pid, "started": started_at(pid)} for pid in (os.getppid(), child.pid)
        ]
    finally:
        child.kill()
        child.wait(DEADLINE)
    lock.release()
    assert path.read_text() == ""


def test_a_process_that_has_ended_has_no_start() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(child.pid) is None
    child.wait(DEADLINE)
    assert started_at(child.pid) is None
    assert started_at(os.getpid()) == started_at(os.getpid()) is not None


# Several processes of one project under one host


def test_processes_of_one_host_share_the_lock_of_their_project(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    locks = HostLocks()
    one, two = locks.for_process("one", tmp_path), locks.for_process("two", tmp_path / "link")
    one.acquire()
    two.acquire()
    assert one.handles.popen_options == two.handles.popen_options != {}
    one.release()
    one.release()
    assert not is_free(tmp_path)
    one.acquire()
    two.release()
    assert not is_free(tmp_path)
    one.release()
    assert is_free(tmp_path)


def test_processes_of_different_projects_share_nothing(tmp_path: Path) -> None:
    locks = HostLocks()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one, two = (locks.for_process(folder.name, folder) for folder in folders)
    one.acquire()
    assert is_free(folders[1])
    two.acquire()
    one.release()
    assert is_free(folders[0])
    assert not is_free(folders[1])
    two.release()


def test_the_record_has_the_children_of_all_names(tmp_path: Path) -> None:
    locks = HostLocks()
    one, two = locks.for_process("one", tmp_path), locks.for_process("two", tmp_path)
    one.acquire()
    two.acquire()
    one.note_child(os.getpid())
    two.note_child(os.getppid())
    holder = holder_of(tmp_path)
    assert holder is not None
    assert [(child.name, child.pid) for child in holder.children] == [("one", os.getpid()), ("two", os.getppid())]
    assert holder.words().endswith(", as one, two): stop that one first")
    one.release()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert [child.name for child in holder.children] == ["two"]
    two.release()
    assert holder_of(tmp_path) is None


@pytest.mark.usefixtures("short_patience")
def test_leftovers_of_all_names_are_ended_once(host: Host, tmp_path: Path, warnings: list[str]) -> None:
    path = tmp_path / ".lycomm" / "host.lock"
    record = json.loads(path.read_text())
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        children = [*record["children"], {"name": "other", "pid": other.pid, "started": started_at(other.pid)}]
        path.write_text(json.dumps({**record, "children": children}))
        host.kill()
        locks = HostLocks()
        shares = [locks.for_process(name, tmp_path) for name in ("x", "y", "z")]
        threads = [threading.Thread(target=share.acquire) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(warnings) == [
            f"child bot: ended a leftover of an earlier host (pid {host.child.pid})",
            f"child other: ended a leftover of an earlier host (pid {other.pid})",
        ]
        assert other.wait(DEADLINE) < 0
        for share in shares:
            assert not is_free(tmp_path)
            share.release()
        assert is_free(tmp_path)
    finally:
        other.kill()
        other.wait(DEADLINE)


def test_shares_that_come_and_go_never_lose_the_lock(tmp_path: Path) -> None:
    """A share that is taken while the last other one is given back must not find the lock held by its own host."""
    locks = HostLocks()
    errors: list[BaseException] = []

    def come_and_go(name: str) -> None:
        lock = locks.for_process(name, tmp_path)
        try:
            for _ in range(200):
                lock.acquire()
                assert lock.handles.popen_options
                lock.release()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=come_and_go, args=[name]) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert errors == []
    assert is_free(tmp_path)
    assert vars(locks)["_projects"] == {}


# Hosts of an earlier version, which lock one file for each name


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[int]:
    """A lock that such a host holds, as process ``web``; its descriptor."""
    (tmp_path / ".lycomm").mkdir()
    descriptor = os.open(tmp_path / ".lycomm" / "web.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield descriptor
    os.close(descriptor)


def test_a_host_of_an_earlier_version_is_respected(tmp_path: Path, earlier: int, lock: InstanceLock) -> None:
    pid = os.getppid()
    os.write(earlier, json.dumps({"host": pid, "host_started": started_at(pid), "since": 1.0}).encode())
    with pytest.raises(AlreadyRuns, match=rf"^the bot already runs under another host \(pid {pid}, since 19"):
        lock.acquire()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert holder.host == pid
    fcntl.flock(earlier, fcntl.LOCK_UN)
    lock.acquire()
    assert not is_free(tmp_path)


@pytest.mark.usefixtures("short_patience")
def test_the_leftover_of_an_earlier_version_is_ended(earlier: int, lock: InstanceLock, warnings: list[str]) -> None:
    child = subprocess.Popen(["sleep", "600"], pass_fds=[earlier], start_new_session=True)
    record = {"host": 1, "host_started": -1.0, "child": child.pid, "child_started": started_at(child.pid)}
    os.write(earlier, json.dumps(record).encode())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), earlier)  # the host itself is gone
    lock.acquire()
    assert warnings == [f"child bot: ended a leftover of an earlier host (pid {child.pid})"]
    assert child.wait(DEADLINE) < 0


# Looking at it only


def test_looking_at_a_lock_writes_and_takes_nothing(tmp_path: Path, lock: InstanceLock) -> None:
    assert holder_of(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    lock.acquire()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert (holder.host, holder.host_lives()) == (os.getpid(), True)
    lock.release()
    assert holder_of(tmp_path) is None
    assert is_free(tmp_path)


# Folders and file systems that do not play along.


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose lock folder cannot be made, not even by root; temporary files are in ``tmp``."""
    project = tmp_path / "project"
    project.mkdir()
    (project / ".lycomm").write_text("a file")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return project


def test_a_project_that_cannot_be_written_is_locked_elsewhere(unwritable: Path, warnings: list[str]) -> None:
    lock = InstanceLock.for_process("bot", unwritable)
    lock.acquire()
    lock.release()
    lock.acquire()
    assert not is_free(unwritable)
    (unwritable.parent / "link").symlink_to(unwritable)
    assert not is_free(unwritable.parent / "link")
    assert not is_free(unwritable, "another")
    assert is_free(unwritable.parent)
    lock.release()
    (folder,) = (unwritable.parent / "tmp").iterdir()
    assert folder.name == f"lycomm-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    ours = [line for line in warnings if line.startswith("child bot:")]
    assert ours[0].startswith(f"child bot: {unwritable} cannot be written (Not a directory); its lock is {folder}/")
    assert len(ours) == 3  # each lock once: this one, and two of is_free()


def test_a_folder_that_others_can_write_is_not_trusted(unwritable: Path, warnings: list[str]) -> None:
    folder = unwritable.parent / "tmp" / f"lycomm-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    lock = InstanceLock.for_process("bot", unwritable)
    lock.acquire()
    assert (lock.handles.environment, lock.handles.popen_options) == ({}, {})
    lock.note_child(os.getpid())
    lock.release()
    assert len(warnings) == 1
    assert "is not this user's alone); nothing keeps a second host from running this bot too" in warnings[0]


def test_a_file_system_without_locks_is_no_reason_not_to_start(
    tmp_path: Path, lock: InstanceLock, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock.acquire()
    lock.acquire()
    assert lock.handles.environment == {}
    assert warnings == [
        "child bot: no lock can be had (No locks available); nothing keeps a second host from running this bot too"
    ]


def test_a_file_of_another_user_is_locked_all_the_same(
    tmp_path: Path, lock: InstanceLock, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.acquire()
    lock.release()
    real_open = os.open

    def only_reading(path: Path, flags: int, mode: int = 0o777) -> int:  # root may write everything
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", only_reading)
    lock.acquire()
    monkeypatch.undo()
    assert not is_free(tmp_path)
    assert warnings == []


def test_no_folder_for_temporary_files_for_a_shortage_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be opened, ``gettempdir()`` says that there is no such folder, and not why."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    with descriptors_left(0), pytest.raises(OSError, match="Too many open files") as failed:
        lock_file.look(tmp_path)
    assert is_shortage(failed.value)
