"""Decides which changes of a bot's code files are saves that call for a reload, and which the bot has made itself.

A bot that writes code files of its own must not be reloaded for that for ever, and a developer's save must not be lost
at any moment. The rules, in this order:

1. What was on the disk before the running bot was spawned is loaded: it is no save. So nothing that happens while a
   bot is being stopped for a restart leads to a second one.
2. What a bot or a trial says to have written itself while it was starting, ending or being tried is no save.
3. What a bot says to have written itself while it was serving is a save (a bot may install plugins), but not again:
   not within ``AGAIN_SECONDS`` of ready when it was started for a write of its own to that file, or for nothing but
   writes of its own. From then on nothing that it writes so soon after a start is obeyed, and that file never.
4. What nobody says to have written is a developer's save, whenever it comes. One that comes during a start or a trial
   is obeyed afterwards. Only where a bot has started other programs, which may write without a record, a file that
   changes during two starts in a row, or during two trials in a row, is not obeyed the second time and later.

So a loop ends after at most one superfluous restart, and what is not obeyed is told. Loops of writers that leave no
record are slowed down by :mod:`liteyuki_host.supervisor.reload_pace`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from loguru import logger

from liteyuki_host.supervisor.code_files import Content
from liteyuki_host.supervisor.file_watch import Change
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.own_writes import Evidence, OwnWrites
from liteyuki_host.supervisor.reload_pace import Moment, Since
from liteyuki_host.supervisor.spec import ProcessSpec

AGAIN_SECONDS = 60.0
"""From ready: a bot that writes the same file again in this time is likely to do so after each start. A bot that is
told to install two plugins within it is not reloaded for the second one."""

SUSPECT_SECONDS = 5.0
"""From ready, or from the end of a trial: what changes until then may have been written by a program that was started.
A developer who saves the same file after each of two starts within it has to save once more."""

MAX_IN_A_ROW = 3
"""Starts in a row that are made for nothing but changes which a program may have made, each to another file."""

MAX_OWN = 1000
"""Files that are remembered as the bot's own."""


class By(Enum):
    """Who has made a change that may call for a reload."""

    DEVELOPER = auto()
    BOT = auto()
    """A bot says so, and was serving."""
    PROGRAM = auto()
    """Perhaps a program that was started by a bot or a trial; perhaps a developer."""


_SUREST = (By.DEVELOPER, By.BOT, By.PROGRAM)
"""Whose save it is when a file changed more than once: a record tells more than a suspicion. A write of the bot that
has no line of its own would otherwise hide that it writes this file, and the next start would be reloaded for it."""


@dataclass(frozen=True)
class Save:
    """What the running bot has not loaded of one file."""

    by: By
    loaded: Content | None
    """What the file held when the bot was spawned, as far as it is known."""
    seen: float
    """``time.monotonic()``, at the latest when it held what it holds now."""


class _Row:
    """Starts, or trials, one after another: what the last one was made for."""

    def __init__(self) -> None:
        self._made_for: Mapping[Path, By] = {}
        self._in_a_row = 0
        """How many, up to the last one, were made for nothing but what a program may have written."""

    def begin(self, made_for: Mapping[Path, By]) -> None:
        self._made_for = made_for
        self._in_a_row = self._in_a_row + 1 if set(made_for.values()) == {By.PROGRAM} else 0

    def written_again(self, path: Path, by: By) -> bool:
        """Whether *path*, written now, was what the last one was made for."""
        if by is By.BOT:
            return self._made_for.get(path) is By.BOT or set(self._made_for.values()) == {By.BOT}
        return self._in_a_row >= (1 if path in self._made_for else MAX_IN_A_ROW)


