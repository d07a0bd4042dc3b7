"""Real children print; nobody of them waits, and nothing of ours stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from output_kit import DEADLINE, FLOOD, Newest, printing, quiet, texts

from liteyuki_host.comm.threads import DaemonThread
from liteyuki_host.output.console import Console
from liteyuki_host.output.text import Block
from liteyuki_host.supervisor import process_output
from liteyuki_host.supervisor.process_output import Output

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def test_both_streams_come_in_order_and_numbers_go_on_over_starts() -> None:
    output = quiet()
    for _ in range(2):
        with printing(output, "import sys\nfor i in range(3): print(i); print('e', i, file=sys.stderr)"):
            pass
    lines, dropped = output.lines()
    assert [line.text for line in lines] == ["0", "e 0", "1", "e 1", "2", "e 2"] * 2
    assert [line.number for line in lines] == list(range(1, 13))
    assert all(abs(line.at - time.time()) < DEADLINE for line in lines)
    assert dropped == 0
    assert output.last == 12


def test_lines_are_read_in_parts() -> None:
    output = quiet()
    with printing(output, "print(*range(10), sep=chr(10))"):
        pass
    assert [line.text for line in output.lines(after=3, limit=2)[0]] == ["3", "4"]
    assert [line.number for line in output.lines(after=output.last - 2)[0]] == [9, 10]
    assert output.lines(after=10) == ([], 0)
    assert output.lines(after=-5, limit=0) == ([], 0)


def test_the_ring_keeps_the_newest_and_counts_what_it_has_dropped() -> None:
    output = quiet(capacity=100_000)
    with printing(output, "for i in range(50_000): print(i)", env={**os.environ, "PYTHONUNBUFFERED": ""}):
        pass
    lines, dropped = output.lines(after=10)
    assert output.last == 50_000
    assert lines[-1].text == "49999"
    assert [line.number for line in lines] == list(range(50_001 - len(lines), 50_001))
    assert all(line.text == str(line.number - 1) for line in lines)
    assert dropped == 50_000 - 10 - len(lines)
    assert 30_000 < sum(len(line.text) + 1 for line in lines) <= 100_000


def test_many_empty_lines_weigh_what_they_cost() -> None:
    output = quiet(capacity=100_000)
    for _ in range(2000):
        output._take([b""])
    assert len(output.lines()[0]) <= 500


def test_what_was_read_last_is_there_however_small_the_ring() -> None:
    output = quiet(capacity=1)
    with printing(output, "print('x' * 60_000); print('last')"):
        pass
    assert texts(output)[-1] == "last"
    assert output.last == 2


def test_half_a_line_is_shown_while_the_child_waits() -> None:
    output = quiet()
    newest = Newest(output)
    with printing(output, "import sys; print('Continue? ', end=''); print(sys.stdin.readline())") as child:
        newest.wait_for(lambda lines: lines == ["Continue? "])
        assert child.poll() is None
        child.communicate(b"yes", DEADLINE)
    assert texts(output) == ["Continue? ", "yes"]


def test_a_child_that_buffers_loses_nothing_at_its_end() -> None:
    output = quiet()
    with printing(
        output, "print('a' * 20_000); print('last words', end='')", env={**os.environ, "PYTHONUNBUFFERED": ""}
    ):
        pass
    assert texts(output) == ["a" * 20_000, "last words"]


def test_a_child_may_close_its_streams() -> None:
    output = quiet()
    with printing(output, "import os, sys; print('bye'); os.close(1); os.close(2); sys.stdin.read()") as child:
        reader = next(t for t in threading.enumerate() if t.name == "lycomm-output-bot")
        reader.join(DEADLINE)
        assert not reader.is_alive()
        assert child.poll() is None
    assert texts(output) == ["bye"]


@posix_only
def test_a_grandchild_that_holds_the_pipe_keeps_nobody() -> None:
    sleep = ["sleep", f"60.{os.getpid()}"]  # other runs of this test have others
    program = f"""
