"""Notices that the content of a bot's code files has changed: one save is told once, and nothing is told without one.

What the system reports (through ``watchfiles``) is only taken as a hint. Such reports differ between systems and
editors, miss files in folders that have just been made, and come without any change at all. What counts is a
comparison of the files' contents before and after. Who has written them is not looked at here.

Theory of operation
-------------------

A thread has a *snapshot* of what is known (``code_files.py``): each watched file with its content, in short, and each
folder. It waits for hints, and at each one it takes another snapshot and compares:

1. Nothing differs: the hint meant nothing.
2. Something differs: snapshots are taken every ``QUIET_SECONDS`` until two in a row are the same, for
   ``LONGEST_SECONDS`` at most. Then the save is over, and the difference between the first and the last is told once. A
   file that was changed and changed back is no difference.

The thread has three ways to get hints (:meth:`FileWatch._follow`):

- *Reports* of the system, for the real paths of the watched folders. They are asked for anew when these folders are
  other ones than before, as a folder that was replaced is not reported on. What happened in between is found by a
  comparison right after.
- *Polling* where the system cannot report (no watches are left, say), every ``POLL_SECONDS``; it is asked
  again after ``POLLING_SECONDS``.
- *Waiting* while none of the folders is there, every ``TICK_SECONDS``.

A folder that has vanished keeps its files in the snapshot, so that unmounting a disk is not taken for deleting the bot.

Threads and locks
-----------------

Made, started and told on the event loop; ``on_changes`` is called there. Comparisons are made by the thread, and by
:meth:`FileWatch.look` in a worker thread; ``_comparing`` lets only one run at a time, so no change is told twice. It is
held while a save comes to rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import watchfiles
from loguru import logger

from liteyuki_host._child.writes import is_code
from liteyuki_host.boundary import Boundary, in_thread
from liteyuki_host.comm.shortage import FILES, SHORTAGES, remedy
from liteyuki_host.comm.threads import DaemonThread, call_soon
from liteyuki_host.supervisor import code_files
from liteyuki_host.supervisor.code_files import Content, Snapshot, differences, is_no_code, look_into, watched_folders
from liteyuki_host.supervisor.spec import ProcessSpec

QUIET_SECONDS = 0.3
"""A save is over when no watched file has changed for so long. Editors that write twice, or write a new file and
rename it, take a few milliseconds; formatters that run after the save about 0.2 s."""

LONGEST_SECONDS = 2.0
"""A save that goes on for longer (a large checkout) is told as it is; the rest is the next one."""

STEP_SECONDS = 0.1
"""How often the watcher looks for reports and for its end. They are passed on when one step brought no other."""

TICK_SECONDS = 1.0
"""How often it is seen to that the watched folders are still the same ones."""

POLL_SECONDS = 2.0
"""Seconds between two comparisons where the system does not report changes."""

POLLING_SECONDS = 60.0
"""Seconds until the system is asked again for reports: the shortage may be over by then."""


@dataclass(frozen=True)
class Change:
    """One file that holds something else than before."""

    path: Path
    before: Content | None
    """What it held; None: there was no such file."""
    now: Content | None
    """What it holds; None: there is no such file."""
    since: float
    """``time.monotonic()`` at which it was last seen with its old content; the change came after that."""
    seen: float
    """``time.monotonic()`` at which it was seen with its new content; the change came before that."""


class FileWatch:
    """The code files of one process: ``.py`` and ``.env*`` in its project, and its ``pyproject.toml``; where there are
    ``reload_dirs``, each ``.py``, ``.toml`` and ``.env*`` in those.

    Caches, virtual environments, version control and what editors leave behind do not count. Symbolic links are
    followed. A folder that is not there is waited for, and its files are not held to be deleted.

    Made on the event loop; the looking is done by a thread of its own, from :meth:`start` to :meth:`close`.
    """

    def __init__(self, spec: ProcessSpec, on_changes: Callable[[Sequence[Change]], None]) -> None:
        """
        Args:
            on_changes: called on the event loop with the changes that came to rest together, by path.
        """
        self._name = spec.name
        self._folders = watched_folders(spec)
        self._on_changes = on_changes
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()  # the first snapshot is there
        self._stop = threading.Event()  # set by close(); the thread's waits end by it
        self._comparing = threading.Lock()  # one comparison at a time; guards the following two, once start() is over
        self._known = Snapshot()  # what has been told, or was there at the beginning
        self._missing: set[str] = set()  # declared folders that were not there, and the log has told of
        # From here on used by the thread alone.
        self._polling = False  # the system does not report changes
        self._poll_until = 0.0  # time.monotonic() at which it is asked again
        self._told_of_polling = False  # the log has told of it

    async def start(self) -> None:
        """Start the thread, and wait until it is known what is there now: every change from here on is told. Call once.

        Raises:
            RuntimeError, MemoryError: no thread can be started.
        """
        DaemonThread(self._run, name=f"lycomm-reload-{self._name}").start()
        await self._started  # always comes, also when nothing can be looked at yet

    async def look(self) -> None:
        """Wait until every change up to now has been told: for one comparison, and as long as a save takes to come to
        rest. Only after :meth:`start`.

        Raises:
            OSError: there is a shortage; the changes are told later.
        """
        await in_thread(self._compare)

    def close(self) -> None:
        """End the thread, within ``STEP_SECONDS`` or when the comparison that it makes has ended. It is not waited for.
        From any thread; more calls do nothing."""
        self._stop.set()

    def _post(self, action: Callable[[], None]) -> None:
        """Have *action* called on the event loop. Does nothing when that is closed: nobody waits then."""
        call_soon(self._loop, action)

    # --- the thread: waiting for hints ------------------------------------------------------------------------

    def _run(self) -> None:
        """Take the first snapshot, then follow, until :meth:`close`. Any failure is logged once and tried again after a
        while. Run by the thread."""
        boundary = Boundary(f"child {self._name}: looking at its files")
        begun = False
        while not self._stop.is_set():
            try:
                if not begun:
                    self._known = self._look()
                    begun = True
                    self._post(lambda: _done(self._started))
                self._follow()
                boundary.succeeded()
            except Exception as error:  # what is known stays, so the next comparison finds what changed meanwhile
                self._stop.wait(boundary.failed(error))
        self._post(lambda: _done(self._started))  # closed before the first snapshot: start() is not left waiting

    def _follow(self) -> None:
        """Compare after each hint, until the watched folders are other ones than at the beginning, or once where there
        are no reports. The caller calls it again."""
        roots = self._roots()
        if self._polling and time.monotonic() >= self._poll_until:
            self._polling = False
        if self._polling or not roots:
            self._stop.wait(POLL_SECONDS if self._polling else TICK_SECONDS)
            self._compare()
            return
        try:
            reports = watchfiles.watch(
                *roots,
                watch_filter=None,
                stop_event=self._stop,
                step=_ms(STEP_SECONDS),
                debounce=_ms(4 * STEP_SECONDS),  # also with a bot that never ceases to write files
                rust_timeout=_ms(TICK_SECONDS),
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=False,  # True would also hide that there are no watches left
            )
            with contextlib.closing(reports):
                # Changes before the watches were set have not been reported, so the first step compares in any case,
                # also one that brings no report.
                unsure = True
                for report in reports:
                    if unsure or any(self._is_hint(change, path) for change, path in report):
                        self._compare()
                    unsure = False
                    if self._roots() != roots:
                        return
        except FileNotFoundError:  # a folder that has vanished just now
            self._stop.wait(STEP_SECONDS)
        except (OSError, RuntimeError) as exc:  # the library's own error is a RuntimeError
            self._polling = True
            self._poll_until = time.monotonic() + POLLING_SECONDS
            if not self._told_of_polling:
                self._told_of_polling = True
                logger.warning(
                    f"child {self._name}: the system does not report changed files ({_short(exc)}); looking at them "
                    f"every {POLL_SECONDS:g} s instead. What helps: {_remedy(exc)}"
                )

    def _roots(self) -> dict[str, tuple[int, int]]:
        """Return the declared folders that are there: by real path, device and inode, which change when a folder is
        replaced by another one of the same name."""
        found = {}
        for folder in self._folders:
            with contextlib.suppress(OSError):
                real = os.path.realpath(folder.path)
                info = os.stat(real)
                found[real] = (info.st_dev, info.st_ino)
        return found

    def _is_hint(self, change: watchfiles.Change, path: str) -> bool:
        """Whether a report may mean that watched code has changed: it is about a code file in a watched folder, or a
        folder there that has come or gone. Bots write other files all the time; those are not worth a comparison."""
        folder, name = os.path.split(path)
        if folder not in self._known.folders:
            return False
        if is_code(name):
            return True
        if change is watchfiles.Change.deleted:
            return path in self._known.folders
        return not is_no_code(name) and path not in self._known.folders and os.path.isdir(path)

    def _compare(self) -> None:
        """Tell what has changed, if anything has, once it has come to rest. Raises OSError for a shortage. In any
        thread."""
        with self._comparing:
            changes = self._changes()
            if changes:
                self._post(lambda: self._on_changes(changes))

    # --- comparing: the caller of each holds `_comparing`, but for the first snapshot -----------------------------

    def _changes(self) -> list[Change]:
        """Return what differs from what is known, once it has come to rest, and let that be known. Nothing is returned,
        and nothing known, when the watch is closed meanwhile."""
        before, now = self._known, self._look()
        # By path, the end of the snapshot in which its present content was first seen.
        changed = dict.fromkeys((path for path, _, _ in differences(before, now)), now.ended)
        deadline = time.monotonic() + LONGEST_SECONDS
        moving = bool(changed)
        while moving and time.monotonic() < deadline:
            if self._stop.wait(QUIET_SECONDS):
                return []
            last, now = now, self._look()
            moved = [path for path, _, _ in differences(last, now)]
            changed.update(dict.fromkeys(moved, now.ended))
            moving = bool(moved)
        self._known = now
        return [
            Change(Path(path), content_before, content, since=before.began, seen=changed[path])
            for path, content_before, content in differences(before, now)
        ]

    def _look(self) -> Snapshot:
        """Take a snapshot. Logs, once each, a folder that is not there and that there is too much to watch.

        Raises:
            OSError: there is a shortage.
        """
        now = Snapshot(began=time.monotonic())
        seen: set[tuple[int, int]] = set()  # folders are met twice: by links, and where declared ones overlap
        for folder in self._folders:
            known = self._known.files.get(folder.path)
            files = look_into(folder, now, seen, known or {})
            if files is not None:
                now.files[folder.path] = files
                self._missing.discard(folder.path)
                continue
            if folder.path not in self._missing:
                self._missing.add(folder.path)
                logger.warning(
                    f"child {self._name}: folder {folder.path} is not there; its files are watched once it is"
                )
            if known is not None:  # its files are not held to be deleted
                now.files[folder.path] = known
        if not now.complete and self._known.complete:
            logger.warning(
                f"child {self._name}: more than {code_files.MAX_WATCHED} files and folders to watch; "
                "the rest is left out. Name the folders with the bot's code in reload_dirs"
            )
        now.ended = time.monotonic()
        return now


def _ms(seconds: float) -> int:
    """Return milliseconds, as ``watchfiles`` takes them."""
    return round(seconds * 1000)


def _remedy(exc: BaseException) -> str:
    """Return what the operator can do about an error of ``watchfiles``, which mostly has the system's error as text
    only."""
    if "watch limit" in str(exc) or _is(exc, errno.ENOSPC):
        return "raise fs.inotify.max_user_watches (sysctl), or name the folders with the bot's code in reload_dirs"
    if not _is(exc, errno.EMFILE):
        known = SHORTAGES[errno.ENFILE] if _is(exc, errno.ENFILE) else remedy(exc)
        return known or f"wait, the system is asked again every {POLLING_SECONDS:g} s"
    try:  # the error has two causes: no descriptor is left, or no inotify instance
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return remedy(error) or FILES
    return "raise fs.inotify.max_user_instances (sysctl)"


def _is(exc: BaseException, number: int) -> bool:
    """Whether it is the system's error of that number, as an OSError or in the words of the Rust library."""
    return getattr(exc, "errno", None) == number or f"(os error {number})" in str(exc)


def _short(exc: BaseException) -> str:
    """Return the error's text without the list of paths that the Rust library adds."""
    return str(exc).partition(" about [")[0].rstrip(".")


def _done(future: asyncio.Future[None]) -> None:
    """Finish *future*, which may be cancelled or finished already."""
    if not future.done():
        future.set_result(None)
