"""Real child processes (fake_project), a real Supervisor, a fake hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest
from supervisor_kit import DEADLINE, FAKE_PROJECT, Events, FakeHub, LogLines, Supervise, child

from liteyuki_host.comm.errors import ProcessFailed, UnknownProcess
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.spec import ProcessSpec
from liteyuki_host.supervisor.states import State
from liteyuki_host.supervisor.supervisor import ProcessStatus, Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake child speaks over an inherited descriptor")


def status(supervisor: Supervisor, name: str = "bot") -> ProcessStatus:
    return next(each for each in supervisor.status() if each.name == name)


def pid_of(supervisor: Supervisor, name: str = "bot") -> int:
    pid = status(supervisor, name).pid
    assert pid is not None
    return pid


async def gone(process: psutil.Process) -> None:
    """A killed process is a zombie until init takes it; there is nothing to wait on but its state."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while asyncio.get_running_loop().time() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{process} is still there")


# A child's start.


async def test_a_child_becomes_ready_and_the_operator_is_told_where(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        now = status(supervisor)
        assert (now.state, now.address, now.restarts, now.last_exit) == (State.READY, "http://127.0.0.1:1", 0, None)
        assert now.uptime is not None
        assert 0 < now.uptime < DEADLINE
        await log_lines.line(f"^child bot started \\(pid {now.pid}\\): with the host$")
        await log_lines.line(r"^child bot ready in \d+\.\d s: http://127\.0\.0\.1:1$")
        await log_lines.line(r"^child bot: cwd reverse WebSocket listens on ")


async def test_what_a_child_is_given(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HOST", "yes")
    spec = child("other", env={"MINE": "1", "PYTHONUNBUFFERED": "0"})
    async with supervise(spec) as supervisor:
        await supervisor.wait_ready("other", DEADLINE)
        details = status(supervisor, "other").details
        environment = json.loads(details["environment"])
        assert {k: environment.get(k) for k in ("FROM_HOST", "MINE", "LYCOMM_PROCESS", "PYTHONUTF8")} == {
            "FROM_HOST": "yes",
            "MINE": "1",
            "LYCOMM_PROCESS": "other",
            "PYTHONUTF8": "1",
        }
        assert environment["PYTHONIOENCODING"] == "utf-8:replace"
        assert environment["PYTHONUNBUFFERED"] == "0"  # the operator's own word wins
        assert environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
        assert details["cwd"] == str(FAKE_PROJECT)
        assert details["session"] == "True"
        assert json.loads(details["argv"])[2:] == ["--process", "other", "--kind", "toml"]


async def test_a_child_without_autostart_waits_for_start(supervise: Supervise) -> None:
    async with supervise(child(autostart=False), child("other")) as supervisor:
        await supervisor.wait_ready("other", DEADLINE)
        assert status(supervisor).state is State.DECLARED
        await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)
        assert status(supervisor).state is State.READY
        pid = pid_of(supervisor)
        await supervisor.astart("bot")  # running already: nothing happens
        assert pid_of(supervisor) == pid


async def test_an_unknown_name_is_refused_and_the_known_ones_are_told(supervise: Supervise) -> None:
    async with supervise(child(autostart=False)) as supervisor:
        for operation in (supervisor.start, supervisor.stop, supervisor.restart):
            with pytest.raises(UnknownProcess, match="no process 'nope' is declared; declared are: bot"):
                operation("nope")


# Its end.

RUNGS = [
    ("", "the stop message", "exited 0"),
    ("ignore-message", "SIGINT", "killed by SIGINT"),
    ("ignore-message ignore-SIGINT", "SIGTERM", "killed by SIGTERM"),
    ("ignore-message ignore-SIGINT ignore-SIGTERM", "a kill", "killed by SIGKILL"),
]


@pytest.mark.parametrize(("behaviour", "rung", "words"), RUNGS, ids=[rung for _, rung, _ in RUNGS])
async def test_the_stop_ladder_and_the_rung_that_worked(
    supervise: Supervise, log_lines: LogLines, behaviour: str, rung: str, words: str
) -> None:
    seconds = 10.0 if not behaviour else 0.2
    spec = child(behaviour=behaviour, stop_timeout=seconds, interrupt_timeout=0.2, terminate_timeout=0.2)
    async with supervise(spec) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        assert not psutil.pid_exists(pid)
        await log_lines.line(f"^child bot stopped after {rung} in .* \\({words}\\)$")
        assert (status(supervisor).pid, status(supervisor).last_exit) == (None, words)


@pytest.mark.parametrize("ends_by", ["stop", "SIGKILL"])
async def test_what_a_child_has_started_is_gone_with_it(
    supervise: Supervise, log_lines: LogLines, ends_by: str
) -> None:
    async with supervise(child(behaviour="grandchild")) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        grandchild = psutil.Process(int(status(supervisor).details["grandchild"]))
        if ends_by == "SIGKILL":
            os.kill(pid_of(supervisor), signal.SIGKILL)
        else:
            supervisor.stop("bot")
        await log_lines.line("^child bot (stopped|killed)")  # told after its group was killed
        await gone(grandchild)


async def test_a_second_stop_neither_restarts_nor_shortens_the_ladder(supervise: Supervise) -> None:
    hub = FakeHub()
    spec = child(behaviour="ignore-message", stop_timeout=0.5, interrupt_timeout=10.0)
    async with supervise(spec, hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        first = asyncio.create_task(supervisor.astop("bot"))
        while not hub.sessions[0].stops:
            await asyncio.sleep(0)
        for _ in range(5):
            supervisor.stop("bot")
            await asyncio.sleep(0)
        await asyncio.wait_for(first, DEADLINE)
        assert 0.5 <= loop.time() - begun < 5
        assert hub.sessions[0].stops == ["stop"]


async def test_kill_now_ends_a_ladder_that_is_being_climbed(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(behaviour="ignore-message", stop_timeout=3600.0), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        stopping = asyncio.create_task(supervisor.stop_all())
        while not hub.sessions[0].stops:
            await asyncio.sleep(0)
        threading.Thread(target=supervisor.kill_now).start()
        await asyncio.wait_for(stopping, DEADLINE)
        await log_lines.line("^child bot stopped after a kill ")


async def test_stop_during_the_start_of_a_child_that_never_greets(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(behaviour="never-greet"), hub=hub) as supervisor:
        await log_lines.line("^child bot started")
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        line = await log_lines.line("^child bot stopped after SIGTERM ")
        assert float(re.findall(r"in ([\d.]+) s", line)[0]) < 1.0  # its greeting was waited for, 2 s
        assert hub.sessions[0].stops == []  # nobody there would read it
        assert status(supervisor).state is State.STOPPED


async def test_every_child_is_stopped_at_the_same_time(supervise: Supervise) -> None:
    slow = "ignore-message ignore-SIGINT ignore-SIGTERM"
    seconds = {"stop_timeout": 0.5, "interrupt_timeout": 0.5, "terminate_timeout": 0.5}
    async with supervise(*(child(f"bot{n}", slow, **seconds) for n in range(4))) as supervisor:
        for n in range(4):
            await supervisor.wait_ready(f"bot{n}", DEADLINE)
        begun = asyncio.get_running_loop().time()
        await supervisor.stop_all()
        assert asyncio.get_running_loop().time() - begun < 4.0  # 6.0 one after the other


async def test_a_cancelled_supervisor_leaves_no_child(log_lines: LogLines) -> None:
    hub = FakeHub()
    stubborn = "ignore-message ignore-SIGINT ignore-SIGTERM"

    def inspect(spec: ProcessSpec) -> ProjectPlan:
        return ProjectPlan(FAKE_PROJECT, Path(sys.executable), "toml", None)

    supervisor = Supervisor(hub, {"bot": child(behaviour=stubborn)}, events=Events(), inspect=inspect)
    serving = asyncio.create_task(supervisor.serve())
    await supervisor.wait_ready("bot", DEADLINE)
    pid = pid_of(supervisor)
    serving.cancel()
    await asyncio.wait([serving], timeout=DEADLINE)
    assert serving.cancelled()
    assert not psutil.pid_exists(pid)


# A child that ends without being asked.


async def test_a_crash_is_told_in_words_and_the_child_comes_back(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        os.kill(pid, signal.SIGKILL)
        await log_lines.line(
            r"^child bot killed by SIGKILL; starting it again in 0\.\d s \(1 of at most 10 restarts in 10 min\)$"
        )
        await supervisor.wait_ready("bot", DEADLINE)
        now = status(supervisor)
        assert now.pid != pid
        assert (now.restarts, now.last_exit) == (1, "killed by SIGKILL")


async def test_a_crash_before_ready_fails_who_waits_for_this_start_and_is_tried_again(
    supervise: Supervise, log_lines: LogLines, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    spec = child(autostart=False, env={"FAIL_WHILE": str(broken)})
    async with supervise(spec) as supervisor:
        with pytest.raises(ProcessFailed, match="bot exited 5 before it was ready"):
            await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)
        waiting = asyncio.create_task(supervisor.wait_ready("bot"))
        broken.unlink()
        await asyncio.wait_for(waiting, DEADLINE)


async def test_a_child_that_ends_with_0_meant_to(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        hub.sessions[0].tell(exit=0)
        await log_lines.line("^child bot ended by itself: exited 0; not starting it again$")
        with pytest.raises(ProcessFailed):
            await supervisor.wait_ready("bot", DEADLINE)
        assert status(supervisor).state is State.STOPPED
        await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exited 3 before it was ready: NoneBot's start-up failed"), (1, "exited 1 before it was ready;")],
)
async def test_a_failed_start_is_told_as_such(supervise: Supervise, log_lines: LogLines, code: int, words: str) -> None:
    async with supervise(child(behaviour=f"exit-before-ready-{code}")) as supervisor:
        await log_lines.line(words)
        assert status(supervisor).state in (State.BACKING_OFF, State.STARTING)


async def test_a_child_that_cannot_start_as_it_is_does_not_loop(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(behaviour="exit-before-ready-78"), hub=hub) as supervisor:
        with pytest.raises(ProcessFailed, match=r"exited 78 before it was ready: it cannot start as it is$"):
            await supervisor.wait_ready("bot", DEADLINE)
        assert status(supervisor).state is State.FAILED
        with pytest.raises(ProcessFailed):
            await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)  # tries again
        assert len(hub.sessions) == 2


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        ("weather", "1 plugin that could not be loaded: weather"),
        ("weather news", "2 plugins that could not be loaded: news, weather"),
        (" ".join(f"p{number:02}" for number in range(12)), "12 plugins that .* p08, p09 and 2 more"),
    ],
)
async def test_a_bot_without_some_of_its_plugins_is_told(
    supervise: Supervise, log_lines: LogLines, failed: str, words: str
) -> None:
    async with supervise(child(env={"FAKE_FAILED_PLUGINS": failed})):
        await log_lines.line("^child bot ready in ")
        await log_lines.line(f"^child bot runs without {words}; its lines above say why$")


async def test_a_lost_link_ends_the_child(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(behaviour="drop-link")):
        await log_lines.line(r"^child bot lost its link to the host \(the link ended\); killing it$")
        await log_lines.line(r"^child bot ended after a kill \(killed by SIGKILL\); starting it again in 0\.\d s ")


async def test_a_child_that_stays_after_its_goodbye_is_killed(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(behaviour="linger-after-goodbye", stop_timeout=0.2)):
        await log_lines.line(
            r"^child bot said goodbye but was still there 0\.2 s later: a thread that is not a daemon\?; killing it$"
        )
        await log_lines.line("^child bot ended after a kill ")


@pytest.mark.parametrize(
    ("behaviour", "likely"),
    [
        ("never-greet", "it never reached the host"),
        ("hook-hangs", "a start-up hook does not return"),
        ("port-stays-closed", "its port does not open"),
    ],
)
async def test_a_child_that_is_not_ready_in_time_is_ended_with_the_likely_cause(
    supervise: Supervise, log_lines: LogLines, behaviour: str, likely: str
) -> None:
    spec = child(behaviour=behaviour, ready_timeout=0.5, stop_timeout=0.1, interrupt_timeout=5.0)
    async with supervise(spec) as supervisor:
        with pytest.raises(ProcessFailed, match=r"not ready in 0\.5 s"):
            await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)
        await log_lines.line(rf"^child bot not ready in 0\.5 s: .*{likely}")
        rung = "SIGTERM" if behaviour == "never-greet" else "SIGINT"
        await log_lines.line(f"^child bot ended after {rung} .*; starting it again")


