"""What nb-cli loads at each of its starts is quick, and never in its way. More, with real nb-cli, in tests/e2e."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest


def in_fresh_python(code: str, folder: Path) -> list[str]:
    call = [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"]
    done = subprocess.run(call, cwd=folder, capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("group", ["nb", "nb_scripts"])
def test_both_entry_points_load_without_nonebot_the_plugin_or_anything_heavy(tmp_path: Path, group: str) -> None:
    (entry,) = entry_points(group=group, name="lycomm")
    before = in_fresh_python("import os, signal, subprocess, threading, typing", tmp_path)
    loaded = in_fresh_python(f"import os, signal, subprocess, threading, typing, {entry.module}", tmp_path)
    ours = {name for name in loaded if name.startswith(("liteyuki_host", "nonebot"))}
    assert ours == {"liteyuki_host", "liteyuki_host._lazy", "liteyuki_host._version", "liteyuki_host.nb"}
    others = set(loaded) - set(before) - ours
    assert others <= {"__future__", "importlib", "importlib._bootstrap", "importlib._bootstrap_external"}, others
    assert callable(entry.load())


@pytest.mark.parametrize("nb_cli", [None, "", "cli = None"], ids=["none", "empty", "another version"])
def test_an_nb_cli_that_is_not_understood_goes_on_without_our_command(tmp_path: Path, nb_cli: str | None) -> None:
    if nb_cli is not None:
        (tmp_path / "nb_cli.py").write_text(nb_cli)
    in_fresh_python("from liteyuki_host.nb import add_command; add_command()", tmp_path)
