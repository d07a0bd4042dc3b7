"""What keeps a bot alive once it runs, with real child processes and a fake hub: the watchdog, planned restarts,
the drain, the limits, the company of other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil
import pytest
from supervisor_kit import DEADLINE, Events, FakeHub, LogLines, Supervise, child

from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.supervisor.spec import Restart, Strategy
from liteyuki_host.supervisor.states import State, Transition
from liteyuki_host.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the fake child speaks over an inherited descriptor"),
]

SHORT: dict[str, Any] = {"loop_timeout": 1.0, "freeze_timeout": 1.0, "backoff_base": 0.05}


def pid_of(supervisor: Supervisor, name: str = "bot") -> int:
    pid = next(status.pid for status in supervisor.status() if status.name == name)
    assert pid is not None
    return pid


def state_of(supervisor: Supervisor, name: str = "bot") -> State:
    return next(status.state for status in supervisor.status() if status.name == name)


async def entered(supervisor: Supervisor, state: State, name: str = "bot", count: int = 1) -> Sequence[Transition]:
    """The process's story, once it has come to *state* so many times."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while True:
        story = supervisor.history(name)
        if [step.state for step in story].count(state) >= count:
            return story
        assert asyncio.get_running_loop().time() < deadline, [str(step.state) for step in story]
        await asyncio.sleep(0.01)  # the story is also read by threads, and announces nothing


# The watchdog.