# A child that cannot be started.


async def test_a_project_error_is_one_line_and_the_next_start_tries_again(log_lines: LogLines) -> None:
    fine = False

    def inspect(spec: ProcessSpec) -> ProjectPlan:
        if not fine:
            raise ProcessFailed("project folder /nowhere does not exist")
        return ProjectPlan(FAKE_PROJECT, Path(sys.executable), "toml", None)

    supervisor = Supervisor(FakeHub(), {"bot": child()}, events=Events(), inspect=inspect)
    serving = asyncio.create_task(supervisor.serve())
    await log_lines.line("^child bot cannot start: project folder /nowhere does not exist$")
    assert status(supervisor).state is State.FAILED
    with pytest.raises(ProcessFailed, match="/nowhere"):
        await supervisor.wait_ready("bot", DEADLINE)
    fine = True
    await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)
    await supervisor.stop_all()
    await asyncio.wait_for(serving, DEADLINE)


@pytest.mark.parametrize(
    ("interpreter", "words"),
    [
        (None, "there is no Python interpreter at .*python"),
        (
            "#!/bin/sh\necho \"No module named 'liteyuki_host.launch'\" >&2; exit 1\n",
            "-m pip install ",
        ),
        ("#!/bin/sh\necho lycomm?; echo 'Fatal: nothing here' >&2; exit 2\n", "cannot run lycomm: Fatal: nothing here"),
        ("#!/bin/sh\necho 'Fatal: nothing here' >&2; exit 2\n", "is no Python interpreter that answers"),
    ],
    ids=["missing", "without lycomm", "broken", "no interpreter"],
)
async def test_an_interpreter_that_cannot_run_us_is_named_with_the_remedy(
    log_lines: LogLines, tmp_path: Path, interpreter: str | None, words: str
) -> None:
    python = tmp_path / "python"
    if interpreter is not None:
        python.write_text(interpreter)
        python.chmod(0o755)

    def inspect(spec: ProcessSpec) -> ProjectPlan:
        return ProjectPlan(FAKE_PROJECT, python, "toml", None)

    supervisor = Supervisor(FakeHub(), {"bot": child()}, events=Events(), inspect=inspect)
    serving = asyncio.create_task(supervisor.serve())
    await log_lines.line(f"^child bot cannot start: .*{words}")
    assert log_lines.count("cannot start") == 1
    await supervisor.stop_all()
    await asyncio.wait_for(serving, DEADLINE)


