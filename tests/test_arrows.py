"""The map's arrows, as contracts that fail the build when broken."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=50
    )


def test_every_arrow_holds() -> None:
    run = lint(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 kept, 0 broken" in run.stdout


TOTALS = {"sent", "acknowledged", "limit", "received", "consumed", "granted", "owing"}


def test_only_the_ledger_changes_totals() -> None:
    """The totals of a stream are changed in one place, and nowhere else on something that is called stream."""
    found = []
    for path in sorted((ROOT / "liteyuki_host").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Attribute) and target.attr in TOTALS:
                    owner = ast.unparse(target.value).rpartition(".")[2]
                    if owner == "stream" or path.name in ("ledger.py", "stream.py"):
                        found.append(path.relative_to(ROOT / "liteyuki_host").as_posix())
    assert set(found) == {"comm/protocol/ledger.py"}


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan's algorithm)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in numbers:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in path:
                lowest[module] = min(lowest[module], numbers[imported])
        if lowest[module] == numbers[module]:
            start = path.index(module)
            if len(path) - start > 1:
                found.append(set(path[start:]))
            del path[start:]

    for module in sorted(graph.modules):
        if module not in numbers:
            visit(module)
    return found


def test_no_modules_import_each_other() -> None:
    """Also not inside functions. Imports for type checkers alone do not count."""
    graph = grimp.build_graph(
        "liteyuki_host", "nonebot_plugin_lycomm", exclude_type_checking_imports=True, cache_dir=None
    )
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")):
        for module in (importer, imported):
            graph.add_module(module)
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [{"a", "b", "c"}]


@pytest.mark.parametrize(
    ("file", "planted"),
    [
        ("liteyuki_host/comm/protocol/frames.py", "import socket"),
        ("liteyuki_host/comm/process/node.py", "import liteyuki_host.supervisor.policy_of_tomorrow"),
        ("liteyuki_host/hub/hub.py", "import nonebot"),
        ("nonebot_plugin_lycomm/driver_hooks.py", "import liteyuki_host.settings"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, file: str, planted: str) -> None:
    for name in ("liteyuki_host", "nonebot_plugin_lycomm"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "liteyuki_host" / "supervisor" / "policy_of_tomorrow.py").touch()
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{planted}\n")
    run = lint(tmp_path)
    assert run.returncode != 0
    assert re.search("[1-9] broken", run.stdout)
