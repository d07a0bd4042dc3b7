"""How long a reload waits, so that a file that each start writes does not restart the bot for ever.

Who writes a file is not always known (:mod:`liteyuki_host.supervisor.saves`): native code, a program that writes some
seconds after it was started, and everything outside the bot leave no record, and count as a developer. If such a
writer writes once after each start, each restart causes the next one.

What tells such a loop from a developer is its regularity. The changes of a loop come at the same distance from each
start, because the start causes them. A developer who saves after each restart does so after 3 s, then 20 s, then 8 s.
So:

- Each reload is compared with the one before it. It belongs to a row when both were made for a change that came within
  ``LOOP_SECONDS`` of the start, at about the same distance from it (``Moment.is_like``). The names of the files do not
  matter: a loop may write several files in turn, or a new one each time.
- The first ``AT_ONCE`` reloads of a row are made at once. Each further one waits, ``FIRST_WAIT`` seconds and then twice
  as long each time, up to ``LONGEST_WAIT``. Nothing is ever lost: what waits is loaded in the end.
- A change at another distance, or after a longer quiet time, ends the row.
- A change during the wait is a sign of somebody at work, and everything is loaded at once. A loop gives this sign too
  when it writes several times after one start. So it counts only for a file that has nothing to do with the row, unless
  it comes regularly itself; for the files of the row, and for new ones, it counts ``MAX_SIGNS`` times in a row.

A reload after which the bot was not restarted (the change could not start) breaks the row too, since a loop needs the
restart. The changes that follow it are measured from the end of that trial, so trials that cause each other wait as
well.

What this does not bound is a writer at irregular distances: nothing tells it from a developer. Pure: the clock is the
caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

AT_ONCE = 4
"""Reloads of a row that do not wait. With saves spread evenly over 5 to 40 s after a restart, two in succession are
alike once in six times; so a developer meets the first wait about once in 1,300 saves."""

LOOP_SECONDS = 120.0
"""After a start. Later changes belong to no row: a file that is deployed each night at the same hour is no loop."""

ALIKE_SECONDS, ALIKE_SHARE = 1.0, 0.1
"""Two distances are alike when they differ by at most so many seconds, and so much of the shorter one: changes are seen
up to 0.5 s late, and a busy machine runs a timer of the bot late."""

FIRST_WAIT, LONGEST_WAIT = 2.0, 3600.0
"""Seconds. An endless loop leads to 15 restarts in the first hour and a half, then to one an hour."""

MAX_SIGNS = 3
"""Times in a row that a change of the row's own files during a wait ends the wait."""

MAX_FILES = 1000
"""Files of a row that are remembered."""


class Since(Enum):
    """What the distance of a change is measured from."""

    READY = auto()
    """The bot became ready. Also for a change while it starts: there the distance is 0."""
    SPAWN = auto()
    """The bot was spawned, and has ended."""
    TRIAL = auto()
    """A reload that has restarted nothing ended."""


@dataclass(frozen=True)
class Moment:
    """When a file changed, measured from what the project's code did last."""

    since: Since
    seconds: float

    def is_like(self, other: Moment | None) -> bool:
        if other is None or self.since is not other.since:
            return False
        alike = ALIKE_SECONDS + ALIKE_SHARE * min(self.seconds, other.seconds)
        return abs(self.seconds - other.seconds) <= alike


class ReloadPace:
    """The rows of reloads of one process."""

    def __init__(self) -> None:
        self.in_a_row = 0
        """Reloads of the row, up to the last one."""
        self._last: Moment | None = None
        self._files: set[Path] = set()
        self._signs = 0
        self._others: dict[Path, Moment] = {}  # files without part in the row, and when they last were a sign

    def wait_before(self, files: Mapping[Path, bool], moment: Moment) -> float:
        """A reload is due. Return the seconds that it has to wait. To be called once for each reload for files.

        Args:
            files: those that have changed, and whether each was there before.
            moment: of the first of these changes.
        """
        if moment.seconds > LOOP_SECONDS:
            self._begin_row(files, None)
        elif moment.is_like(self._last):
            self.in_a_row += 1
            self._add(files)
            self._last = moment
        elif self.in_a_row <= AT_ONCE or not self._files.isdisjoint(files):
            self._begin_row(files, moment)
        else:
            return 0.0  # a developer beside a loop, which goes on
        if self.in_a_row <= AT_ONCE:
            return 0.0
        # The exponent is bounded because 2.0 to the power of 1024 is an error.
        return min(FIRST_WAIT * 2.0 ** min(self.in_a_row - AT_ONCE - 1, 100), LONGEST_WAIT)

    def is_sign(self, files: Mapping[Path, bool], moment: Moment) -> bool:
        """Files have changed during a wait. Return whether somebody is at work, so that the wait is over."""
        others = [path for path, was_there in files.items() if was_there and path not in self._files]
        signs = [path for path in others if not moment.is_like(self._others.get(path))]
        self._add({path: True for path in others if path not in signs})
        self._others.update(dict.fromkeys(signs[:MAX_FILES], moment))
        while len(self._others) > MAX_FILES:
            del self._others[next(iter(self._others))]
        if signs:
            return True
        self._signs += 1
        return self._signs <= MAX_SIGNS

    @property
    def is_first_wait(self) -> bool:
        """Whether the last reload is the first one of its row that waits."""
        return self.in_a_row == AT_ONCE + 1

    def _begin_row(self, files: Mapping[Path, bool], first: Moment | None) -> None:
        self.in_a_row = 0 if first is None else 1
        self._last = first
        self._files.clear()
        self._others.clear()
        self._signs = 0
        self._add(files)

    def _add(self, files: Mapping[Path, bool]) -> None:
        if len(self._files) + len(files) <= MAX_FILES:
            self._files.update(files)
