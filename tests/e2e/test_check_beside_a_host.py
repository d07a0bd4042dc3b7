"""``lycomm check`` while a host runs the bots that it looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import free_port, host_process, lab_project

from liteyuki_host.cli import main

pytestmark = pytest.mark.e2e


def test_a_bot_that_runs_already_is_a_note_and_its_port_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab_project(tmp_path, driver="~fastapi")
    with host_process(tmp_path) as host:
        host.wait_for("child nonebot ready")
        assert main(["check", "--project", str(tmp_path)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        plan, note = captured.out.splitlines()
        assert plan.startswith("nonebot: [tool.nonebot] in ")
        assert note.startswith(f"nonebot: note: the bot already runs under another host (pid {host.pid}, since ")
        assert host.stop() == 0
    assert main(["check", "--project", str(tmp_path)]) == 0
    assert "already runs" not in capsys.readouterr().out


def test_the_port_of_a_sibling_that_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sibling got its port from the environment of its host, so only the running process tells."""
    port = free_port()
    for name in ("old", "new"):
        lab_project(tmp_path / name, driver="~fastapi", port=port if name == "new" else free_port())
    declared = "[tool.lycomm.processes.old]\nproject = 'old'\n"
    (tmp_path / "pyproject.toml").write_text(declared)
    with host_process(tmp_path, PORT=str(port)) as host:
        host.wait_for("child old ready")
        (tmp_path / "pyproject.toml").write_text(f"{declared}[tool.lycomm.processes.new]\nproject = 'new'\n")
        assert main(["check", "--project", str(tmp_path), "--no-import"]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"lycomm: new: port {port} on 127.0.0.1 is in use by the bot old (pid ")
        assert host.stop() == 0
