"""What the rows of the fault matrix share: a row is a module with a title, figures for a short and a long run, and
``run``, which does the damage and reports each thing that must hold."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Finding:
    what: str
    measured: str
    must_hold: str
    holds: bool


@dataclass
class Report:
    """What one row has found."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def hold(self, what: str, measured: object, must_hold: str, holds: bool) -> None:
        """Record one thing that must hold, and whether it does."""
        self.findings.append(Finding(what, str(measured), must_hold, bool(holds)))

    def none(self, what: str, left: object) -> None:
        """Nothing of the kind may be there; *left* is a collection or a number."""
        count = len(left) if hasattr(left, "__len__") else left
        self.hold(what, count if count == 0 else f"{count}: {left}", "0", count == 0)

    def below(self, what: str, measured: float, limit: float, unit: str) -> None:
        self.hold(what, f"{measured:,.3g} {unit}", f"< {limit:,.3g} {unit}", measured < limit)

    @property
    def holds(self) -> bool:
        return bool(self.findings) and all(finding.holds for finding in self.findings)

    def lines(self) -> list[str]:
        return [
            f"{'ok  ' if finding.holds else 'FAIL'} {self.title}: {finding.what}: {finding.measured} "
            f"(must hold: {finding.must_hold})"
            for finding in self.findings
        ]


class Row(Protocol):
    """A module of this folder."""

    TITLE: str
    SHORT: dict[str, Any]
    """Arguments of a run of seconds, in every test run."""
    LONG: dict[str, Any]
    """Arguments of a run at the figures of the published table."""

    def run(self, report: Report, folder: Path, **figures: Any) -> Awaitable[None]:
        """Do the damage in *folder*, which is empty, and report."""
        ...
