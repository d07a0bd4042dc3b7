"""What a reload needs to know of the files that the host's own settings stand in.

A bot in the host's folder shares ``.env``, ``.env.{ENVIRONMENT}`` and ``pyproject.toml`` with the host. The host reads
its settings once, when it starts. So a wrong setting in them would be noticed only at its next start, and a right one
changes nothing for the bot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from liteyuki_host.boundary import in_thread
from liteyuki_host.supervisor.life import Life
from liteyuki_host.supervisor.spec import ProcessSpec, Reload


class HostFiles(Protocol):
    """The files of the host's settings. Looked at by all bots of one host."""

    async def check(self, spec: ProcessSpec, *, may_refuse: bool) -> str | None:
        """Read the settings again and log, once for each change, that they differ from those that the host runs with.

        Args:
            may_refuse: whether a problem keeps a bot in the host's folder from being restarted. If not, and for any
                other bot, it is logged here, once.

        Returns:
            why the host could not start with them, in one line; None: it could, or that keeps nobody from anything.

        Raises:
            OSError, RuntimeError, MemoryError, FileProblem: there is a shortage, and they could not be read.
        """

    def for_bot(self, spec: ProcessSpec) -> Mapping[Path, object] | None:
        """By file, what the bot itself would read of it: everything but the host's own settings. May block.

        Returns:
            None: the bot is not in the host's folder, and these files are no concern of its.

        Raises:
            OSError, FileProblem: they cannot be read.
        """


class SharedFiles:
    """What changes of the host's files mean to one bot. For the event loop only."""

    def __init__(self, spec: ProcessSpec, host_files: HostFiles | None) -> None:
        """
        Args:
            host_files: None: nothing is known of the host's settings, and every change is one of the bot's code.
        """
        self._spec = spec
        self._host_files = host_files

    async def note_loaded(self, life: Life) -> None:
        """Note what a child is going to read. Call it before the spawn: what changes from here on is then never taken
        for known to the child."""
        if self._spec.reload is not Reload.OFF:
            life.host_files = await self._for_bot()

    async def problem(self) -> str | None:
        """Why the host could not start with what its files hold; None: it could, or they are not in this folder."""
        return None if self._host_files is None else await self._host_files.check(self._spec, may_refuse=True)

    async def tell_problem(self) -> None:
        """Have such a problem logged: no bot works that could be kept as it is."""
        if self._host_files is not None:
            await self._host_files.check(self._spec, may_refuse=False)

    async def hold_nothing_new(self, changed: Collection[Path], loaded: Mapping[Path, object] | None) -> bool:
        """Whether all that has changed is what the host reads and the bot does not.

        Args:
            loaded: what the running child was spawned with, as `Life.host_files` has it.
        """
        if not changed or loaded is None or not loaded.keys() >= set(changed):
            return False
        now = await self._for_bot()
        return now is not None and all(path in now and now[path] == loaded[path] for path in changed)

    async def _for_bot(self) -> Mapping[Path, object] | None:
        if self._host_files is None:
            return None
        try:
            return await in_thread(self._host_files.for_bot, self._spec)
        except (OSError, ValueError, RuntimeError, MemoryError):  # whoever needs the files says what is wrong with them
            return None
