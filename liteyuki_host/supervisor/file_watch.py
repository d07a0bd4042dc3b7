"""Notices that the files of a bot were saved: one save is told once, and nothing is told without one.

What the system reports (through ``watchfiles``) is only taken as a hint. Such reports differ between systems and
editors, miss files in folders that have just been made, and come without any change at all. What counts is a
comparison: of each watched file the time of its last change, its size and its number, before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import watchfiles
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.supervisor import code_files
from liteyuki_host.supervisor.code_files import Snapshot, Stamp, is_no_code, is_watched, look_into
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
"""Between two comparisons where the system does not report changes."""

POLLING_SECONDS = 60.0
"""Until the system is asked again for reports: what it was short of, it may have by then."""


class FileWatch:
    """The files of one process: ``.py``, ``.toml`` and ``.env*`` in its ``reload_dirs``, or in its project.

    Caches, virtual environments, version control and what editors leave behind do not count. Symbolic links are
    followed. A folder that is not there is waited for, and its files are not held to be deleted.

    Made on the event loop; the looking is done by a thread of its own, from :meth:`start` to :meth:`close`.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self._name = spec.name
        self._declared = [os.path.abspath(folder) for folder in spec.reload_dirs or [spec.project]]
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._pending: dict[Path, None] = {}  # in the order of their changes
        self._news = asyncio.Event()
        self._stop = threading.Event()
        # From here on only the thread's:
        self._known = Snapshot()
        self._polling = False
        self._poll_until = 0.0  # then the system is asked again
        self._told_of_polling = False
        self._missing: set[str] = set()

    async def start(self) -> None:
        """Returns when it is known what is there now: every change from here on is told. Call once."""
        threading.Thread(target=self._run, name=f"lycomm-reload-{self._name}", daemon=True).start()
        await self._started  # always comes, also when nothing can be looked at yet

    async def changed(self) -> list[Path]:
        """Wait for a save; returns what has changed since the last call, at most ``code_files.MAX_WATCHED`` paths.

        Call it again when what came of it is done: all saves in between are then told as one.
        """
        await self._news.wait()
        self._news.clear()
        pending, self._pending = self._pending, {}
        return list(pending)

    def close(self) -> None:
        """The thread ends in ``STEP_SECONDS``, or when the comparison it is in has ended. More calls do nothing."""
        self._stop.set()

    # On the event loop, posted by the thread.

    def _take(self, paths: list[Path]) -> None:
        self._pending.update(dict.fromkeys(paths[: code_files.MAX_WATCHED - len(self._pending)]))
        self._news.set()

    def _post(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody's interest
            self._loop.call_soon_threadsafe(action)

    # The thread.

    def _run(self) -> None:
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
            except Exception as error:  # what is known stays: it is compared with what is there afterwards
                self._stop.wait(boundary.failed(error))
        self._post(lambda: _done(self._started))

    def _follow(self) -> None:
        """Compare after each hint, until the watched folders are other ones than at the beginning."""
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
                unsure = True  # of the moments before the first report
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
                    f"every {POLL_SECONDS:g} s instead. Out of watches: raise fs.inotify.max_user_watches and "
                    "max_user_instances"
                )

    def _roots(self) -> dict[str, tuple[int, int]]:
        """The declared folders that are there: where they really are, and which ones."""
        found = {}
        for folder in self._declared:
            with contextlib.suppress(OSError):
                real = os.path.realpath(folder)
                info = os.stat(real)
                found[real] = (info.st_dev, info.st_ino)
        return found

    def _is_hint(self, change: watchfiles.Change, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._known.folders:
            return False
        if is_watched(name):
            return True
        if change is watchfiles.Change.deleted:
            return path in self._known.folders
        return not is_no_code(name) and path not in self._known.folders and os.path.isdir(path)

    def _compare(self) -> None:
        """Tell what has changed, if anything has, once it has come to rest."""
        now = self._look()
        deadline = time.monotonic() + LONGEST_SECONDS
        while now.files != self._known.files and time.monotonic() < deadline:
            if self._stop.wait(QUIET_SECONDS):
                return
            before, now = now, self._look()
            if now.files == before.files:
                break
        changed = _difference(self._known.files, now.files)
        self._known = now
        if changed:
            self._post(lambda: self._take(changed))

    def _look(self) -> Snapshot:
        now = Snapshot()
        seen: set[tuple[int, int]] = set()  # folders are met twice: by links, and where declared ones overlap
        for folder in self._declared:
            files = look_into(folder, now, seen)
            if files is not None:
                now.files[folder] = files
                self._missing.discard(folder)
                continue
            if folder not in self._missing:
                self._missing.add(folder)
                logger.warning(f"child {self._name}: folder {folder} is not there; its files are watched once it is")
            if folder in self._known.files:
                now.files[folder] = self._known.files[folder]
        if not now.complete and self._known.complete:
            logger.warning(
                f"child {self._name}: more than {code_files.MAX_WATCHED} files and folders to watch; "
                "the rest is left out. Name the folders with the bot's code in reload_dirs"
            )
        return now


def _difference(before: dict[str, dict[str, Stamp]], now: dict[str, dict[str, Stamp]]) -> list[Path]:
    old = {path: stamp for files in before.values() for path, stamp in files.items()}
    new = {path: stamp for files in now.values() for path, stamp in files.items()}
    return [Path(path) for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path)]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _short(exc: BaseException) -> str:
    """Without the list of paths that the Rust library adds."""
    return str(exc).partition(" about [")[0].rstrip(".")


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
