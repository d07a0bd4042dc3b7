"""The two pipes, in one process and between two."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from windows_kit import ended, watched

from liteyuki_host.comm.errors import LinkError
from liteyuki_host.comm.transport import open_link, take_link
from liteyuki_host.comm.transport.windows import PipeTransport, _pieces
from liteyuki_host.supervisor.job_object import JobObject

assert sys.platform == "win32"

Ends = tuple[PipeTransport, PipeTransport]

DEADLINE = 20.0  # seconds; Wine starts a process in about one


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a link in this process."""
    host, handles = open_link()
    child = take_link(dict(handles.environment))
    assert child is not None
    yield host, child
    host.close()
    child.close()


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Start *call* in a thread; the returned function waits for its result, or raises what it raised."""
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, call()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(DEADLINE)
        assert not thread.is_alive(), "still blocked"
        [(good, value)] = outcome
        if not good:
            raise value
        return value

    return result


def read_exactly(link: PipeTransport, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    done = 0
    while done < size and (count := link.read_into(buffer[done:])):
        done += count
    return bytes(buffer[:done])


def spawn(script: Path, *arguments: object, handles: Any = None) -> subprocess.Popen[str]:
    options = handles.popen_options if handles else {}
    environ = {**os.environ, **(handles.environment if handles else {})}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        **options,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pieces_are_the_same_bytes_however_they_are_cut(size: int) -> None:
    view = memoryview(b"defgh")[1:]
    buffers: list[bytes | bytearray | memoryview] = [b"", b"a", bytearray(b"bc"), view, b"x" * 20, b""]
    pieces = list(_pieces(buffers, size))
    assert b"".join(pieces) == b"".join(bytes(b) for b in buffers)
    assert all(0 < len(piece) <= size for piece in pieces)
    assert all(len(piece) == size for piece in pieces[:-1])


def test_no_buffers_are_no_pieces() -> None:
    assert list(_pieces([], 10)) == []
    assert list(_pieces([b"", b""], 10)) == []


def test_bytes_arrive_in_order_both_ways(ends: Ends) -> None:
    host, child = ends
    assert host.try_write([b"head", bytearray(b"er"), memoryview(b"-tail")[1:]]) == 10
    assert read_exactly(child, 10) == b"headertail"
    child.write_all([b"an", b"", b"swer"])
    assert read_exactly(host, 6) == b"answer"


def test_ten_megabytes_both_ways_at_once_between_two_processes(children: Path) -> None:
    size, seed = 10_000_000, 7
    host, handles = open_link()
    child = spawn(children / "exchange.py", size, seed, handles=handles)
    handles.close()
    ours = random.Random(seed + 1).randbytes(size)
    sent = in_thread(lambda: host.write_all([ours]))
    received = read_exactly(host, size)
    sent()
    out, _ = child.communicate(timeout=DEADLINE)
    assert out.strip() == hashlib.sha256(ours).hexdigest()
    assert received == random.Random(seed).randbytes(size)
    assert host.read_into(memoryview(bytearray(1))) == 0
    host.close()


def test_writing_without_waiting_stops_when_the_pipe_is_full(ends: Ends) -> None:
    host, child = ends
    data = random.Random(1).randbytes(5_000_000)
    taken = host.try_write([data])
    assert 0 < taken < len(data)
    assert taken + host.try_write([data[taken:]]) < len(data)
    assert read_exactly(child, taken) == data[:taken]


def test_a_small_piece_does_not_slip_past_a_large_one(ends: Ends) -> None:
    """Room for the rest of the data, but not for the piece before it: none of either may go."""
    host, child = ends
    data = random.Random(3).randbytes(1_000_000 + 100)
    for filler in (1, 1000, 60_000):
        assert host.try_write([bytes(filler)]) == filler
        taken = host.try_write([data])
        assert 0 < taken < len(data)
        assert read_exactly(child, filler + taken) == bytes(filler) + data[:taken]


def test_what_found_no_room_is_written_by_the_thread_that_may_wait(ends: Ends) -> None:
    host, child = ends
    data = random.Random(2).randbytes(3_000_000)
    taken = host.try_write([data])
    sent = in_thread(lambda: host.write_all([memoryview(data)[taken:]]))
    assert read_exactly(child, len(data)) == data
    sent()
    # And afterwards the pipe does not wait again.
    assert host.try_write([data]) < len(data)


def test_nothing_overtakes_a_write_that_waits(ends: Ends) -> None:
    host, child = ends
    data = bytes(3_000_000)
    sent = in_thread(lambda: host.write_all([data]))
    assert read_exactly(child, 1) == b"\0"  # so it is under way, and cannot be finished
    assert host.try_write([b"overtaking"]) == 0
    assert read_exactly(child, len(data) - 1) == data[1:]
    sent()
    assert host.try_write([b"next"]) == 4
    assert read_exactly(child, 4) == b"next"


def test_closing_wakes_a_blocked_reader(ends: Ends) -> None:
    host, _ = ends
    count = in_thread(lambda: host.read_into(memoryview(bytearray(10))))
    host.close()
    assert count() == 0


def test_closing_wakes_a_blocked_writer(ends: Ends) -> None:
    host, child = ends
    sent = in_thread(lambda: host.write_all([bytes(3_000_000)]))
    assert read_exactly(child, 1) == b"\0"
    host.close()
    with pytest.raises(BrokenPipeError):
        sent()


def test_closing_never_misses_a_thread_that_is_just_going_in() -> None:
    """A cancel that comes before the read has begun is lost; the stop event is not."""
    for _ in range(300):
        host, handles = open_link()
        count = in_thread(lambda link=host: link.read_into(memoryview(bytearray(10))))  # type: ignore[misc]
        host.close()
        assert count() == 0
        handles.close()


def test_a_closed_end_reads_the_end_and_refuses_to_write(ends: Ends) -> None:
    host, child = ends
    host.close()
    host.close()
    assert host.read_into(memoryview(bytearray(10))) == 0
    for write in (host.try_write, host.write_all, child.try_write, child.write_all):
        with pytest.raises(BrokenPipeError):
            write([b"x"])


def test_what_was_written_before_closing_is_still_read(ends: Ends) -> None:
    host, child = ends
    assert host.try_write([b"goodbye"]) == 7
    host.close()
    assert read_exactly(child, 100) == b"goodbye"


def test_closing_twice_leaves_a_reused_handle_number_alone() -> None:
    """Handle numbers are used again at once: a second close must not be the end of somebody else's."""
    for _ in range(50):
        old, old_handles = open_link()
        old.close()
        old_handles.close()
        new, new_handles = open_link()
        old.close()
        old_handles.close()
        child = take_link(dict(new_handles.environment))
        assert child is not None
        assert new.try_write([b"x"]) == 1
        assert read_exactly(child, 1) == b"x"
        assert old.read_into(memoryview(bytearray(1))) == 0
        new.close()
        child.close()


