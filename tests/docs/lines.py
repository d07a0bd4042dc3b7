"""The lines that an operator may read, collected from the source: log calls, and the texts of the errors they carry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOGGING = [
    "liteyuki_host/boundary.py",
    "liteyuki_host/child_requests.py",
    "liteyuki_host/host.py",
    "liteyuki_host/idle.py",
    "liteyuki_host/self_watch.py",
    "liteyuki_host/settings_files.py",
    "liteyuki_host/lifespan.py",
    "liteyuki_host/launch.py",
    "liteyuki_host/supervisor/*.py",
    "liteyuki_host/_child/*.py",
    "liteyuki_host/hub/*.py",
    "liteyuki_host/output/*.py",
    "liteyuki_host/comm/process/exchange.py",
    "nonebot_plugin_lycomm/*.py",
]
LEVELS = {"info", "success", "warning", "error", "exception"}


def lines_of_the_log() -> Iterator[tuple[str, str]]:
    """(place, regular expression) of every log call with a text of its own."""
    for pattern in LOGGING:
        for path in sorted(ROOT.glob(pattern)):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    ours = "logger" in ast.unparse(node.func.value)
                    if node.func.attr in LEVELS and ours:
                        for text in _patterns(_value_of(node.args[0], tree)):
                            if re.search(r"\w{3}", text.replace(ANY, "")):
                                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


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
    """The same of every reason not to start."""
    for name in REASONS:
        for node in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            if ast.unparse(node.exc.func) in REASON_ERRORS:
                for text in _patterns(node.exc.args[0]):
                    if re.search(r"\w{3}", text.replace(ANY, "")) or ": " in text.replace("\\", ""):
                        yield f"{name}:{node.lineno}", text
    for name, functions in REASON_FUNCTIONS.items():
        for function in ast.walk(ast.parse((ROOT / name).read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name in functions:
                for node in ast.walk(function):
                    value = _value_of_reason(node)
                    if value is not None:
                        for text in _patterns(value):
                            yield f"{name}:{node.lineno}", text


def _value_of_reason(node: ast.AST) -> ast.expr | None:
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
    """The same of what ``lycomm check`` finds: the texts that are told and yielded there, and returned by ``no_...``
    and ``wrong_...``."""
    for pattern in FOUND:
        for path in sorted(ROOT.glob(pattern)):
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                for told in _told_by(node):
                    told = _value_of(told, tree)
                    for text in _patterns(told) if isinstance(told, ast.JoinedStr) else ():
                        if len(re.findall(r"[a-z]{2}", text.replace(ANY, ""))) > 3:
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _told_by(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TELLING:
        yield from node.args[:1]
    elif isinstance(node, ast.Yield) and node.value is not None:
        yield from node.value.args[:1] if isinstance(node.value, ast.Call) else [node.value]
    elif isinstance(node, ast.FunctionDef) and node.name.lstrip("_").startswith(("no_", "wrong_")):
        yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value is not None)


ANY = "(?:.*)"


def _value_of(node: ast.expr, tree: ast.Module) -> ast.expr:
    """What was assigned to a name last, above it."""
    if not isinstance(node, ast.Name):
        return node
    assigned = [
        other
        for other in ast.walk(tree)
        if isinstance(other, ast.Assign) and other.lineno < node.lineno and ast.unparse(other.targets[0]) == node.id
    ]
    return max(assigned, key=lambda other: other.lineno).value if assigned else node


def _patterns(node: ast.expr) -> list[str]:
    """What the expression may give, as regular expressions: one for each way through its conditions."""
    if isinstance(node, ast.Constant):
        return [re.escape(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        result = [""]
        for part in node.values:
            more = _patterns(part) if isinstance(part, ast.Constant) else [ANY]
            result = [head + tail for head in result for tail in more]
        return result
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [head + tail for head in _patterns(node.left) for tail in _patterns(node.right)]
    if isinstance(node, ast.IfExp):
        return _patterns(node.body) + _patterns(node.orelse)
    return [ANY]
