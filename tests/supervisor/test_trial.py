"""The host's side of a trial. Its launchers know no NoneBot; real projects: tests/launch/test_trial_child.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from loguru import logger
from supervisor_kit import DEADLINE, child, plan

from liteyuki_host.supervisor import trial as trial_module
from liteyuki_host.supervisor.trial import OUTPUT_BYTES, TrialFailure, trial

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="the launchers speak over a socket")]

HEAD = """
import json, os, socket, subprocess, sys, time
orders, link = (socket.socket(fileno=int(fd)) for fd in os.environ.pop("LYCOMM_LINK").removeprefix("fd:").split(","))
for end in (orders, link): end.set_inheritable(False)

def say(**verdict):
    link.sendall(json.dumps(verdict).encode() + b"\\n")

"""

LINGER = "print('up', flush=True); time.sleep(3600)"

Attempt = Callable[..., "asyncio.Future[TrialFailure | None]"]


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """Tries a project whose launcher is found before ours, because it lies in the working directory."""

    def run(
        code: str, *, timeout: float = DEADLINE, known_failed: tuple[str, ...] = ()
    ) -> asyncio.Future[TrialFailure | None]:
        package = tmp_path / "liteyuki_host"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "launch.py").write_text(HEAD + code)
        spec = child(project=tmp_path)
        return asyncio.ensure_future(trial(spec, plan(spec), known_failed=known_failed, timeout=timeout))

    return run


def pid_in(file: Path) -> int:
    return int(file.read_text())


async def is_there(file: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)  # a stranger's file


async def test_what_the_throw_away_process_is_given(attempt: Attempt, tmp_path: Path) -> None:
    facts = "dict(argv=sys.argv[1:], leader=os.getsid(0) == os.getpid(), cwd=os.getcwd(), env=dict(os.environ))"
    assert await attempt(f"json.dump({facts}, open('facts', 'w')); say(failed_plugins={{}})") is None
    seen = json.loads((tmp_path / "facts").read_text())
    assert seen["argv"] == ["--process", "bot", "--kind", "toml", "--trial"]
    assert seen["leader"]
    assert seen["cwd"] == os.path.realpath(tmp_path)
    assert seen["env"]["LYCOMM_PROCESS"] == "bot"
    assert seen["env"]["LYCOMM_LEASH"].startswith("fd:")
    assert seen["env"]["NO_COLOR"] == "1"


async def test_an_error_is_told_as_the_child_puts_it(attempt: Attempt) -> None:
    trouble = await attempt("print('a long traceback'); say(error='bot.py line 1: NameError: x')")
    assert str(trouble) == "bot.py line 1: NameError: x"


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        ({}, None),
        ({"old": "old.py line 1: E"}, None),
        ({"old": "old.py line 1: E", "a": "a.py line 2: F"}, "a.py line 2: F"),
        ({"a": "a.py line 2: F", "b": "G"}, "a.py line 2: F (and 1 more plugin cannot be loaded)"),
        ({"a": "a.py line 2: F", "b": "G", "c": "H"}, "a.py line 2: F (and 2 more plugins cannot be loaded)"),
    ],
)
async def test_plugins_that_the_running_bot_does_without_do_not_count(
    attempt: Attempt, failed: dict[str, str], words: str | None
) -> None:
    trouble = await attempt(f"say(failed_plugins={failed!r})", known_failed=("old", "other"))
    assert trouble == (None if words is None else TrialFailure(words))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os._exit(5)", "it exited 5 while it was loaded"),
        ("os.kill(os.getpid(), 11)", "it was killed by SIGSEGV while it was loaded"),
        ("link.sendall(b'what'); os._exit(0)", "it exited 0 while it was loaded"),
    ],
)
async def test_an_end_without_a_verdict_is_told_with_what_it_printed(attempt: Attempt, end: str, words: str) -> None:
    trouble = await attempt(f"print('about to', flush=True); print('break', file=sys.stderr, flush=True); {end}")
    assert trouble == TrialFailure(words, "about to\nbreak")
    assert str(trouble) == f"{words}; it printed:\nabout to\nbreak\n"


async def test_one_that_takes_too_long_is_killed_with_all_it_started(attempt: Attempt, tmp_path: Path) -> None:
    trouble = await attempt(
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n" + LINGER,
        timeout=1.0,
    )
    assert trouble == TrialFailure(
        "it was not loaded in 1 s (an import that does not return, or a loop of its own in place of nonebot.run()?)",
        "up",
    )
    pids = map(int, (tmp_path / "pids").read_text().split())
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], DEADLINE)
    assert not alive


async def test_one_that_takes_too_long_shows_where_it_is(attempt: Attempt) -> None:
    listening = "import faulthandler, signal; faulthandler.register(signal.SIGUSR2)"
    trouble = await attempt(f"{listening}\ntime.sleep(3600)", timeout=1.0)
    assert trouble is not None
    assert 'launch.py", line 10 in <module>' in trouble.output


async def test_one_that_does_not_end_after_its_verdict_is_not_waited_for(attempt: Attempt, tmp_path: Path) -> None:
    assert await attempt("open('pid', 'w').write(str(os.getpid())); say(failed_plugins={}); " + LINGER) is None
    assert not psutil.pid_exists(pid_in(tmp_path / "pid"))


async def test_a_cancelled_trial_leaves_nothing(attempt: Attempt, tmp_path: Path) -> None:
    trying = attempt("open('pid', 'w').write(str(os.getpid())); " + LINGER)
    await is_there(tmp_path / "pid")
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert not psutil.pid_exists(pid_in(tmp_path / "pid"))


async def test_one_that_closes_its_pipe_and_goes_on(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that makes a daemon of itself."""
    monkeypatch.setattr(trial_module, "GONE_SECONDS", 0.3)
    assert await attempt("orders.close(); link.close(); " + LINGER) == TrialFailure(
        "it closed all its files while it was loaded", "up"
    )


@pytest.fixture
def runaway(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "runaway"
    yield file
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid_in(file)).kill()


async def test_somebody_who_has_left_its_group_does_not_hold_us_up(attempt: Attempt, runaway: Path) -> None:
    """It still has the trial's output."""
    started = time.monotonic()
    assert (
        await attempt(
            "other = subprocess.Popen(['sleep', '3600'], start_new_session=True)\n"
            f"open({str(runaway)!r}, 'w').write(str(other.pid)); say(failed_plugins={{}})"
        )
        is None
    )
    assert time.monotonic() - started < DEADLINE / 2
    assert psutil.pid_exists(pid_in(runaway))


async def test_of_what_it_prints_the_end_is_kept(attempt: Attempt) -> None:
    trouble = await attempt("for n in range(100_000): print('line', n)\nsys.stdout.flush(); os._exit(1)")
    assert trouble is not None
    assert len(trouble.output) <= OUTPUT_BYTES
    assert len(trouble.output) > OUTPUT_BYTES / 2
    assert trouble.output.endswith("line 99998\nline 99999")


async def test_what_it_prints_is_shown_to_who_wants_to_see_it(attempt: Attempt) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
    try:
        assert await attempt("print('loading', flush=True); say(failed_plugins={})") is None
    finally:
        logger.remove(sink)
    assert lines == ["DEBUG child bot: the trial printed:\nloading\n"]


async def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    spec = child(project=tmp_path / "nowhere")
    trouble = await trial(spec, plan(spec), timeout=DEADLINE)
    assert trouble == TrialFailure(f"bot: the project folder {tmp_path / 'nowhere'} does not exist")
