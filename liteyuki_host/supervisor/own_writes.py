"""What the bots of this host, and the trials of their code, say they have written themselves.

Each of them gets a file that takes its record (:mod:`liteyuki_host._child.writes` adds the lines). A host has one
:class:`OwnWrites` for all its bots: bots that share a folder see each other's writes.
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

ServesAt = Callable[[float], bool]
"""Whether a process was serving at that moment (``time.monotonic()``): neither starting nor ending, and no trial."""


class WriteRecord:
    """What one process says it has written; also what it inherits for that (``ChildHandles``).

    Made by :meth:`OwnWrites.open`. From any thread.
    """

    def __init__(self, serves_at: ServesAt, *, wanted: bool) -> None:
        self.serves_at = serves_at
        self.closed_at: float | None = None
        self.writes: deque[tuple[float, str]] = deque()
        """Moment and key of each write of the last ``KEEP_SECONDS``."""
        self.keys: set[str] = set()
        """All that it has ever written, at most ``MAX_LINES`` of them."""
        self.is_complete = False
        """Whether all its writes are known: there is a record, it is not full, and no other program was started."""
        self._lock = threading.Lock()
        self._path: str | None = None
        self._descriptor: int | None = None
        self._rest = b""
        if wanted:
            self._open()

    def _open(self) -> None:
        try:
            self._descriptor, self._path = tempfile.mkstemp(prefix="lycomm-writes-")
        except OSError:  # no space, no descriptors: the bot starts without it
            return
        descriptors.close_in_forks(self._descriptor)
        self.is_complete = True

    @property
    def environment(self) -> dict[str, str]:
        return {} if self._path is None else {VARIABLE: self._path}

    @property
    def popen_options(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """After the spawn: nothing. The record is closed by :meth:`finish`."""

    def finish(self) -> None:
        """The process is gone. What it has written stays known for ``KEEP_SECONDS``. More calls do nothing."""
        self.read()
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if self.closed_at is None:
                self.closed_at = time.monotonic()
        if descriptor is None or self._path is None:
            return
        descriptors.close(descriptor)
        with contextlib.suppress(OSError):  # the process has done so, see record_writes()
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
        moment, _, path = line.partition(" ")
        if path in (PROGRAM, OVERFLOW):
            self.is_complete = False
            return
        try:
            at = float(moment) - clock() + time.monotonic()
        except ValueError:  # a line break in the name of a file
            self.is_complete = False
            return
        for key in _written_keys(path):
            self.keys.add(key)
            self.writes.append((at, key))


class OwnWrites:
    """All records of one host. For the event loop, except for the records themselves."""

    def __init__(self, *, wanted: bool) -> None:
        """
        Args:
            wanted: whether any bot of this host is reloaded when its files change. Without that no record is kept.
        """
        self._wanted = wanted
        self._records: list[WriteRecord] = []

    def open(self, serves_at: ServesAt) -> WriteRecord:
        """A record for a process yet to be spawned. Without space for it the process starts without a record."""
        record = WriteRecord(serves_at, wanted=self._wanted)
        if self._wanted:
            self._forget_old_ones()
            self._records.append(record)
        return record

    def evidence(self) -> Evidence:
        """What is known at this moment."""
        self._forget_old_ones()
        for record in self._records:
            record.read()
        return Evidence(self._records)

    def _forget_old_ones(self) -> None:
        oldest = time.monotonic() - KEEP_SECONDS
        self._records = [record for record in self._records if record.closed_at is None or record.closed_at >= oldest]


class Evidence:
    """Who has written what, as far as it is known when this is made. For some thousand questions at once."""

    def __init__(self, records: Iterable[WriteRecord]) -> None:
        self._writes: dict[str, list[tuple[float, bool]]] = {}
        self._all_keys: set[str] = set()
        self._all_is_complete = True
        self._folders: dict[str, str] = {}  # where they really are
        for record in records:
            self._all_is_complete &= record.is_complete
            self._all_keys |= record.keys
            for at, key in record.writes:
                self._writes.setdefault(key, []).append((at, record.serves_at(at)))

    def served_while_writing(self, path: Path, since: float, until: float) -> bool | None:
        """Whether the process that wrote *path* in that time was serving then. None: none says to have written it.

        Args:
            since, until: ``time.monotonic()``. With several writes the last one counts. A line stands for all writes of
                the next ``REPEAT_SECONDS``, so one that is older than *since* by that much counts too, if the change
                was seen within ``SOON_SECONDS`` of it. What is seen later may be a developer's.
        """
        if not self._writes:
            return None
        # A folder that was renamed brings other files to all its paths.
        keys = self._keys(path).union(_ends(path), *map(self._keys, path.parents))
        since = min(since, max(since - REPEAT_SECONDS, until - SOON_SECONDS))
        writes = [write for key in keys for write in self._writes.get(key, ()) if since <= write[0] <= until]
        return max(writes)[1] if writes else None

    def may_have_written(self, path: Path) -> bool:
        """Whether a process may have written *path* without saying so: through a program that it has started, or
        into a file that it had opened before."""
        return not self._all_is_complete or not self._all_keys.isdisjoint(self._keys(path) | _ends(path))

    def _keys(self, path: Path) -> set[str]:
        folder = str(path.parent)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return _keys(self._folders[folder], path.name)


def _written_keys(path: str) -> set[str]:
    """What the path of a line of a record is compared by."""
    if path.startswith(ANYWHERE):
        below = [part for part in path[len(ANYWHERE) :].split(os.sep) if part != os.pardir]
        return {os.path.normcase(ANYWHERE + os.path.join("", *below))}
    folder, name = os.path.split(path)
    return _keys(os.path.realpath(folder), name)


def _ends(path: Path) -> set[str]:
    """The path's last part, its last two, and so on: what was written below an unknown folder may be this file."""
    parts = path.parts[1:]
    return {os.path.normcase(ANYWHERE + os.path.join(*parts[depth:])) for depth in range(len(parts))}


def _keys(real_folder: str, name: str) -> set[str]:
    """What a path is compared by: the place where it stands, and the file that it leads to."""
    place = os.path.join(real_folder, name)
    places = {place, os.path.realpath(place)} if os.path.islink(place) else {place}
    return set(map(os.path.normcase, places))
