"""No child outlives its host, whatever state it is in: the guard process, and the kernel's signal on Linux."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launch_kit import is_gone, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX; on Windows the job object does it"),
]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="what Linux alone has, or shows")

GUARD_HOST = Path(__file__).parent / "children" / "guard_host.py"
GONE_SECONDS = 2.0
LEASH = "LYCOMM_LEASH"

SLEEP = "while True: time.sleep(1)"
IGNORE = "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)"
NEVER_LETS_GO = "sum(range(10**12))"  # one call in C: the interpreter's lock is held for hours
STUBBORN = """["sh", "-c", "trap '' HUP INT TERM; while :; do sleep 1; done"]"""

BOTS = {
    "idle": f"say('idle')\ntry:\n    {SLEEP}\nfinally:\n    time.sleep(0.5); say('idle ended in peace')",
    "frozen": f"say('frozen')\n{SLEEP}",
    "frozen-without-guard": f"say('frozen-without-guard')\n{SLEEP}",
    "interpreter-held": f"say('interpreter-held')\n{NEVER_LETS_GO}",
    "deaf": f"{IGNORE}\nsay('deaf')\nwhile True:\n    try:\n        {SLEEP}\n    except BaseException: pass",
    "with-children": f"""
started = [subprocess.Popen({STUBBORN}), subprocess.Popen(["sleep", "60"])]
elsewhere = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
if (forked := os.fork()) == 0:
    {SLEEP}
say('with-children', *[one.pid for one in started], forked, elsewhere.pid)
{NEVER_LETS_GO}
""",
    "hangs-at-its-end": "threading.Thread(target=threading.Event().wait).start()\nsay('hangs-at-its-end')",
    "killed": f"say('killed')\n{SLEEP}",
}
HEAD = """
import os, signal, subprocess, threading, time
def say(*words): os.write(1, f"bot {' '.join(map(str, words))}\\n".encode())  # in one piece, beside the others
"""


class Fleet:
    """One host with all these bots, up to its SIGKILL and the time after."""

    def __init__(self, folder: Path) -> None:
        for name, text in BOTS.items():
            (folder / f"{name}.py").write_text(HEAD + text)
        env = {k: v for k, v in os.environ.items() if not k.startswith("LYCOMM_")}
        self.host = subprocess.Popen(
            [sys.executable, GUARD_HOST, folder, *BOTS], stdout=subprocess.PIPE, env=env, text=True, cwd=folder
        )
        self.bots: dict[str, psutil.Process] = {}
        self.guards: dict[str, psutil.Process] = {}
        self.started: list[psutil.Process] = []  # by the bot `with-children`, in its order
        self.lines: list[str] = []
        self.seconds: dict[str, float] = {}
        self.elsewhere_lived = False

    def run(self) -> None:
        assert self.host.stdout is not None
        up: set[str] = set()
        while up != set(BOTS):
            line = self.host.stdout.readline()
            assert line, f"the host has ended; only {up} came up"
            match line.split():
                case [name, "started", pid]:
                    self.bots[name] = psutil.Process(int(pid))
                case ["bot", name, *pids]:
                    up.add(name)
                    self.started += [psutil.Process(int(pid)) for pid in pids]
        self.guards = {name: guard_of(bot) for name, bot in self.bots.items()}
        self.look_at_a_guard()

        self.bots["killed"].kill()
        until(lambda: is_gone(self.guards["killed"].pid), GONE_SECONDS)

        self.guards["frozen-without-guard"].kill()
        for name in ("frozen", "frozen-without-guard"):
            self.bots[name].suspend()
            until(lambda name=name: self.bots[name].status() == psutil.STATUS_STOPPED, GONE_SECONDS)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            self.guards["interpreter-held"].send_signal(number)

        self.host.kill()
        self.wait_for_the_end(time.monotonic())

    def look_at_a_guard(self) -> None:
        guard = self.guards["idle"]
        self.command = guard.cmdline()
        self.folder = guard.cwd()
        if sys.platform == "linux":
            self.files = {int(fd.name): os.readlink(fd) for fd in Path(f"/proc/{guard.pid}/fd").iterdir()}

    def wait_for_the_end(self, killed_at: float) -> None:
        *in_group, elsewhere = self.started
        watched = {name: [bot, self.guards[name]] for name, bot in self.bots.items()}
        watched["with-children"] += in_group
        while watched and time.monotonic() < killed_at + 3 * GONE_SECONDS:
            for name in list(watched):
                if all(is_gone(process.pid) for process in watched[name]):
                    self.seconds[name] = time.monotonic() - killed_at
                    del watched[name]
            time.sleep(0.01)  # strangers' processes: nothing reports their end
        self.elsewhere_lived = not is_gone(elsewhere.pid)

    def close(self) -> None:
        self.host.kill()
        for process in [*self.bots.values(), *self.guards.values(), *self.started]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.host.stdout is not None
        self.lines += self.host.stdout.read().splitlines()  # to the end: nobody holds the output any more
        self.host.stdout.close()
        self.host.wait(10)


def guard_of(bot: psutil.Process) -> psutil.Process:
    found = [child for child in bot.children() if "lycomm-guard" in " ".join(child.cmdline())]
    assert len(found) == 1, f"guards of {bot}: {found}"
    return found[0]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """After the SIGKILL of the host."""
    fleet = Fleet(tmp_path_factory.mktemp("bots"))
    try:
        fleet.run()
    finally:
        fleet.close()
    return fleet


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=linux_only if name == "frozen-without-guard" else ()) for name in BOTS],
)
def test_f26_nothing_of_the_group_is_left_after_a_kill_9_of_the_host(fleet: Fleet, name: str) -> None:
    assert fleet.seconds.get(name, float("inf")) < GONE_SECONDS


def test_a_bot_has_its_second_before_the_guard_kills(fleet: Fleet) -> None:
    assert "bot idle ended in peace" in fleet.lines


def test_what_made_a_session_of_its_own_stays(fleet: Fleet) -> None:
    assert fleet.elsewhere_lived


def test_the_guard_is_known_by_its_name_and_is_not_taken_for_a_bot(fleet: Fleet) -> None:
    words = " ".join(fleet.command)
    assert "lycomm-guard: ends this bot when its host has been killed" in words
    assert "liteyuki_host" not in words


@linux_only
def test_the_guard_holds_nothing_but_the_leash(fleet: Fleet) -> None:
    assert fleet.folder == "/"
    assert fleet.files.pop(0).startswith("pipe:")
    assert fleet.files == {1: "/dev/null", 2: "/dev/null"}


# The call itself, in a process of its own.

ARM = """
import os, subprocess, sys
from liteyuki_host._child.guard import arm
{before}
print(arm(os.environ), flush=True)
{after}
if os.getpgrp() == os.getpid():
    os.killpg(0, 9)  # the guard too: that is the host's work
