"""A message given to its callback by the one who reads is handled as one that the task takes from the queue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from liteyuki_host.comm.channel import worker_task as run_module
from liteyuki_host.comm.channel.calling import Callback, Callbacks
from liteyuki_host.comm.channel.inbox import Inbox
from liteyuki_host.comm.channel.unit import Received
from liteyuki_host.comm.channel.worker_task import LOOK_AFTER, YIELD_SECONDS, WorkerTask
from liteyuki_host.comm.codec import decode_payload, encode
from liteyuki_host.comm.protocol.credit import MESSAGE_CHARGE
from liteyuki_host.comm.protocol.frames import Flag
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.waiting.loops import Turn, reading

DEADLINE = 10.0

mark: ContextVar[str] = ContextVar("mark", default="")


class Sender:
    """Of the messages; counts what it is told about."""

    def __init__(self) -> None:
        self.counted = 0

    def count(self, cost: int) -> None:
        self.counted += cost

    def reply(self, payload: bytes, flags: int, request_id: int) -> None:
        raise AssertionError("nothing here is a request")

    async def replied(self) -> None:
        raise AssertionError("nothing here is a request")


class Clock:
    """What ``Run`` takes for the time: it stands still but for callbacks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.looks = 0
        monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=self.look))

    def look(self) -> float:
        self.looks += 1
        return self.now


_kits: list[Kit] = []


@pytest.fixture(autouse=True)
def kits_end_with_their_test() -> Iterator[None]:
    yield
    for kit in _kits:
        kit.inbox.detach_loop()
    _kits.clear()


