"""The receiving queue: two modes, order, and what a callback may do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from liteyuki_host.comm.channel.calling import Callback, Callbacks, call, error_text
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.unit import Received
from liteyuki_host.comm.codec import decode_payload, encode
from liteyuki_host.comm.errors import ChannelClosed, ChannelModeError
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.waiting.waiting import NOTHING

DEADLINE = 10.0


class Source:
    """Counts what it is told about."""

    def __init__(self) -> None:
        self.grants: list[int] = []
        self.replies: list[tuple[bytes, int, int]] = []

    @property
    def total(self) -> int:
        return sum(self.grants)

    def count(self, cost: int) -> None:
        self.grants.append(cost)

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        self.replies.append((payload, flags, request_id))


class Handler:
    """Notes what it handles, and lets a test wait for a number of messages."""

    def __init__(self, then: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        self.got: list[bytes] = []
        self._then = then
        self._changed = asyncio.Condition()

    async def __call__(self, message: Received) -> None:
        self.got.append(message.payload)
        async with self._changed:
            self._changed.notify_all()
        if self._then is not None:
            await self._then(message.payload)

    async def wait_for(self, count: int) -> None:
        async def reached() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self.got) >= count)

        await asyncio.wait_for(reached(), DEADLINE)


@contextlib.asynccontextmanager
async def passive(handler: Callable[[Received], Awaitable[None]], name: str = "x") -> AsyncIterator[Inbox]:
    inbox = Inbox(name, handler)
    inbox.use("passive")
    inbox.attach_loop(asyncio.get_running_loop())
    try:
        yield inbox
    finally:
        inbox.detach_loop()
        await asyncio.sleep(0)


async def nobody(message: Received) -> None:
    raise AssertionError("nobody handles messages here")


def taken(inbox: Inbox) -> list[bytes]:
    """Take everything that is there."""
    result = []
    while (message := inbox.take()) is not NOTHING:
        result.append(message[0])
    return result


# --- modes --------------------------------------------------------------------------------------------------


def test_the_first_use_decides_the_mode_and_the_other_names_it() -> None:
    inbox = Inbox("x", nobody)
    assert inbox.mode is None
    inbox.use("active")
    inbox.use("active")
    with pytest.raises(
        ChannelModeError,
        match=r"'x' is already read by receive\(\) \(active\) in this process.* so on_receive is refused",
    ):
        inbox.use("passive")
    assert inbox.mode == "active"


def test_the_other_way_round() -> None:
    inbox = Inbox("x", nobody)
    inbox.use("passive")
    with pytest.raises(ChannelModeError, match=r"read by on_receive callbacks \(passive\).* so receive\(\) is refused"):
        inbox.use("active")


# --- active -------------------------------------------------------------------------------------------------


def test_messages_are_taken_in_order_across_batches_and_sources() -> None:
    inbox = Inbox("x", nobody)
    a, b = Source(), Source()
    inbox.deliver([b"1", b"2"], 0, 0, a)
    inbox.deliver([b"3"], Flag.RAW, 0, a)
    inbox.deliver([b"4", b"5"], 0, 0, b)
    assert inbox.waiting() == 5
    first = inbox.take()
    assert first == Received(b"1", 0, 0, a)
    assert (inbox.waiting(), inbox.received) == (4, 5)
    assert taken(inbox) == [b"2", b"3", b"4", b"5"]
    assert inbox.take() is NOTHING


def test_each_message_is_granted_to_whom_it_came_from_when_it_is_taken() -> None:
    inbox = Inbox("x", nobody)
    a, b = Source(), Source()
    inbox.deliver([b"1", b"22"], 0, 0, a)
    inbox.deliver([b"333"], 0, 0, b)
    assert (a.grants, b.grants) == ([], [])
    assert taken(inbox) == [b"1", b"22", b"333"]
    assert (a.grants, b.grants) == ([MESSAGE_CHARGE + 1, MESSAGE_CHARGE + 2], [MESSAGE_CHARGE + 3])


def test_closing_lets_what_is_there_be_taken_and_then_raises() -> None:
    inbox = Inbox("x", nobody)
    source = Source()
    inbox.deliver([b"1"], 0, 0, source)
    inbox.close()
    assert inbox.take() == Received(b"1", 0, 0, source)
    with pytest.raises(ChannelClosed, match="channel 'x' is closed: this process is shutting down"):
        inbox.take()


def test_a_waiting_thread_is_woken_by_a_message_and_by_closing() -> None:
    inbox = Inbox("x", nobody)
    results: list[object] = []

    def receive() -> None:
        for _ in range(2):
            try:
                results.append(inbox.arrived.wait(inbox.take, DEADLINE))
            except ChannelClosed as error:
                results.append(error)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    source = Source()
    inbox.deliver([b"1"], 0, 0, source)
    while len(results) < 1 and thread.is_alive():
        thread.join(0.01)
    inbox.close()
    thread.join(DEADLINE)
    assert results[0] == Received(b"1", 0, 0, source)
    assert isinstance(results[1], ChannelClosed)


def test_reopening_drops_what_an_earlier_link_brought() -> None:
    inbox = Inbox("x", nobody)
    inbox.deliver([b"1"], 0, 0, Source())
    inbox.close()
    inbox.reopen()
    assert inbox.take() is NOTHING
    assert not inbox.closed


# --- passive ------------------------------------------------------------------------------------------------


def left(inbox: Inbox) -> list[bytes]:
    taken = []
    while (message := inbox.take()) is not NOTHING:
        taken.append(message[0])
    return taken


async def until_waiting(inbox: Inbox, count: int) -> None:
    """Let the loop run until *count* messages wait."""
    while inbox.waiting() != count:
        await asyncio.sleep(0)


COST = 1 + MESSAGE_CHARGE


def test_only_the_oldest_beyond_the_limit_go() -> None:
    inbox, source = Inbox("x", nobody), Source()
    for payloads in ([b"0"], [b"1", b"2"], [b"3", b"4", b"5"], [b"6"]):
        inbox.deliver(payloads, 0, 0, source)
    assert inbox.drop_oldest(6 * COST) == 0  # the first is not counted
    assert inbox.drop_oldest(3 * COST) == 3
    assert left(inbox) == [b"0", b"4", b"5", b"6"]
    assert source.total == 4 * COST  # what was dropped was not consumed


def test_messages_taken_already_do_not_count() -> None:
    inbox, source = Inbox("x", nobody), Source()
    inbox.deliver([b"0", b"1", b"2", b"3"], 0, 0, source)
    for payload in (b"4", b"5", b"6"):  # on the credit of the first three
        inbox.deliver([payload], 0, 0, source)
    assert [inbox.take()[0] for _ in range(3)] == [b"0", b"1", b"2"]
    assert inbox.drop_oldest(4 * COST) == 0
    assert left(inbox) == [b"3", b"4", b"5", b"6"]


def test_the_newest_stays_whatever_its_size() -> None:
    inbox, source = Inbox("x", nobody), Source()
    inbox.deliver([b"first"], 0, 0, source)
    inbox.deliver([b"old", b"larger than the limit"], 0, 0, source)
    assert inbox.drop_oldest(1) == 1
    assert left(inbox) == [b"first", b"larger than the limit"]


async def test_messages_are_handled_in_order_and_one_at_a_time() -> None:
    running = []

    async def slowly(payload: bytes) -> None:
        running.append(payload)
        assert len(running) == 1
        for _ in range(3):
            await asyncio.sleep(0)
        running.remove(payload)

    handler = Handler(slowly)
    async with passive(handler) as inbox:
        for number in range(20):
            inbox.deliver([b"%d" % number, b"%d again" % number], 0, 0, Source())
        await handler.wait_for(40)
    assert handler.got == [text for n in range(20) for text in (b"%d" % n, b"%d again" % n)]


async def test_callbacks_run_on_the_loop_that_was_attached() -> None:
    where: list[object] = []

    async def note(payload: bytes) -> None:
        where.append((asyncio.get_running_loop(), threading.get_ident()))

    handler = Handler(note)
    async with passive(handler) as inbox:
        thread = threading.Thread(target=inbox.deliver, args=([b"1"], 0, 0, Source()), daemon=True)
        thread.start()
        await handler.wait_for(1)
        thread.join(DEADLINE)
    assert where == [(asyncio.get_running_loop(), threading.get_ident())]


async def test_messages_before_the_loop_are_handled_first() -> None:
    handler = Handler()
    inbox = Inbox("x", handler)
    inbox.deliver([b"1"], 0, 0, Source())
    inbox.use("passive")
    inbox.deliver([b"2"], 0, 0, Source())
    inbox.attach_loop(asyncio.get_running_loop())
    inbox.deliver([b"3"], 0, 0, Source())
    await handler.wait_for(3)
    inbox.detach_loop()
    assert handler.got == [b"1", b"2", b"3"]


async def test_without_a_mode_nothing_is_handled() -> None:
    handler = Handler()
    inbox = Inbox("x", handler)
    inbox.attach_loop(asyncio.get_running_loop())
    inbox.deliver([b"1"], 0, 0, Source())
    for _ in range(5):
        await asyncio.sleep(0)
    assert handler.got == []
    inbox.use("passive")
    inbox.attach_loop(asyncio.get_running_loop())
    await handler.wait_for(1)
    inbox.detach_loop()


async def test_a_slow_one_delays_its_own_channel_only() -> None:
    gate = asyncio.Event()

    async def wait(payload: bytes) -> None:
        await gate.wait()

    slow, fast = Handler(wait), Handler()
    async with passive(slow, "slow") as blocked, passive(fast, "fast") as free:
        blocked.deliver([b"1", b"2"], 0, 0, Source())
        await slow.wait_for(1)
        free.deliver([b"%d" % n for n in range(50)], 0, 0, Source())
        await fast.wait_for(50)
        assert slow.got == [b"1"]
        gate.set()
        await slow.wait_for(2)


async def test_callbacks_that_never_suspend_leave_the_loop_room_to_breathe() -> None:
    async def busy(payload: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < deadline:
            pass

    handler = Handler(busy)
    async with passive(handler) as inbox:
        inbox.deliver([b"x"] * 100, 0, 0, Source())
        await handler.wait_for(1)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(handler.got) < 50
        await handler.wait_for(100)


async def test_everything_handled_is_granted() -> None:
    handler = Handler()
    source = Source()
    async with passive(handler) as inbox:
        for size in (0, 10, 5000):
            inbox.deliver([b"x" * size] * 7, 0, 0, source)
        await handler.wait_for(21)
        await asyncio.sleep(0)
    assert source.total == 7 * (3 * MESSAGE_CHARGE + 5010)


async def test_a_message_is_granted_when_its_callback_is_done() -> None:
    """Otherwise a crash would have messages handed over again although they were handled."""
    gate = asyncio.Event()

    async def wait_at_the_second(payload: bytes) -> None:
        if payload == b"2":
            await gate.wait()

    handler, source = Handler(wait_at_the_second), Source()
    async with passive(handler) as inbox:
        inbox.deliver([b"1", b"2", b"3"], 0, 0, source)
        await handler.wait_for(2)
        assert source.grants == [MESSAGE_CHARGE + 1]
        gate.set()
        await handler.wait_for(3)


async def test_a_failure_inside_does_not_end_the_receiving_nor_eat_credit() -> None:
    async def fail(payload: bytes) -> None:
        if payload == b"bad":
            raise RuntimeError("a bug of ours")

    handler, source = Handler(fail), Source()
    async with passive(handler) as inbox:
        inbox.deliver([b"bad", b"1"], 0, 0, source)
        await handler.wait_for(2)
        inbox.deliver([b"2"], 0, 0, source)
        await handler.wait_for(3)
        await asyncio.sleep(0)
    assert handler.got == [b"bad", b"1", b"2"]
    assert source.total == 3 * MESSAGE_CHARGE + 5


async def test_detaching_stops_and_attaching_goes_on() -> None:
    handler = Handler()
    async with passive(handler) as inbox:
        inbox.deliver([b"1"], 0, 0, Source())
        await handler.wait_for(1)
        inbox.detach_loop()
        inbox.deliver([b"2"], 0, 0, Source())
        for _ in range(5):
            await asyncio.sleep(0)
        assert handler.got == [b"1"]
        inbox.attach_loop(asyncio.get_running_loop())
        await handler.wait_for(2)
    assert handler.got == [b"1", b"2"]


async def test_a_message_in_progress_is_cancelled_and_not_granted() -> None:
    gate = asyncio.Event()
    ended: list[str] = []

    async def wait(payload: bytes) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    handler, source = Handler(wait), Source()
    async with passive(handler) as inbox:
        inbox.deliver([b"1", b"2"], 0, 0, source)
        await handler.wait_for(1)
        inbox.detach_loop()
        for _ in range(3):
            await asyncio.sleep(0)
    assert ended == ["cancelled"]
    assert source.grants == []


async def test_messages_behind_a_cancelled_one_count_once() -> None:
    begun = asyncio.Event()

    async def wait(payload: bytes) -> None:
        if payload == b"1":
            begun.set()
            await asyncio.Event().wait()

    async with passive(Handler(wait)) as inbox:
        inbox.deliver([b"0", b"1", b"2"], 0, 0, Source())
        await asyncio.wait_for(begun.wait(), DEADLINE)
        inbox.detach_loop()
        inbox.deliver([b"3"], 0, 0, Source())
        await asyncio.wait_for(until_waiting(inbox, 3), DEADLINE)
        assert inbox.drop_oldest(2 * COST) == 0  # the cancelled one is the first now, and b"0" was handled
        assert inbox.drop_oldest(COST) == 1
        assert left(inbox) == [b"1", b"3"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot tell whose cancellation it is")
async def test_a_cancelled_future_in_a_callback_does_not_end_the_receiving() -> None:
    async def await_something_cancelled(payload: bytes) -> None:
        if payload == b"bad":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    handler = Handler(await_something_cancelled)
    async with passive(handler) as inbox:
        inbox.deliver([b"bad", b"1"], 0, 0, Source())
        inbox.deliver([b"2"], 0, 0, Source())
        await handler.wait_for(3)
    assert handler.got == [b"bad", b"1", b"2"]


def run_until(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(wait(), DEADLINE))


def collecting() -> tuple[Inbox, list[bytes]]:
    got: list[bytes] = []

    async def collect(message: Received) -> None:
        got.append(message.payload)

    inbox = Inbox("x", collect)
    inbox.use("passive")
    return inbox, got


def test_a_loop_that_closed_without_a_word_does_not_end_the_receiving() -> None:
    """The start of a consumer that was scheduled on a loop which then closed used to count as one at work."""
    inbox, got = collecting()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    inbox.attach_loop(first)
    inbox.deliver([b"1"], 0, 0, Source())  # schedules a start on a loop that never runs again
    first.close()
    inbox.detach_loop()
    inbox.attach_loop(second)
    run_until(second, lambda: got == [b"1"])
    inbox.deliver([b"2"], 0, 0, Source())
    run_until(second, lambda: got == [b"1", b"2"])
    inbox.detach_loop()
    second.close()


def test_a_start_scheduled_on_the_old_loop_does_not_hold_up_the_new_one() -> None:
    inbox, got = collecting()
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    inbox.attach_loop(first)
    inbox.deliver([b"1"], 0, 0, Source())
    inbox.detach_loop()
    inbox.attach_loop(second)
    first.run_until_complete(asyncio.sleep(0))  # now the scheduled start runs, and finds another loop
    run_until(second, lambda: got == [b"1"])
    inbox.detach_loop()
    second.run_until_complete(asyncio.sleep(0))
    first.close()
    second.close()


def test_a_closed_loop_is_no_error_for_the_sender() -> None:
    inbox, got = collecting()
    loop = asyncio.new_event_loop()
    inbox.attach_loop(loop)
    loop.close()
    inbox.deliver([b"1"], 0, 0, Source())
    inbox.deliver([b"2"], 0, 0, Source())
    other = asyncio.new_event_loop()
    inbox.attach_loop(other)
    run_until(other, lambda: got == [b"1", b"2"])
    inbox.detach_loop()
    other.close()


async def test_no_arrival_is_missed_while_the_consumer_goes_to_sleep() -> None:
    handler = Handler()
    async with passive(handler) as inbox:
        source = Source()

        def send() -> None:
            for number in range(3000):
                inbox.deliver([b"%d" % number], 0, 0, source)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        await handler.wait_for(3000)
        await asyncio.to_thread(thread.join, DEADLINE)
    assert handler.got == [b"%d" % n for n in range(3000)]


# --- helpers ------------------------------------------------------------------------------------------------


async def test_sync_and_async_functions_are_called_alike() -> None:
    async def later(x: int) -> int:
        return x + 1

    assert await call(later, 1) == 2
    assert await call(lambda x: x + 1, 1) == 2
    assert await call(later, 1) == 2


def test_a_callback_is_named_in_full() -> None:
    assert Callback(test_a_callback_is_named_in_full, None, lambda payload, flags: payload).name == (
        f"{__name__}.test_a_callback_is_named_in_full"
    )
    assert "append" in Callback([].append, None, lambda payload, flags: payload).name


def test_the_text_of_an_error_that_has_none() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(ValueError("x")) == "x"
    assert error_text(Mute()) == "(its text cannot be shown: RuntimeError)"


async def test_messages_of_one_batch_count_one_by_one_when_a_callback_waits() -> None:
    """A flush of the sender is not to wait for the last of them, and a planned end not to redeliver the first ones."""
    gates = [asyncio.Event() for _ in range(4)]
    callbacks = Callbacks()
    callbacks.add(Callback(lambda number: gates[number].wait(), None, decode_payload))

    async def nobody_else(message: Received) -> None:
        raise AssertionError("one callback takes everything")

    inbox = Inbox("x", nobody_else, callbacks=callbacks)
    inbox.use("passive")
    inbox.attach_loop(asyncio.get_running_loop())
    source = Source()
    inbox.deliver([encode(number) for number in range(4)], 0, 0, source)
    for number, gate in enumerate(gates):
        for _ in range(10):
            await asyncio.sleep(0)
        assert source.total == number * (MESSAGE_CHARGE + 1)
        gate.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.total == 4 * (MESSAGE_CHARGE + 1)
    inbox.detach_loop()
    await asyncio.sleep(0)
