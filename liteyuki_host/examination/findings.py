"""What an examination finds: a level, a process, one line of text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from liteyuki_host.wording import one_line


class Level(str, Enum):
    """How much a finding matters."""

    PLAN = "plan"
    """What would be started."""
    NOTE = "note"
    """Everything can start, but the operator will want to know."""
    FAULT = "fault"
    """Something cannot start: the process, or a plugin that it would do without."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Finding:
    """One line for the operator."""

    level: Level
    process: str
    """The name of a process, or ``host``."""
    text: str
    """One line: what is wrong, where, and what to do."""


@dataclass
class Findings:
    """Those of one process, in the order in which they are told; none twice."""

    process: str

    def __post_init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def plan(self, text: str) -> None:
        self._add(Level.PLAN, text)

    def note(self, text: str) -> None:
        self._add(Level.NOTE, text)

    def fault(self, text: str) -> None:
        self._add(Level.FAULT, text)

    @property
    def can_start(self) -> bool:
        """Whether nothing has been found that speaks against it."""
        return not any(finding.level is Level.FAULT for finding in self._found)

    def all(self) -> list[Finding]:
        """The plan only where nothing speaks against it."""
        return [finding for finding in self._found if finding.level is not Level.PLAN or self.can_start]

    def _add(self, level: Level, text: str) -> None:
        self._found.setdefault(Finding(level, self.process, one_line(text)))