# Hooks.


async def test_each_hook_of_a_restart_fires_once_and_in_order(supervise: Supervise) -> None:
    events = Events()
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        supervisor.restart("bot")
        supervisor.restart("bot")  # the same restart
        await asyncio.wait_for(supervisor.arestart("bot"), DEADLINE)
        assert pid_of(supervisor) != pid
        await asyncio.wait_for(events.restarted.wait(), DEADLINE)
        await supervisor.astop("bot")
        assert events.seen == [
            "before restart bot",
            "before shutdown bot",
            "after restart bot",
            "before shutdown bot",
        ]


async def test_a_crash_fires_no_hook(supervise: Supervise, log_lines: LogLines) -> None:
    events = Events()
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        os.kill(pid_of(supervisor), signal.SIGKILL)
        await log_lines.line("killed by SIGKILL")
        await supervisor.wait_ready("bot", DEADLINE)
        assert events.seen == []


async def test_a_hook_that_raises_is_logged_and_ends_nothing(supervise: Supervise, log_lines: LogLines) -> None:
    events = Events()
    events.fail = {"before restart bot", "before shutdown bot", "after restart bot"}
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        await asyncio.wait_for(supervisor.arestart("bot"), DEADLINE)
        await log_lines.line("after_restart hook of bot failed")
        assert log_lines.count("^before_process_(shutdown|restart) hook of bot failed") == 2
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)


