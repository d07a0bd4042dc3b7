"""Byte streams: one contract for the in-memory pair and the socket pair."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pair_kit import until

from liteyuki_host.comm.errors import LinkError
from liteyuki_host.comm.transport import LINK_VARIABLE
from liteyuki_host.comm.transport.memory import memory_link
from liteyuki_host.comm.transport.posix import open_link, socket_link, take_link

DEADLINE = 10.0
Pair = tuple[Any, Any]


@pytest.fixture(params=[memory_link, socket_link], ids=["memory", "socket pairs"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = request.param()
    yield made
    for transport in made:
        transport.close()
        transport.release()


def read(transport: Any, size: int = 65536) -> bytes:
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: transport.read_into(buffer)])


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def fill(transport: Any) -> int:
    """Write until no more is taken; returns how much was."""
    total = 0
    while taken := transport.try_write([b"x" * 10_000]):
        total += taken
    return total


def test_bytes_go_both_ways_and_keep_their_order(pair: Pair) -> None:
    a, b = pair
    assert a.try_write([b"ab", bytearray(b"c"), memoryview(b"de")]) == 5
    b.write_all([b"12", memoryview(b"3")])
    assert read(b) == b"abcde"
    assert read(a) == b"123"


def test_a_read_takes_what_fits(pair: Pair) -> None:
    a, b = pair
    a.write_all([b"abcde"])
    assert read(b, 2) == b"ab"
    assert read(b, 10) == b"cde"


def test_a_full_stream_takes_nothing_and_does_not_wait(pair: Pair) -> None:
    a, b = pair
    total = fill(a)
    assert total >= 10_000
    assert a.try_write([b"more"]) == 0
    taken = 0
    while taken < total:
        taken += len(read(b))
    assert taken == total
    assert a.try_write([b"more"]) == 4


def test_writing_all_waits_for_the_reader(pair: Pair) -> None:
    a, b = pair
    data = os.urandom(1 << 20)
    thread, results = in_thread(lambda: a.write_all([data[:100], data[100:]]))
    got = b""
    while len(got) < len(data):
        got += read(b)
    thread.join(DEADLINE)
    assert got == data
    assert results == [None]


def test_closing_is_the_end_for_the_peer_after_everything_written(pair: Pair) -> None:
    a, b = pair
    a.write_all([b"last words"])
    a.close()
    assert read(b) == b"last words"
    assert read(b) == b""
    assert read(b) == b""
    with pytest.raises(OSError, match=r"."):  # noqa: PT012
        for _ in range(3):  # a socket may take one write before it knows
            b.try_write([b"x" * 1000])


def test_closing_wakes_a_reader_of_the_same_end(pair: Pair) -> None:
    a, _ = pair
    thread, results = in_thread(lambda: read(a))
    a.close()
    thread.join(DEADLINE)
    assert results == [b""]
    a.close()


def test_closing_wakes_a_writer_of_the_same_end(pair: Pair) -> None:
    a, _ = pair
    fill(a)
    thread, results = in_thread(lambda: a.write_all([b"x" * 10_000_000]))
    a.close()
    thread.join(DEADLINE)
    assert isinstance(results[0], OSError)


def test_closing_wakes_a_writer_of_the_other_end(pair: Pair) -> None:
    a, b = pair
    fill(a)
    thread, results = in_thread(lambda: a.write_all([b"x" * 10_000_000]))
    b.close()
    thread.join(DEADLINE)
    assert isinstance(results[0], OSError)


def test_what_had_arrived_is_readable_after_closing_ones_own_end(pair: Pair) -> None:
    a, b = pair
    b.write_all([b"hello"])
    a.close()
    assert read(a) == b"hello"
    assert read(a) == b""


def test_a_socket_takes_no_more_buffers_than_the_system_allows() -> None:
    a, b = socket_link()
    assert a.try_write([b"x"] * 5000) == 512
    assert read(b) == b"x" * 512
    for transport in (a, b):
        transport.release()


@pytest.mark.skipif(sys.platform != "linux", reason="counted as Linux counts it")
def test_who_waits_to_read_is_not_woken_by_what_the_peer_reads() -> None:
    a, b = socket_link()
    waiter: list[int] = []

    def wait() -> None:
        waiter.append(threading.get_native_id())
        waiter.append(a.read_into(memoryview(bytearray(10))))

    def times_asleep() -> int:
        status = Path(f"/proc/self/task/{waiter[0]}/status").read_text()
        return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)[0])

    def is_asleep() -> bool:
        return Path(f"/proc/self/task/{waiter[0]}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: bool(waiter) and is_asleep())
    before = times_asleep()
    for _ in range(100):
        a.write_all([b"x"])
        assert read(b) == b"x"
    assert times_asleep() - before <= 1
    b.write_all([b"x"])
    thread.join(DEADLINE)
    assert waiter[1:] == [1]
    for transport in (a, b):
        transport.release()


# --- handles for a child --------------------------------------------------------------------------------------


def test_the_childs_end_is_taken_from_the_environment_and_not_inherited_further() -> None:
    ours, handles = open_link()
    environ = {**handles.environment, "OTHER": "1"}
    descriptors = handles.popen_options["pass_fds"]
    assert environ == {LINK_VARIABLE: "fd:{},{}".format(*descriptors), "OTHER": "1"}
    copies = [os.dup(descriptor) for descriptor in descriptors]
    for copy in copies:
        os.set_inheritable(copy, True)
    environ[LINK_VARIABLE] = "fd:{},{}".format(*copies)
    handles.close()
    handles.close()
    theirs = take_link(environ)
    assert theirs is not None
    assert environ == {"OTHER": "1"}
    assert not any(map(os.get_inheritable, copies))
    ours.write_all([b"hello"])
    assert read(theirs) == b"hello"
    for transport in (ours, theirs):
        transport.release()


def test_without_a_host_there_is_no_link() -> None:
    environ = {"OTHER": "1"}
    assert take_link(environ) is None
    assert environ == {"OTHER": "1"}


@pytest.mark.parametrize(
    "value", ["", "fd:", "fd:x", "fd:7", "fd:7,8,9", "handles:1,2", "fd:99999,99998", "7,8", "fd:-1,-2", "fd:7,7"]
)
def test_a_variable_that_names_no_link_says_what_to_do(value: str) -> None:
    environ = {LINK_VARIABLE: value}
    with pytest.raises(LinkError, match=f"^{LINK_VARIABLE}={value} names no link .* remove it from the environment$"):
        take_link(environ)
    assert environ == {}


def test_a_descriptor_that_is_no_socket_is_named_and_neither_is_closed() -> None:
    a, b = socket.socketpair()
    with a, b, open(os.devnull, "rb") as file:
        with pytest.raises(LinkError, match="names no link"):
            take_link({LINK_VARIABLE: f"fd:{a.fileno()},{file.fileno()}"})
        os.fstat(a.fileno())
        os.fstat(file.fileno())


CHILD = """
import os, sys, subprocess
from liteyuki_host.comm.transport import take_link
link = take_link(os.environ)
buffer = memoryview(bytearray(100))
count = link.read_into(buffer)
seen = subprocess.run([sys.executable, "-c", "import os; print('LYCOMM_LINK' in os.environ)"],
                      capture_output=True, text=True, close_fds=False).stdout.strip()
link.write_all([bytes(buffer[:count]).upper(), seen.encode()])
link.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the Windows transport has its own tests")
def test_a_real_child_speaks_on_it_and_its_own_children_cannot() -> None:
    ours, handles = open_link()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], env={**os.environ, **handles.environment}, **handles.popen_options
    )
    handles.close()
    ours.write_all([b"hello"])
    got = b""
    while piece := read(ours):
        got += piece
    assert process.wait(DEADLINE) == 0
    assert got == b"HELLOFalse"
    ours.release()
