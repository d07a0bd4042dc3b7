"""What a run of the command has found, and the file that keeps it: one line of JSON for each candidate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class About:
    """Where and with what a run of the command was made."""

    date: str
    system: str
    python: str
    nonebot2: str
    nb_cli: str
    lycomm: str


@dataclass(frozen=True)
class Run:
    """One candidate under one command; of several runs the first, and what any of them had."""

    ready_seconds: float | None
    """From the start of the command until the bot's start-up hooks are done; None: it never came to that."""
    exit_code: int | None
    """After one Ctrl+C, or by itself if the bot never became ready; None: it had to be killed."""
    shutdown_hook: bool
    """Whether a shutdown hook that takes a moment has run to its end."""
    tracebacks: int
    lines: int
    """Lines of the bot's own log."""
    answers: dict[str, str] = field(default_factory=dict)
    """What was asked while the bot ran, and how it was answered."""
    left: int = 0
    """Processes that were still there after the command had ended."""


@dataclass(frozen=True)
class Result:
    kind: str
    name: str
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that are tried."""
    reason: str = ""
    """Why it was not run: a key of ``page.REASONS``; empty when it was."""
    detail: str = ""
    """What the reason rests on: what the installer says."""
    nb: Run | None = None
    lycomm: Run | None = None
    only_nb: dict[str, int] = field(default_factory=dict)
    only_lycomm: dict[str, int] = field(default_factory=dict)
    host: list[str] = field(default_factory=list)
    """Warnings and errors of lycomm."""

    @property
    def same(self) -> bool:
        """Whether the bot did and said the same under both commands; what lycomm warns of does not count."""
        if self.nb is None or self.lycomm is None or self.only_nb or self.only_lycomm:
            return False
        return _behaviour(self.nb) == _behaviour(self.lycomm)

    @property
    def version(self) -> str:
        """The version of the package that the row is about."""
        return next(iter(self.versions.values()), "")


def _behaviour(run: Run) -> tuple[Any, ...]:
    return (run.ready_seconds is None, run.exit_code, run.shutdown_hook, run.tracebacks, run.answers, run.left)


def load(file: Path) -> list[Result]:
    """The results in *file*, none if it does not exist. Of two of one name the later one counts."""
    if not file.exists():
        return []
    found = {}
    for line in file.read_text("utf-8").splitlines():
        data = json.loads(line)
        if "kind" in data:
            result = _result(data)
            found[result.kind, result.name] = result
    return list(found.values())


def load_about(file: Path) -> About:
    """The first line of a file that :func:`save` has written."""
    with file.open(encoding="utf-8") as stream:
        return About(**json.loads(stream.readline()))


def append(file: Path, result: Result) -> None:
    """Add one line to *file*."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(_line(result))


def save(file: Path, about: About, results: Iterable[Result]) -> None:
    """Write *file* anew: *about* in the first line, then the results."""
    file.write_text("".join([_line(about), *map(_line, results)]), "utf-8")


def _line(record: About | Result) -> str:
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n"


def _result(data: dict[str, Any]) -> Result:
    runs = {name: Run(**data[name]) if data[name] else None for name in ("nb", "lycomm")}
    return Result(**{**data, **runs})
