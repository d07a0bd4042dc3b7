"""Defects put into a copy of the host on purpose, one at a time: does the matrix see them?

A row that cannot fail proves nothing. So each defect here is one that somebody might write (a limit off by one, a
descriptor not closed, a guard forgotten), and the row that it belongs to has to find it. That row runs in a process of
its own, whose ``liteyuki_host``, and that of all it starts, is the copy. Without a defect it must hold there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faults_kit import Report

import liteyuki_host

PACKAGE = Path(str(liteyuki_host.__file__)).parent
DEADLINE = 150.0
"""Seconds for a row; those that wait in vain for something to happen give up after 30 at most."""


@dataclass(frozen=True)
class Bug:
    """One edit of one file, and the row that has to find it."""

    name: str
    file: str
    right: str
    """What is there, exactly once."""
    wrong: str
    row: str
    sign: str
    """Is in what the row says that does not hold."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Of the row, where its short run need not be."""

    def put_into(self, package: Path) -> None:
        """Raises AssertionError: the code has changed, and this edit has to follow it."""
        path = package / self.file
        code = path.read_text("utf-8")
        found = code.count(self.right)
        assert found == 1, f"{self.name}: {self.file} has {self.right!r} {found} times: adapt this bug to the code"
        path.write_text(code.replace(self.right, self.wrong), "utf-8")


STORM = {"children": 4, "kills": 40, "pause": 0.1, "bots": 0}
HANG = {"stopped": 0, "blocked": 1, "locked": 0, "lanes": 1, "busy_seconds": 0.5, "import_seconds": 0.1}

BUGS = (
    Bug(
        "a bot has no guard",
        "_child/guard.py",
        "missing = [_start_guard(leash), _ask_for_sigcont()]",
        "missing = [_ask_for_sigcont()]",
        "host_killed",
        "until all of it is gone",
    ),
    Bug(
        "the instance lock is opened and not locked",
        "supervisor/lock_file.py",
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "host_killed",
        "beside one of the same name",
    ),
    Bug(
        "a descriptor of each child is never closed",
        "supervisor/spawning.py",
        "            life.belongings.callback(leash.release)\n",
        "",
        "kill_storm",
        "descriptors",
        STORM,
    ),
    Bug(
        "one restart more than the limit allows",
        "supervisor/policy.py",
        "len(recent) >= policy.max_restarts",
        "len(recent) > policy.max_restarts",
        "bad_children",
        "starts until failed",
    ),
    Bug(
        "a blocked loop is given twice its time",
        "supervisor/watchdog.py",
        "((self._loop_timeout, 0.0 if",
        "((2 * self._loop_timeout, 0.0 if",
        "frozen",
        "event loop blocked: found after",
        {**HANG, "limit": 1.5},
    ),
    Bug(
        "an answer of the link's thread counts as a beat of the loop",
        "supervisor/watchdog.py",
        "overdue = silent if beat_at is None else",
        "overdue = silent if beat_at is None or pong_at is not None else",
        "frozen",
        "did not come to",
        HANG,
    ),
    Bug(
        "the stacks are not shown before the kill",
        "supervisor/ending.py",
        "            await stopping.show_stacks(life, process.hurry)\n",
        "            pass\n",
        "frozen",
        "not shown",
        HANG,
    ),
    Bug(
        "who waits for a lock is not told that its holder has died",
        "comm/storage/authority.py",
        "            for _, holder in self._locks.owner_died(owner):\n                self._grant(holder)\n",
        "            self._locks.owner_died(owner)\n",
        "locks",
        "TimeoutError",
        {"children": 4, "kills": 4, "patience": 10.0},
    ),
    Bug(
        "a restart that is asked for during the spawn is forgotten",
        "supervisor/keeper.py",
        "await self._starting.spawn()\n",
        "await self._starting.spawn()\n            process.hear(Heard.BEGUN)\n",
        "control_races",
        "not done in",
        {"host_pairs": 0},
    ),
    Bug(
        "nobody waits until the handlers have finished",
        "supervisor/stopping.py",
        "    deadline = time.monotonic() + spec.drain_timeout + DRAIN_ANSWER_SECONDS\n",
        "    deadline = time.monotonic()\n",
        "planned_restarts",
        "repl",
    ),
    Bug(
        "new code is tried, and taken whatever came of it",
        "supervisor/reloader.py",
        "        if not (await self._can_start(saved) and self._is_wanted):\n",
        "        await self._can_start(saved)\n        if not self._is_wanted:\n",
        "reloads",
        "while the saved code was broken",
        {"reloads": 2, "idle": 0.1},
    ),
    Bug(
        "what has nothing to do with the bot's code counts as new code",
        "_child/writes.py",
        'name.endswith((".py", ".toml"))',
        'name.endswith((".py", ".toml", ".txt"))',
        "reloads",
        "restarted without a change",
    ),
    Bug(
        "a start that fails for a shortage is not tried again",
        "comm/shortage.py",
        "        return Outlook.SHORTAGE\n",
        "        return Outlook.FINAL\n",
        "shortages",
        "not ready again",
        {"rounds": 1, "seconds": 1.0},
    ),
    Bug(
        "log files are not tried again after a full disk",
        "output/files.py",
        "            if time.monotonic() < failure.retry_at:\n",
        "            if trouble:\n",
        "shortages",
        "log files written again",
        {"rounds": 5, "seconds": 1.0},
    ),
)

