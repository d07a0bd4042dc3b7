"""Children that are killed all the time: at work, while they start, while they greet, while they stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from bare_kit import BACKOFF, BareHost, Sampler, bare_child, bare_host
from faults_kit import Report
from kit import eventually
from live_kit import DEADLINE, Traces, live_host, percentile

from liteyuki_host.supervisor.policy import JITTER
from liteyuki_host.supervisor.states import State

TITLE = "kill storm"
SHORT = {"children": 6, "kills": 40, "pause": 0.1, "bots": 2, "bot_kills": 2, "slack": 1.0}
LONG = {"children": 20, "kills": 2000, "pause": 4.0, "bots": 2, "bot_kills": 25, "slack": 0.25}

LEAST_BACKOFF = BACKOFF * (1 - JITTER)
SPAWN_SECONDS = 0.3
STOP_SECONDS = 0.05
"""About what a bare child takes to start, and to end when asked."""


async def run(
    report: Report,
    folder: Path,
    *,
    children: int,
    kills: int,
    pause: float,
    bots: int,
    bot_kills: int,
    slack: float,
    seed: int = 1,
) -> None:
    """
    Args:
        pause: mean seconds that each child is left alone before the next damage.
        bots: real NoneBot bots that are killed afterwards, each ``bot_kills`` times.
        slack: seconds that a restart may take beyond its spawn: from the kill to the decision to start, less the
            back-off. The spawn is what follows, from that decision to ready, of the same restarts: so at the same load.
        seed: of all that is random here.
    """
    traces = Traces(folder)
    (folder / "bare").mkdir()
    storm = Storm(random.Random(seed), kills, pause)
    jobs = ["parent" if number % 4 == 0 else "idle" for number in range(children)]
    specs = [bare_child(folder / "bare", traces, f"bot{number}", job) for number, job in enumerate(jobs)]
    async with bare_host(specs) as host:
        names = [spec.name for spec in specs]
        before = psutil.Process().num_fds()

        def states() -> Counter[str]:
            return Counter(str(status.state) for status in host.supervisor.status())

        with Sampler() as sampler:
            await asyncio.gather(*(storm.over(host, name) for name in names))
            for name in names:
                host.supervisor.start(name)
            await asyncio.gather(*(host.ready(name) for name in names))
        # The last kill may not have been noticed yet.
        await settled(lambda: states() == {"ready": children})
        await settled(lambda: not orphans(host, traces) and psutil.Process().num_fds() <= before)
        report.hold(
            f"children killed (seed {seed})",
            f"{storm.killed.total()} of {children}: {dict(storm.killed)}",
            f"{kills}, at each moment",
            storm.killed.total() >= kills and all(storm.killed[moment] for moment in MOMENTS),
        )
        report.hold("ready again after it", dict(states()), "all", states() == {"ready": children})
        report.none("orphans", orphans(host, traces))
        report.none("zombies", zombies())
        report.none(f"two children of one name, in {sampler.looks} looks", dict(sampler.doubles))
        report.hold(
            "descriptors more than before",
            psutil.Process().num_fds() - before,
            "0 or fewer",
            psutil.Process().num_fds() <= before,
        )
    storm.report(report, slack)
    await kill_bots(report, folder / "bots", traces, random.Random(seed), bots, bot_kills)
    await traces.report(report)


MOMENTS = ("ready", "spawn", "handshake", "stop")


class Storm:
    """Damages each child by a task of its own, so that nobody else's kill is in what it measures."""

    def __init__(self, dice: random.Random, kills: int, pause: float) -> None:
        self.killed: Counter[str] = Counter()
        self._dice = dice
        self._kills = kills
        self._pause = pause
        self._spawns: list[float] = []
        self._restarts: list[float] = []

    async def over(self, host: BareHost, name: str) -> None:
        damages = (
            self._kill_ready,
            self._kill_ready,
            self._kill_again,
            self._kill_greeting,
            self._kill_stopping,
            self._ask,
        )
        while not self._over():
            await asyncio.sleep(self._dice.uniform(0, 2 * self._pause))
            await self._dice.choice(damages)(host, name)

    def _over(self) -> bool:
        """Enough of them, and at each moment. Few kills may all miss one, by chance; twice as many may not."""
        kills = self.killed.total()
        return kills >= 2 * self._kills or (kills >= self._kills and all(self.killed[moment] for moment in MOMENTS))

    async def _kill_ready(self, host: BareHost, name: str) -> None:
        await host.ready(name)
        ready, starting = host.next_step(name, State.READY), host.next_step(name, State.STARTING)
        began = time.time()
        if not self._kill(host, name):
            return
        was_ready, started = await asyncio.wait_for(asyncio.gather(ready, starting), DEADLINE)
        self._restarts.append(was_ready.at - began - LEAST_BACKOFF)
        self._spawns.append(was_ready.at - started.at)

    async def _kill_again(self, host: BareHost, name: str) -> None:
        """The one that comes after a kill, before it has greeted or soon after."""
        starting = host.next_step(name, State.STARTING)
        if self._kill(host, name):
            await asyncio.wait_for(starting, DEADLINE)
            await asyncio.sleep(self._dice.uniform(0, SPAWN_SECONDS))
            self._kill(host, name)
        await host.ready(name)

    async def _kill_greeting(self, host: BareHost, name: str) -> None:
        starting = host.next_step(name, State.STARTING)
        if self._kill(host, name):
            await asyncio.wait_for(starting, DEADLINE)
            await eventually(lambda: _moment(host, name) != "spawn", DEADLINE)
            await asyncio.sleep(self._dice.uniform(0, 0.03))
            self._kill(host, name)
        await host.ready(name)

    async def _kill_stopping(self, host: BareHost, name: str) -> None:
        ask = self._dice.choice((host.supervisor.stop, host.supervisor.restart))
        stopping = host.next_step(name, State.STOPPING)
        ask(name)
        await asyncio.wait({stopping}, timeout=1)  # never, if its last kill is just being noticed
        await asyncio.sleep(self._dice.uniform(0, STOP_SECONDS))
        self._kill(host, name)
        await self._again(host, name)

    async def _ask(self, host: BareHost, name: str) -> None:
        """Some requests in a row, at any moment, with a kill among them."""
        requests = (host.supervisor.start, host.supervisor.stop, host.supervisor.restart)
        for _ in range(self._dice.randint(1, 4)):
            self._dice.choice(requests)(name)
            await asyncio.sleep(self._dice.uniform(0, SPAWN_SECONDS))
        self._kill(host, name)
        await self._again(host, name)

    async def _again(self, host: BareHost, name: str) -> None:
        host.supervisor.start(name)
        await host.ready(name)

    def _kill(self, host: BareHost, name: str) -> bool:
        moment = _moment(host, name)
        killed = host.kill(name)
        self.killed[moment] += killed
        return killed

    def report(self, report: Report, slack: float) -> None:
        own = [restart - spawn for restart, spawn in zip(self._restarts, self._spawns, strict=True)]
        spawn = percentile(self._spawns, 0.99)
        report.below(
            f"p99 of {len(own)} restarts, kill to ready less the back-off (limit: spawn p99 {spawn:.3f} s + {slack} s)",
            percentile(self._restarts, 0.99),
            spawn + slack,
            "s",
        )
        report.below("p50 of what each took beyond its spawn", percentile(own, 0.5), slack, "s")


