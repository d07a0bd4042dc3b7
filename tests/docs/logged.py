"""Every log call of the packages, and the functions that build the texts of those that have none of their own.

A text counts as written in the call when it has at least three words beside names and numbers. Of every other call
each part has to be known: `SOURCES` names the functions that build it, `NAMES` the parts that are no words. A part that
is in neither is reported by `unknown_sources`, so that no text can be forgotten.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.docs.lines import ANY, ROOT, patterns_of, value_of

LEVELS = {"info", "success", "warning", "error", "critical", "exception"}
"""Levels that an operator sees by default."""

SOURCES = {
    # The bot
    "driver: mistyped": ["liteyuki_host/_child/mistyped.py *"],
    "driver: wrong_level": ["liteyuki_host/_child/doubtful.py wrong_log_level"],
    "driver: str(exc)": ["liteyuki_host/_child/listening.py CannotRun"],
    "launch: str(exc)": ["liteyuki_host/_child/run_project.py CannotRun"],
    "launch: explain(exc)": [
        "liteyuki_host/_child/trouble.py _settings_words",
        "liteyuki_host/_child/trouble.py _not_json",
    ],
    "driver_hooks: unfit": ["liteyuki_host/comm/pydantic_version.py unfit"],
    "no_gil": ["liteyuki_host/comm/gil.py without_the_gil"],
    "names: news": ["nonebot_plugin_lycomm/names.py _sentence"],
    # Shared memory
    "watch: error": ["liteyuki_host/comm/storage/watch.py _fell_behind"],
    # The host
    "host: line": ["liteyuki_host/idle.py why_it_ends", "liteyuki_host/idle.py _words"],
    "idle: idle.why_it_stays(reason)": ["liteyuki_host/idle.py why_it_stays", "liteyuki_host/idle.py why_stay"],
    "lock: words": ["liteyuki_host/supervisor/lock.py _no_lock", "liteyuki_host/supervisor/lock.py _try_lock"],
    # What has become of a process, why, and what follows
    "cause.words": ["liteyuki_host/supervisor/exits.py *"],
    "cause.with_hint": ["liteyuki_host/supervisor/exits.py *"],
    "how": ["liteyuki_host/supervisor/exits.py describe_exit"],
    "ending: words": ["liteyuki_host/supervisor/exits.py *"],
    "found.likely": ["liteyuki_host/supervisor/vigil.py *"],
    "renewal.why": ["liteyuki_host/supervisor/vigil.py *"],
    "keeper: why": ["liteyuki_host/supervisor/kept_process.py __init__"],
    "process.why": ["liteyuki_host/supervisor/kept_process.py __init__", "liteyuki_host/supervisor/vigil.py *"],
    "decision.words": ["liteyuki_host/supervisor/policy.py decide"],
}
"""Where the texts of a part are written: ``EXPRESSION``, or ``MODULE: EXPRESSION`` where other modules mean something
else by it, and places ``FILE NAME``. NAME is a function, an error (the texts with which it is raised in that file) or
``*`` for the whole file."""

NAMES = {
    "callback.name",
    "count",
    "life.address",
    "life.live_child.pid",
    "name",
    "PLUGIN",
    "process",
    "request.verb",
    "seconds",
    "self._name",
    "spec.name",
    "process.spec.name",
    "self.spec.name",
    "session.process",
    "time.monotonic() - asked_at",
    # Sentences that need no other explanation than that of their line.
    "starting: helps",
    "losses: why",
    # Single words: of a stop's rung, of a hook's moment, of what is asked, of what goes on without end.
    "rung",
    "rung or 'the loss of its link'",
    "self._what",
    "what",
}
"""Parts that are names, numbers or single words."""


UNLOGGED = {
    "not starting it again: nothing changes by trying",  # the line ends before it: `cannot start: REASON`
}
"""Texts of the functions in `SOURCES` that are in no log line."""


@dataclass(frozen=True)
class LogCall:
    """One log call."""

    place: str
    texts: list[str]
    """Regular expressions of the whole lines, of those ways through the call whose text is written there."""
    built: list[str] = field(default_factory=list)
    """Regular expressions of the other ways, where they have at least one word of their own."""
    parts: list[str] = field(default_factory=list)
    """What is put into those: keys of `SOURCES`, or members of `NAMES`."""


@cache
def log_calls() -> list[LogCall]:
    """All log calls of both packages at a level that is shown by default."""
    return [
        _call(path, node, tree)
        for path in _modules()
        for tree in [_tree(path)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
        if node.func.attr in LEVELS and re.match(r"(logger|log\(\))(\.|$)", ast.unparse(node.func.value))
    ]


def lines_of_the_log() -> Iterator[tuple[str, str]]:
    """Each line that is written in a log call: (place, regular expression)."""
    for call in log_calls():
        for text in call.texts:
            yield call.place, text


def built_texts() -> Iterator[tuple[str, str]]:
    """Each text of the functions in `SOURCES`: (place, regular expression of a part of a line)."""
    for source in sorted({source for sources in SOURCES.values() for source in sources}):
        file, _, name = source.partition(" ")
        found = [(f"{file}:{line}", text) for line, text in _texts(ROOT / file, name)]
        assert found, f"SOURCES of tests/docs/logged.py names {source!r}, which has no text"
        yield from (each for each in found if each[1].replace("\\", "") not in UNLOGGED)


def unknown_sources() -> list[str]:
    """The parts of log lines whose source is not known."""
    known = SOURCES.keys() | NAMES
    return [
        f"{call.place}: {part}"
        for call in log_calls()
        for part in call.parts
        if not {part, part.partition(": ")[2]} & known
    ]


def unused_sources() -> set[str]:
    """What `SOURCES` and `NAMES` have and no log call needs."""
    parts = {part for call in log_calls() for part in call.parts}
    return (SOURCES.keys() | NAMES) - parts - {part.partition(": ")[2] for part in parts}


def _modules() -> list[Path]:
    return sorted([*ROOT.glob("liteyuki_host/**/*.py"), *ROOT.glob("nonebot_plugin_lycomm/**/*.py")])


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _call(path: Path, node: ast.Call, tree: ast.Module) -> LogCall:
    place = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
    written = value_of(node.args[0], tree)
    lines = patterns_of(written, tree)
    texts = [line for line in lines if _is_written(line)]
    if len(texts) == len(lines):
        return LogCall(place, texts)
    built = [line for line in lines if line not in texts and re.search(r"[a-z]{2}", line.replace(ANY, ""))]
    parts = _parts(written, tree) or [node.args[0]]
    return LogCall(place, texts, built, [f"{path.stem}: {ast.unparse(part)}" for part in parts])


def _parts(text: ast.expr, tree: ast.Module) -> list[ast.expr]:
    """What is put into *text* and into the texts that are put into it."""
    found = []
    for each in ast.walk(text):
        if isinstance(each, ast.FormattedValue):
            value = value_of(each.value, tree)
            inner = _parts(value, tree) if isinstance(value, ast.JoinedStr | ast.Constant | ast.IfExp) else [each.value]
            found += inner
    return found


def _is_written(text: str) -> bool:
    words = re.findall(r"[A-Za-z']{3,}", text.replace(ANY, " ").replace("\\", ""))
    return ANY not in text or len([word for word in words if word not in ("child", "host")]) >= 3


def _texts(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """(line, regular expression) of the texts of three words and more."""
    tree = _tree(path)
    for node in ast.walk(tree):
        raised = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == name
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and name in (node.name, "*")
        if raised or function:
            yield from _texts_inside(node, tree)


def _texts_inside(within: ast.AST, tree: ast.Module) -> Iterator[tuple[int, str]]:
    parts = {part for each in ast.walk(within) if isinstance(each, ast.JoinedStr) for part in each.values}
    docstrings = {each.value for each in ast.walk(within) if isinstance(each, ast.Expr)}
    for node in ast.walk(within):
        text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if text and node not in parts | docstrings:
            for pattern in patterns_of(node, tree):  # type: ignore[arg-type]
                if len(re.findall(r"(?<!\S)[A-Za-z']{2,}", pattern.replace(ANY, " ").replace("\\", ""))) >= 3:
                    yield node.lineno, pattern  # type: ignore[attr-defined]
