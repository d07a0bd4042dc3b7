from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from supervisor_kit import DEADLINE, child

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import Outlook, outlook
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor import process
from liteyuki_host.supervisor.process import Child, why_no_host_in

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


class NoHandles:
    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.popen_options: dict[str, object] = {}

    def close(self) -> None: ...


def spawn(python: Path | str, folder: Path, on_exit: object = print) -> Child:
    plan = ProjectPlan(folder, Path(python), "toml", None)
    return Child.spawn(child(), plan, [NoHandles()], on_exit)  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"bot: the project folder .*nowhere does not exist"):
        spawn(sys.executable, tmp_path / "nowhere")


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"bot: there is no Python interpreter at .*python9"):
        spawn(tmp_path / "python9", tmp_path)


@posix_only
def test_an_interpreter_that_may_not_be_run_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.touch(mode=0o644)
    with pytest.raises(ProcessFailed, match=r"bot: cannot start .*python: Permission denied"):
        spawn(python, tmp_path)


@posix_only
@pytest.mark.parametrize(
    ("program", "asked", "looks"),
    [("/bin/true", False, True), ("/bin/true", True, False), ("/bin/false", False, False)],
)
def test_only_after_an_unasked_end_without_error_all_processes_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, asked: bool, looks: bool
) -> None:
    listed: list[int] = []
    ended = threading.Event()
    spawned = threading.Event()
    monkeypatch.setattr(process, "left_behind", lambda pid: listed.append(pid) or ["python x (pid 1)"])
    reap = Child._reap

    def reap_when_told(self: Child) -> int:
        assert spawned.wait(DEADLINE)
        return reap(self)

    monkeypatch.setattr(Child, "_reap", reap_when_told)
    one = spawn(program, tmp_path, lambda code: ended.set())
    one.asked_to_end = asked
    spawned.set()
    assert ended.wait(DEADLINE)
    assert bool(listed) is bool(one.left_behind) is looks


@posix_only
def test_signals_after_the_end_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pid may belong to a stranger by then."""
    codes: list[int] = []
    ended = threading.Event()

    def on_exit(returncode: int) -> None:
        codes.append(returncode)
        ended.set()

    gone = spawn("/bin/false", tmp_path, on_exit)
    assert ended.wait(DEADLINE)
    assert codes == [1]
    assert not gone.alive
    sent: list[object] = []
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
    monkeypatch.setattr(os, "killpg", lambda *args: sent.append(args))
    for signal_it in (gone.interrupt, gone.terminate, gone.kill):
        signal_it()
    assert sent == []


@posix_only
def test_an_interpreter_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROBE_SECONDS", 0.2)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    with pytest.raises(ProcessFailed, match=r"python did not answer in 0.2 s$") as raised:
        why_no_host_in(python, tmp_path)
    assert outlook(raised.value) is Outlook.UNCLEAR  # a busy machine may be quicker the next time


def test_our_own_interpreter_can_run_us(tmp_path: Path) -> None:
    assert why_no_host_in(Path(sys.executable), tmp_path) is None