import subprocess, sys
subprocess.Popen({sleep}, start_new_session=True)
print("last words")
"""
    output = quiet()
    held = psutil.Process()
    before = held.num_fds()
    try:
        with printing(output, program):
            pass
        assert texts(output) == ["last words"]
        assert held.num_fds() == before
    finally:
        for orphan in psutil.process_iter(["cmdline", "ppid", "uids"]):
            if orphan.info["cmdline"] == sleep and orphan.info["ppid"] == 1:
                orphan.kill()


@posix_only
def test_a_grandchild_that_goes_on_writing_keeps_nobody_for_long() -> None:
    """Here faster than it is read, so the pipe is never empty."""
    output = Output("bot", show=(lambda _: time.sleep(0.005),))
    pipe = output.open_pipe()
    newest = Newest(output)
    with subprocess.Popen(["yes"], stdout=pipe.fileno) as grandchild:
        pipe.start()
        newest.wait_for(bool)
        begin = time.monotonic()
        pipe.finish(0.2)
        assert time.monotonic() - begin < 5
        assert grandchild.wait(DEADLINE) == -13, "it writes into a broken pipe"


@posix_only
def test_many_starts_leave_no_thread_and_no_descriptor() -> None:
    output = quiet()
    process = psutil.Process()
    descriptors, threads = process.num_fds(), threading.active_count()
    for _ in range(200):
        pipe = output.open_pipe()
        child = subprocess.Popen(["echo", "hello"], stdout=pipe.fileno)
        pipe.start()
        child.wait()
        pipe.finish()
    for _ in range(200):
        output.open_pipe().abort()
    assert output.last == 200
    assert process.num_fds() == descriptors
    assert threading.active_count() == threads


def test_twenty_children_at_once_are_kept_apart() -> None:
    outputs = [quiet(f"bot{i}") for i in range(20)]
    pipes = [output.open_pipe() for output in outputs]
    program = "import sys\nfor i in range(500): print(sys.argv[1], i)"
    children = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", program, output.process], stdout=pipe.fileno)
        for output, pipe in zip(outputs, pipes, strict=True)
    ]
    for pipe in pipes:
        pipe.start()
    for child, pipe in zip(children, pipes, strict=True):
        child.wait(DEADLINE)
        pipe.finish()
    for output in outputs:
        assert texts(output) == [f"{output.process} {i}" for i in range(500)]


def test_a_sink_or_follower_that_fails_is_left_out_and_the_child_goes_on() -> None:
    def failing(_: object) -> None:
        raise RuntimeError("on purpose")

    seen: list[Block] = []
    output = Output("bot", show=(failing, seen.append))
    output.on_line = failing
    with printing(output, "print(1); print(2)"):
        pass
    assert b"\n".join(block.data for block in seen) == b"1\n2"
    assert texts(output) == ["1", "2"]


class Reference:
    """How fast the flooding child is when somebody only reads."""

    def __init__(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", FLOOD, "0.5"], stdout=subprocess.PIPE)
        assert child.stdout
        tail = b""
        while chunk := os.read(child.stdout.fileno(), 65536):
            tail = (tail + chunk)[-200:]
        child.stdout.close()
        child.wait(DEADLINE)
        self.rate = rate_in(tail.decode().splitlines()[-1])


def rate_in(report: str) -> float:
    return float(report.split(" MB/s")[0])


@pytest.mark.alone  # it measures a rate
def test_a_flood_stops_neither_its_child_nor_the_others(tmp_path: Path) -> None:
    """Into a console that takes everything, which is the hardest for the host."""
    alone = Reference().rate
    shown = tmp_path / "console"
    with open(shown, "w") as stream:
        console = Console(stream)
        flood = Output("flood", show=(console.show,))
        other = Output("other", show=(console.show,))
        echo = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
        with printing(flood, FLOOD, "1.5"), printing(other, echo) as talker:
            assert talker.stdin
            waits = []
            for number in range(5):
                begin = time.monotonic()
                talker.stdin.write(f"question {number}\n".encode())
                talker.stdin.flush()
                while f"other | question {number}\n" not in shown.read_text("utf-8", "replace"):
                    assert time.monotonic() - begin < DEADLINE
                    threading.Event().wait(0.02)
                waits.append(time.monotonic() - begin)
        assert console.close(DEADLINE)
    report = texts(flood)[-1]
    print(report, f"(alone: {alone:.0f} MB/s), the other's lines came after {max(waits):.2f} s at most")
    assert rate_in(report) > min(50, alone / 4)
    assert max(waits) < 1
    kept = flood.lines()[0]
    assert [line.number for line in kept] == list(range(flood.last - len(kept) + 1, flood.last + 1))
    console_lines = shown.read_text("utf-8").splitlines()
    assert console_lines[-1] == f"flood | {report}", "the newest is shown"
    left_out = sum(
        int(line.split(" | ")[1].split()[0].replace(",", "")) for line in console_lines if "[WARNING]" in line
    )
    shown_of_flood = sum(line.startswith("flood | ") for line in console_lines)
    assert left_out > 0
    assert left_out + shown_of_flood == flood.last


def test_a_finalizer_may_read_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs on the thread that is just keeping some, which is where a collection may happen."""
    output = quiet()
    read: list[int] = []

    def collected(*args: Any, **options: Any) -> Block:
        read.append(len(output.lines()[0]))
        return Block.of(*args, **options)

    monkeypatch.setattr(process_output, "Block", SimpleNamespace(of=collected))
    pipe = output.open_pipe()
    os.write(pipe.fileno, b"line\n")
    pipe.start()
    finished = DaemonThread(pipe.finish, name="finishes")
    finished.start()
    finished.join(DEADLINE)
    assert not finished.is_alive(), "the reading thread waits for a lock that it holds itself"
    assert (read, texts(output)) == ([0], ["line"])