class Kit:
    """A channel's queue, its callbacks, and one who reads. Ended with its test.

    Args:
        handing: what is alone is handed to the task's name, when that can be; else everything is queued.
        in_turn: the queue hands it over, as it is filled by the loop that reads; else a link does.
    """

    def __init__(self, *, handing: bool, in_turn: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.handing = handing
        self.in_turn = in_turn
        self.handed = 0
        self.sender = Sender()
        self.callbacks = Callbacks()
        self.failures: list[tuple[str, str]] = []
        self.inbox = Inbox("x", self._handle, callbacks=self.callbacks, failed=self._failed)
        self.inbox.use("passive")
        self.stream = Stream(2, ("channel", "x"))
        self.inbox.follow(Silent(), self.stream)
        self.inbox.attach_loop(self.loop)
        self.trace: list[Any] = []
        self.done = asyncio.Semaphore(0)
        _kits.append(self)

    async def _handle(self, message: Received) -> None:
        for callback in self.callbacks:
            self.trace.append(("handled", decode_payload(message.payload, message.flags), callback.function.__name__))
        self.done.release()

    def _failed(self, what: str, callback: Callback, error: BaseException) -> None:
        self.failures.append((what, type(error).__name__))
        self.done.release()

    def on(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        self.callbacks.add(Callback(function, None, decode_payload))
        return function

    @property
    def task(self) -> WorkerTask:
        task = self.inbox.worker.current
        assert task is not None
        return task

    async def begin(self) -> None:
        """Let the task start, and park."""
        self.arrive("begin")
        await self.finished()
        for _ in range(3):
            await asyncio.sleep(0)
        assert self.task.free
        self.trace.clear()
        self.sender.counted = 0

    async def begin_without_callback(self) -> None:
        """Let the task start, and park, and remove the callback it was started for."""
        callback = self.on(lambda value: self.done.release())
        await self.begin()
        self.callbacks.remove(callback)

    def arrive(self, value: Any) -> None:
        """Do what the link does with a message that arrives alone, in a turn of its own."""
        self.arrive_encoded(encode(value))

    def arrive_encoded(self, payload: bytes) -> None:
        turn = Turn(self.loop)
        if self.in_turn:
            self.deliver([payload])
        elif self.handing and self.inbox.pass_to_task(payload, self.sender, turn):
            self.handed += 1
            self.loop.call_soon(turn.end)
        else:
            self.inbox.deliver([payload], 0, 0, self.sender)

    def deliver(self, payloads: list[bytes], flags: int = 0) -> None:
        """Read by the loop, which then does what is due."""
        turn = Turn(self.loop)
        turn.thread = threading.get_ident()
        reading[self.loop] = turn
        self.inbox.deliver(payloads, flags, 0, self.sender)
        del reading[self.loop]
        self.handed += bool(turn.due and not self.inbox.units)
        self.loop.call_soon(turn.end)  # in no task

    async def finished(self, times: int = 1) -> None:
        """Callbacks have called ``done``, or failed."""
        for _ in range(times):
            await asyncio.wait_for(self.done.acquire(), DEADLINE)
        await asyncio.sleep(0)


class Silent:
    """A link that brings nothing."""

    def lead(self, ready: object, deadline: object, wanted: object = None) -> None:
        raise AssertionError("nobody waits here")

    wait: Any = None


Scenario = Callable[[Kit], Awaitable[None]]
scenarios: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    scenarios.append(function)
    return function


@scenario
async def a_function(kit: Kit) -> None:
    kit.on(lambda value: (kit.trace.append(value), kit.done.release())[0])
    await kit.begin()
    for value in (1, {"a": []}, "text"):
        kit.arrive(value)
        await kit.finished()
    assert kit.trace == [1, {"a": []}, "text"]


@scenario
async def a_function_that_leaves_something_in_its_context(kit: Kit) -> None:
    @kit.on
    def callback(value: Any) -> None:
        kit.trace.append(mark.get())
        mark.set(str(value))
        kit.done.release()

    await kit.begin()
    for value in (1, 2):
        kit.arrive(value)
        await kit.finished()
    assert kit.trace == ["begin", "1"]
    assert mark.get() == ""


@scenario
async def a_coroutine_that_never_waits(kit: Kit) -> None:
    @kit.on
    async def callback(value: Any) -> None:
        kit.trace.append((value, asyncio.current_task().get_name(), mark.get()))  # type: ignore[union-attr]
        mark.set(str(value))  # stays: it is one task
        kit.done.release()

    await kit.begin()
    for value in (1, 2):
        kit.arrive(value)
        await kit.finished()
    assert kit.trace == [(1, "lycomm-x", "begin"), (2, "lycomm-x", "1")]
    assert mark.get() == ""


@scenario
async def a_coroutine_that_waits(kit: Kit) -> None:
    answer: asyncio.Future[str] = kit.loop.create_future()

    @kit.on
    async def callback(value: Any) -> None:
        if value != "begin":
            kit.trace.append((value, "begun", asyncio.current_task().get_name()))  # type: ignore[union-attr]
            await asyncio.sleep(0)
            kit.trace.append((value, "after a turn", kit.sender.counted))
            kit.trace.append(await asyncio.wait_for(asyncio.shield(answer), DEADLINE))
            kit.trace.append((value, asyncio.current_task().get_name()))  # type: ignore[union-attr]
        kit.done.release()

    await kit.begin()
    kit.arrive("first")
    kit.arrive("second")  # handled after it, whatever it waits for
    for _ in range(5):
        await asyncio.sleep(0)
    assert kit.trace[-1] == ("first", "after a turn", 0)
    answer.set_result("here")
    await kit.finished(2)
    assert [entry[0] for entry in kit.trace if isinstance(entry, tuple)] == ["first"] * 3 + ["second"] * 3


@scenario
async def an_awaitable_of_another_kind(kit: Kit) -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, None]:
            yield from asyncio.sleep(0).__await__()
            kit.trace.append("awaited")
            kit.done.release()

    kit.on(lambda value: Later())
    await kit.begin()
    kit.arrive(1)
    await kit.finished()
    assert kit.trace == ["awaited"]


@scenario
async def failures(kit: Kit) -> None:
    @kit.on
    async def callback(value: Any) -> None:
        if value == "begin":
            kit.done.release()
            return
        if value == "later":
            await asyncio.sleep(0)
        raise LookupError(value)

    await kit.begin()
    for value in ("at once", "later", "at once"):
        kit.arrive(value)
        await kit.finished()
    kit.callbacks.remove(None)

    def stop(value: Any) -> None:
        raise StopIteration(value)

    kit.on(stop)
    kit.arrive("stop")
    await kit.finished()
    assert kit.failures == [("the callback", "LookupError")] * 3 + [("the callback", "StopIteration")]


@scenario
async def what_cannot_be_decoded(kit: Kit) -> None:
    @kit.on
    def callback(value: Any) -> None:
        kit.done.release()

    await kit.begin()
    kit.arrive_encoded(encode(1) + b"\xc1")
    await kit.finished()
    assert [what for what, _ in kit.failures] == ["a message that cannot be decoded"]
    kit.arrive(1)
    await kit.finished()


@scenario
async def time_limits(kit: Kit) -> None:
    @kit.on
    async def callback(value: Any) -> None:
        if value != "begin":
            with anyio.move_on_after(0.01) as scope:
                await asyncio.sleep(DEADLINE)
            kit.trace.append(("moved on", scope.cancelled_caught))
            try:
                await asyncio.wait_for(asyncio.sleep(DEADLINE), 0.01)
            except asyncio.TimeoutError:  # another one on 3.10
                kit.trace.append("timed out")
            async with anyio.create_task_group() as group:
                group.start_soon(asyncio.sleep, 0)
            kit.trace.append("all done")
        kit.done.release()

    await kit.begin()
    kit.arrive(1)
    await kit.finished()
    assert kit.trace == [("moved on", True), "timed out", "all done"]


@scenario
async def a_callback_that_is_cancelled(kit: Kit) -> None:
    """By itself, and waiting for something: as ``task.cancel()`` says, at its next wait."""

    @kit.on
    async def callback(value: Any) -> None:
        if value == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            kit.trace.append("goes on")
            other = asyncio.ensure_future(asyncio.sleep(DEADLINE))
            try:
                await other
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                kit.trace.append(("told", other.cancelled()))
                raise
            finally:
                kit.done.release()
        kit.done.release()

    await kit.begin()
    kit.arrive("cancel")
    await kit.finished()
    assert kit.sender.counted == 0
    assert kit.trace == ["goes on", ("told", True)]
    kit.arrive("next")  # to a new task
    await kit.finished()


@scenario
async def a_callback_that_ends_its_task(kit: Kit) -> None:
    @kit.on
    async def callback(value: Any) -> None:
        kit.done.release()
        kit.trace.append(value)
        if value == "end":
            asyncio.current_task().cancel()  # type: ignore[union-attr]

    await kit.begin()
    before = kit.task.task
    kit.arrive("end")
    await kit.finished()
    for _ in range(3):
        await asyncio.sleep(0)
    assert before is not None
    assert before.cancelled()
    kit.arrive("next")
    await kit.finished()
    assert kit.trace == ["end", "next"]


@scenario
async def receivers_that_change(kit: Kit) -> None:
    @kit.on
    def first(value: Any) -> None:
        kit.trace.append(("first", value))
        kit.done.release()
        if value == "go":
            kit.callbacks.remove(first)

    await kit.begin()
    kit.arrive("go")
    await kit.finished()
    kit.arrive("waits")
    for _ in range(3):
        await asyncio.sleep(0)
    assert kit.inbox.waiting() == 1
    kit.on(first)
    kit.inbox.attach_loop(kit.loop)
    await kit.finished()

    def second(value: Any) -> None:
        raise AssertionError

    kit.on(second)
    kit.arrive("both")
    await kit.finished()
    assert kit.trace == [
        ("first", "go"),
        ("first", "waits"),
        ("handled", "both", "first"),
        ("handled", "both", "second"),
    ]


@scenario
async def what_arrives_meanwhile_from_another_thread(kit: Kit) -> None:
    @kit.on
    def callback(value: Any) -> None:
        kit.trace.append(value)
        if value == 0:
            other = threading.Thread(
                target=lambda: [kit.inbox.deliver([encode(n)], 0, 0, kit.sender) for n in range(1, 50)]
            )
            other.start()
            other.join()
        kit.done.release()

    await kit.begin()
    kit.arrive(0)
    await kit.finished(50)
    assert kit.trace == list(range(50))


@scenario
async def the_loop_is_taken_away_from_a_callback_that_waits(kit: Kit) -> None:
    @kit.on
    async def callback(value: Any) -> None:
        if value == "wait":
            try:
                await asyncio.sleep(DEADLINE)
            finally:
                kit.trace.append("cancelled")
                kit.done.release()
        kit.done.release()

    await kit.begin()
    kit.arrive("wait")
    for _ in range(2):
        await asyncio.sleep(0)
    kit.inbox.detach_loop()
    await kit.finished()
    for _ in range(3):
        await asyncio.sleep(0)
    assert kit.sender.counted == 0
    assert kit.inbox.waiting() == 1
    kit.callbacks.remove(None)
    kit.on(lambda value: kit.trace.append((value, kit.done.release())))
    kit.inbox.attach_loop(kit.loop)
    await kit.finished()
    assert kit.trace == ["cancelled", ("handled", "wait", "<lambda>")]
    assert kit.sender.counted == len(encode("wait")) + MESSAGE_CHARGE


@scenario
async def messages_arrive_while_nobody_wants_them(kit: Kit) -> None:
    await kit.begin_without_callback()
    for value in range(5):
        kit.arrive(value)
        for _ in range(3):
            await asyncio.sleep(0)
    kit.on(lambda value: kit.trace.append((value, kit.done.release())[0]))
    kit.inbox.worker.wake()
    await kit.finished(5)
    assert kit.trace == list(range(5))
    kit.arrive(5)
    await kit.finished()


@scenario
async def the_loop_is_taken_away_before_the_callback(kit: Kit) -> None:
    @kit.on
    def callback(value: Any) -> None:
        kit.trace.append(value)
        kit.done.release()

    await kit.begin()
    kit.arrive(1)
    kit.inbox.detach_loop()
    kit.inbox.deliver([encode(2)], 0, 0, kit.sender)
    for _ in range(3):
        await asyncio.sleep(0)
    assert kit.trace == []
    assert kit.inbox.waiting() == 2
    kit.inbox.attach_loop(kit.loop)
    await kit.finished(2)
    assert kit.trace == [1, 2]


@pytest.mark.parametrize("play", scenarios, ids=lambda play: play.__name__)
async def test_both_ways_are_the_same(play: Scenario) -> None:
    results = []
    received = []
    for handing, in_turn in ((False, False), (True, False), (True, True)):
        kit = Kit(handing=handing, in_turn=in_turn)
        await play(kit)
        assert bool(kit.handed) is handing
        kit.inbox.detach_loop()
        for _ in range(3):
            await asyncio.sleep(0)
        assert kit.inbox.waiting() == 0
        received.append(kit.inbox.received)
        results.append((kit.trace, kit.failures, kit.sender.counted))
    assert results[0] == results[1] == results[2]
    assert received[0] == received[2]  # else it is the link that counts


@pytest.mark.parametrize("how", ["one", "several", "flags", "another before it", "nobody's turn"])
async def test_only_what_is_alone_and_nothing_but_a_payload_is_handed_over_by_the_queue(how: str) -> None:
    kit = Kit(handing=True, in_turn=True)
    kit.on(lambda value: (kit.trace.append(value), kit.done.release())[0])
    await kit.begin()
    kit.handed = 0
    payloads = [encode(number) for number in range(2 if how == "several" else 1)]
    if how == "flags":
        payloads = [b"\xc1"]  # as it is
    if how == "another before it":
        kit.inbox.deliver([encode("before")], 0, 0, kit.sender)
    if how == "nobody's turn":
        kit.inbox.deliver(payloads, 0, 0, kit.sender)
    else:
        kit.deliver(payloads, Flag.RAW if how == "flags" else 0)
    before = ["before"] if how == "another before it" else []
    await kit.finished(len(payloads) + len(before))
    assert kit.trace == before + (payloads if how == "flags" else list(range(len(payloads))))
    assert kit.handed == (how == "one")
    assert kit.failures == []
    kit.inbox.detach_loop()


async def test_another_loop_does_not_begin_while_a_callback_is_at_work() -> None:
    kit = Kit(handing=True)
    begun = threading.Event()
    go_on = threading.Event()
    at_work: list[str] = []
    other = asyncio.new_event_loop()
    there = threading.Thread(target=other.run_forever)
    there.start()

    def change_loops() -> None:
        assert begun.wait(DEADLINE)
        kit.inbox.attach_loop(other)
        kit.inbox.deliver([encode("second")], 0, 0, kit.sender)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), other).result(DEADLINE)  # it would have begun by now
        at_work.append("changed")
        go_on.set()

    @kit.on
    def callback(value: Any) -> None:
        at_work.append(value)
        if value == "first":
            begun.set()
            assert go_on.wait(DEADLINE)
        if value == "second":
            kit.loop.call_soon_threadsafe(kit.done.release)
        elif value == "begin":
            kit.done.release()

    await kit.begin()
    changer = threading.Thread(target=change_loops)
    changer.start()
    kit.arrive("first")
    await kit.finished()
    assert at_work == ["begin", "first", "changed", "second"]
    changer.join(DEADLINE)
    kit.inbox.detach_loop()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), other).result(DEADLINE)  # the task there has ended
    other.call_soon_threadsafe(other.stop)
    there.join(DEADLINE)
    other.close()


