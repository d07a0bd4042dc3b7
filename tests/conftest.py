"""What holds for every test: nothing is left behind, and shared helpers are importable by name."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from liteyuki_host.comm.waiting.parking import Parked

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "e2e"))

from hidden_environment import pytest_runtest_makereport  # noqa: F401  # a hook; found by the path above
from turns import Turns

# A run in the background of a script has SIGINT ignored, one under nohup SIGHUP. Hosts inherit that, and would rightly
# ignore these signals of the tests.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts hosts and bots is slow; some other tests carry the mark themselves."""
    for item in items:
        if item.get_closest_marker("e2e") is not None:
            item.add_marker("slow")


# Several processes at once, by `pytest -n auto`.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many: one more than there are cores, since half of a test's time is waiting. With more, real bots become so
    slow that some miss their own limits of time. At most 6, for the memory of three bots each."""
    return min((os.cpu_count() or 1) + 1, 6)


_turns: Turns | None = None


def pytest_configure(config: pytest.Config) -> None:
    global _turns
    if hasattr(config, "workerinput"):
        _turns = Turns(Path(config.option.basetemp).parent)  # the one of the whole run


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the time limit of a test does not run while it waits for its turn
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if _turns is None:
        return (yield)
    with _turns.turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


LOOP_DESCRIPTORS = 3  # an event loop's selector and its socket pair; the session's loop is made by the first module
PATIENCE = 5.0  # seconds that threads and processes get to end after the last test of a module


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No thread of ours, no child process and no descriptor outlives the tests of a module."""
    process = psutil.Process()
    before = _descriptors(process)
    yield
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    for thread in _threads():
        thread.join(max(deadline - time.monotonic(), 0))
    left = [thread.name for thread in _threads()]
    assert not left, f"threads left behind: {left}"
    _, alive = psutil.wait_procs(process.children(recursive=True), max(deadline - time.monotonic(), 0.1))
    assert not alive, f"processes left behind: {alive}"
    grown = _descriptors(process) - before
    assert grown <= LOOP_DESCRIPTORS, f"{grown} descriptors left behind"


@pytest_asyncio.fixture(scope="module", autouse=True, loop_scope="session")
async def nothing_is_left_to_do() -> AsyncIterator[None]:
    """No task, and nothing that calls itself again and again: all tests share one loop, and what is left takes time and
    memory from all that come later. But who waits for messages may: of the plugin's tests, which have one NoneBot."""
    yield
    deadline = time.monotonic() + PATIENCE
    while left := _left_to_do():
        assert time.monotonic() < deadline, f"left to do: {left}"
        await asyncio.sleep(0.01)


def _left_to_do() -> list[str]:
    loop: Any = asyncio.get_running_loop()
    others: set[Any] = asyncio.all_tasks() - {asyncio.current_task()}
    return [str(task) for task in others if type(task._fut_waiter) is not Parked] + [str(call) for call in loop._ready]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lycomm-")]


def _descriptors(process: psutil.Process) -> int:
    # Windows counts handles of libraries and thread pools too, which come and go by themselves.
    return process.num_fds() if hasattr(process, "num_fds") else 0
