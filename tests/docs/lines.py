"""Texts that an operator may read beside those of log calls (`logged`): reasons not to start, findings of a check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

REASONS = [
    "liteyuki_host/project.py",
    "liteyuki_host/dotenv_text.py",
    "liteyuki_host/paths.py",
    "liteyuki_host/_child/run_project.py",
    "liteyuki_host/_child/listening.py",
]
REASON_FUNCTIONS = {
    "liteyuki_host/supervisor/hiding.py": {"line"},
    "liteyuki_host/supervisor/interpreter.py": {"no_interpreter"},
    "liteyuki_host/supervisor/process.py": {"why_no_host_in"},
    "liteyuki_host/supervisor/installation.py": {"difference", "_read"},
}
REASON_ERRORS = {"ProcessFailed", "CannotRun", "FileProblem"}


def reasons() -> Iterator[tuple[str, str]]:
    """(place, regular expression) of every reason not to start."""
    for name in REASONS:
        for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            if ast.unparse(node.exc.func) in REASON_ERRORS:
                for text in patterns_of(node.exc.args[0]):
                    if re.search(r"\w{3}", text.replace(ANY, "")) or ": " in text.replace("\\", ""):
                        yield f"{name}:{node.lineno}", text
    for name, functions in REASON_FUNCTIONS.items():
        for function in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name in functions:
                for node in ast.walk(function):
                    value = _text_of_reason(node)
                    if value is not None:
                        for text in patterns_of(value):
                            yield f"{name}:{node.lineno}", text


def _text_of_reason(node: ast.AST) -> ast.expr | None:
    """What such a function returns, or raises as the text of an error."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in REASON_ERRORS:
        return node.exc.args[0] if isinstance(node.exc.args[0], ast.JoinedStr) else None
    if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
        return node.value
    return None


FOUND = [
    "liteyuki_host/examination/*.py",
    "liteyuki_host/_child/configuration.py",
    "liteyuki_host/_child/doubtful.py",
    "liteyuki_host/_child/mistyped.py",
    "liteyuki_host/_child/run_project.py",
    "liteyuki_host/_child/survey.py",
]
TELLING = {"fault", "note", "tell", "append", "Refused"}


def findings() -> Iterator[tuple[str, str]]:
    """(place, regular expression) of what ``lycomm check`` finds: the texts that are told and yielded there, and those
    that ``no_...`` and ``wrong_...`` return."""
    for pattern in FOUND:
        for path in sorted(ROOT.glob(pattern)):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                for told in _told_by(node):
                    told = value_of(told, tree)
                    for text in patterns_of(told) if isinstance(told, ast.JoinedStr) else ():
                        if len(re.findall(r"[a-z]{2}", text.replace(ANY, ""))) > 3:
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _told_by(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TELLING:
        yield from node.args[:1]
    elif isinstance(node, ast.Yield) and node.value is not None:
        yield from node.value.args[:1] if isinstance(node.value, ast.Call) else [node.value]
    elif isinstance(node, ast.FunctionDef) and node.name.lstrip("_").startswith(("no_", "wrong_")):
        yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value is not None)


LOSSES = {"lose": ("outbox", 1), "give_up": ("outbox", 0), "add": ("losses", 2), "close": ("hub", 0)}
"""The calls that say why messages are lost: of what, and which of their arguments does."""


def losses() -> Iterator[tuple[str, str]]:
    """Why messages are lost, as the log says it in brackets: where it is written, and a pattern."""
    for path in sorted((ROOT / "liteyuki_host").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if (reason := _reason_of_loss(node)) is not None:
                constants = (each for each in tree.body if isinstance(each, ast.Assign))
                value = next(
                    (each.value for each in constants if ast.unparse(each.targets[0]) == ast.unparse(reason)), reason
                )
                for pattern in patterns_of(value_of(value, tree), tree):
                    if pattern != ANY:  # else it was passed on, and is written somewhere else
                        yield path.name, pattern


def _reason_of_loss(node: ast.AST) -> ast.expr | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOSSES):
        return None
    owner, place = LOSSES[node.func.attr]
    of = ast.unparse(node.func.value).rpartition(".")[2]
    if of != owner and (of, node.func.attr) != ("self", "lose"):
        return None
    return node.args[place] if len(node.args) > place else None


ANY = "(?:.*)"


def value_of(node: ast.expr, tree: ast.Module) -> ast.expr:
    """What was assigned to a name last, above it and in the function that it stands in; else the name."""
    if not isinstance(node, ast.Name):
        return node
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    around = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
    assigned = [
        other
        for other in ast.walk(max(around, key=lambda each: each.lineno) if around else tree)
        if isinstance(other, ast.Assign) and other.lineno < node.lineno
        if node.id in (ast.unparse(target) for target in other.targets)
    ]
    return max(assigned, key=lambda other: other.lineno).value if assigned else node


def patterns_of(node: ast.expr, tree: ast.Module | None = None) -> list[str]:
    """What the expression may give, as regular expressions: one for each way through its conditions.

    Args:
        tree: the module, to look up the names that are put into a text; without it they may be anything.
    """
    if isinstance(node, ast.Constant):
        return [re.escape(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        result = [""]
        for part in node.values:
            result = [head + tail for head in result for tail in _patterns_of_part(part, tree)]
        return result
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [head + tail for head in patterns_of(node.left, tree) for tail in patterns_of(node.right, tree)]
    if isinstance(node, ast.IfExp):
        return patterns_of(node.body, tree) + patterns_of(node.orelse, tree)
    return [ANY]


def _patterns_of_part(part: ast.expr, tree: ast.Module | None) -> list[str]:
    if isinstance(part, ast.FormattedValue) and tree is not None and isinstance(part.value, ast.Name):
        value = value_of(part.value, tree)
        return patterns_of(value, tree) if isinstance(value, ast.JoinedStr | ast.Constant) else [ANY]
    return patterns_of(part) if isinstance(part, ast.Constant) else [ANY]