async def test_what_is_handed_over_is_counted_when_the_callback_is_through() -> None:
    kit = Kit(handing=True)
    gate: asyncio.Event = asyncio.Event()
    seen: list[int] = []

    @kit.on
    async def callback(value: Any) -> None:
        seen.append(kit.sender.counted)
        if value == "wait":
            kit.done.release()
            await gate.wait()
        kit.done.release()

    await kit.begin()
    cost = [MESSAGE_CHARGE + len(encode(value)) for value in ("now", "wait")]
    kit.arrive("now")
    await kit.finished()
    assert kit.sender.counted == cost[0]
    kit.arrive("wait")
    await kit.finished()
    assert kit.task.busy
    assert kit.sender.counted == cost[0]
    gate.set()
    await kit.finished()
    assert kit.sender.counted == sum(cost)
    assert seen[1:] == [0, cost[0]]
    assert not kit.task.busy


async def test_the_task_does_not_wake_up_for_a_callback_that_does_not_wait() -> None:
    kit = Kit(handing=True)
    kit.on(lambda value: kit.done.release())
    await kit.begin()
    parked = kit.task.parked
    for value in range(10):
        kit.arrive(value)
        await kit.finished()
    assert kit.handed == 10
    assert kit.task.parked is parked


async def test_a_loop_that_is_run_inside_a_task_lets_the_task_see_to_it() -> None:
    kit = Kit(handing=True)
    names: list[str | None] = []

    @kit.on
    def callback(value: Any) -> None:
        task = asyncio.current_task()
        names.append(None if task is None else task.get_name())
        kit.done.release()

    await kit.begin()
    run = kit.task
    run.free = False
    run.handed = encode("inside"), kit.sender
    run.take()  # in the task of this test
    assert names == ["lycomm-x"]
    await kit.finished()
    assert names == ["lycomm-x"] * 2


