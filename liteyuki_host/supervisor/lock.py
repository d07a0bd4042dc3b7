"""The same bot never runs twice: a lock of the operating system, held by the host and by the child itself.

Two processes on one account is what the platforms punish, so a start is refused as long as an earlier child lives,
also if its host was killed, and also when the other host is somebody else's. The system gives the lock back when the
last holder has died: no crash leaves a stale one.

It is a lock on ``.lycomm/NAME.lock`` in the project's folder. Two names there are two bots (two accounts, one code).
The file's only line says who holds it, for the words of a refusal and for ending what a killed host left behind;
whether it is held is never read from there. The file stays: deleting it would let two hosts lock two files.

Not seen: a host that works on another copy of the folder, and, where the folder cannot be written, one that runs as
another user or with another folder for temporary files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil
from loguru import logger

from liteyuki_host import forks
from liteyuki_host._child.guard import LOCK_VARIABLE
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor.leash import InheritedDescriptor

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ORPHAN_SECONDS = 3.0
"""What a child of a killed host gets to end by itself. It takes it 1 to 2 s."""

KILLED_SECONDS = 2.0
"""From the kill of such a child to its lock being free: milliseconds, on a machine that is not overloaded."""

POLL_SECONDS = 0.05
"""The system's lock can be waited for, but not with a deadline."""

FOLDER = ".lycomm"
LOCKED_BYTE = 1 << 30  # Windows: nobody may read a locked byte, so it is one far behind the text
RECORD_LIMIT = 4096  # bytes; the line has 200


class AlreadyRuns(ProcessFailed):
    """The bot runs under another host, or what an earlier one left cannot be ended; the text says who."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock, as the file says; the defaults: it does not say (yet)."""

    host: int = 0
    """Pid."""
    host_started: float | None = None
    """As :func:`started_at` says."""
    child: int = 0
    child_started: float | None = None
    since: float = 0.0
    """``time.time()`` of the acquisition."""

    def host_lives(self) -> bool:
        return _is(self.host, self.host_started)

    def words(self) -> str:
        if not self.host:
            return "the bot already runs under another host: stop that one first"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        if self.host_lives():
            return f"the bot already runs under another host (pid {self.host}, since {since}): stop that one first"
        return (
            f"the bot already runs under a host that cannot be seen from here (pid {self.host} there, since {since}): "
            "stop it in its container, on its machine, or as its user"
        )

    def end_child(self) -> bool:
        """Kill the child and its process group. False: it is not there, or is not ours to kill."""
        if sys.platform == "win32" or not _is(self.child, self.child_started):
            return False
        try:
            if os.getpgid(self.child) == self.child:
                os.killpg(self.child, signal.SIGKILL)
            else:
                os.kill(self.child, signal.SIGKILL)
        except OSError:
            return False
        return True


