"""A console that is slow, stuck, gone or none: whoever writes to it does not notice."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import pytest
from loguru import logger
from output_kit import DEADLINE, StoppableReader, block, printing

from liteyuki_host import log
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.output import console as console_module
from liteyuki_host.output.backlog import LIMIT, Backlog
from liteyuki_host.output.console import Console
from liteyuki_host.supervisor.process import child_environment
from liteyuki_host.supervisor.process_output import Output
from liteyuki_host.supervisor.spec import ProcessSpec

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def test_lines_are_shown_in_order(unread: StoppableReader) -> None:
    console = Console(unread.stream)
    for number in range(300):
        console.write(f"host {number}\n")
        console.show(block("bot", f"bot {number}"))
    unread.read()
    assert console.close(DEADLINE)
    expected = [line for number in range(300) for line in (f"host {number}", f"bot | bot {number}")]
    assert unread.lines() == expected


def test_a_console_that_nobody_reads_stops_nobody_and_keeps_the_hosts_lines(unread: StoppableReader) -> None:
    """Even where the host's lines are most of what waits."""
    console = Console(unread.stream)
    count = LIMIT // 5_000
    begin = time.monotonic()
    for number in range(count):
        console.show(block("bot", f"{number} " + "x" * 9_990))
        console.write(f"host {number} " + "x" * 3_990)
    assert time.monotonic() - begin < 5
    assert not console.flush(0.1)
    unread.read()
    assert console.close(DEADLINE)
    lines = unread.lines()
    assert [line.split()[1] for line in lines if line.startswith("host ")] == [str(n) for n in range(count)]
    shown = [int(line.split()[2]) for line in lines if line.startswith("bot | ")]
    assert shown[-1] == count - 1
    note = (
        r".{19} \[WARNING\] host \| ([\d,]+) lines of bot were not shown: they came faster than the console takes them"
    )
    left_out = [int(match[1].replace(",", "")) for match in map(re.compile(note).fullmatch, lines) if match]
    assert sum(left_out) == count - len(shown) > 0


def test_the_hosts_own_lines_are_bounded_too(unread: StoppableReader) -> None:
    console = Console(unread.stream)
    console.show(block("bot", "only one"))
    for number in range(2 * LIMIT // 10_000):
        console.write(f"{number} " + "x" * 9_990)
    unread.read()
    assert console.close(DEADLINE)
    lines = unread.lines()
    assert LIMIT * 0.9 < sum(map(len, lines)) < LIMIT * 1.1
    assert "lines of host were not shown" in "".join(lines)
    assert lines[-1].startswith(f"{2 * LIMIT // 10_000 - 1} ")


def test_who_says_little_does_not_stand_behind_a_flood(unread: StoppableReader) -> None:
    console = Console(unread.stream)
    for number in range(300):
        console.show(block("flood", f"{number} " + "x" * 9_990))
    console.show(block("other", "hello"))
    unread.read()
    assert console.close(DEADLINE)
    assert 0 < unread.lines().index("other | hello") < 30


def test_a_console_that_is_stuck_at_the_end_keeps_nobody(unread: StoppableReader) -> None:
    console = Console(unread.stream)
    console.write("x" * 1_000_000)
    begin = time.monotonic()
    assert not console.close(0.2)
    assert time.monotonic() - begin < 3
    if sys.platform != "win32":
        assert not [thread for thread in threading.enumerate() if thread.name == "lycomm-console"]
    console.write("nothing happens")


@posix_only
def test_a_reader_that_has_gone_stops_nothing(unread: StoppableReader) -> None:
    console = Console(unread.stream)
    unread.hang_up()
    console.write("lost\n")
    assert console.flush(DEADLINE)
    for number in range(100_000):
        console.write(f"{number}\n")
    assert console.flush(0), "nothing is even tried any more"
    assert console.close(DEADLINE)


class Failing(io.StringIO):
    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_after_an_error_that_passes_lines_are_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "RETRY_SECONDS", 0.05)
    stream = Failing()
    console = Console(stream)
    for number in range(3):
        console.write(f"{number}\n")
        assert console.flush(DEADLINE)
    stream.full = False
    threading.Event().wait(0.06)
    console.write("again\n")
    assert console.close(DEADLINE)
    note, line = stream.getvalue().splitlines()
    assert note.endswith("[WARNING] host | 3 lines were not shown: the console did not take them")
    assert line == "again"


def closed(stream: TextIO) -> TextIO:
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(io.StringIO()), closed(os.fdopen(os.dup(1), "w"))])
def test_without_a_console_nothing_happens(stream: TextIO | None) -> None:
    console = Console(stream)
    console.write("nobody sees it")
    console.show(block("bot", "nor this"))
    assert console.close(DEADLINE)


def test_the_thread_goes_when_there_is_nothing_to_do() -> None:
    stream = io.StringIO()
    console = Console(stream)
    for _ in range(2):
        console.write("hello\n")
        assert console.flush(DEADLINE)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "lycomm-console"]
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert stream.getvalue() == "hello\nhello\n"


