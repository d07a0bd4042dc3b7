"""The same bot never runs twice: each project has a lock, held by its host and by every child itself.

Two processes on one account is what the platforms punish, so a start is refused as long as an earlier child lives,
also if its host was killed, and also when the other host is somebody else's. The system gives the lock back when the
last holder has died: no crash leaves a stale one.

The lock is the project's, whatever a host calls its processes. Within one host several processes may run one project
(two accounts, one code): they share the lock, which is given back when the last of them is not wanted any more.

Theory of operation
-------------------

Three classes, from the outside in:

- :class:`InstanceLock`: what one declared process has of the lock. The supervisor's task of that process acquires it
  before a start and releases it when nobody wants the process any more.
- :class:`HostLocks`: all locks of one host. It finds the one of a project by the folder's identity, so that two paths
  to one folder mean one lock.
- :class:`_ProjectLock`: the lock of one project: the locked file (``lock_file.py``), and which processes share it.

*Taking it.* The file's lock is tried. If somebody else holds it and that host lives, the start is refused. If that host
is dead, what holds the lock are its children: they end by themselves within ``ORPHAN_SECONDS``, and are killed after
that. On POSIX each child inherits the locked descriptor, so the lock is held until the last one is gone.

*The record.* What the file contains says who holds the lock, for the text of a refusal and for ending what a killed
host left behind. Whether the lock is held is never read from there. A process is named by pid and start time, as a pid
alone may have been given to another process.

*No lock.* Where none can be had (a read-only disk, a network disk without locks) the bot runs without, and a warning
says so. A shortage is different: it passes, so the start fails and is tried again.

Threads. The supervisor acquires in a worker thread, as that waits. Each ``InstanceLock`` is for one thread at a time.
``HostLocks._mutex`` guards which projects have a lock; ``_ProjectLock._mutex`` one lock's state, and is held while its
file is read and written; ``one_at_a_time`` is held while somebody waits for the system's lock. They are never taken in
a circle: ``one_at_a_time`` before ``_ProjectLock._mutex``, and ``HostLocks._mutex`` by itself.

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
"""Seconds that the children of a killed host get to end by themselves. They take 1 to 2 s."""

KILLED_SECONDS = 2.0
"""From the kill of such children to their lock being free: milliseconds, on a machine that is not overloaded."""

POLL_SECONDS = 0.05
"""Between two attempts to lock the file: the system's lock can be waited for, but not with a deadline."""


class AlreadyRuns(ProcessFailed):
    """The project runs under another host, or what an earlier one left cannot be ended; the text says who."""


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One child of the holder, in the record."""

    name: str = ""
    """What its host calls it; empty in the record of an earlier version."""
    pid: int = 0
    started: float | None = None
    """When it began, from :func:`started_at`."""

    def lives(self) -> bool:
        """Whether that very process is there."""
        return _is(self.pid, self.started)

    def end(self) -> bool:
        """Kill it, and its process group if it leads one. Returns False when it is not there, or not ours to kill."""
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
    """The holder of a lock, as the record names it. The defaults stand for a record that does not name one (yet)."""

    host: int = 0
    """Pid."""
    host_started: float | None = None
    """When the host began, from :func:`started_at`."""
    children: tuple[ChildRecord, ...] = ()
    since: float = 0.0
    """``time.time()`` of the acquisition."""

    child: int = 0
    """The only child, in the record of an earlier version."""
    child_started: float | None = None

    def host_lives(self) -> bool:
        """Whether the host is there. False also for one that cannot be seen from here, in another container."""
        return _is(self.host, self.host_started)

    def all_children(self) -> tuple[ChildRecord, ...]:
        """Return the children, also from a record of an earlier version, which has one."""
        earlier = (ChildRecord(pid=self.child, started=self.child_started),) if self.child else ()
        return self.children + earlier

    def words(self) -> str:
        """Return one line: why the project cannot be started, and what to do."""
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
    """Return who holds the lock of the project in *project*; None: nobody, as far as one can see. Writes nothing.

    The holder may be a host in this process, or what a killed host has left behind.
    """
    try:
        record = lock_file.look(project)
    except OSError:
        return None
    return None if record is None else _decode(record)


def project_identity(project: Path) -> object:
    """Return what is equal for two paths to the same folder. Raises OSError: there is none."""
    status = os.stat(project)
    # Some file systems of Windows number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(project)


class HostLocks:
    """The locks of one host; processes that are of one project share one. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._projects: dict[object, _ProjectLock] = {}  # by the folder's identity; those that somebody has or wants
        self._mutex = threading.Lock()  # guards it, and each lock's `interested`

    def for_process(self, name: str, project: Path) -> InstanceLock:
        """Make the share of one process in its project's lock. Nothing is taken yet.

        Args:
            name: what the host calls the process.
            project: the bot's folder; it has to exist when the lock is acquired.
        """
        return InstanceLock(name, project, self)

    def join(self, project: Path, share: InstanceLock) -> _ProjectLock:
        """Return the lock of *project*, however its path is written. It stays known until *share* has left it.

        Raises:
            OSError: there is no such folder.
        """
        folder = project_identity(project)
        with self._mutex:
            lock = self._projects.setdefault(folder, _ProjectLock(project))
            lock.interested.add(share)
            return lock

    def leave(self, lock: _ProjectLock, share: InstanceLock) -> None:
        """Note that *share* has nothing of the lock, and does not wait for it any more."""
        with self._mutex:
            lock.interested.discard(share)
            if not lock.interested:
                self._projects = {folder: other for folder, other in self._projects.items() if other is not lock}