async def test_what_ends_the_process_goes_to_the_loop() -> None:
    kit = Kit(handing=True)

    @kit.on
    def callback(value: Any) -> None:
        kit.done.release()
        if value == "exit":
            raise SystemExit(3)

    await kit.begin()
    run = kit.task
    caught: list[BaseException] = []

    def take() -> None:
        try:
            run.take()
        except SystemExit as error:
            caught.append(error)

    run.free = False
    run.handed = encode("exit"), kit.sender
    kit.loop.call_soon(take)
    await kit.finished()
    assert [error.code for error in caught] == [3]  # type: ignore[attr-defined]
    assert kit.sender.counted == 0
    assert run.task is not None
    with contextlib.suppress(asyncio.CancelledError):
        await run.task
    assert run.task.cancelled()


async def many(kit: Kit, *values: int) -> None:
    """Arrive at once, and are handled without a pause in between."""
    kit.inbox.deliver([encode(value) for value in values], 0, 0, kit.sender)
    await kit.finished(len(values))


@contextlib.contextmanager
def every_turn(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> Iterator[None]:
    """Call *function* in every turn of *loop* as long as the block lasts."""
    over = False

    def turn() -> None:
        if not over:
            function()
            loop.call_soon(turn)

    loop.call_soon(turn)
    try:
        yield
    finally:
        over = True


async def test_what_arrived_at_once_goes_on_with_whoever_receives_now() -> None:
    kit = Kit(handing=False)

    def first(value: int) -> None:
        kit.trace.append(("first", value, kit.inbox.waiting()))
        kit.done.release()
        if value == 2:
            kit.callbacks.remove(first)
            kit.on(second)

    def second(value: int) -> None:
        kit.trace.append(("second", value, kit.inbox.waiting()))
        kit.done.release()

    kit.on(first)
    await many(kit, 1, 2, 3, 4)
    assert kit.trace == [("first", 1, 3), ("first", 2, 2), ("second", 3, 1), ("second", 4, 0)]
    assert kit.inbox.waiting() == 0
    assert kit.sender.counted == 4 * (MESSAGE_CHARGE + 1)


async def test_what_has_been_handled_when_the_process_leaves_is_counted() -> None:
    kit = Kit(handing=False)
    counted: list[int] = []

    @kit.on
    def callback(value: int) -> None:
        if value == 3:
            kit.inbox.close()
            counted.append(kit.sender.counted)
        kit.done.release()

    await many(kit, 1, 2, 3, 4)
    assert counted == [2 * (MESSAGE_CHARGE + 1)]
    assert kit.sender.counted == 4 * (MESSAGE_CHARGE + 1)


@pytest.mark.parametrize("waits", [False, True], ids=["never waits", "waits once"])
async def test_a_pause_for_the_others_is_not_taken_for_a_callback_that_waits(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """What is handled without waiting is counted together, however long it takes."""
    clock = Clock(monkeypatch)
    kit = Kit(handing=False)
    counts: list[int] = []
    monkeypatch.setattr(kit.sender, "count", counts.append)
    turns = [0]

    @kit.on
    async def callback(value: int) -> None:
        clock.now += YIELD_SECONDS / 50
        if waits and value == 100:
            await asyncio.sleep(0)
        kit.done.release()

    with every_turn(kit.loop, lambda: turns.append(len(counts))):
        await many(kit, *range(500))
    assert sum(counts) == sum(MESSAGE_CHARGE + len(encode(value)) for value in range(500))
    if waits:
        assert len(counts) > 390
    else:
        assert 8 <= len(counts) <= 12
        assert turns[-1] >= 8, "told in every pause"


async def test_what_has_been_handled_is_not_kept_for_the_rest_of_the_turn() -> None:
    """It would be out of the processor's caches when the next ones need its place."""
    kit = Kit(handing=False)
    kept: list[Any] = []

    @kit.on
    def callback(value: int) -> None:
        if value == 1:
            kept.append(kit.inbox.units[0])
        if value == 4:
            kit.loop.call_soon(lambda: kept.append(list(kept[0].payloads)))
        kit.done.release()

    await many(kit, 1, 2, 3, 4)
    await asyncio.sleep(0)
    assert kept[1:] == [[]]


async def test_callbacks_that_never_wait_do_not_keep_the_loop_when_they_become_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After quick messages the clock is not looked at for each one; after slow ones it is."""
    clock = Clock(monkeypatch)
    kit = Kit(handing=False)
    handled_in_turn = [0]
    looks: list[int] = []

    @kit.on
    def callback(value: int) -> None:
        if value >= 100:
            looks.append(clock.looks)
            clock.now += YIELD_SECONDS * 0.6
        handled_in_turn[-1] += 1
        kit.done.release()

    with every_turn(kit.loop, lambda: handled_in_turn.append(0)):
        await many(kit, *range(200))
    turns = [count for count in handled_in_turn if count]
    assert sum(turns) == 200
    assert 100 < turns[0] <= 100 + LOOK_AFTER, "the first slow ones may come behind a look"
    assert looks[0] <= 100 / LOOK_AFTER + 2
    assert set(turns[1:-1]) == {2}, "what is more than the time that they have"