TITLE = "seeded bugs"
SHORT = {"names": [bug.name for bug in BUGS if bug.row in ("kill_storm", "locks")], "at_once": 2}
LONG = {"names": [bug.name for bug in BUGS], "at_once": 1}


async def run(report: Report, folder: Path, *, names: Iterable[str], at_once: int) -> None:
    """
    Args:
        at_once: rows that may run side by side.
    """
    cases: dict[str, list[Bug]] = {}
    for bug in BUGS:
        if bug.name in set(names):
            cases.setdefault(json.dumps([bug.row, bug.figures]), []).append(bug)
    places = asyncio.Semaphore(at_once)
    caught = await asyncio.gather(*(_try_case(report, folder, bugs, places) for bugs in cases.values()))
    wanted = sum(map(len, cases.values()))
    report.hold("caught", f"{sum(caught)} of {wanted}", "all", sum(caught) == wanted)


async def _try_case(report: Report, folder: Path, bugs: list[Bug], places: asyncio.Semaphore) -> int:
    """Run one row with certain figures, first without a bug, then with each of *bugs*. Returns how many it finds."""
    caught = 0
    async with places:
        sound = await _perform(folder, bugs[0], seeded=False)
        report.hold(f"{bugs[0].row} without a bug", sound.words(), "holds", sound.holds)
        for bug in bugs:
            result = await _perform(folder, bug, seeded=True)
            found = result.shows(bug) and not sound.shows(bug)
            caught += found
            report.hold(f"{bug.name} ({bug.file})", f"{bug.row}: {result.words(bug)}", "caught", found)
    return caught


@dataclass(frozen=True)
class Result:
    """What a row said of a copy of the host."""

    failed: list[str]
    """The things that must hold, and did not."""
    broken: str = ""
    """Why the row did not come to say anything; the end of its output."""

    @property
    def holds(self) -> bool:
        return not (self.failed or self.broken)

    def shows(self, bug: Bug) -> bool:
        return any(bug.sign in words for words in self.failed)

    def words(self, bug: Bug | None = None) -> str:
        """What fails, that of the bug first."""
        if self.broken:
            return f"could not be run: {self.broken}"
        failed = sorted(self.failed, key=lambda words: bug is None or bug.sign not in words)
        return failed[0] if failed else "holds"


async def _perform(folder: Path, bug: Bug, *, seeded: bool) -> Result:
    """The row of a bug, with it or without, in a process of its own. All that it leaves is ended."""
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        package = Path(copy) / PACKAGE.name
        shutil.copytree(PACKAGE, package)
        if seeded:
            bug.put_into(package)
        mark = uuid.uuid4().hex
        path = os.pathsep.join([copy, *filter(None, [os.environ.get("PYTHONPATH")])])
        row = await asyncio.create_subprocess_exec(
            sys.executable,
            *(__file__, bug.row, json.dumps(bug.figures), str(package)),
            env={**os.environ, "PYTHONPATH": path, MARK: mark},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(row.communicate(), DEADLINE)
        except asyncio.TimeoutError:
            return Result([], f"not over in {DEADLINE:g} s")
        finally:
            _end_all(mark)
            await row.wait()
    text = output.decode("utf-8", "replace")
    answers = [line for line in text.splitlines() if line.startswith(ANSWER)]
    if row.returncode != 0 or not answers:
        return Result([], text[-1000:])
    return Result(json.loads(answers[0].removeprefix(ANSWER)))


MARK = "SEEDED_BUG_MARK"
ANSWER = "seeded bugs: "


def _end_all(mark: str) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


# In the process of one row.


def _perform_here(name: str, figures: dict[str, Any], package: Path) -> list[str]:
    """Returns what does not hold. Whatever else goes wrong than what a row may meet is raised."""
    from run import load

    row = load(name)
    _assert_all_import(package)
    report = Report(row.TITLE)
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        try:
            asyncio.run(row.run(report, Path(folder), **{**row.SHORT, **figures}))
        except (AssertionError, asyncio.TimeoutError, TimeoutError) as exc:  # it waited for something in vain
            return [" ".join(f"{type(exc).__name__} {exc}".split())[:200]]
    return [f"{finding.what}: {finding.measured}"[:200] for finding in report.findings if not finding.holds]


def _assert_all_import(package: Path) -> None:
    """This process and its children have the copy: otherwise every bug would be missed, or none be there."""
    import subprocess

    command = [sys.executable, "-c", "import liteyuki_host.launch; print(liteyuki_host.__file__)"]
    told = subprocess.run(command, cwd=package.parent.parent, capture_output=True, text=True, check=True, timeout=30)
    for file in (told.stdout.strip(), str(liteyuki_host.__file__)):
        if Path(file).parent != package:
            raise ImportError(f"{file} is imported instead of {package}")


if __name__ == "__main__":
    import run as _sets_the_path  # noqa: F401

    failed = _perform_here(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
    print(f"\n{ANSWER}{json.dumps(failed)}", flush=True)