class InstanceLock:
    """The share of one declared process in its project's lock. Made by :meth:`HostLocks.for_process`; held from the
    first start until nobody wants the process any more, through all restarts. For one thread at a time."""

    def __init__(self, name: str, project: Path, locks: HostLocks) -> None:
        self._name = name
        self._project = project
        self._locks = locks
        self._lock: _ProjectLock | None = None  # the one that we have a share in
        self._told: set[str] = set()  # warnings that have been logged

    @classmethod
    def for_process(cls, name: str, project: Path) -> InstanceLock:
        """Make the lock of a process that is the only one of its host."""
        return HostLocks().for_process(name, project)

    @property
    def handles(self) -> InheritedDescriptor:
        """The descriptor that makes a child hold the lock too. None on Windows, where no child outlives its host."""
        descriptor = None if sys.platform == "win32" or self._lock is None else self._lock.descriptor
        return _Shared(LOCK_VARIABLE, descriptor)

    def acquire(self) -> None:
        """Take the lock, and end what a killed host left behind. If this host holds it already, it is shared at once;
        if this process has its share already, nothing happens.

        Blocks for up to ``ORPHAN_SECONDS + KILLED_SECONDS``; not for the event loop.

        Raises:
            AlreadyRuns: somebody else holds it and does not let go.
            OSError: there is a shortage, so it is not known whether the lock is free.
        """
        lock = self._joined()
        if lock is None:
            return
        try:
            with lock.one_at_a_time:
                self._take_in_time(lock)
        finally:
            # Also when refused: the lock of a project that nobody has a share in is forgotten.
            self._leave_without_share(lock)

    def _take_in_time(self, lock: _ProjectLock) -> None:
        """Try until the lock is ours. What a dead host has left gets time to end by itself, then is killed, then gets
        time to be gone. Raises AlreadyRuns."""
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
        """Record a child that has been spawned, so that a later host can end it if it finds it left behind."""
        if self._lock is not None:
            self._lock.note_child(ChildRecord(name=self._name, pid=pid, started=started_at(pid)))

    def release(self) -> None:
        """Give the share back. Call when no child of this process is there any more; more calls do nothing.

        With the last share the lock is free at once, also if a program that a child has started has inherited it.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(self, self._name)
            self._locks.leave(lock, self)

    def _joined(self) -> _ProjectLock | None:
        """Return the lock of the project, to be taken. None: this process has its share already, or there is no
        folder."""
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
        """Leave the lock, unless a share in it was got."""
        if self._lock is None:
            self._locks.leave(lock, self)

    def _take(self, lock: _ProjectLock) -> Holder | None:
        """Try once to get a share. Returns who holds the lock instead; None: the share is ours."""
        holder, warning = lock.take(self)
        if warning is not None:
            self._warn_once(warning)
        if holder is None:
            self._lock = lock
        return holder

    def _end_leftovers(self, holder: Holder) -> bool:
        """Kill the children of a dead host. Returns whether there were any that could be killed."""
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
    """The lock of one project within one host, and which processes have a share in it.

    Methods may be called from any thread. They wait for nothing but the disk.
    """

    def __init__(self, project: Path) -> None:
        self.interested: set[InstanceLock] = set()
        """Those that have a share, or want one. Kept by :class:`HostLocks`."""
        self.one_at_a_time = threading.Lock()
        """Held by whoever waits for the lock to become free: two must not end the same leftovers."""
        self._project = project
        self._mutex = threading.Lock()  # guards what follows
        self._file: LockFile | None = None  # the locked file; None: this host does not hold the lock
        self._without = False  # no lock can be had here: shares are given without it
        self._warning: str | None = None  # what the operator has to know about this lock
        self._shares: set[InstanceLock] = set()
        self._holder = Holder()  # what the record says of us

    @property
    def descriptor(self) -> int | None:
        """The locked descriptor, for children to inherit; None: there is none."""
        file = self._file
        return None if file is None else file.descriptor

    def take(self, share: InstanceLock) -> tuple[Holder | None, str | None]:
        """Give *share* its part of the lock, which is taken first if this host does not have it.

        Returns:
            who holds it instead (None: it is ours now), and what the operator has to know about the lock, if anything.

        Raises:
            OSError: there is a shortage, so it is not known whether the lock is free.
        """
        with self._mutex:
            if self._file is None and not self._without:
                holder = self._try_lock()
                if holder is not None:
                    return holder, self._warning
            self._shares.add(share)
            return None, self._warning

    def note_child(self, child: ChildRecord) -> None:
        """Add a child to the record, and drop those that are gone."""
        with self._mutex:
            # A reload may leave two of one name for a while.
            others = [other for other in self._holder.children if other.pid != child.pid and other.lives()]
            self._record(msgspec.structs.replace(self._holder, children=(*others, child)))

    def release(self, share: InstanceLock, name: str) -> None:
        """Take the share of process *name* back; with the last one, unlock the file."""
        with self._mutex:
            self._shares.discard(share)
            if self._shares:
                children = tuple(child for child in self._holder.children if child.name != name)
                self._record(msgspec.structs.replace(self._holder, children=children))
                return
            file, self._file = self._file, None
            self._without, self._warning = False, None
            if file is not None:
                file.write(b"")  # so that nobody who is refused from now on is told of this host
                file.unlock()  # not only closed: a descriptor that somebody has inherited would keep the lock
                file.close()

    def _try_lock(self) -> Holder | None:
        """Try to lock the file. Returns who holds the lock; None: we do, or no lock can be had. The caller holds the
        mutex."""
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
        # A host of an earlier version locks another file: ours being free does not say that the project is.
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
        """Have no lock from now on, and a warning that says why. The caller holds the mutex."""
        self._without, self._warning = True, _no_lock(exc)

    def _record(self, holder: Holder) -> None:
        """Write the record. The caller holds the mutex."""
        self._holder = holder
        if self._file is not None:
            self._file.write(msgspec.json.encode(holder) + b"\n")


class _Shared(InheritedDescriptor):
    def close(self) -> None:
        """Nothing: the host goes on holding the lock, until :meth:`InstanceLock.release`."""


def started_at(pid: int) -> float | None:
    """Return when that process began, by a clock of the system's own. With the pid it names a process for all time.

    None: there is no such process, or it has ended and only its parent has not taken notice yet (a zombie).
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
    """Whether the process of that pid is there and is the one that began then."""
    return pid > 0 and started is not None and started_at(pid) == started


def _decode(record: bytes) -> Holder:
    """Return what a record says; a holder without a host for one that cannot be read."""
    try:
        return msgspec.json.decode(record, type=Holder)
    except msgspec.DecodeError:  # it is just being written
        return Holder()


def _no_lock(exc: OSError) -> str:
    return f"no lock can be had ({exc.strerror}); nothing keeps a second host from running this bot too"