def test_the_hosts_log_does_not_wait_for_its_console(unread: StoppableReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", unread.stream)
    sink = log.configure("INFO")
    for number in range(2_000):
        logger.info(f"line {number} " + "x" * 100)
    unread.read()
    logger.remove(sink)
    lines = unread.lines()
    assert len(lines) == 2_000
    assert f" [INFO] host | line {1_999} " in lines[-1]


# The process around it

STUCK = """
import sys
from loguru import logger
from liteyuki_host import log
from liteyuki_host.comm.threads import DaemonThread
sink = log.configure("INFO")
for number in range(10_000):
    logger.info("x" * 100)
logger.remove(sink)
sys.stderr.write("at the end")
"""


def test_a_host_with_a_stuck_console_ends() -> None:
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=writer, stderr=subprocess.PIPE) as host:
        os.close(writer)
        try:
            _, errors = host.communicate(timeout=DEADLINE)
        finally:
            os.close(reader)
            host.kill()
    assert errors == b"at the end"
    assert host.returncode == 0


EMBEDDED = """
import subprocess, sys
from liteyuki_host.supervisor.process_output import Output
print("before")
output = Output("bot")
pipe = output.open_pipe()
child = subprocess.Popen([sys.executable, "-c", "for i in range(3000): print(i, 'x' * 100)"], stdout=pipe.fileno)
pipe.start()
child.wait()
pipe.finish()
sys.stderr.write("at the end\\n")
"""


def test_without_a_configured_log_output_is_shown_on_stdout_also_the_last() -> None:
    command = [sys.executable, "-c", EMBEDDED]
    env = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stderr
        assert program.stdout
        assert program.stderr.readline() == b"at the end\n"
        threading.Event().wait(0.2)  # more than a pipe holds is still in there
        shown = program.stdout.read().decode().splitlines()
    assert shown[0] == "before"
    assert [line.split(" x")[0] for line in shown[1:]] == [f"bot | {number}" for number in range(3000)]


def test_the_console_follows_stdout_unless_a_host_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    console_module.shared().write("1\n")
    assert console_module.shared().flush(DEADLINE)
    monkeypatch.setattr(sys, "stdout", second)
    sink = log.configure("INFO")
    monkeypatch.setattr(sys, "stdout", first)
    console_module.shared().write("2\n")
    logger.remove(sink)
    assert console_module.shared().stream is first
    assert (first.getvalue(), second.getvalue()) == ("1\n", "2\n")


class Talkative:
    """A standard output of the user's: whenever it is flushed it shows a line, as one that passes prints to a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def flush(self) -> None:
        console_module.shared().write("flushed\n")
        self._stream.flush()


def test_a_stdout_that_logs_when_flushed_stops_nobody(unread: StoppableReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Talkative(unread.stream))
    shown = DaemonThread(lambda: console_module.shared().write("shown\n"), name="shows a line")
    shown.start()
    shown.join(DEADLINE)
    assert not shown.is_alive(), "it waits for a lock that it holds itself"
    unread.read()
    assert console_module.shared().close(DEADLINE)
    assert unread.lines()[:2] == ["shown", "flushed"]


def test_a_finalizer_that_logs_stops_no_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs while the process's console is made, and gets the one that its caller gets."""
    consoles: list[Console] = []
    finalizers = [lambda: consoles.append(console_module.shared())]

    class Collected(Backlog):
        """A collection happens to run while the console allocates its backlog."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            while finalizers:
                finalizers.pop()()

    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(console_module, "Backlog", Collected)
    asked = DaemonThread(lambda: consoles.append(console_module.shared()), name="asks for the console")
    asked.start()
    asked.join(DEADLINE)
    assert not asked.is_alive(), "it waits for a lock that it holds itself"
    inner, outer = consoles
    assert inner is outer
    assert outer.close(DEADLINE)


FORKED = """
import os, sys
from loguru import logger
from liteyuki_host import log
from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.output.console import shared
log.configure("INFO")
logger.info("parent")
pid = os.fork()
if not pid:
    logger.info("fork")
    os._exit(not shared().flush(10))
assert os.waitpid(pid, 0)[1] == 0
shared().close(10)
"""


@posix_only
def test_a_forked_process_can_log_too() -> None:
    # Python 3.12 and later warn of any fork beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.stderr == b""
    assert sorted(line.split()[-1] for line in done.stdout.decode().splitlines()) == ["fork", "parent"]


# Colours


@pytest.fixture
def no_colour_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "LOGURU_COLORIZE"):
        monkeypatch.delenv(name, raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("no_colour_variables")
def test_when_there_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert log.wants_colours(Terminal())
    assert not log.wants_colours(io.StringIO())
    assert not log.wants_colours(None)
    assert not log.wants_colours(object())  # type: ignore[arg-type]
    monkeypatch.setenv("TERM", "dumb")
    assert not log.wants_colours(Terminal())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert log.wants_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not log.wants_colours(Terminal())


LOGS = "from loguru import logger; import sys; logger.remove(); logger.add(sys.stdout); logger.info('hello')"


@pytest.mark.usefixtures("no_colour_variables")
@pytest.mark.parametrize(
    ("terminal", "env", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"LOGURU_COLORIZE": "no"}, False)],
)
def test_a_child_keeps_its_colours_when_the_host_has_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, env: dict[str, str], coloured: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console = Console(stream)
    output = Output("bot", show=(console.show,))
    spec = ProcessSpec("bot", Path.cwd(), env=env)
    with printing(output, LOGS, env=child_environment(spec, {})):
        pass
    console.close(DEADLINE)
    assert ("\x1b[32m" in output.lines()[0][0].text) is coloured
    assert ("\x1b[32m" in stream.getvalue()) is coloured