def test_a_reader_on_its_way_out_keeps_its_handle_number() -> None:
    """Between being woken and leaving the call, the number must not become another link's."""
    for _ in range(100):
        old, old_handles = open_link()
        count = in_thread(lambda link=old: link.read_into(memoryview(bytearray(4))))  # type: ignore[misc]
        old.close()
        new, new_handles = open_link()
        child = take_link(dict(new_handles.environment))
        assert child is not None
        child.write_all([b"mine"])
        assert count() == 0
        assert read_exactly(new, 4) == b"mine"
        for link in (new, child, old_handles):
            link.close()


@pytest.mark.parametrize("inside", [False, True], ids=["nobody inside", "a thread inside"])
def test_a_closed_link_gives_its_handles_back(inside: bool, ends: Ends) -> None:
    host, child = ends
    numbers = [host._reader.handle, host._reader.event, host._writer.handle, host._writer.event, host._stop]
    if inside:
        sent = in_thread(lambda: host.write_all([bytes(3_000_000)]))
        assert read_exactly(child, 1) == b"\0"
    for number in numbers:
        assert not os.get_handle_inheritable(number)
    host.close()
    if inside:  # then it is that thread's to do
        with pytest.raises(BrokenPipeError):
            sent()
    for number in numbers:
        with pytest.raises(OSError, match=r"handle is invalid|Invalid handle"):
            os.get_handle_inheritable(number)


@pytest.mark.parametrize("how", ["ends by itself", "is killed"])
def test_the_peers_death_is_the_end_of_the_stream(how: str, children: Path, job: JobObject) -> None:
    host, handles = open_link()
    child = spawn(children / "parent.py", handles=handles)
    job.assign(child)
    handles.close()
    assert child.stdout is not None
    with child.stdout as says:
        number, sees_link = says.readline().split()
    assert sees_link == "False"
    with watched(int(number)) as grandchild:
        if how == "is killed":
            child.kill()
        else:
            host.write_all([b"x"])
        # The grandchild was started with close_fds=False and lives: with an end of ours, no end would come.
        assert in_thread(lambda: host.read_into(memoryview(bytearray(1))))() == 0
        assert not ended(grandchild, 0)
        with pytest.raises(BrokenPipeError):
            host.write_all([bytes(3_000_000)])
    child.wait(DEADLINE)
    host.close()


def test_a_process_started_meanwhile_does_not_hold_the_childs_end() -> None:
    host, handles = open_link()
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    handles.close()
    assert in_thread(lambda: host.read_into(memoryview(bytearray(1))))() == 0
    other.communicate(b"", timeout=DEADLINE)
    host.close()


def test_without_a_host_there_is_no_link() -> None:
    assert take_link({}) is None


@pytest.mark.parametrize(
    "value", ["", "fd:7", "handles:", "handles:1", "handles:a,b", "handles:-8,-8", "handles:8,8,8"]
)
def test_a_variable_that_names_no_link_is_refused_and_removed(value: str) -> None:
    environ = {"LYCOMM_LINK": value}
    with pytest.raises(LinkError, match="names no link"):
        take_link(environ)
    assert environ == {}


def test_handles_that_are_no_pipes_are_refused_and_untouched(tmp_path: Path) -> None:
    import msvcrt

    with open(tmp_path / "file", "wb") as file:
        handle = msvcrt.get_osfhandle(file.fileno())
        os.set_handle_inheritable(handle, True)
        with pytest.raises(LinkError, match="is not a pipe"):
            take_link({"LYCOMM_LINK": f"handles:{handle},{handle}"})
        assert os.get_handle_inheritable(handle)
