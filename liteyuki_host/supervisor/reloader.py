"""Gives a bot its new code without taking the working one down.

The new code is first tried in a throw-away process. ``swap`` then restarts the bot; ``overlap`` starts the new one
beside the old one, which goes when the new one is ready.

Theory of operation
-------------------

A reload begins with a saved file (:meth:`Reloader.follow_files`) or because somebody asks (:meth:`Reloader.reload`).
Its steps are:

1. Wait as long as the pace of reloads demands. Only a reload for saved files does (``reload_pace.py``).
2. Wait for a replaced child that is still ending, so that there are never three at once.
3. If nothing was saved but valid settings that only the host reads, stop here.
4. If the bot is not ready, restart it at once (unless it was stopped): there is nothing that works and could be lost.
5. Try the new code in a throw-away process, again if files were saved meanwhile. If it fails, the running bot stays.
6. Restart the bot, or start the new one beside it and let it take over.

A failure of the reload itself is logged by a boundary. After a shortage (memory, processes, files) the reload is tried
again after a delay; after any other error the next save or request begins a new one.

Everything runs on the event loop, so no lock guards the attributes. An ``asyncio.Lock`` keeps reloads one at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
from loguru import logger

from liteyuki_host.boundary import Boundary
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor import stopping
from liteyuki_host.supervisor.exits import cause_of_exit
from liteyuki_host.supervisor.file_watch import FileWatch
from liteyuki_host.supervisor.host_files import SharedFiles
from liteyuki_host.supervisor.installation import OtherVersion
from liteyuki_host.supervisor.keeper import Keeper
from liteyuki_host.supervisor.ladder import first_of
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.overlap import can_overlap
from liteyuki_host.supervisor.own_writes import OwnWrites
from liteyuki_host.supervisor.reload_pace import ReloadPace
from liteyuki_host.supervisor.saves import Saves
from liteyuki_host.supervisor.spawning import Spawner
from liteyuki_host.supervisor.spec import Reload
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.trial import TrialFailure, seconds_for, trial

MAX_TRIALS = 3
"""Trials before one restart. Another one is made when files were saved during the last one, so that what is started is
what was tried; a file that is saved all the time must not put the restart off for ever."""


class Reloader:
    """Reloads one process, one reload at a time. For the event loop only.

    Attributes:
        _watch: sees saved files; None while files are not followed. Set by :meth:`_follow_files`.
        _to_begin: whether a reload is due that has not looked at the new code yet. Further requests join it.
        _asked: whether somebody has asked for the reload, and not a saved file alone.
    """

    def __init__(self, keeper: Keeper, spawner: Spawner, own_writes: OwnWrites, shared_files: SharedFiles) -> None:
        self._keeper = keeper
        self._spec = keeper.spec
        self._spawner = spawner
        self._own_writes = own_writes
        self._shared_files = shared_files
        self._saves = Saves(keeper.spec, own_writes)
        self._pace = ReloadPace()
        self._watch: FileWatch | None = None
        self._one_at_a_time = asyncio.Lock()
        self._to_begin = False
        self._asked = False
        spawner.before_spawn = shared_files.note_loaded
        spawner.on_spawn = self._saves.started

    async def follow_files(self) -> None:
        """Reload at each save, until cancelled, whatever fails meanwhile. Returns at once for a process that does not
        reload."""
        boundary = Boundary(f"child {self._spec.name}: watching its files")
        while self._spec.reload is not Reload.OFF:
            try:
                await self._follow_files()
            except Exception as error:
                await asyncio.sleep(boundary.failed(error))

    async def _follow_files(self) -> None:
        """Watch the files and reload at each save, until cancelled or something fails. Closes the watch afterwards."""
        watch = FileWatch(self._spec, self._saves.changed)
        try:
            await watch.start()
            self._watch = watch
            while True:
                saved = await self._until_due()
                await self._reload(f"{self._saves.names(saved)} changed", saved)
        finally:
            self._watch = None
            watch.close()

    async def _until_due(self) -> list[Path]:
        """Wait for saves, and for as long as their reload has to wait. Returns what it is for, never nothing."""
        saves, saved, due = self._saves, list[Path](), float("inf")
        while time.monotonic() < due:
            with anyio.move_on_after(due - time.monotonic()):
                await saves.wait()
            new = saves.take()
            saved = [path for path in saved if path in saves.unloaded]  # others: loaded meanwhile, or taken back
            if not saved:
                saved = new
                due = time.monotonic() + self._wait_before(saved) if saved else float("inf")
            elif new:
                saved += [path for path in new if path not in saved]
                if self._pace.is_sign(saves.were_there(new), saves.moment(new)):
                    return saved
        return saved

    def _wait_before(self, saved: Sequence[Path]) -> float:
        """Seconds that the reload has to wait; said where there are any."""
        seconds = self._pace.wait_before(self._saves.were_there(saved), self._saves.moment(saved))
        if seconds:
            child, names, count = f"child {self._spec.name}", self._saves.names(saved), self._pace.in_a_row
            if self._pace.is_first_wait:
                logger.warning(
                    f"{child}: {names} changed at the same moment after each of the last {count} starts, so the start "
                    f"itself may cause it; this reload waits {seconds:g} s, the next ones longer. If it was you: "
                    "change any file again, and it is loaded at once. If not: name the folders with the bot's code, "
                    "without that file, in reload_dirs"
                )
            else:
                logger.info(f"{child}: {names} changed after a start again ({count} in a row); waiting {seconds:g} s")
        return seconds

    async def reload(self, why: str) -> None:
        """Try the new code and let it take over. What fails is logged, and the bot that runs goes on.

        Asked again before it has begun, it is one reload.
        """
        await self._reload(why, ())

    async def _reload(self, why: str, saved: Sequence[Path]) -> None:
        """
        Args:
            saved: the files that it is for; none: somebody has asked for it.
        """
        if self._to_begin:
            self._asked = self._asked or not saved
            return
        self._to_begin, self._asked = True, not saved
        starts = self._saves.starts
        boundary = Boundary(f"child {self._spec.name}: its reload")
        async with self._one_at_a_time:
            if saved and self._saves.starts != starts:  # another reload has loaded them, or what they held then
                self._to_begin = False
                self._saves.put_back(saved)
                return
            again = False
            while True:
                try:
                    return await self._reload_once(why, saved, again=again)
                except Exception as error:
                    delay = boundary.failed(error)
                    self._to_begin = is_shortage(error)  # the next try takes what is saved by then
                    if not self._to_begin:
                        return  # the next save, or whoever asks, tries again
                again = True
                await asyncio.sleep(delay)

    async def _reload_once(self, why: str, saved: Sequence[Path], *, again: bool) -> None:
        """Make one reload, or find that none is needed; the module lists the steps.

        Args:
            again: an earlier try of the same reload has failed; its first log line is not repeated.
        """
        keeper, name = self._keeper, self._spec.name
        await keeper.alone()  # one that still ends after the reload before this one: never three at once
        if await self._is_of_the_host_alone():
            return
        if not keeper.is_ready:
            await self._shared_files.tell_problem()
        if not keeper.is_ready:
            self._to_begin = False
            # Nothing works that could be taken down.
            if self._is_wanted:
                logger.info(f"child {name}: {why}; starting it with that")
                keeper.restart(why)
                await self._restarted()
            return
        if not again:
            logger.info(f"child {name}: {why}; trying it before the bot is restarted")
        if not (await self._can_start(saved) and self._is_wanted):
            self._saves.reload_was_in_vain()
            return
        if saved and not self._saves.unloaded:
            self._saves.reload_was_in_vain()
            logger.info(f"child {name}: the change was taken back meanwhile; the running bot stays")
        elif self._spec.reload is Reload.OVERLAP and can_overlap(keeper.status().address):
            await self._overlap(why)
        else:
            keeper.restart(why)
            await self._restarted()

    async def _is_of_the_host_alone(self) -> bool:
        """Whether nothing has been saved but settings of the host, and they are good. The bot then stays as it is."""
        changed = list(self._saves.unloaded)
        if self._asked or not await self._shared_files.hold_nothing_new(changed, self._keeper.host_files):
            return False
        if await self._shared_files.problem() is not None or self._asked:
            return False
        self._to_begin = False
        self._saves.as_good_as_loaded(changed)
        logger.info(
            f"child {self._spec.name}: nothing that the bot itself reads has changed in {self._saves.names(changed)}; "
            "it is not restarted"
        )
        return True

    @property
    def _is_wanted(self) -> bool:
        """A bot that nobody wants stays as it is; one that was given up may work with the new code."""
        return self._keeper.is_wanted or self._keeper.state is State.FAILED

    async def _can_start(self, saved: Sequence[Path]) -> bool:
        """Try the new code, up to :data:`MAX_TRIALS` times while files are saved during the trial. Returns False, and
        says why in the log, if it cannot start."""
        for _ in range(MAX_TRIALS):
            try:
                failure = await self._settings_failure() or await self._try(saved)
            except OtherVersion as exc:
                logger.error(f"child {self._spec.name} is not reloaded: {exc}; the running bot stays")
                return False
            if failure is not None:
                logger.error(f"child {self._spec.name}: the change cannot start: {failure}; the running bot stays")
                return False
            if self._watch is not None:
                await self._watch.look()
            saved = self._saves.take()  # during the trial, which may not have seen it
            if not saved:
                break
        return True

    async def _settings_failure(self) -> TrialFailure | None:
        """Why the host could not start with what is saved now: the bot would be restarted as if all were well."""
        problem = await self._shared_files.problem()
        if problem is None:
            return None
        self._to_begin = False
        return TrialFailure(problem)

    async def _try(self, saved: Sequence[Path]) -> TrialFailure | None:
        """Raises OtherVersion: the bot's environment has changed, and not the bot. Shortages too, such as an update of
        lycomm that is under way."""
        spec, known = self._spec, self._keeper.failed_plugins
        try:
            try:
                plan = await self._spawner.plan()
            finally:
                self._to_begin = False  # what changes from here on, this trial may not see
            self._saves.trial_begins(saved)
            try:
                failure = await trial(
                    spec, plan, known_failed=known, timeout=seconds_for(spec), own_writes=self._own_writes
                )
            finally:
                self._saves.trial_ended()
            hidden = await self._spawner.hidden_packages() if failure is not None and failure.output else ""
            return TrialFailure(hidden) if hidden else failure
        except OtherVersion:
            raise
        except ProcessFailed as exc:
            if is_shortage(exc):
                raise
            return TrialFailure(str(exc))

    async def _restarted(self) -> None:
        """Wait until the keeper has restarted the bot, or has failed to."""
        try:
            await self._keeper.restarted()
        except ProcessFailed:
            pass  # the keeper has logged it, and goes on

    async def _overlap(self, why: str) -> None:
        wake = asyncio.Event()
        with self._keeper.candidate(wake):
            await self._replace_by_a_new_one(why, wake)

    async def _replace_by_a_new_one(self, why: str, wake: asyncio.Event) -> None:
        """Start a new child beside the running bot and let it take over once it is ready. If it does not get ready, or
        this is cancelled, the new child is ended and the running bot stays.

        Args:
            wake: set whenever something is heard of the new child.
        """
        try:
            life = await self._spawner.spawn(wake, standby=True)
        except ProcessFailed as exc:
            if is_shortage(exc):
                raise
            logger.error(f"child {self._spec.name}: the new one cannot be started: {exc}; the running bot stays")
            return
        logger.info(f"child {self._spec.name}: a new one started (pid {life.live_child.pid}) beside the running bot")
        taken = False
        try:
            await self._until_ready(life, wake)
            taken = life.reachable and self._keeper.replace(life, why)
            if not taken:
                if life.link_closed.is_set():  # mostly it is ending just then, and its exit code says why
                    await first_of(life.gone, timeout=self._spec.stop_timeout)
                self._report(life)
        finally:
            if not taken:
                with anyio.CancelScope(shield=True):
                    await stopping.end(self._spec, life, "stop", self._keeper.hurry)

    async def _until_ready(self, life: Life, wake: asyncio.Event) -> None:
        """Wait until the new child is ready or has ended, the running bot is not ready any more, or time is up."""
        deadline = life.live_child.started_at + self._spec.ready_timeout
        while self._keeper.is_ready and not (life.ready or life.gone.is_set() or life.link_closed.is_set()):
            left = life.put_off(deadline) - time.monotonic()
            if left <= 0:
                return
            wake.clear()
            await first_of(wake, timeout=min(left, 1.0))  # the one that serves may hang without waking us

    def _report(self, life: Life) -> None:
        """Say in the log why the new child has not taken over."""
        name = self._spec.name
        if life.returncode is not None:
            greeted = life.greeting.is_set()
            cause = cause_of_exit(
                life.returncode, ready=False, greeted=greeted, own_exit=life.own_exit, reason=life.cannot_start
            )
            words = cause.with_hint
        elif not self._keeper.is_ready:
            words = "is not needed: the running bot ends"
        else:
            words = f"is not ready in {self._spec.ready_timeout:g} s"
        logger.error(f"child {name}: the new one {words}; the running bot stays")