async def test_a_blocked_loop_is_found_shown_and_replaced(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(**SHORT), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        old = pid_of(supervisor)
        hub.sessions[0].tell(block=True)
        await log_lines.line(r"^child bot event loop blocked 1 s: some plugin blocks it; killing it$")
        await entered(supervisor, State.READY, count=2)
        assert not psutil.pid_exists(old)
        story = [str(step.state) for step in supervisor.history("bot")]
        assert story[story.index("blocked") :] == [
            "blocked",
            "stopping",
            "backing off",
            "starting",
            "hooks done",
            "ready",
        ]


async def test_a_stopped_process_is_told_from_a_blocked_loop(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(**SHORT)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        os.kill(pid_of(supervisor), signal.SIGSTOP)
        await log_lines.line(r"^child bot process stopped 1 s: somebody has stopped it; killing it$")
        await entered(supervisor, State.READY, count=2)
        assert State.FROZEN in [step.state for step in supervisor.history("bot")]


async def test_a_silent_process_that_is_not_stopped_holds_the_lock(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(**SHORT), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        hub.sessions[0].tell(mute=True, block=True)
        await log_lines.line(
            r"^child bot interpreter's lock held 1 s: native code holds Python's lock, .*; killing it$"
        )
        await entered(supervisor, State.READY, count=2)


async def test_the_stacks_are_written_before_the_kill(
    supervise: Supervise, log_lines: LogLines, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = FakeHub()
    async with supervise(child(**SHORT), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        for incarnation in (2, 3, 4):
            os.kill(pid_of(supervisor), signal.SIGSTOP)
            await entered(supervisor, State.READY, count=incarnation)
            lines = [line.text for line in supervisor.output("bot").lines()[0]]
            assert any("most recent call first" in line for line in lines), lines
            if any("launch.py" in line for line in lines):
                return
            # CPython shows threads that run again at the same time, without its lock; now and then it falls over one.
            assert log_lines.count(r"killed by SIGSEGV") == incarnation - 1, lines
        pytest.fail("three times in a row no whole stack")


async def test_a_busy_bot_is_told_and_left_alone(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(loop_timeout=4.0, freeze_timeout=0.0), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        hub.sessions[0].tell(block=True)
        await log_lines.line(r"^child bot is busy: its event loop has not turned for [12]\.\d s$")
        await supervisor.wait_ready("bot", DEADLINE)  # busy is ready, only slower
        hub.sessions[0].tell(unblock=True)
        await log_lines.line(r"^child bot is ready again: its event loop turns$")
        assert pid_of(supervisor) == pid


async def test_a_bot_that_asks_for_time_is_not_killed_meanwhile(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(**SHORT), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        hub.sessions[0].tell(more_time=3.0)
        asked_at = asyncio.get_running_loop().time()
        hub.sessions[0].tell(block=True)
        await log_lines.line(r"^child bot event loop blocked 1 s")
        assert asyncio.get_running_loop().time() - asked_at > 2.8
        assert pid_of(supervisor) == pid


@pytest.mark.parametrize("behaviour", ["hook-hangs", "port-stays-closed"])
async def test_a_start_that_asks_for_time_gets_it(supervise: Supervise, log_lines: LogLines, behaviour: str) -> None:
    """It is ended when that time is over, too, and not before."""
    spec = child(behaviour=f"more-time-1.5 {behaviour}", ready_timeout=0.3, max_restarts=0, stop_timeout=0.2)
    async with supervise(spec) as supervisor:
        started, *_, ended, _ = await entered(supervisor, State.FAILED)
        await log_lines.line(r"^child bot not ready in 0\.3 s: .*; ending it$")
        assert (started.state, ended.state) == (State.STARTING, State.STOPPING)
        assert ended.at - started.at > 1.5


async def test_a_bot_whose_loop_cannot_beat_is_left_alone(supervise: Supervise) -> None:
    hub = FakeHub()
    async with supervise(child(behaviour="no-beats", **SHORT), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        hub.sessions[0].tell(block=True)
        await asyncio.sleep(3)  # nothing is to happen for longer than its limits
        assert pid_of(supervisor) == pid


# A planned stop.


async def test_a_stop_waits_for_running_handlers(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(behaviour="slow-handler"), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        began = asyncio.get_running_loop().time()
        await supervisor.astop("bot")
        assert asyncio.get_running_loop().time() - began >= 0.3
        assert hub.sessions[0].stops == ["stop"]
        await log_lines.line(r"^child bot: 2 events came while it was stopping, or before, and were not begun$")
        assert not log_lines.count("not finished")


async def test_what_did_not_finish_in_time_is_named(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(behaviour="unfinished", drain_timeout=0.5)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        await supervisor.astop("bot")
        await log_lines.line(r"^child bot: 3 events not finished and ended with the bot: slow\.handler \(test\)$")


async def test_a_bot_that_never_says_it_is_drained_is_stopped_all_the_same(
    supervise: Supervise, log_lines: LogLines
) -> None:
    async with supervise(child(behaviour="never-drained", drain_timeout=0.2)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        await asyncio.wait_for(supervisor.astop("bot"), DEADLINE)
        await log_lines.line(r"^child bot did not say within 0\.2 s that its handlers have finished$")


async def test_the_second_ctrl_c_does_not_wait_for_handlers(supervise: Supervise) -> None:
    async with supervise(child(behaviour="never-drained", drain_timeout=3600.0)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        stopping = asyncio.ensure_future(supervisor.astop("bot"))
        await entered(supervisor, State.STOPPING)
        supervisor.kill_now()
        await asyncio.wait_for(stopping, DEADLINE)


async def test_the_second_ctrl_c_tells_what_is_lost(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(behaviour="slowly unfinished", drain_timeout=3600.0)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        stopping = asyncio.ensure_future(supervisor.astop("bot"))
        await entered(supervisor, State.STOPPING)
        supervisor.kill_now()
        await asyncio.wait_for(stopping, DEADLINE)
        await log_lines.line(r"^child bot: 2 events came while it was stopping, or before, and were not begun$")
        await log_lines.line(r"^child bot: 3 events not finished and ended with the bot: slow\.handler \(test\)$")


async def test_hooks_are_told_why(supervise: Supervise) -> None:
    events = Events()
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        pid = pid_of(supervisor)
        await supervisor.arestart("bot")
        await asyncio.wait_for(events.restarted.wait(), DEADLINE)
        assert events.seen == ["before restart bot", "before shutdown bot", "after restart bot"]
        before, _, after = events.contexts
        assert (before.cause, before.pid, before.restarts, before.last_exit) == ("asked", pid, 0, None)
        assert (after.cause, after.pid, after.restarts) == ("asked", pid_of(supervisor), 1)
        assert after.last_exit == "exited 0"


# Restarts that nobody asked for.


async def test_a_crash_loop_ends_in_failed_and_start_tries_again(supervise: Supervise, log_lines: LogLines) -> None:
    spec = child(behaviour="exit-before-ready-5", backoff_base=0.01, max_restarts=3)
    async with supervise(spec) as supervisor:
        with pytest.raises(ProcessFailed, match="exited 5 before it was ready"):
            await supervisor.wait_ready("bot", DEADLINE)
        assert state_of(supervisor) is State.FAILED
        await log_lines.line(
            r"^child bot exited 5 .*; given up: ended 4 times in 10 min; correct the cause, then start it"
        )
        assert log_lines.count(r"^child bot started") == 4
        supervisor.start("bot")
        await entered(supervisor, State.FAILED, count=2)
        assert log_lines.count(r"^child bot started") == 8


@pytest.mark.parametrize(
    ("policy", "code", "state"),
    [
        (Restart.NEVER, 1, State.FAILED),
        (Restart.NEVER, 0, State.STOPPED),
        (Restart.ON_FAILURE, 0, State.STOPPED),
    ],
)
async def test_a_policy_that_does_not_restart(supervise: Supervise, policy: Restart, code: int, state: State) -> None:
    hub = FakeHub()
    async with supervise(child(restart=policy), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        hub.sessions[0].tell(exit=code)
        story = await entered(supervisor, state)
        assert story[-1].cause == f"exited {code}"


async def test_always_means_also_after_a_clean_end(supervise: Supervise) -> None:
    hub = FakeHub()
    async with supervise(child(restart=Restart.ALWAYS), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        hub.sessions[0].tell(exit=0)
        await entered(supervisor, State.READY, count=2)


async def test_who_asks_for_a_start_while_a_bot_dies_gets_the_next_one(supervise: Supervise) -> None:
    hub = FakeHub()
    async with supervise(child(), hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        life = hub.sessions[0].listener
        life.link_closed_at = time.monotonic()  # the end of its link is seen before its own
        asked = asyncio.ensure_future(supervisor.astart("bot"))
        await asyncio.sleep(0)
        os.kill(life.live_child.pid, signal.SIGKILL)
        await asyncio.wait_for(asked, DEADLINE)
        assert (supervisor.status()[0].state, supervisor.status()[0].restarts) == (State.READY, 1)


# Limits.


async def test_a_bot_above_its_memory_limit_is_restarted_gently(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    spec = child(memory_limit=80 * 1024**2)
    async with supervise(spec, hub=hub) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        hub.sessions[0].tell(eat=100 * 1024**2)
        await log_lines.line(r"^child bot is to restart: it uses 1\d\d MiB of memory, more than its limit of 80 MiB$")
        await entered(supervisor, State.READY, count=2)
        assert hub.sessions[0].stops == ["restart"]


async def test_a_bot_that_always_needs_more_memory_is_given_up(supervise: Supervise, log_lines: LogLines) -> None:
    async with supervise(child(memory_limit=1024**2, max_restarts=1)) as supervisor:
        story = await entered(supervisor, State.FAILED)
        assert "more than its limit of 1 MiB" in story[-1].cause
        await log_lines.line(r"^child bot: it uses .* of memory, .*; given up: ended 2 times in 10 min")
        assert log_lines.count(r"^child bot started") == 2


async def test_a_bot_is_renewed_at_its_age(supervise: Supervise, log_lines: LogLines) -> None:
    hub = FakeHub()
    async with supervise(child(max_age=0.5), hub=hub) as supervisor:
        await entered(supervisor, State.READY, count=2)
        await log_lines.line(r"^child bot is to restart: it has run for [01] s \(max_age\)$")
        assert hub.sessions[0].stops == ["restart"]


# In company.


async def test_a_process_waits_for_those_it_comes_after_and_stops_before_them(
    supervise: Supervise, tmp_path: Any, log_lines: LogLines
) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()
    database = child("database", backoff_base=0.01, max_restarts=1000, env={"FAIL_WHILE": str(blocker)})
    events = Events()
    async with supervise(child("bot", after=["database"]), database, events=events) as supervisor:
        await log_lines.line(r"^child bot waits until these are ready: database \(")
        await entered(supervisor, State.BACKING_OFF, "database", count=2)
        assert not log_lines.count(r"^child bot started")
        blocker.unlink()
        await supervisor.wait_ready("bot", DEADLINE)
        steps = [(step.process, step.state) for step in events.steps]
        assert steps.index(("database", State.READY)) < steps.index(("bot", State.STARTING))
        await supervisor.stop_all()
        assert [step.process for step in events.steps if step.state is State.STOPPED] == ["bot", "database"]


async def test_nobody_waits_for_a_process_that_is_not_to_run(supervise: Supervise) -> None:
    async with supervise(child("bot", after=["spare"]), child("spare", autostart=False)) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        assert state_of(supervisor, "spare") is State.DECLARED


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [(Strategy.ONE, []), (Strategy.ALL, ["first", "last"]), (Strategy.REST, ["last"])],
)
async def test_who_is_restarted_when_a_process_dies(
    supervise: Supervise, strategy: Strategy, restarted: list[str]
) -> None:
    specs = [child("first"), child("bot", strategy=strategy), child("last"), child("off", autostart=False)]
    async with supervise(*specs) as supervisor:
        for name in ("first", "bot", "last"):
            await supervisor.wait_ready(name, DEADLINE)
        os.kill(pid_of(supervisor), signal.SIGKILL)
        for name in ["bot", *restarted]:
            await entered(supervisor, State.READY, name, count=2)
        again = {status.name for status in supervisor.status() if status.restarts}
        assert again == {"bot", *restarted}
        assert state_of(supervisor, "off") is State.DECLARED
        for name in restarted:
            assert supervisor.history(name)[-3].cause == f"bot killed by SIGKILL (strategy = {strategy})"


# The story.


async def test_every_step_is_told_once_with_its_cause(supervise: Supervise) -> None:
    events = Events()
    async with supervise(child(), events=events) as supervisor:
        await supervisor.wait_ready("bot", DEADLINE)
        os.kill(pid_of(supervisor), signal.SIGKILL)
        await entered(supervisor, State.READY, count=2)
        await supervisor.astop("bot")
        await entered(supervisor, State.STOPPED)
        told = [(str(step.state), step.cause) for step in events.steps]
        assert [step for step in told if not step[1].startswith("ready in")] == [
            ("starting", "with the host"),
            ("hooks done", "its start-up hooks have returned"),
            ("backing off", "killed by SIGKILL"),
            ("starting", "killed by SIGKILL"),
            ("hooks done", "its start-up hooks have returned"),
            ("stopping", "asked"),
            ("stopped", "asked"),
        ]
        assert list(supervisor.history("bot")) == events.steps
        assert all(step.previous is before.state for before, step in zip(events.steps, events.steps[1:], strict=False))