"""


def run(before: str = "", after: str = "", *, dead: bool = False, leads: bool = True) -> tuple[int, str]:
    """A child of a (dead) host, given a leash and three more descriptors. Returns its exit code and what it printed."""
    theirs, ours = os.pipe()
    lock, *link = (os.open(os.devnull, os.O_RDONLY) for _ in range(3))
    if dead:
        os.close(ours)
    try:
        child = subprocess.run(
            [sys.executable, "-c", ARM.format(before=before, after=after)],
            env={
                **os.environ,
                "LYCOMM_LOCK": f"fd:{lock}",
                "LYCOMM_ANY": "fd:{},{}".format(*link),
                LEASH: f"fd:{theirs}",
            },
            pass_fds=(theirs, lock, *link),
            start_new_session=leads,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    finally:
        for descriptor in (theirs, lock, *link, *(() if dead else (ours,))):
            os.close(descriptor)
    return child.returncode, child.stdout


def test_a_host_that_was_dead_before_is_noticed_at_once() -> None:
    assert run(dead=True) == (-signal.SIGKILL, "")


LOOK = """
import os
print([name for name in ("LYCOMM_LEASH", "LYCOMM_LOCK") if name in os.environ])
print([fd for fd in range(3, 99) if os.path.exists(f"/dev/fd/{fd}")])
"""


def test_what_the_host_hands_over_is_for_this_process_alone() -> None:
    nothing = subprocess.run([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, text=True, timeout=30).stdout
    _, printed = run(after=f"subprocess.run([sys.executable, '-c', {LOOK!r}], close_fds=False)")
    assert printed == f"[]\n{nothing}"


FORK_OF_A_HOST = """
import os
from liteyuki_host.supervisor.leash import open_leash
leash = open_leash()
before = os.listdir("/dev/fd")
if os.fork() == 0:
    print(len(before) - len(os.listdir("/dev/fd")), flush=True)
    leash.release()
    os._exit(0)
os.wait()
"""


def test_a_fork_of_the_host_does_not_hold_the_leash() -> None:
    forking = subprocess.run([sys.executable, "-c", FORK_OF_A_HOST], stdout=subprocess.PIPE, text=True, timeout=30)
    assert forking.stdout == "2\n"


NO_SHELL = """
def posix_spawn(*args, **kwargs): raise FileNotFoundError(2, "not there")
os.posix_spawn = posix_spawn
"""


def test_a_system_without_a_shell_goes_on_without_a_guard() -> None:
    _, printed = run(before=NO_SHELL)
    assert printed == "['no guard: /bin/sh cannot be started ([Errno 2] not there)']\n"


def test_somebody_elses_group_is_not_killed() -> None:
    code, printed = run(leads=False)
    assert printed.startswith("['no guard: this process does not lead its group")
    assert code == 0


def test_without_a_leash_nothing_is_armed() -> None:
    _, printed = run(before=f"del os.environ[{LEASH!r}]")
    assert printed == "['no leash from the host: a frozen bot would outlive it']\n"
