"""Whether the lycomm that a bot would load now is the one that this host runs.

An operator may update the environment that host and bots share while they run. The host keeps what it has loaded, a
bot that is started afterwards loads what is there then, and the two may not understand each other; and while the
update is under way, files are missing. So the bot's interpreter is asked before a good bot is stopped, and before one
is started. It takes as long as an interpreter needs to come up (about 45 ms), on a thread, while the old bot still
serves.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from liteyuki_host import _version
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.supervisor.interpreter import HELLO, Answer, ask, no_interpreter
from liteyuki_host.supervisor.process import PROBE_SECONDS

_MARK = "lycomm:"

_ASK = (
    "import liteyuki_host._version as v; "
    f"print({_MARK!r}, v.__version__, getattr(v, 'PROTOCOL_VERSION', 0), v.__file__, sep='\\n', flush=True)"
)


_AWAY = (errno.ENOENT, errno.ENOTDIR)
"""The interpreter is missing: also while a virtual environment is being made anew."""


class OtherVersion(ProcessFailed):
    """A bot would load another lycomm than the host has. Nothing changes by trying again."""


class BeingUpdated(ProcessFailed):
    """The lycomm that a bot would load is not complete at this moment, or the interpreter gave no answer.

    It passes. Raised from an OSError with EBUSY, so that it counts as a shortage wherever errors are sorted.
    """


@dataclass(frozen=True)
class Installation:
    """One lycomm on the disk."""

    version: str
    protocol: int
    folder: Path
    """Of the package ``liteyuki_host``."""

    def __str__(self) -> str:
        return f"lycomm {self.version}"


def loaded() -> Installation:
    """The lycomm that this process has loaded."""
    return Installation(_version.__version__, _version.PROTOCOL_VERSION, Path(_version.__file__).parent)


class HostInstallation:
    """The lycomm that this process has loaded; to be made before anybody can have updated it."""

    def __init__(self) -> None:
        self.loaded = loaded()
        self._files = _code_in(self.loaded.folder)

    def compare(self, python: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Compare with what *python* would load. Blocks for up to ``PROBE_SECONDS``; not for the event loop.

        Args:
            folder: the bot's.
            environment: the bot's; ``PYTHONPATH`` for one decides what is loaded.

        Raises:
            OtherVersion: they differ; the text names what to do.
            BeingUpdated: it cannot be told now.
            ProcessFailed: the interpreter cannot be started for another reason, which the text names; raised from the
                OSError, which tells whether waiting helps.
            OSError, MemoryError: the interpreter cannot be started, for a shortage.
        """
        found = _ask(python, folder, environment)
        problem = difference(python, found.version, found.protocol, ours=self.loaded)
        if problem is not None:
            raise OtherVersion(problem)
        missing = [name for name in self._files if not (found.folder / name).is_file()]
        if missing:
            raise _being_updated(python, f"{found.folder / missing[0]} is missing")


def _ask(python: Path, folder: Path, environment: Mapping[str, str]) -> Installation:
    try:
        answer = ask(python, _ASK, folder=folder, environment=environment, seconds=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        why = f"it did not answer in {PROBE_SECONDS:g} s"
    except OSError as exc:
        if is_shortage(exc):  # of the host; nothing is known of the lycomm there
            raise
        if exc.errno not in _AWAY:
            raise ProcessFailed(_why_not_started(python, folder, exc)) from exc
        why = exc.strerror or str(exc)
    else:
        return _read(python, answer)
    raise _being_updated(python, why)


def _why_not_started(python: Path, folder: Path, exc: OSError) -> str:
    why = exc.strerror or str(exc)
    if exc.filename == str(folder):
        return f"the folder {folder} cannot be entered ({why}): correct its permissions"
    if exc.errno in (errno.EACCES, errno.ENOEXEC) and not os.access(python, os.X_OK):
        return f"{python} cannot be started ({why}): make it executable, or correct python in [tool.lycomm.processes]"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{python} cannot be started ({why}): the system forbids it; look at the security settings of the service "
            "or container (SystemCallFilter= of a systemd unit, seccomp, AppArmor, SELinux, a disk mounted noexec)"
        )
    return f"{python} cannot be started ({why}): correct python in [tool.lycomm.processes]"


def _read(python: Path, answer: Answer) -> Installation:
    if not answer.of_python and (answer.returncode == 0 or not answer.complete):
        raise ProcessFailed(no_interpreter(python))
    lines = answer.after(_MARK)
    if answer.returncode != 0 or len(lines) < 3 or not lines[1].isdecimal():
        why = answer.last_line if answer.last_line not in ("", HELLO) else f"it exited {answer.returncode}"
        raise _being_updated(python, why)
    return Installation(lines[0], int(lines[1]), Path(lines[2]).parent)


def difference(python: Path, version: str, protocol: int, *, ours: Installation) -> str | None:
    """Say how the lycomm that *python* would load differs from the host's, and what to do; None: it does not."""
    if (version, protocol) == (ours.version, ours.protocol):
        return None
    there, here = f"lycomm {version}", str(ours)
    if version == ours.version:  # a development version
        there, here = f"{there}, protocol {protocol}", f"{here}, protocol {ours.protocol}"
    words = f"{python} has {there} now, this host runs {here}"
    if _shares_environment(python):
        return f"{words}: restart the host, so that both load the same one (stop it, then run `lycomm run` again)"
    install = f"`{python} -m pip install nonebot-plugin-lycomm=={ours.version}`"
    return f"{words}: run {install}, or install {version} for the host too and restart the host"


def _shares_environment(python: Path) -> bool:
    """Whether *python* belongs to the environment that the host runs in: they are updated together."""
    return os.path.realpath(python.parent) == os.path.realpath(Path(sys.executable).parent)


def _being_updated(python: Path, why: str) -> BeingUpdated:
    """To be raised without ``from``, which would replace the cause that makes it a shortage."""
    words = f"lycomm cannot be loaded by {python} at the moment ({why}); is it being updated?"
    error = BeingUpdated(words)
    error.__cause__ = OSError(errno.EBUSY, words)
    return error


def _code_in(package: Path) -> list[str]:
    """The package's files, relative to it; empty for one that does not lie in a folder."""
    return sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))
