"""What the bots of this host, and the trials of their code, say they have written themselves.

Each of them gets a file that takes its record (:mod:`liteyuki_host._child.writes` adds the lines). A host has one
:class:`OwnWrites` for all its bots: bots that share a folder see each other's writes.

How a record is used
--------------------

1. Before a process is spawned, :meth:`OwnWrites.open` makes the file; the child finds its path in the environment,
   opens it and deletes the name. The host keeps its descriptor and reads what is appended.
2. The child adds a line *before* it writes a code file, with the moment and the path. A line without a path that can be
   compared (another program was started, the record is full) makes the record *incomplete* for good.
3. When code files have changed, :meth:`OwnWrites.evidence` reads all records and answers for each change: has one of
   these processes written it, and was it serving then; and if none says so, may one have done it all the same?
4. When the process is gone, the record is closed, and forgotten after ``KEEP_SECONDS``.

Paths are compared by *keys*: the real path of the folder with the name in it, and, for a link, also of the file that it
leads to. Of a path whose folder the audit event does not tell, only the last parts are known (``ANYWHERE``); it matches
every file that ends in them.

Clocks. A line has the child's ``clock()``, which all processes share; it becomes a time of ``time.monotonic()`` here.

Threads. Records are opened, and evidence is made, on the event loop. A record is finished in whatever thread sees its
process end, so it has a lock of its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from liteyuki_host import descriptors
from liteyuki_host._child.writes import ANYWHERE, OVERFLOW, PROGRAM, REPEAT_SECONDS, VARIABLE, clock

KEEP_SECONDS = 60.0
"""How long a write, and the record of a process that has ended, are remembered. A change is seen within 3 s."""

SOON_SECONDS = 1.0
"""From a write to the look that sees it, on a machine that is not overloaded."""

READ_BYTES = 1 << 16
"""Bytes of a record that are read at once."""

ServesAt = Callable[[float], bool]
"""Whether a process was serving at that moment (``time.monotonic()``): neither starting nor ending, and no trial."""


class WriteRecord:
    """What one process says it has written; also what it inherits for that (``ChildHandles``).

    Made by :meth:`OwnWrites.open`. Methods may be called from any thread. Attributes are written by :meth:`read` and
    :meth:`finish` under the record's own lock, and read on the event loop.

    Args:
        serves_at: tells whether the process was serving at a moment.
        wanted: whether there is to be a record; without one it is incomplete from the beginning.
    """

    def __init__(self, serves_at: ServesAt, *, wanted: bool) -> None:
        self.serves_at = serves_at
        self.closed_at: float | None = None
        """``time.monotonic()`` at which the process was found to be gone; None: it is not."""
        self.writes: deque[tuple[float, str]] = deque()
        """Moment and key of each write of the last ``KEEP_SECONDS``."""
        self.keys: set[str] = set()
        """All that it has ever written, at most ``MAX_LINES`` of them."""
        self.is_complete = False
        """Whether all its writes are known: there is a record, it is not full, and no other program was started."""
        self._lock = threading.Lock()  # guards the attributes, and reading the file
        self._path: str | None = None  # of the file; None: there is none
        self._descriptor: int | None = None  # of the file, while the record is open
        self._rest = b""  # the beginning of a line that has not been read to its end
        if wanted:
            self._open()

    def _open(self) -> None:
        """Make the file. Where that cannot be done, nothing is known of the process's writes."""
        try:
            self._descriptor, self._path = tempfile.mkstemp(prefix="lycomm-writes-")
        except OSError:  # no space, no descriptors: the bot starts without it
            return
        descriptors.close_in_forks(self._descriptor)
        self.is_complete = True

    # ChildHandles: what the child inherits. The path alone, as the child opens the file itself.

    @property
    def environment(self) -> dict[str, str]:
        return {} if self._path is None else {VARIABLE: self._path}

    @property
    def popen_options(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Do nothing after the spawn: the record goes on, and is closed by :meth:`finish`."""

    def finish(self) -> None:
        """Read the rest and close the file: the process is gone. What it has written stays known for ``KEEP_SECONDS``.
        More calls do nothing."""
        self.read()
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if self.closed_at is None:
                self.closed_at = time.monotonic()
        if descriptor is None or self._path is None:
            return
        descriptors.close(descriptor)
        with contextlib.suppress(OSError):  # the process has mostly done so, see record_writes()
            os.unlink(self._path)

    def read(self) -> None:
        """Take in the lines that are new, and forget writes that are old."""
        with self._lock:
            while self._descriptor is not None and (block := os.read(self._descriptor, READ_BYTES)):
                *lines, self._rest = (self._rest + block).split(b"\n")
                for line in lines:
                    self._take(line.decode("utf-8", "surrogateescape"))
            oldest = time.monotonic() - KEEP_SECONDS
            while self.writes and self.writes[0][0] < oldest:
                self.writes.popleft()

    def _take(self, line: str) -> None:
        """Take in one line: ``MOMENT PATH``. The caller holds the lock."""
        moment, _, path = line.partition(" ")
        if path in (PROGRAM, OVERFLOW):
            self.is_complete = False
            return
        try:
            at = float(moment) - clock() + time.monotonic()  # the same moment on our clock
        except ValueError:  # the rest of a line that a line break in a file's name has split
            self.is_complete = False
            return
        for key in _written_keys(path):
            self.keys.add(key)
            self.writes.append((at, key))


class OwnWrites:
    """All records of one host. For use on the event loop."""

    def __init__(self, *, wanted: bool) -> None:
        """
        Args:
            wanted: whether any bot of this host is reloaded when its files change. Without that no record is kept.
        """
        self._wanted = wanted
        self._records: list[WriteRecord] = []

    def open(self, serves_at: ServesAt) -> WriteRecord:
        """Make a record for a process that is about to be spawned. Where there is no room for a file, the process
        starts without one.

        Args:
            serves_at: tells whether the process was serving at a moment.
        """
        record = WriteRecord(serves_at, wanted=self._wanted)
        if self._wanted:
            self._forget_old_ones()
            self._records.append(record)
        return record

    def evidence(self) -> Evidence:
        """Read all records, and return what is known at this moment."""
        self._forget_old_ones()
        for record in self._records:
            record.read()
        return Evidence(self._records)

    def _forget_old_ones(self) -> None:
        """Drop the records of processes that have been gone for ``KEEP_SECONDS``."""
        oldest = time.monotonic() - KEEP_SECONDS
        self._records = [record for record in self._records if record.closed_at is None or record.closed_at >= oldest]


class Evidence:
    """Who has written what, as far as it is known when this is made. For some thousand questions about one save."""

    def __init__(self, records: Iterable[WriteRecord]) -> None:
        self._writes: dict[str, list[tuple[float, bool]]] = {}  # by key: when, and whether the writer was serving
        self._all_keys: set[str] = set()  # of everything that any of them has ever written
        self._all_is_complete = True  # every record is
        self._folders: dict[str, str] = {}  # real paths of folders that were asked about, as finding one is slow
        for record in records:
            self._all_is_complete &= record.is_complete
            self._all_keys |= record.keys
            for at, key in record.writes:
                self._writes.setdefault(key, []).append((at, record.serves_at(at)))

    def served_while_writing(self, path: Path, since: float, until: float) -> bool | None:
        """Return whether the process that wrote *path* in that time was serving then; None: no process says that it has
        written it.

        Args:
            since, until: ``time.monotonic()``. With several writes the last one counts. A line stands for all writes of
                the next ``REPEAT_SECONDS``, so one that is older than *since* by that much counts too, if the change
                was seen within ``SOON_SECONDS`` of it. What is seen later may be a developer's.
        """
        if not self._writes:
            return None
        # The folders above count, too: renaming one brings other files to all paths below.
        keys = self._keys(path).union(_ends(path), *map(self._keys, path.parents))
        since = min(since, max(since - REPEAT_SECONDS, until - SOON_SECONDS))
        writes = [write for key in keys for write in self._writes.get(key, ()) if since <= write[0] <= until]
        return max(writes)[1] if writes else None  # of the last one

    def may_have_written(self, path: Path) -> bool:
        """Whether a process may have written *path* without saying so: through a program that it has started, or
        into a file that it had opened before."""
        return not self._all_is_complete or not self._all_keys.isdisjoint(self._keys(path) | _ends(path))

    def _keys(self, path: Path) -> set[str]:
        """Return the keys of *path*, with the folder's real path from the cache."""
        folder = str(path.parent)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return _keys(self._folders[folder], path.name)


def _written_keys(path: str) -> set[str]:
    """Return the keys of the path in a line of a record."""
    if path.startswith(ANYWHERE):
        # `..` says nothing here, so what is left may match more files than were meant, never fewer.
        below = [part for part in path[len(ANYWHERE) :].split(os.sep) if part != os.pardir]
        return {os.path.normcase(ANYWHERE + os.path.join("", *below))}
    folder, name = os.path.split(path)
    return _keys(os.path.realpath(folder), name)


def _ends(path: Path) -> set[str]:
    """Return the keys of *path* for writes below an unknown folder, any of which may be this file: its last part, its
    last two, and so on."""
    parts = path.parts[1:]
    return {os.path.normcase(ANYWHERE + os.path.join(*parts[depth:])) for depth in range(len(parts))}


def _keys(real_folder: str, name: str) -> set[str]:
    """Return the keys of a file in a folder: its place, and, for a link, the place that it leads to."""
    place = os.path.join(real_folder, name)
    places = {place, os.path.realpath(place)} if os.path.islink(place) else {place}
    return set(map(os.path.normcase, places))