async def test_a_hook_that_hangs_delays_a_stop_by_no_more_than_its_seconds(
    supervise: Supervise, log_lines: LogLines
) -> None:
    events = Events()
    events.hang = {"before shutdown bot"}
    async with supervise(child(stop_timeout=0.3), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        await log_lines.line("^before_process_shutdown hooks of bot take longer than 0.3 s; going on$")


# Operations that race.


async def test_a_start_right_after_a_stop_wins(supervise: Supervise) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        stopping = asyncio.create_task(supervisor.astop("bot"))
        starting = asyncio.create_task(supervisor.astart("bot"))
        await asyncio.wait([stopping, starting], timeout=DEADLINE)
        assert starting.done()
        assert starting.exception() is None
        assert stopping.done()  # overtaken, or done before the start: never left waiting
        stopping.exception()
        assert status(supervisor).state is State.READY


async def test_a_stop_during_a_restart_wins(supervise: Supervise) -> None:
    events = Events()
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        restarting = asyncio.create_task(supervisor.arestart("bot"))
        while status(supervisor).state is not State.STOPPING:
            await asyncio.sleep(0)
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        with pytest.raises(ProcessFailed, match="bot was asked to stop"):
            await restarting
        # Nor does anything of the restart come back with the next start.
        supervisor.restart("bot")
        supervisor.stop("bot")
        await asyncio.wait_for(supervisor.astart("bot"), DEADLINE)
        assert events.seen == ["before restart bot", "before shutdown bot"]


async def test_nothing_starts_any_more_once_everything_is_being_stopped(supervise: Supervise) -> None:
    async with supervise(child()) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        stopping = asyncio.create_task(supervisor.stop_all())
        await asyncio.sleep(0)
        supervisor.start("bot")
        supervisor.restart("bot")
        with pytest.raises(ProcessFailed, match="the host is stopping"):
            await supervisor.astart("bot")
        await asyncio.wait_for(stopping, DEADLINE)
        assert status(supervisor).state is State.STOPPED


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1])  # tests/faults/control_races.py has thousands
async def test_200_racing_operations_end_in_what_was_wanted_last(supervise: Supervise, seed: int) -> None:
    """Operations from threads and tasks, kills in between: never wedged, never two children, no waiter forgotten."""
    rng = random.Random(seed)
    hub = FakeHub()
    waiting: list[asyncio.Task[None]] = []
    async with supervise(child(backoff_base=0.01), hub=hub) as supervisor:
        for _ in range(200):
            choice = rng.choice(["start", "stop", "restart", "astart", "astop", "arestart", "kill", "exit 0"])
            pid = status(supervisor).pid
            if choice in ("start", "stop", "restart"):
                operation = getattr(supervisor, choice)
                if rng.random() < 0.5:
                    await asyncio.to_thread(operation, "bot")
                else:
                    operation("bot")
            elif choice.startswith("a"):
                waiting.append(asyncio.create_task(getattr(supervisor, choice)("bot")))
            elif choice == "kill" and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            elif hub.sessions:
                hub.sessions[-1].tell(exit=0)
            for _ in range(rng.choice([0, 1, 10])):
                await asyncio.sleep(0)
            if rng.random() < 0.2:  # let a start get somewhere
                with contextlib.suppress(ProcessFailed):
                    await supervisor.wait_ready("bot", 0.3)
            assert len(psutil.Process().children()) <= 1  # the end of one is before the start of the next
        await asyncio.wait_for(supervisor.arestart("bot"), DEADLINE)  # a new child: no `exit 0` is on its way to it
        assert status(supervisor).state is State.READY
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        assert (status(supervisor).state, status(supervisor).pid) == (State.STOPPED, None)
        done, forgotten = await asyncio.wait(waiting, timeout=DEADLINE)
        assert not forgotten
        assert {type(task.exception()) for task in done} <= {type(None), ProcessFailed}