class Saves:
    """The saves of one process that its running child has not loaded. For the event loop only."""

    def __init__(self, spec: ProcessSpec, own_writes: OwnWrites) -> None:
        self.unloaded: dict[Path, Save] = {}
        """In the order of their changes; at most one for each watched file."""
        self.starts = 0
        """Children that were spawned."""
        self._name = spec.name
        self._project = spec.project
        self._own_writes = own_writes
        self._new: dict[Path, None] = {}  # those that take() has not returned yet
        self._come = asyncio.Event()
        self._life: Life | None = None
        self._starts = _Row()
        self._trials = _Row()
        self._trial_until = 0.0
        self._in_vain_at: float | None = None  # a reload since the last start has restarted nothing
        self._own: dict[Path, By] = {}
        """Files that are not obeyed when they change in that way."""
        self._writes_after_each_start = False

    async def wait(self) -> None:
        """Until there may be something to :meth:`take`, or something was loaded by a start."""
        await self._come.wait()

    def take(self) -> list[Path]:
        """What was saved since the last call and is not loaded."""
        self._come.clear()
        new, self._new = self._new, {}
        return [path for path in new if path in self.unloaded]

    def put_back(self, paths: Collection[Path]) -> None:
        """Have :meth:`take` return again those that are still not loaded."""
        self._new.update(dict.fromkeys(path for path in paths if path in self.unloaded))
        if self._new:
            self._come.set()

    def as_good_as_loaded(self, paths: Collection[Path]) -> None:
        """What these files hold now is nothing new to the running child."""
        for path in paths:
            self.unloaded.pop(path, None)
            self._new.pop(path, None)

    def moment(self, paths: Collection[Path]) -> Moment:
        """When the first of these unloaded files changed, measured from what the project's code did last."""
        seen = min(self.unloaded[path].seen for path in paths)
        if self._in_vain_at is not None:
            return Moment(Since.TRIAL, max(seen - self._in_vain_at, 0.0))
        life = self._life
        if life is None:
            return Moment(Since.SPAWN, float("inf"))
        if life.returncode is not None:
            return Moment(Since.SPAWN, max(seen - life.live_child.started_at, 0.0))
        return Moment(Since.READY, max(self._since_ready(seen), 0.0))

    def were_there(self, paths: Collection[Path]) -> dict[Path, bool]:
        """These unloaded files, and whether the running bot was spawned with a file of that name."""
        return {path: self.unloaded[path].loaded is not None for path in paths}

    # What happens meanwhile.

    def started(self, life: Life) -> None:
        """A child was spawned: it loads what is there now."""
        self._life = life
        self.starts += 1
        spawned_at = life.live_child.started_at
        loaded = {path: save.by for path, save in self.unloaded.items() if save.seen < spawned_at}
        for path in loaded:
            del self.unloaded[path]
            self._new.pop(path, None)
        self._in_vain_at = None
        self._starts.begin(loaded)
        if loaded:
            self._come.set()  # for whoever waits to load them

    def trial_begins(self, made_for: Collection[Path]) -> None:
        self._trials.begin({path: self.unloaded[path].by for path in made_for if path in self.unloaded})
        self._trial_until = float("inf")

    def trial_ended(self) -> None:
        self._trial_until = time.monotonic() + SUSPECT_SECONDS

    def reload_was_in_vain(self) -> None:
        """A reload has ended, and the bot was not restarted."""
        self._in_vain_at = time.monotonic()

    def changed(self, changes: Sequence[Change]) -> None:
        """Files have changed, whoever did it."""
        evidence = self._own_writes.evidence()
        for change in changes:
            if self._life is not None and change.seen < self._life.live_child.started_at:
                continue
            by = self._by(change, evidence)
            if by is None:
                logger.debug(f"child {self._name}: {self.names([change.path])} was written by a bot itself")
            elif self._is_own(change, by):
                self._leave(change, by)
            else:
                self._note(change, by)
        if self._new:
            self._come.set()

    def names(self, paths: Sequence[Path]) -> str:
        """``plugins/weather.py, bot.py and 2 more``."""
        shown = [os.path.relpath(path, self._project) for path in paths[:3]]
        return ", ".join(shown) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")

    # The rules.

    def _by(self, change: Change, evidence: Evidence) -> By | None:
        """None: it is no save, whatever else is known."""
        served = evidence.served_while_writing(change.path, change.since, change.seen)
        if served is not None:
            return By.BOT if served else None
        suspected = self._in_trial(change) or self._since_ready(change.seen) <= SUSPECT_SECONDS
        return By.PROGRAM if suspected and evidence.may_have_written(change.path) else By.DEVELOPER

    def _is_own(self, change: Change, by: By) -> bool:
        """Whether it is held to be the bot's own, because it has come in this way before."""
        if by is By.DEVELOPER:
            return False
        if self._own.get(change.path) is by:
            return True
        if by is By.PROGRAM:
            row = self._trials if self._in_trial(change) else self._starts
            return row.written_again(change.path, by)
        soon = self._since_ready(change.seen) <= AGAIN_SECONDS
        return soon and (self._writes_after_each_start or self._starts.written_again(change.path, by))

    def _in_trial(self, change: Change) -> bool:
        return change.seen <= self._trial_until

    def _since_ready(self, seen: float) -> float:
        """Seconds from ready to a change; before ready less than none, without a child for ever."""
        life = self._life
        if life is None or life.returncode is not None:
            return float("inf")
        return -1.0 if life.ready_at is None else seen - life.ready_at

    def _note(self, change: Change, by: By) -> None:
        path = change.path
        earlier = self.unloaded.pop(path, None)
        loaded = change.before if earlier is None else earlier.loaded
        if change.now != loaded:
            if earlier is not None:
                by = min(by, earlier.by, key=_SUREST.index)
            self.unloaded[path] = Save(by, loaded, change.seen)
            self._new[path] = None
        elif path in self._new:
            del self._new[path]
        else:
            logger.info(f"child {self._name}: {self.names([path])} is again as the running bot has loaded it")

    def _leave(self, change: Change, by: By) -> None:
        """Do not reload for it, and say so the first time."""
        path, name = change.path, self.names([change.path])
        if path in self.unloaded:  # somebody has saved it before: that is still to be obeyed
            self.unloaded[path] = replace(self.unloaded[path], seen=change.seen)
        known = self._own.get(path) is by
        if len(self._own) >= MAX_OWN:
            del self._own[next(iter(self._own))]
        self._own[path] = by
        if by is By.PROGRAM:
            if known:
                logger.info(f"child {self._name}: {name} changed again during a start or a trial; no reload for that")
                return
            logger.warning(
                f"child {self._name}: {name} changed during two starts or trials in a row, so a program that the bot "
                "starts may have written it; no reload for that. If it was you: save it once more. If not: name the "
                "folders with the bot's code, without that file, in reload_dirs"
            )
        elif known or self._writes_after_each_start:
            logger.debug(f"child {self._name}: {name} was written by the bot itself again")
        else:
            self._writes_after_each_start = True
            seconds = max(self._since_ready(change.seen), 0.0)
            logger.warning(
                f"child {self._name}: {name} was written by the bot itself again, {seconds:.0f} s after it was ready; "
                "no reload for what it writes so soon after a start. Better: name the folders with the bot's code, "
                "without that file, in reload_dirs"
            )