class InstanceLock:
    """The lock of one declared process. Made by :meth:`for_process`; held from the first start until nobody wants
    the process any more, through all restarts. For one thread at a time."""

    def __init__(self, name: str, project: Path) -> None:
        self._name = name
        self._project = project
        self._descriptor: int | None = None
        self._holder = Holder()
        self._goes_without = False  # no lock is to be had here
        self._warned = False

    @classmethod
    def for_process(cls, name: str, project: Path) -> InstanceLock:
        """
        Args:
            project: the bot's folder; it has to exist when the lock is acquired.
        """
        return cls(name, project)

    @property
    def handles(self) -> InheritedDescriptor:
        """What makes a child hold the lock too. Empty on Windows, where no child outlives its host."""
        descriptor = None if sys.platform == "win32" else self._descriptor
        return _Shared(LOCK_VARIABLE, descriptor)

    def acquire(self) -> None:
        """Take the lock, and end what a killed host left behind. Already held: nothing happens.

        Blocks for up to ``ORPHAN_SECONDS + KILLED_SECONDS``; not for the event loop.

        Raises:
            AlreadyRuns: somebody else holds it and does not let go.
            OSError: for a shortage it cannot be told.
        """
        deadline = time.monotonic() + ORPHAN_SECONDS
        ended = 0
        while (holder := self.try_acquire()) is not None:
            if holder.host_lives():
                raise AlreadyRuns(holder.words())
            if time.monotonic() >= deadline:
                if ended or not holder.end_child():
                    raise AlreadyRuns(holder.words())
                ended = holder.child
                logger.warning(f"child {self._name}: ended a leftover of an earlier host (pid {ended})")
                deadline = time.monotonic() + KILLED_SECONDS
            time.sleep(POLL_SECONDS)

    def try_acquire(self) -> Holder | None:
        """Take the lock if it is free, without waiting. None: it is ours now. Otherwise: whose it is.

        Raises:
            OSError: for a shortage it cannot be told; nothing is held.
        """
        if self._descriptor is not None or self._goes_without:
            return None
        try:
            descriptor = self._open()
        except OSError as exc:
            if is_shortage(exc) and exc.errno != errno.EROFS:
                raise  # the bot waits, rather than run unprotected from now on
            self._go_without(exc)
            return None
        try:
            held = _lock(descriptor)
        except OSError as exc:  # a network disk without locks
            os.close(descriptor)
            self._go_without(exc)
            return None
        if not held:
            with os.fdopen(descriptor, "rb") as file:
                return _decode(file.read(RECORD_LIMIT))
        forks.close_in_forks(descriptor)
        self._descriptor = descriptor
        pid = os.getpid()
        self._write(Holder(host=pid, host_started=started_at(pid), since=time.time()))
        return None

    def note_child(self, pid: int) -> None:
        """After each spawn: the child that a later host may find left behind."""
        self._write(msgspec.structs.replace(self._holder, child=pid, child_started=started_at(pid)))

    def release(self) -> None:
        """When no child is there any more. Free at once, whoever may have inherited it. Idempotent."""
        self._goes_without = False
        descriptor = self._descriptor
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)  # the next one to be refused is not told of us
        self._descriptor = None
        with contextlib.suppress(OSError):
            _unlock(descriptor)
        forks.close(descriptor)

    def _open(self) -> int:
        try:
            return _open_file(_project_folder(self._project) / f"{self._name}.lock")
        except OSError as exc:
            if is_shortage(exc) and exc.errno != errno.EROFS:
                raise  # another lock than that of hosts that are not short of anything
            path = _user_folder() / f"{_key(self._project)}-{self._name}.lock"
            descriptor = _open_file(path)
            self._warn(f"{self._project} cannot be written ({exc.strerror}); its lock is {path}")
            return descriptor

    def _go_without(self, exc: OSError) -> None:
        self._goes_without = True
        self._warn(f"no lock can be had ({exc.strerror}); nothing keeps a second host from running this bot too")

    def _warn(self, words: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(f"child {self._name}: {words}")

    def _write(self, holder: Holder) -> None:
        self._holder = holder
        if self._descriptor is not None:
            line = msgspec.json.encode(holder) + b"\n"
            with contextlib.suppress(OSError):  # a full disk, or a file of another user: words only
                os.ftruncate(self._descriptor, 0)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                os.write(self._descriptor, line)


class _Shared(InheritedDescriptor):
    def close(self) -> None:
        """Nothing: the host goes on holding the lock, until :meth:`InstanceLock.release`."""


def started_at(pid: int) -> float | None:
    """When that process began, on a clock of the system's own; with the pid it names a process for all time.

    None: there is none, or only what is left of it until its parent has taken notice.
    """
    if sys.platform == "linux":
        # psutil's answer moves when somebody sets the clock. This one counts ticks from the boot.
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else float(fields[19])  # fields 3 and 22 of proc(5)
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, OSError):
        return None


def _is(pid: int, started: float | None) -> bool:
    return pid > 0 and started is not None and started_at(pid) == started


def _decode(record: bytes) -> Holder:
    try:
        return msgspec.json.decode(record, type=Holder)
    except msgspec.DecodeError:  # it is just being written
        return Holder()


def _project_folder(project: Path) -> Path:
    folder = project / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        with contextlib.suppress(OSError):  # a full disk; nothing depends on it
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder


def _user_folder() -> Path:
    """For projects that cannot be written. Raises PermissionError when somebody else has made it."""
    if sys.platform == "win32":  # its folder for temporary files is the user's own
        folder = Path(tempfile.gettempdir()) / "lycomm"
        folder.mkdir(exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"lycomm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(errno.EACCES, f"{folder} is not this user's alone")
    return folder


def _key(project: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(project))).hexdigest()[:16]


def _open_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)  # made by another user; it can be locked all the same


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            if exc.errno not in (errno.EACCES, 0):  # Wine gives no reason
                raise
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> bool:
        """Whether it is ours now. The lock is the open file's: it lasts until all who inherit that have gone."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
