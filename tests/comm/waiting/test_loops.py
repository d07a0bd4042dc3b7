"""Calling something on an event loop, and what a task waits for."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from liteyuki_host.comm.waiting.loops import Turn, call_on, call_soon_on, reading, turn_of
from liteyuki_host.comm.waiting.parking import Parked

DEADLINE = 10.0

mark: ContextVar[str] = ContextVar("mark", default="")


async def test_on_its_own_loop_it_is_called_at_once_or_soon() -> None:
    loop = asyncio.get_running_loop()
    called: list[str] = []
    assert call_soon_on(loop, lambda: called.append("soon"))
    assert call_on(loop, lambda: called.append("at once"))
    assert called == ["at once"]
    await asyncio.sleep(0)
    assert called == ["at once", "soon"]


@pytest.mark.parametrize("call", [call_on, call_soon_on])
async def test_from_another_thread_it_is_called_on_the_loop(call: type[call_on]) -> None:  # type: ignore[valid-type]
    loop = asyncio.get_running_loop()
    threads: asyncio.Queue[int] = asyncio.Queue()
    assert await asyncio.to_thread(call, loop, lambda: threads.put_nowait(threading.get_ident()))  # type: ignore[arg-type]
    assert await asyncio.wait_for(threads.get(), DEADLINE) == threading.get_ident()


def test_a_closed_loop_is_said() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert not call_on(loop, list)
    assert not call_soon_on(loop, list)


async def test_while_the_loop_reads_it_is_called_when_that_is_done() -> None:
    loop = asyncio.get_running_loop()
    called: list[str] = []
    turn = Turn(loop)
    turn.thread = threading.get_ident()
    reading[loop] = turn
    assert turn_of(loop) is turn
    call_soon_on(loop, lambda: called.append("first"))
    call_soon_on(loop, lambda: call_soon_on(loop, lambda: called.append("later")))
    call_soon_on(loop, lambda: called.append("second"))
    del reading[loop]
    assert called == []
    turn.end()
    assert called == ["first", "second"]
    await asyncio.sleep(0)
    assert called == ["first", "second", "later"]
    assert turn_of(loop) is None


async def test_another_thread_does_not_take_part_in_a_turn() -> None:
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    turn = Turn(loop)
    turn.thread = threading.get_ident()
    reading[loop] = turn
    try:
        assert await asyncio.to_thread(turn_of, loop) is None
        assert await asyncio.to_thread(call_soon_on, loop, called.set)
        assert not turn.due
    finally:
        del reading[loop]
    await asyncio.wait_for(called.wait(), DEADLINE)


async def test_what_ends_the_process_leaves_the_rest_to_the_loop() -> None:
    loop = asyncio.get_running_loop()
    called: list[str] = []

    def leave() -> None:
        raise SystemExit

    turn = Turn(loop)
    turn.due += [leave, lambda: called.append("second"), lambda: called.append("third")]
    with pytest.raises(SystemExit):
        turn.end()
    assert turn.due == []
    assert called == []
    await asyncio.sleep(0)
    assert called == ["second", "third"]


async def test_a_task_goes_on_the_moment_it_is_resumed_in_its_own_context() -> None:
    loop = asyncio.get_running_loop()
    parked = Parked(loop=loop)
    seen: list[object] = []

    async def wait() -> None:
        mark.set("of the task")
        await parked
        seen.append((mark.get(), asyncio.current_task()))

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    resumed = loop.create_future()

    def resume() -> None:
        parked.resume()
        resumed.set_result(list(seen))
        parked.resume()  # once is enough

    loop.call_soon(resume)
    assert await resumed == [("of the task", task)]
    await task
    assert len(seen) == 1


async def test_a_task_that_was_resumed_before_it_waits_does_not_wait() -> None:
    parked = Parked(loop=asyncio.get_running_loop())

    async def wait() -> None:
        await parked

    parked.resume()
    # In a task of its own: until Python 3.12 wait_for() itself waits for the callback of a future, for all its time.
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert task.done()


async def test_a_parked_task_can_be_cancelled() -> None:
    parked = Parked(loop=asyncio.get_running_loop())

    async def wait() -> None:
        await parked

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert task.cancel("enough")
    parked.resume()  # too late
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, DEADLINE)
    assert parked.cancelled()
    assert not parked.cancel()


async def test_a_parked_task_may_have_a_time_limit() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Parked(loop=asyncio.get_running_loop()), 0.01)
