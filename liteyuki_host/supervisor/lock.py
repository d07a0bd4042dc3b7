"""The same bot never runs twice: each project has a lock, held by its host and by every child itself.

Two processes on one account is what the platforms punish, so a start is refused as long as an earlier child lives,
also if its host was killed, and also when the other host is somebody else's. The system gives the lock back when the
last holder has died: no crash leaves a stale one.

The lock is the project's, whatever a host calls its processes. Within one host several processes may run one project
(two accounts, one code): they share the lock, which is given back when the last of them is not wanted any more.

Beside the lock stands a record: who holds it, for the words of a refusal and for ending what a killed host left
behind. Whether it is held is never read from there.

Not seen: a host that works on another copy of the folder, and, where the folder cannot be written, one that runs as
another user or with another folder for temporary files. A host of an earlier version is seen by this one; it does not
see this one.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
from loguru import logger

from liteyuki_host._child.guard import LOCK_VARIABLE
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor import lock_file
from liteyuki_host.supervisor.leash import InheritedDescriptor
from liteyuki_host.supervisor.lock_file import LockFile

ORPHAN_SECONDS = 3.0
"""What the children of a killed host get to end by themselves. It takes them 1 to 2 s."""

KILLED_SECONDS = 2.0
"""From the kill of such children to their lock being free: milliseconds, on a machine that is not overloaded."""

POLL_SECONDS = 0.05
"""The system's lock can be waited for, but not with a deadline."""


class AlreadyRuns(ProcessFailed):
    """The project runs under another host, or what an earlier one left cannot be ended; the text says who."""


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One child of the holder."""

    name: str = ""
    """What its host calls it; empty in the record of an earlier version."""
    pid: int = 0
    started: float | None = None
    """As :func:`started_at` says."""

    def lives(self) -> bool:
        return _is(self.pid, self.started)

    def end(self) -> bool:
        """Kill it and its process group. False: it is not there, or is not ours to kill."""
        if sys.platform == "win32" or not self.lives():
            return False
        try:
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        except OSError:
            return False
        return True


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock, as the record says; the defaults: it does not say (yet)."""

    host: int = 0
    """Pid."""
    host_started: float | None = None
    """As :func:`started_at` says."""
    children: tuple[ChildRecord, ...] = ()
    since: float = 0.0
    """``time.time()`` of the acquisition."""

    child: int = 0
    """The only child, in the record of an earlier version."""
    child_started: float | None = None

    def host_lives(self) -> bool:
        return _is(self.host, self.host_started)

    def all_children(self) -> tuple[ChildRecord, ...]:
        earlier = (ChildRecord(pid=self.child, started=self.child_started),) if self.child else ()
        return self.children + earlier

    def words(self) -> str:
        """Why the project cannot be started, and what to do."""
        if not self.host:
            return "the bot already runs under another host: stop that one first"
        if self.host_lives():
            return f"the bot already runs under another host ({self._who('')}): stop that one first"
        return (
            f"the bot already runs under a host that cannot be seen from here ({self._who(' there')}): "
            "stop it in its container, on its machine, or as its user"
        )

    def _who(self, there: str) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        names = ", ".join(dict.fromkeys(child.name for child in self.children if child.name))
        return f"pid {self.host}{there}, since {since}" + (f", as {names}" if names else "")


def holder_of(project: Path) -> Holder | None:
    """Who holds the lock of the project in *project*; None: nobody, as far as one can see. Writes nothing.

    Also a host in this process, and what a killed host has left behind.
    """
    try:
        record = lock_file.look(project)
    except OSError:
        return None
    return None if record is None else _decode(record)


def project_identity(project: Path) -> object:
    """Equal for two paths to the same folder. Raises OSError: there is none."""
    status = os.stat(project)
    # Some file systems of Windows number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(project)


