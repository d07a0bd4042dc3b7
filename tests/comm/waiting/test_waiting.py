"""Waiting for a fact: from threads and tasks, woken from anywhere, nothing missed and nothing left behind."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import pytest

from liteyuki_host.comm.errors import WouldBlockEventLoop
from liteyuki_host.comm.waiting.loops import on_event_loop, refuse_event_loop
from liteyuki_host.comm.waiting.waiting import NOTHING, Answer, Nothing, Waiters, _TimeLimit

DEADLINE = 10.0


class Box:
    """A value that somebody waits for."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.values: list[object] = []
        self.attempts = 0
        self.looked = threading.Semaphore(0)  # released with every attempt

    def put(self, value: object) -> None:
        self.values.append(value)
        self.waiters.wake()

    def take(self) -> object:
        self.attempts += 1
        self.looked.release()
        try:
            return self.values.pop(0)
        except IndexError:
            return NOTHING


def in_thread(function: Callable[[], object]) -> Callable[[], object]:
    """Run in a thread; the returned function joins it and gives the result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()

    def join() -> object:
        thread.join(DEADLINE)
        assert not thread.is_alive()
        return results[0]

    return join


def test_what_is_there_is_taken_without_waiting() -> None:
    box = Box()
    box.values = [None]  # None is a value
    assert box.waiters.wait(box.take, 0) is None
    assert box.attempts == 1


def test_a_thread_is_woken_by_another() -> None:
    box = Box()
    join = in_thread(lambda: box.waiters.wait(box.take, DEADLINE))
    for _ in range(2):  # before and after it has registered
        assert box.looked.acquire(timeout=DEADLINE)
    box.put("x")
    assert join() == "x"
    assert not box.waiters.callbacks


async def test_a_task_is_woken_by_a_thread() -> None:
    box = Box()
    task = asyncio.create_task(box.waiters.wait_async(box.take, DEADLINE))
    await asyncio.sleep(0)
    assert box.waiters.callbacks
    threading.Thread(target=box.put, args=("x",), daemon=True).start()
    assert await asyncio.wait_for(task, DEADLINE) == "x"
    assert not box.waiters.callbacks


def test_nothing_after_the_timeout() -> None:
    box = Box()
    started = time.monotonic()
    assert box.waiters.wait(box.take, 0.05) is NOTHING
    assert 0.05 <= time.monotonic() - started < DEADLINE
    assert box.waiters.wait(box.take, -5) is NOTHING
    assert not box.waiters.callbacks


async def test_nothing_after_the_timeout_in_a_task() -> None:
    box = Box()
    assert await box.waiters.wait_async(box.take, 0.05) is NOTHING
    assert await box.waiters.wait_async(box.take, 0) is NOTHING
    assert await box.waiters.wait_async(box.take, -1) is NOTHING
    assert not box.waiters.callbacks


def test_an_endless_timeout_is_one() -> None:
    """It was an OverflowError of the lock underneath."""
    box = Box()
    join = in_thread(lambda: box.waiters.wait(box.take, math.inf))
    for _ in range(2):
        assert box.looked.acquire(timeout=DEADLINE)
    box.put("x")
    assert join() == "x"


@pytest.mark.parametrize("look", [1, 2], ids=["before registering", "after registering"])
def test_what_comes_during_a_look_is_not_missed(look: int) -> None:
    box = Box()

    def attempt() -> object:
        result = box.take()
        if box.attempts == look:
            box.put("x")
        return result

    started = time.monotonic()
    assert box.waiters.wait(attempt, DEADLINE) == "x"
    assert box.attempts == look + 1
    assert time.monotonic() - started < DEADLINE / 2  # woken, not timed out


@pytest.mark.parametrize("look", [1, 2], ids=["before registering", "after registering"])
async def test_what_comes_during_a_look_of_a_task_is_not_missed(look: int) -> None:
    box = Box()

    def attempt() -> object:
        result = box.take()
        if box.attempts == look:
            box.put("x")
        return result

    started = time.monotonic()
    assert await box.waiters.wait_async(attempt, DEADLINE) == "x"
    assert box.attempts == look + 1
    assert time.monotonic() - started < DEADLINE / 2


def test_a_wake_up_for_nothing_does_not_end_the_wait() -> None:
    box = Box()
    join = in_thread(lambda: box.waiters.wait(box.take, DEADLINE))
    for _ in range(2):
        assert box.looked.acquire(timeout=DEADLINE)
    box.waiters.wake()
    assert box.looked.acquire(timeout=DEADLINE)
    box.put("x")
    assert join() == "x"


def test_the_timeout_counts_over_all_wake_ups() -> None:
    box = Box()
    started = time.monotonic()
    stop = threading.Event()

    def keep_waking() -> None:
        while not stop.is_set():
            box.waiters.wake()

    thread = threading.Thread(target=keep_waking, daemon=True)
    thread.start()
    assert box.waiters.wait(box.take, 0.1) is NOTHING
    stop.set()
    thread.join(DEADLINE)
    assert 0.1 <= time.monotonic() - started < DEADLINE


def test_every_value_goes_to_one_of_many_threads() -> None:
    box = Box()
    joins = [in_thread(lambda: box.waiters.wait(box.take, DEADLINE)) for _ in range(8)]
    for number in range(8):
        box.put(number)
    assert sorted(str(join()) for join in joins) == [str(n) for n in range(8)]
    assert not box.waiters.callbacks


async def test_tasks_and_threads_wait_side_by_side() -> None:
    box = Box()
    joins = [in_thread(lambda: box.waiters.wait(box.take, DEADLINE)) for _ in range(3)]
    tasks = [asyncio.create_task(box.waiters.wait_async(box.take, DEADLINE)) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(6):
        box.put(number)
    results = [await asyncio.wait_for(task, DEADLINE) for task in tasks]
    results += [await asyncio.to_thread(join) for join in joins]
    assert sorted(map(str, results)) == [str(n) for n in range(6)]


async def test_a_cancelled_task_takes_nothing_and_leaves_nothing() -> None:
    box = Box()
    task = asyncio.create_task(box.waiters.wait_async(box.take, None))
    await asyncio.sleep(0)
    box.put("x")  # wakes it ...
    task.cancel()  # ... and it is cancelled before it looks
    with pytest.raises(asyncio.CancelledError):
        await task
    assert box.values == ["x"]
    assert not box.waiters.callbacks


def test_an_attempt_that_raises_ends_the_wait() -> None:
    box = Box()

    def take_a_number() -> object:
        value = box.take()
        return value if value is NOTHING else 1 / int(str(value))

    def wait() -> str:
        with pytest.raises(ZeroDivisionError):
            box.waiters.wait(take_a_number, DEADLINE)
        return "raised"

    join = in_thread(wait)
    for _ in range(2):
        assert box.looked.acquire(timeout=DEADLINE)
    box.put(0)
    assert join() == "raised"
    assert not box.waiters.callbacks


def test_a_task_on_a_closed_loop_does_not_disturb_the_others() -> None:
    box = Box()
    loop = asyncio.new_event_loop()
    task = loop.create_task(box.waiters.wait_async(box.take, None))
    loop.run_until_complete(asyncio.sleep(0))
    join = in_thread(lambda: box.waiters.wait(box.take, DEADLINE))
    for _ in range(4):
        assert box.looked.acquire(timeout=DEADLINE)
    callbacks = list(box.waiters.callbacks)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    box.waiters.callbacks = deque(callbacks)  # as if it had been closed without a word
    box.put("x")
    assert join() == "x"


async def test_a_call_that_waits_is_refused_on_the_loop_and_says_what_to_write() -> None:
    assert on_event_loop()
    with pytest.raises(WouldBlockEventLoop, match=r"^receive\(\) waits, .* write `await areceive\(\)` here") as caught:
        refuse_event_loop("receive()", "areceive()")
    assert isinstance(caught.value, RuntimeError)
    assert await asyncio.to_thread(on_event_loop) is False
    await asyncio.to_thread(refuse_event_loop, "receive()", "areceive()")


def test_a_thread_without_a_loop_is_not_refused() -> None:
    assert not on_event_loop()
    refuse_event_loop("receive()", "areceive()")


async def test_answers_with_the_same_limit_are_each_given_up_in_time() -> None:
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def wait(answer: Answer[int]) -> int | Nothing:
        began = loop.time()
        value = await answer.wait_async(0.2)
        took.append(loop.time() - began)
        return value

    answers: list[Answer[int]] = [Answer() for _ in range(3)]
    tasks = []
    for answer in answers:
        tasks.append(asyncio.create_task(wait(answer)))
        await asyncio.sleep(0.05)
    answers[1].give(1)
    assert await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE) == [NOTHING, 1, NOTHING]
    assert 0.2 <= took[1] < 0.25, "the first: its own time, not that of a later one"
    assert 0.2 <= took[2] < 0.25, "the last: not that of the first"


async def test_who_stops_waiting_for_an_answer_leaves_the_limit_of_the_others_alone() -> None:
    answers: list[Answer[int]] = [Answer() for _ in range(2)]
    gone, stays = (asyncio.create_task(answer.wait_async(0.1)) for answer in answers)
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays is NOTHING
    assert gone.cancelled()
    limit = _TimeLimit.latest
    assert limit is not None
    assert limit.seconds == 0.1
    assert not limit.until, "nothing is kept of who does not wait any more"


def test_each_loop_has_limits_of_its_own() -> None:
    async def wait() -> int | Nothing:
        answer: Answer[int] = Answer()
        return await answer.wait_async(0.05)

    for _ in range(2):
        assert asyncio.run(wait()) is NOTHING


async def test_no_timer_is_left_of_limits_that_are_no_longer_used() -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_at = loop.call_at

    def noted(when: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        timers.append(call_at(when, callback, *args))
        return timers[-1]

    loop.call_at = noted  # type: ignore[method-assign,assignment]
    try:
        for number in range(10):
            answers: list[Answer[int]] = [Answer() for _ in range(2)]
            waits = [
                asyncio.create_task(answer.wait_async(limit + number))
                for answer, limit in zip(answers, (100.0, 200.0), strict=True)
            ]
            await asyncio.sleep(0)
            for answer in answers:
                answer.give(1)
            assert await asyncio.gather(*waits) == [1, 1]
    finally:
        del loop.call_at
    assert len(timers) == 20
    assert sum(not timer.cancelled() for timer in timers) == 1, "that of the limit used last"
