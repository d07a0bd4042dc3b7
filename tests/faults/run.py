"""The fault matrix: ``python tests/faults/run.py [--long] [ROW ...]`` prints it as the table of docs/reliability.md.

The table of docs/reliability.zh-CN.md is its translation, made by hand; a test compares the figures of both pages.
Without ``--long`` it is what every test run does, in a minute or two; with it, hours of damage at the published
figures. Exit code 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "e2e"), str(HERE.parent / "supervisor")]

from faults_kit import Report, Row  # noqa: E402  # found by the path above

ROWS = (
    "kill_storm",
    "host_killed",
    "frozen",
    "crash_loops",
    "planned_restarts",
    "reloads",
    "control_races",
    "backpressure",
    "locks",
    "reentry",
    "bad_children",
    "shortages",
    "seeded_bugs",
)


def load(name: str) -> Row:
    row: Row = importlib.import_module(name)  # type: ignore[assignment]  # a module with the protocol's names
    return row


def perform(name: str, *, long: bool) -> tuple[Report, float]:
    """Run one row in a folder of its own. Returns what it found, and the seconds it took."""
    row = load(name)
    report = Report(row.TITLE)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lycomm-faults-") as folder:
        try:
            asyncio.run(row.run(report, Path(folder), **(row.LONG if long else row.SHORT)))
        except Exception as exc:  # the other rows are to be run
            traceback.print_exc()
            report.hold(
                "came to its end", f"{type(exc).__name__}: {str(exc).partition(os.linesep)[0][:300]}", "yes", False
            )
    return report, time.monotonic() - began


def table_alone(log: Path) -> TextIO:
    """From now on what hosts and bots print goes to *log*, however late. Returns where the table goes: to what was
    the standard output."""
    table = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(log, "ab") as noise:
        os.dup2(noise.fileno(), 1)
        os.dup2(noise.fileno(), 2)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--long", action="store_true", help="at the published figures")
    parser.add_argument("--log", default=os.devnull, help="a file for what hosts and bots print meanwhile")
    options = parser.parse_args(argv)
    with table_alone(Path(options.log)) as table:

        def say(line: str) -> None:
            print(line, file=table, flush=True)

        say(f"Python {platform.python_version()} on {platform.system()} {platform.release()}, {platform.machine()}\n")
        say("| test | what | measured | must hold | |\n| --- | --- | --- | --- | --- |")
        failed = False
        for name in options.rows or ROWS:
            report, seconds = perform(name, long=options.long)
            failed |= not report.holds
            for finding in report.findings:
                verdict = "ok" if finding.holds else "**no**"
                say(f"| {report.title} | {finding.what} | {finding.measured} | {finding.must_hold} | {verdict} |")
            say(f"| {report.title} | took | {seconds:,.0f} s | | |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