class HostLocks:
    """The locks of one host: those of its processes that are of one project share one. From any thread."""

    def __init__(self) -> None:
        self._projects: dict[object, _ProjectLock] = {}
        self._mutex = threading.Lock()

    def for_process(self, name: str, project: Path) -> InstanceLock:
        """
        Args:
            project: the bot's folder; it has to exist when the lock is acquired.
        """
        return InstanceLock(name, project, self)

    def join(self, project: Path, share: InstanceLock) -> _ProjectLock:
        """The lock of *project*, however the path is written, which stays known until *share* has left it.

        Raises:
            OSError: there is no such folder.
        """
        folder = project_identity(project)
        with self._mutex:
            lock = self._projects.setdefault(folder, _ProjectLock(project))
            lock.interested.add(share)
            return lock

    def leave(self, lock: _ProjectLock, share: InstanceLock) -> None:
        """*share* has nothing of the lock, and does not wait for it any more."""
        with self._mutex:
            lock.interested.discard(share)
            if not lock.interested:
                self._projects = {folder: other for folder, other in self._projects.items() if other is not lock}


class InstanceLock:
    """What one declared process has of its project's lock. Made by :meth:`HostLocks.for_process`; held from the first
    start until nobody wants the process any more, through all restarts. For one thread at a time."""

    def __init__(self, name: str, project: Path, locks: HostLocks) -> None:
        self._name = name
        self._project = project
        self._locks = locks
        self._lock: _ProjectLock | None = None
        self._told: set[str] = set()

    @classmethod
    def for_process(cls, name: str, project: Path) -> InstanceLock:
        """The lock of a process that is the only one of its host."""
        return HostLocks().for_process(name, project)

    @property
    def handles(self) -> InheritedDescriptor:
        """What makes a child hold the lock too. Empty on Windows, where no child outlives its host."""
        descriptor = None if sys.platform == "win32" or self._lock is None else self._lock.descriptor
        return _Shared(LOCK_VARIABLE, descriptor)

    def acquire(self) -> None:
        """Take the lock, and end what a killed host left behind. Held by this host already: it is shared at once.

        Blocks for up to ``ORPHAN_SECONDS + KILLED_SECONDS``; not for the event loop.

        Raises:
            AlreadyRuns: somebody else holds it and does not let go.
            OSError: for a shortage it cannot be told.
        """
        lock = self._joined()
        if lock is None:
            return
        try:
            with lock.one_at_a_time:
                self._take_in_time(lock)
        finally:
            self._leave_without_share(lock)

    def _take_in_time(self, lock: _ProjectLock) -> None:
        deadline = time.monotonic() + ORPHAN_SECONDS
        ended = False
        while (holder := self._take(lock)) is not None:
            if holder.host_lives():
                raise AlreadyRuns(holder.words())
            if time.monotonic() >= deadline:
                if ended or not self._end_leftovers(holder):
                    raise AlreadyRuns(holder.words())
                ended = True
                deadline = time.monotonic() + KILLED_SECONDS
            time.sleep(POLL_SECONDS)

    def note_child(self, pid: int) -> None:
        """After each spawn: a child that a later host may find left behind."""
        if self._lock is not None:
            self._lock.note_child(ChildRecord(name=self._name, pid=pid, started=started_at(pid)))

    def release(self) -> None:
        """When no child of this process is there any more. With the last process of the project the lock is free at
        once, whoever may have inherited it. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(self, self._name)
            self._locks.leave(lock, self)

    def _joined(self) -> _ProjectLock | None:
        """None: there is nothing to take."""
        if self._lock is not None:
            return None
        try:
            return self._locks.join(self._project, self)
        except OSError as exc:  # the folder has gone since it was looked at; the spawn will say so
            if is_shortage(exc):
                raise
            self._warn_once(_no_lock(exc))
            return None

    def _leave_without_share(self, lock: _ProjectLock) -> None:
        if self._lock is None:
            self._locks.leave(lock, self)

    def _take(self, lock: _ProjectLock) -> Holder | None:
        holder, warning = lock.take(self)
        if warning is not None:
            self._warn_once(warning)
        if holder is None:
            self._lock = lock
        return holder

    def _end_leftovers(self, holder: Holder) -> bool:
        ended = [child for child in holder.all_children() if child.end()]
        for child in ended:
            name = child.name or self._name
            logger.warning(f"child {name}: ended a leftover of an earlier host (pid {child.pid})")
        return bool(ended)

    def _warn_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            logger.warning(f"child {self._name}: {words}")


class _ProjectLock:
    """The lock of one project within one host, and which processes have a share in it. From any thread; no method
    waits for anything but the disk."""

    def __init__(self, project: Path) -> None:
        self.interested: set[InstanceLock] = set()
        """Those that have a share, or want one. Kept by :class:`HostLocks`."""
        self.one_at_a_time = threading.Lock()
        """Held by whoever waits for the lock to become free: two must not end the same leftovers."""
        self._project = project
        self._mutex = threading.Lock()
        self._file: LockFile | None = None  # ours, locked
        self._without = False  # no lock is to be had here
        self._warning: str | None = None
        self._shares: set[InstanceLock] = set()
        self._holder = Holder()

    @property
    def descriptor(self) -> int | None:
        file = self._file
        return None if file is None else file.descriptor

    def take(self, share: InstanceLock) -> tuple[Holder | None, str | None]:
        """Give *share* its part of the lock, which is taken first if this host does not have it.

        Returns:
            whose it is, None: ours now; and what the operator has to know about the lock, if anything.

        Raises:
            OSError: for a shortage it cannot be told.
        """
        with self._mutex:
            if self._file is None and not self._without:
                holder = self._try_lock()
                if holder is not None:
                    return holder, self._warning
            self._shares.add(share)
            return None, self._warning

    def note_child(self, child: ChildRecord) -> None:
        with self._mutex:
            # A reload may leave two of one name for a while.
            others = [other for other in self._holder.children if other.pid != child.pid and other.lives()]
            self._record(msgspec.structs.replace(self._holder, children=(*others, child)))

    def release(self, share: InstanceLock, name: str) -> None:
        with self._mutex:
            self._shares.discard(share)
            if self._shares:
                children = tuple(child for child in self._holder.children if child.name != name)
                self._record(msgspec.structs.replace(self._holder, children=children))
                return
            file, self._file = self._file, None
            self._without, self._warning = False, None
            if file is not None:
                file.write(b"")  # the next one to be refused is not told of us
                file.unlock()
                file.close()

    def _try_lock(self) -> Holder | None:
        try:
            file, elsewhere = lock_file.open_for(self._project)
        except OSError as exc:
            if is_shortage(exc) and exc.errno != errno.EROFS:
                raise  # the bot waits, rather than run unprotected from now on
            self._go_without(exc)
            return None
        if elsewhere is not None:
            self._warning = f"{self._project} cannot be written ({elsewhere.strerror}); its lock is {file.path}"
        try:
            is_ours = file.try_lock()
        except OSError as exc:  # a network disk without locks
            file.close()
            self._go_without(exc)
            return None
        try:
            record = lock_file.held_by_earlier_version(self._project) if is_ours else file.read()
        except OSError:
            file.unlock()
            file.close()
            raise
        if record is not None:
            if is_ours:
                file.unlock()
            file.close()
            return _decode(record)
        self._file = file
        pid = os.getpid()
        self._record(Holder(host=pid, host_started=started_at(pid), since=time.time()))
        return None

    def _go_without(self, exc: OSError) -> None:
        self._without, self._warning = True, _no_lock(exc)

    def _record(self, holder: Holder) -> None:
        self._holder = holder
        if self._file is not None:
            self._file.write(msgspec.json.encode(holder) + b"\n")


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


def _no_lock(exc: OSError) -> str:
    return f"no lock can be had ({exc.strerror}); nothing keeps a second host from running this bot too"
