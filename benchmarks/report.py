"""What a run says: tables for people, in a terminal or for ``docs/performance.md`` (and its Chinese page), and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks import machine
from benchmarks.chinese import TEXTS
from benchmarks.goals import GOALS
from benchmarks.measures import Measure
from benchmarks.peers import LIMITS, NAMES, OURS, REFERENCE
from benchmarks.runner import Figures, Outcome, Plan

Say = Callable[[str], str]
"""Translates a text from English to the language of the report; KeyError when it has no translation."""

LANGUAGES: dict[str, Say] = {"en": str, "zh-CN": TEXTS.__getitem__}


@dataclass(frozen=True)
class Table:
    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> Iterator[str]:
        """With columns of even width; figures to the right."""
        widths = [max(len(row[at]) for row in [self.columns, *self.rows]) for at in range(len(self.columns))]
        yield ""
        yield self.heading
        for row in [self.columns, *self.rows]:
            first, *others = (
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            yield "  ".join(["  " + first, *others]).rstrip()

    def markdown(self) -> Iterator[str]:
        yield ""
        yield f"### {self.heading}"
        yield ""
        yield f"| {' | '.join(self.columns)} |"
        yield f"| --- |{' ---: |' * (len(self.columns) - 1)}"
        for first, *others in self.rows:
            yield f"| {' | '.join([self._name(first), *others])} |"

    def _name(self, first: str) -> str:
        if first == OURS:
            return f"**{first}**"
        return f"`{first}`" if first in NAMES else first


def text(outcome: Outcome, plan: Plan) -> Iterator[str]:
    yield about(plan)
    for table in tables(outcome):
        yield from table.text()
    if outcome.missing:
        yield ""
        yield "Not measured"
        yield from (f"  {what}: {why}" for what, why in outcome.missing.items())


def markdown(outcome: Outcome, plan: Plan, language: str) -> Iterator[str]:
    """The tables of the page in *language*, one of LANGUAGES. Names of peers and reasons are code: not translated."""
    say = LANGUAGES[language]
    yield about(plan, say)
    for table in tables(outcome, say):
        yield from table.markdown()
    if outcome.missing:
        yield ""
        yield f"### {say('Not measured')}"
        yield ""
        yield from (f"- `{what}`: `{why}`" for what, why in outcome.missing.items())


def as_json(outcome: Outcome, plan: Plan) -> str:
    """Every figure of every round, with what is needed to read it."""
    measured = {
        measure.key: {
            "title": measure.title,
            "unit": measure.unit,
            "one_core": measure.one_core,
            "higher_is_better": measure.higher_is_better,
            "peers": {
                name: {"median": figures.median, "rounds": figures.values, **figures.extras}
                for name, figures in outcome.figures.get(measure.key, {}).items()
            },
        }
        for measure in outcome.measures
    }
    run = {name: value for name, value in asdict(plan).items() if name in ("rounds", "seconds", "children")}
    goals = [
        {"goal": goal.words, "figure": goal.figure(outcome), "must": goal.must, "aim": goal.aim, "unit": goal.unit}
        for goal in GOALS
    ]
    document = {
        "machine": machine.facts(),
        "load": outcome.load,
        "run": run,
        "measures": measured,
        "goals": goals,
        "missing": outcome.missing,
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def about(plan: Plan, say: Say = str) -> str:
    facts = machine.facts()
    versions = ", ".join(
        f"{name} {value}" for name, value in facts.items() if name not in ("cores", "system", "python")
    )
    words = say(
        "{cores} cores, {system}, {python}; {rounds} interleaved rounds of {seconds:g} s, "
        "broadcast to {children} children; median [min - max]; {versions}."
    )
    return words.format(
        cores=facts["cores"],
        system=facts["system"],
        python=facts["python"],
        rounds=plan.rounds,
        seconds=plan.seconds,
        children=plan.children,
        versions=versions,
    )


def tables(outcome: Outcome, say: Say = str) -> Iterator[Table]:
    verdicts = _goals(outcome, say)
    if verdicts.rows:
        yield verdicts
    for measure in outcome.measures:
        measured = outcome.figures.get(measure.key)
        if measured:
            yield _table(measure, measured, say)


def _goals(outcome: Outcome, say: Say) -> Table:
    rows = []
    for goal in GOALS:
        value = goal.figure(outcome)
        if value is None:
            continue
        sign = "<=" if goal.at_most else ">="
        must = "-" if goal.must is None else f"{sign} {goal.must:g}"
        verdict = say(_word(goal.met(value, goal.aim)))
        reached = "-" if goal.must is None else say(_word(goal.met(value, goal.must)))
        unit = "" if goal.unit == "x" else f" {goal.unit}"
        rows.append([say(goal.words), f"{number(value)}{unit}", must, reached, f"{sign} {goal.aim:g}", verdict])
    columns = ["goal", "this run", "must reach", "reached", "aim at", "reached"]
    return Table(say("What is to be reached"), [*map(say, columns)], rows)


def _word(met: bool) -> str:
    return "yes" if met else "no"


def heading(measure: Measure, say: Say = str) -> str:
    """The heading of the measure's table."""
    better = "higher is better" if measure.higher_is_better else "lower is better"
    core = say(", one core") if measure.one_core else ""
    return f"{measure.key}: {say(measure.title)}{core} ({measure.unit}; {say(better)})"


def _table(measure: Measure, measured: dict[str, Figures], say: Say) -> Table:
    best = _best(measure, {name: it for name, it in measured.items() if name not in (*LIMITS, OURS)})
    limit = _best(measure, {name: it for name, it in measured.items() if name in LIMITS})
    references = {
        say("x {}").format(REFERENCE): REFERENCE if REFERENCE in measured else None,
        say("x best peer ({})").format(best): best,
        say("x limit ({})").format(limit): limit,
    }
    references = {column: name for column, name in references.items() if name is not None}
    extras = list(dict.fromkeys(extra for figures in measured.values() for extra in figures.extras))
    rows = []
    for name in sorted(measured, key=lambda name: measured[name].median, reverse=measure.higher_is_better):
        figures = measured[name]
        ratios = [_better_by(measure, figures, measured[str(reference)]) for reference in references.values()]
        others = [figures_text(figures.extras[extra]) if extra in figures.extras else "-" for extra in extras]
        rows.append([name, figures_text(figures.values), *ratios, *others])
    columns = [say("peer"), say("median [min - max]"), *references, *map(say, extras)]
    return Table(heading(measure, say), columns, rows)


def _best(measure: Measure, measured: dict[str, Figures]) -> str | None:
    if not measured:
        return None
    choose = max if measure.higher_is_better else min
    return choose(measured, key=lambda name: measured[name].median)


def _better_by(measure: Measure, figures: Figures, reference: Figures) -> str:
    """How many times better than the reference: above 1 is better, whatever the unit."""
    if not reference.median or not figures.median:
        return "-"
    ratio = figures.median / reference.median
    return number(ratio if measure.higher_is_better else 1 / ratio)


def figures_text(values: Sequence[float]) -> str:
    middle = Figures(list(values)).median
    return f"{number(middle)} [{number(min(values))} - {number(max(values))}]"


def number(value: float) -> str:
    """With three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"
