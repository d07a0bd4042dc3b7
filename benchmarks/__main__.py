"""The command line: ``python -m benchmarks``, and ``python -m benchmarks growth``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import growth, report
from benchmarks.measures import chosen
from benchmarks.peers import NAMES
from benchmarks.runner import ROOT, Plan, run

INTERRUPTED = 130
"""What shells say of a program that Ctrl+C has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _grow(arguments[1:]) if arguments[:1] == ["growth"] else _compare(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


def _compare(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    try:
        measures = chosen(options.only)
    except ValueError as error:
        return _refuse(error)
    rounds, seconds, children = (2, 0.25, 4) if options.quick else (5, 0.5, 20)
    plan = Plan(measures, options.peers, options.rounds or rounds, options.seconds or seconds, children)
    outcome = run(plan, _tell)
    if options.markdown:
        for language in report.LANGUAGES:
            print(f"<!-- {language} -->", *report.markdown(outcome, plan, language), "", sep="\n")
    else:
        print(*report.text(outcome, plan), sep="\n")
    if options.json:
        options.json.write_text(report.as_json(outcome, plan) + "\n", "utf-8")
    return 0


def _grow(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=growth.__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    parser.add_argument("--only", nargs="+", default=growth.NAMES, choices=growth.NAMES, help="these curves")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs", help="where the plots go: docs")
    options = parser.parse_args(arguments)
    for line in growth.run(options.only, quick=options.quick, folder=options.folder, tell=_tell):
        print(line, flush=True)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="lycomm beside its peers, in interleaved rounds of fresh processes",
        epilog="python -m benchmarks growth: how cost grows",
    )
    parser.add_argument("--quick", action="store_true", help="a look: fewer and shorter rounds, fewer children")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="measures: W1, W2S, W2bM-1 (one core) ..."
    )
    parser.add_argument("--peers", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, help="turns of each peer in each measure: 5, quick 2")
    parser.add_argument("--seconds", type=float, help="that each turn measures: 0.5, quick 0.25")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds there")
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables of docs/performance.md, then those of docs/performance.zh-CN.md",
    )
    return parser.parse_args(arguments)


def _refuse(error: ValueError) -> int:
    print(error, file=sys.stderr)
    return 2


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