def _moment(host: BareHost, name: str) -> str:
    status = host.status(name)
    if status.state not in (State.STARTING, State.HOOKS_DONE):
        return "stop" if status.state is State.STOPPING else str(status.state)
    session = host.hub.session(name)
    return "spawn" if session is None or session.pid != status.pid else "handshake"


def orphans(host: BareHost, traces: Traces) -> list[psutil.Process]:
    """What a child has started and is there although the child is not; its guard, too."""
    bots = {status.pid for status in host.supervisor.status()}
    left = {process.pid: process for process in traces.alive()}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) in host.groups and process.status() != psutil.STATUS_ZOMBIE:
                left[process.pid] = process
    found = []
    for process in left.values():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) not in bots:
                found.append(process)
    return found


def zombies() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


async def kill_bots(report: Report, folder: Path, traces: Traces, dice: random.Random, bots: int, kills: int) -> None:
    """The same with NoneBot in the children, a little."""
    folder.mkdir()
    names = [f"real{number}" for number in range(bots)]
    quick = {"backoff_base": BACKOFF, "backoff_max": BACKOFF, "max_restarts": 1000}
    async with live_host(folder, traces, dict.fromkeys(names, quick)) as lab:
        await lab.ready(*names)
        before = psutil.Process().num_fds()

        async def storm(name: str) -> None:
            for number in range(kills):
                os.kill(lab.pid(name), signal.SIGKILL)
                if number % 2:  # and the next one while it starts
                    started = await lab.entered(name, State.STARTING, since=time.time())
                    pid = await lab.spawned(name)
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    os.kill(pid, signal.SIGKILL)
                    await lab.entered(name, State.BACKING_OFF, since=started.at)
                await lab.entered(name, State.READY, since=time.time())

        await asyncio.gather(*(storm(name) for name in names))
        answers = [await lab.ask(name, "echo", value=name) for name in names]
        report.hold(f"{bots} NoneBot bots answer after {kills} kills each", answers, str(names), answers == names)
        await settled(lambda: psutil.Process().num_fds() <= before)
        grown = psutil.Process().num_fds() - before
        report.hold("descriptors more than before, with NoneBot", grown, "0 or fewer", grown <= 0)


async def settled(condition: Callable[[], bool]) -> None:
    """Give what is just ending its time; whether it has ended is said by what is reported next."""
    with contextlib.suppress(AssertionError):
        await eventually(condition)
