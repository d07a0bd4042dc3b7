"""The shared memory over links: every method, in threads and tasks, in the host, a child and a bot without a host."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from pair_kit import (
    DEADLINE,
    Child,
    Gate,
    channel,
    children,
    connected_pair,
    each_link,
    eventually,
    gated,
    logged,
    loops,
    memory,
    until,
)

from liteyuki_host.comm.codec import encode
from liteyuki_host.comm.errors import (
    ChannelFull,
    HostNotAttached,
    LockNotHeld,
    NotANumber,
    RequestTimeout,
    SharedMemoryError,
    SharedMemoryFull,
    ValueRefused,
    ValueTooLarge,
    WatchOverrun,
    WouldBlockEventLoop,
)
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.protocol.messages import decode_change, encode_change
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.storage import watch as watch_module
from liteyuki_host.comm.storage.replica import Replica
from liteyuki_host.comm.storage.watch import Changed, Watch
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.waiting.loops import Turn, reading

__all__ = ["each_link"]  # the fixture, for pytest

pytestmark = pytest.mark.usefixtures("each_link")


@pytest.fixture
def pair(each_link: None) -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


@pytest.fixture(params=["host", "child", "alone"])
def any_memory(request: pytest.FixtureRequest, each_link: None) -> Iterator[SharedMemory]:
    """The same promises hold in the host, in a child and without a host."""
    with connected_pair() as made:
        yield {"host": made.host_memory, "child": made.child_memory, "alone": memory(Node())}[request.param]


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(DEADLINE)
        assert not thread.is_alive()
        return results[0]

    return join


# --- reading and writing --------------------------------------------------------------------------------------


def test_set_get_delete_and_the_rest_of_a_dict(any_memory: SharedMemory) -> None:
    memory = any_memory
    assert memory.get("a") is None
    assert memory.get("a", 5) == 5
    memory.set("a", 1)
    memory["b"] = [1, {"c": 2}]
    memory["none"] = None
    assert (memory["a"], memory.get("b"), memory["none"]) == (1, [1, {"c": 2}], None)
    assert memory.get("none", 5) is None
    assert "a" in memory
    assert "none" in memory
    assert "x" not in memory
    assert len(memory) == 3
    assert sorted(memory) == sorted(memory.keys()) == ["a", "b", "none"]
    assert memory.get_all() == {"a": 1, "b": [1, {"c": 2}], "none": None}
    assert dict(memory.items()) == memory.get_all()
    memory.delete("a")
    memory.delete("a")
    del memory["b"]
    for call in (
        lambda: memory["a"],
        lambda: memory.delete("a", ignore_key_error=False),
        lambda: memory.__delitem__("b"),
    ):
        with pytest.raises(KeyError, match=r"a|b"):
            call()
    assert memory.get_all() == {"none": None}
    assert memory.sync(timeout=DEADLINE) == memory.revision == 5


def test_own_writes_are_visible_at_once_and_elsewhere_soon(pair: Pair) -> None:
    host, child = pair.host_memory, pair.child_memory
    for number in range(500):
        child.set("c", number)
        assert child.get("c") == number
        host.set("h", number)
        assert host["h"] == number
    child.sync(timeout=DEADLINE)
    assert child["h"] == 499
    assert host["c"] == 499
    child.delete("h")
    assert "h" not in child
    child.sync(timeout=DEADLINE)
    assert "h" not in host
    until(lambda: child.get_all() == host.get_all())
    assert child.revision == host.revision


def test_values_are_copies(any_memory: SharedMemory) -> None:
    value = {"list": [1]}
    any_memory.set("k", value)
    value["list"].append(2)
    assert any_memory.get("k") == {"list": [1]}
    any_memory["k"]["list"].append(3)
    any_memory.get_all()["k"]["list"].append(4)
    assert any_memory["k"] == {"list": [1]}


def test_get_all_is_a_moment_of_its_own(any_memory: SharedMemory) -> None:
    any_memory.set("a", 1)
    everything = any_memory.get_all()
    everything["b"] = 2
    any_memory.set("c", 3)
    assert everything == {"a": 1, "b": 2}
    assert "b" not in any_memory


def test_iterating_while_others_write(pair: Pair) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            pair.child_memory.set(f"k{number % 100}", [number])
            pair.child_memory.delete(f"k{(number + 50) % 100}")
            number += 1

    join = in_thread(write)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        for exchange_memory in (pair.host_memory, pair.child_memory):
            list(exchange_memory)
            exchange_memory.get_all()
            len(exchange_memory)
    stop.set()
    assert join() is None


@pytest.mark.parametrize("value", [None, True, 2**64 - 1, 1.5, "x" * 1000, b"", b"raw", [], {}, {"a": [None, b"x"]}])
def test_values_arrive_as_they_were(pair: Pair, value: Any) -> None:
    pair.child_memory.set("k", value)
    pair.child_memory.sync(timeout=DEADLINE)
    for side in (pair.child_memory, pair.host_memory):
        assert side["k"] == value
        assert type(side["k"]) is type(value)


def test_what_cannot_be_kept_is_refused_and_nothing_is_written(any_memory: SharedMemory) -> None:
    memory = any_memory
    for value, words in (
        (
            {"a": [object()]},
            r"^shared_memory\['k'\]: a value of type object cannot travel between processes at \.a\[0\]",
        ),
        (2**64, r"^shared_memory\['k'\]: an integer of more than 64 bits"),
        ("\ud800", r"^shared_memory\['k'\]: a text with a lone surrogate"),
    ):
        with pytest.raises(ValueRefused, match=words):
            memory.set("k", value)
    with pytest.raises(ValueTooLarge, match=r"^shared_memory\['k'\]: the value is 16,777,2\d\d bytes when encoded"):
        memory.set("k", b"x" * (16 * 1024 * 1024 + 1))
    with pytest.raises(TypeError, match="a key of the shared memory is a text, not int"):
        memory.set(5, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueTooLarge, match="a key of 513 bytes, the limit is 512 bytes"):
        memory.set("k" * 513, 1)
    with pytest.raises(ValueRefused, match="a text with a lone surrogate cannot travel"):
        memory.set("\udfff", 1)
    for ttl in (0, -1, float("nan"), float("inf"), True, "5"):
        with pytest.raises(ValueError, match="ttl is a positive number of seconds"):
            memory.set("k", 1, ttl=ttl)  # type: ignore[arg-type]
    assert memory.get_all() == {}
    memory.set("键" * 170, 1)


# --- confirmed operations, in a thread and in a task ------------------------------------------------------------


async def both_forms(
    memory: SharedMemory, in_threads: Callable[[], Any], in_tasks: Callable[[], Awaitable[Any]]
) -> tuple[Any, Any]:
    return await asyncio.to_thread(in_threads), await in_tasks()


async def test_increment(any_memory: SharedMemory) -> None:
    memory = any_memory
    assert await both_forms(memory, lambda: memory.incr("n"), lambda: memory.aincr("n", 5)) == (1, 6)
    assert await both_forms(memory, lambda: memory.incr("n", -10), lambda: memory.aincr("n", 0.5)) == (-4, -3.5)
    assert memory["n"] == -3.5
    memory.set("text", "x")
    memory.set("flag", True)
    memory.set("max", 2**64 - 1)
    for key in ("text", "flag", "max"):
        with pytest.raises(
            NotANumber, match=rf"shared_memory\['{key}'\]: the value is not a number, or the sum has more"
        ):
            await memory.aincr(key)
        with pytest.raises(TypeError):
            await asyncio.to_thread(memory.incr, key)
    for by in ("1", True, None, float("nan"), float("inf"), 2**64, 10**400):
        with pytest.raises(NotANumber, match=r"cannot add .*, which is not a number"):
            await memory.aincr("n", by)  # type: ignore[arg-type]
    assert memory["n"] == -3.5


async def test_compare_and_set(any_memory: SharedMemory) -> None:
    memory = any_memory
    assert await memory.acompare_and_set("k", None, [1]) is True
    assert await memory.acompare_and_set("k", None, [2]) is False
    assert await asyncio.to_thread(memory.compare_and_set, "k", [2], [3]) is False
    assert await asyncio.to_thread(memory.compare_and_set, "k", [1], {"a": 1, "b": 2}) is True
    assert await memory.acompare_and_set("k", {"b": 2, "a": 1}, "x") is True
    assert memory["k"] == "x"
    assert await memory.acompare_and_set("k", "x", None) is True
    assert "k" not in memory
    with pytest.raises(ValueRefused, match="a value of type object"):
        await memory.acompare_and_set("k", None, object())


async def test_update(any_memory: SharedMemory) -> None:
    memory = any_memory

    def grow(value: list[int]) -> list[int]:
        return [*value, len(value)]

    async def grow_later(value: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return grow(value)

    assert await asyncio.to_thread(memory.update, "k", grow, []) == [0]
    assert await memory.aupdate("k", grow) == [0, 1]
    assert await memory.aupdate("k", grow_later) == [0, 1, 2]
    assert memory["k"] == [0, 1, 2]
    memory.set("k", [7])  # not yet confirmed in a child
    assert await asyncio.to_thread(memory.update, "k", grow) == [7, 1]
    assert await memory.aupdate("k", lambda value: None) is None
    assert "k" not in memory
    memory.set("none", None)
    seen: list[Any] = []
    assert await memory.aupdate("none", lambda value: [seen.append(value)], "default") == [None]
    assert seen[-1] is None  # it is there, and holds None
    with pytest.raises(ZeroDivisionError):
        await memory.aupdate("k", lambda value: 1 / 0)
    with pytest.raises(ValueRefused, match=r"shared_memory\['k'\]"):
        await memory.aupdate("k", lambda value: object())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The requests that bots have sent to their host, by number, as they are sent."""
    numbers: list[int] = []
    ask = Replica.ask

    def note(*arguments: Any) -> int:
        numbers.append(ask(*arguments))
        return numbers[-1]

    monkeypatch.setattr(Replica, "ask", note)
    return numbers


def test_an_update_never_builds_on_a_write_that_was_refused(asked: list[int]) -> None:
    with connected_pair(memory_limit=5_000) as pair:
        child = pair.child_memory
        child.set("k", [1])
        child.sync(timeout=DEADLINE)
        asked.clear()
        with pair.host.authority.lock:  # the refusal is on its way
            child.set("k", ["refused"] * 1000)
            assert len(child["k"]) == 1000
            join = in_thread(lambda: child.update("k", lambda value: [*value, len(value)]))
            until(lambda: len(asked) == 1)
        assert join() == [1, 1]
        assert pair.host_memory["k"] == [1, 1]


async def test_a_timeout_of_the_users_own_function_is_its_own(any_memory: SharedMemory) -> None:
    """It was taken for the host's silence."""

    async def slow_service(value: Any) -> Any:
        raise TimeoutError("the weather service is slow")

    with pytest.raises(TimeoutError, match="the weather service is slow"):
        await any_memory.aupdate("k", slow_service)

    async def endless(value: Any) -> Any:
        await asyncio.Event().wait()

    with pytest.raises(RequestTimeout, match=r"the host did not answer within 0.02 s; it may still do it"):
        await any_memory.aupdate("k", endless, timeout=0.02)


async def test_aset_and_adelete_give_the_hosts_word(pair: Pair) -> None:
    child = pair.child_memory
    assert await child.aset("a", 1) == 1
    assert await child.aset("a", [2], ttl=60) == 2
    assert await pair.host_memory.aset("b", 3) == 3
    assert await child.adelete("a") is True
    assert await child.adelete("a") is False
    assert await child.async_(timeout=DEADLINE) == 4
    assert child.get_all() == {"b": 3}


async def test_on_the_loop_waiting_forms_are_refused_and_name_the_other(any_memory: SharedMemory) -> None:
    memory = any_memory
    calls: dict[str, Callable[[], Any]] = {
        "aincr": lambda: memory.incr("k"),
        "acompare_and_set": lambda: memory.compare_and_set("k", 1, 2),
        "aupdate": lambda: memory.update("k", lambda v: v),
        "async_": memory.sync,
        r"async with shared_memory\.lock": memory.lock("k").__enter__,
        "anext": lambda: next(iter(memory.watch())),
    }
    for instead, call in calls.items():
        with pytest.raises(WouldBlockEventLoop, match=instead):
            call()
    assert memory.get_all() == {}
    memory.set("k", 1)  # queued writes are welcome anywhere
    assert memory["k"] == 1


# --- full -----------------------------------------------------------------------------------------------------


async def test_a_full_memory_refuses_and_a_child_learns_it_and_undoes() -> None:
    with connected_pair(memory_limit=10_000) as pair:
        host, child = pair.host_memory, pair.child_memory
        await child.aset("a", "x" * 9000)
        with pytest.raises(SharedMemoryFull, match=r"shared_memory\['b'\]: the shared memory is full; delete keys"):
            await host.aset("b", "y" * 2000)
        with pytest.raises(SharedMemoryFull):
            await child.aset("b", "y" * 2000)
        assert "b" not in child
        with logged() as lines:
            child.set("b", "y" * 2000)
            child.set("a", "z" * 9900)
            await child.async_(timeout=DEADLINE)
            await eventually(lambda: len(lines) == 2)  # said when whoever reads the link has left lycomm's lock
        assert [line for line in lines if line.startswith("ERROR")] == [
            "ERROR shared_memory['b']: a write was refused (full) and has been undone",
            "ERROR shared_memory['a']: a write was refused (full) and has been undone",
        ]
        assert child.get_all() == host.get_all() == {"a": "x" * 9000}
        assert await child.adelete("a")
        assert await child.aset("b", "y" * 2000)


# --- time and death -------------------------------------------------------------------------------------------


async def test_a_ttl_ends_everywhere(pair: Pair) -> None:
    host, child = pair.host_memory, pair.child_memory
    serving = asyncio.create_task(pair.host.serve())
    try:
        changes = iter_changes(child)
        child.set("short", [1], ttl=0.05)
        host.set("shorter", 1, ttl=0.01)
        host.set("stays", 2)
        await child.async_(timeout=DEADLINE)
        assert await host.aincr("counter") == 1
        await eventually(lambda: "short" not in pair.host.view)
        await eventually(lambda: set(pair.child.view) == {"stays", "counter"})
        deleted = {change.key for change in changes.taken() if change.deleted}
        assert deleted == {"short", "shorter"}
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


class iter_changes:
    """What a watch has seen so far, without waiting."""

    def __init__(self, memory: SharedMemory) -> None:
        self.watch = memory.watch()

    def taken(self) -> list[Changed]:
        result = []
        while isinstance(change := self.watch._take(), Changed):
            result.append(change)
        return result


def test_what_has_ended_is_not_read_even_before_it_is_deleted(any_memory: SharedMemory) -> None:
    """Nobody serves the clock here."""
    any_memory.set("list", [1], ttl=0.03)
    any_memory.set("number", 5, ttl=0.03)
    any_memory.set("stays", 1, ttl=60)
    assert any_memory.get_all() == {"list": [1], "number": 5, "stays": 1}
    until(lambda: "list" not in any_memory and "number" not in any_memory)
    assert any_memory.get("number", "gone") == "gone"
    assert any_memory.get_all() == {"stays": 1}
    assert list(any_memory) == ["stays"]
    assert any_memory.incr("number") == 1


def test_ephemeral_keys_go_with_their_process(pair: Pair) -> None:
    with children("other") as (pair, [other]):
        mine = memory(other.node)
        mine.set("a", 1, ephemeral=True)
        mine.set("b", 2)
        mine.set("taken over", 3, ephemeral=True)
        mine.sync(timeout=DEADLINE)
        pair.host_memory.set("taken over", 4)
        assert pair.host_memory.get_all() == {"a": 1, "b": 2, "taken over": 4}
        other.kill()
        assert pair.host_memory.get_all() == {"b": 2, "taken over": 4}
        until(lambda: pair.child_memory.get_all() == {"b": 2, "taken over": 4})
        again = Child(pair, "other")
        assert memory(again.node).get_all() == {"b": 2, "taken over": 4}
        again.node.reset()


def test_when_the_host_is_gone_waiting_calls_fail_and_reading_goes_on(pair: Pair, asked: list[int]) -> None:
    child = pair.child_memory
    child.set("a", [1])
    child.sync(timeout=DEADLINE)
    asked.clear()
    with pair.host.authority.lock:  # the host answers nothing meanwhile
        waiting = [in_thread(lambda: child.incr("n")), in_thread(child.sync), in_thread(child.lock("x").__enter__)]
        until(lambda: len(asked) == 3)
        for transport in pair.transports:
            transport.close()
        for join in waiting:
            error = join()
            assert isinstance(error, SharedMemoryError)
            assert "the host went away before it answered; whether it was done is unknown" in str(error)
    assert child.get_all() == {"a": [1]}
    with pytest.raises(HostNotAttached, match="the shared memory needs the host, which is gone"):
        child.set("a", 2)


def test_a_write_just_before_the_process_leaves_is_no_error(pair: Pair) -> None:
    """A set in a shutdown hook was reported as refused and undone, although the host had taken it."""
    with logged() as lines:
        for number in range(100):
            pair.child_memory.set(f"k{number}", number)
        pair.child.detach("over")
    assert [line for line in lines if "refused" in line] == []
    until(lambda: len(pair.host_memory) == 100)


def test_a_node_that_is_attached_again_follows_the_host_again(pair: Pair) -> None:
    """Writes that were under way when the old link broke used to stay shown for ever."""
    child = pair.child_memory
    with pair.host.authority.lock:
        child.set("a", "mine")
        for transport in pair.transports:
            transport.close()
        pair.child.wait_detached(DEADLINE)
    session = pair.host.session("nonebot")
    if session is not None:
        session.link.join(DEADLINE)
    pair.host_memory.set("a", "the host's")
    pair.connect()
    assert child["a"] == "the host's"
    pair.host_memory.set("a", "again")
    until(lambda: child["a"] == "again")


# --- contention -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["incr", "update", "compare_and_set", "lock"])
def test_three_processes_times_three_hundred_increments_are_nine_hundred(way: str) -> None:
    with children("b", "c") as (pair, [b, c]):

        def work(mine: SharedMemory) -> None:
            for _ in range(300):
                if way == "incr":
                    mine.incr("n")
                elif way == "update":
                    mine.update("n", lambda value: value + 1, 0)
                elif way == "lock":
                    with mine.lock("n"):
                        mine.sync()
                        mine.set("n", mine.get("n", 0) + 1)
                else:
                    while True:
                        value = mine.get("n")
                        if mine.compare_and_set("n", value, (value or 0) + 1):
                            break

        joins = [in_thread(lambda node=node: work(memory(node))) for node in (pair.child, b.node, c.node)]
        for join in joins:
            assert join() is None
        for node in (pair.child, b.node, c.node):
            memory(node).sync()  # the last plain set may still be on its way
        assert pair.host_memory["n"] == 900


async def test_tasks_of_one_process_take_turns_in_update(pair: Pair) -> None:
    calls = 0

    async def add(value: int) -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return value + 1

    mine = pair.child_memory
    await asyncio.gather(*(mine.aupdate("n", add, 0) for _ in range(100)))
    assert pair.host_memory["n"] == 100
    assert calls == 100


def test_two_processes_times_three_threads_with_large_values_lose_nothing() -> None:
    with children("b") as (pair, [b]):

        def work(mine: SharedMemory, name: str) -> None:
            for number in range(10):
                mine.set(f"{name}-{number}", {"who": name, "data": "x" * 400_000})

        joins = [
            in_thread(lambda node=node, name=name: work(memory(node), name))
            for node, names in ((pair.child, "abc"), (b.node, "def"))
            for name in names
        ]
        for join in joins:
            assert join() is None
        memory(b.node).sync(timeout=DEADLINE)
        pair.child_memory.sync(timeout=DEADLINE)
        expected = {f"{name}-{number}" for name in "abcdef" for number in range(10)}
        for side in (pair.host_memory, pair.child_memory, memory(b.node)):
            until(lambda side=side: set(side) == expected)
            assert side["f-9"] == {"who": "f", "data": "x" * 400_000}


# --- locks ----------------------------------------------------------------------------------------------------


async def test_a_lock_keeps_others_out_in_the_order_they_asked(pair: Pair) -> None:
    with children("b") as (pair, [b]):
        order: list[str] = []
        entered = asyncio.Event()
        release = asyncio.Event()

        async def hold(name: str, mine: SharedMemory) -> int:
            async with mine.lock("L") as lock:
                order.append(f"{name} in")
                entered.set()
                if name == "first":
                    await release.wait()
                order.append(f"{name} out")
                return lock.fence

        first = asyncio.create_task(hold("first", pair.child_memory))
        await asyncio.wait_for(entered.wait(), DEADLINE)
        assert pair.host.authority.held_locks() == {"L": "nonebot#1"}
        tasks = []
        for name, mine in (("b", memory(b.node)), ("host", pair.host_memory), ("child", pair.child_memory)):
            tasks.append(asyncio.create_task(hold(name, mine)))
            await asyncio.sleep(0)
            await mine.async_(timeout=DEADLINE)
        release.set()
        fences = [await asyncio.wait_for(task, DEADLINE) for task in (first, *tasks)]
        assert order == [f"{name} {what}" for name in ("first", "b", "host", "child") for what in ("in", "out")]
        assert fences == sorted(set(fences))
        await eventually(lambda: pair.host.authority.held_locks() == {})


@pytest.mark.parametrize("where", ["host", "child", "alone"])
def test_a_lock_in_threads(pair: Pair, where: str) -> None:
    mine = {"host": pair.host_memory, "child": pair.child_memory, "alone": memory(Node())}[where]
    inside: list[int] = []

    def work() -> None:
        for _ in range(20):
            with mine.lock("L"):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    for join in [in_thread(work) for _ in range(4)]:
        assert join() is None


def test_a_lock_frees_when_its_holder_dies_and_the_dead_wait_for_nothing() -> None:
    with children("b", "c") as (pair, [b, c]):
        memory(b.node).lock("L").__enter__()
        dead_waiter = in_thread(lambda: memory(b.node).lock("L", timeout=DEADLINE).__enter__())
        until(lambda: pair.host.authority.waiting_for_locks() == {"L": 1})
        waiter = in_thread(lambda: memory(c.node).lock("L", timeout=DEADLINE).__enter__())
        until(lambda: pair.host.authority.waiting_for_locks() == {"L": 2})
        b.kill()
        assert waiter().fence > 0
        assert isinstance(dead_waiter(), SharedMemoryError)
        assert pair.host.authority.held_locks() == {"L": "c#3"}


def test_a_lock_is_never_entered_because_the_host_went_away(pair: Pair) -> None:
    """The host's end used to be taken for the grant, and the block ran without the lock."""
    entered: list[str] = []

    def wait() -> None:
        with pair.child_memory.lock("L"):
            entered.append("thread")

    async def wait_in_a_task() -> None:
        async with pair.child_memory.lock("L"):
            entered.append("task")

    with pair.host_memory.lock("L"):
        joins = [in_thread(wait), in_thread(lambda: asyncio.run(wait_in_a_task()))]
        until(lambda: pair.host.authority.waiting_for_locks() == {"L": 2})
        pair.cut()
        for join in joins:
            assert isinstance(join(), SharedMemoryError)
    assert entered == []


async def test_waiting_for_a_lock_can_time_out_and_be_cancelled(pair: Pair) -> None:
    authority = pair.host.authority
    async with pair.host_memory.lock("L"):
        with pytest.raises(RequestTimeout, match=r"within 0.02 s"):
            async with pair.child_memory.lock("L", timeout=0.02):
                pytest.fail("it is held")
        error = await asyncio.to_thread(in_thread(pair.child_memory.lock("L", timeout=0.02).__enter__))
        assert isinstance(error, RequestTimeout)
        task = asyncio.create_task(pair.child_memory.lock("L").__aenter__())
        await eventually(lambda: authority.waiting_for_locks() == {"L": 1})
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: authority.waiting_for_locks() == {"L": 0})
    async with pair.child_memory.lock("L", timeout=DEADLINE):
        pass
    await eventually(lambda: authority.held_locks() == {})


async def test_an_exception_in_the_block_frees_the_lock(pair: Pair) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pair.child_memory.lock("L"):
            _ = 1 / 0
    async with pair.host_memory.lock("L", timeout=DEADLINE):
        pass


async def test_one_lock_object_is_good_for_one_block_at_a_time(pair: Pair) -> None:
    lock = pair.child_memory.lock("L")
    async with lock:
        with pytest.raises(LockNotHeld, match="this object is in use; take a new one"):
            await lock.__aenter__()
    async with lock:
        pass


# --- watches --------------------------------------------------------------------------------------------------


async def test_a_watch_sees_every_change_of_its_prefix_in_order(pair: Pair) -> None:
    for mine, other in ((pair.child_memory, pair.host_memory), (pair.host_memory, pair.child_memory)):
        with mine.watch("cfg.") as watch:
            other.set("cfg.a", [1])
            other.set("noise", 0)
            other.set("cfg.b", None)
            other.delete("cfg.a")
            await other.async_(timeout=DEADLINE)
            got = []
            async with asyncio.timeout(DEADLINE) if hasattr(asyncio, "timeout") else contextlib.AsyncExitStack():
                async for change in watch:
                    got.append(change[1:])
                    if len(got) == 3:
                        break
            assert got == [("cfg.a", [1], False), ("cfg.b", None, False), ("cfg.a", None, True)]
        other.delete("cfg.b")
        await other.async_(timeout=DEADLINE)


def test_a_watch_in_a_thread_and_its_end(any_memory: SharedMemory) -> None:
    watch, keys = any_memory.watch(), list[str]()
    join = in_thread(lambda: [keys.append(change.key) for change in watch])
    any_memory.set("a", 1)
    any_memory.set("b", 2)
    until(lambda: keys == ["a", "b"])
    watch.close()
    watch.close()
    join()
    any_memory.set("c", 3)
    assert keys == ["a", "b"]
    assert list(watch) == []


def test_what_a_closed_watch_has_not_handed_out_is_dropped(any_memory: SharedMemory) -> None:
    watch = any_memory.watch()
    any_memory.set("a", 1)
    any_memory.sync(timeout=DEADLINE)
    watch.close()
    assert list(watch) == []


def test_a_watch_in_a_thread_ends_when_the_process_leaves(pair: Pair) -> None:
    watch = pair.child_memory.watch()
    join = in_thread(lambda: [change.key for change in watch])
    pair.child_memory.set("a", 1)
    pair.cut()
    assert join() in (["a"], [])


async def test_a_decorated_function_is_called_on_the_loop_with_every_change(pair: Pair) -> None:
    got: list[Any] = []
    with logged() as lines:

        @pair.child_memory.watch("n")
        async def note(change: Changed) -> None:
            got.append((change.value, asyncio.get_running_loop()))
            if change.value == 1:
                raise RuntimeError("not this one")

        for number in range(3):  # before there is a loop
            pair.host_memory.set("n", number)
        await pair.child_memory.async_(timeout=DEADLINE)
        assert got == []
        async with loops(pair.child):
            await eventually(lambda: len(got) == 3)  # they used to wait for the next change
            pair.host_memory.set("n", 3)
            await eventually(lambda: len(got) == 4)
    loop = asyncio.get_running_loop()
    assert got == [(n, loop) for n in range(4)]
    assert any("a watcher of 'n' failed; the next change is handled" in line for line in lines)


@pytest.mark.parametrize("decoded", [False, True], ids=["as it came", "decoded already"])
async def test_a_change_that_has_been_told_is_not_kept(pair: Pair, decoded: bool) -> None:
    """Of a large value it would be a second copy, until the next change."""
    watch = pair.child_memory.watch("n")
    told = asyncio.Event()
    async with loops(pair.child):
        watch(lambda change: told.set())
        event = encode_change(1, "n", encode("x" * 1000), None)
        before = sys.getrefcount(event)
        watch.changed("n", event, decode_change(event) if decoded else None)
        await asyncio.wait_for(told.wait(), DEADLINE)
        await eventually(lambda: sys.getrefcount(event) == before)


@pytest.mark.parametrize("within", [False, True], ids=["between changes", "by its callback"])
async def test_a_closed_watch_ends_its_task(pair: Pair, within: bool) -> None:
    watch = pair.child_memory.watch("n")
    got: list[Any] = []
    tasks: list[asyncio.Task[Any]] = []

    async def note(change: Changed) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        if within:
            watch.close()
        await asyncio.sleep(0)  # a change that is being handled is handled to its end
        got.append(change.value)

    async with loops(pair.child):
        watch(note)
        pair.child_memory["n"] = 1
        await eventually(lambda: got == [1])
        watch.close()
        pair.child_memory["n"] = 2
        await asyncio.wait_for(tasks[0], DEADLINE)
        await pair.child_memory.async_(timeout=DEADLINE)
    assert got == [1]


async def test_a_watch_that_is_decorated_twice_calls_both(pair: Pair) -> None:
    watch = pair.host_memory.watch("n")
    got: list[Any] = []

    def broken(change: Changed) -> None:
        got.append("broken")
        raise LookupError("once more")

    async with loops(pair.host):
        watch(broken)
        watch(lambda change: got.append(change.value))
        with logged() as lines:
            pair.child_memory["n"] = 1
            pair.child_memory["n"] = [2]
            await eventually(lambda: len(got) == 4)
    assert got == ["broken", 1, "broken", [2]]
    assert len([line for line in lines if "a watcher of 'n' failed" in line]) == 2


async def test_without_a_loop_changes_wait_for_the_next_one(pair: Pair) -> None:
    got: list[Any] = []
    async with loops(pair.child):

        @pair.child_memory.watch("n")
        async def note(change: Changed) -> None:
            got.append(change.value)
            if got == [1, 2]:
                await asyncio.Event().wait()  # until it is cancelled

        pair.host_memory["n"] = 1
        pair.host_memory["n"] = 2
        await eventually(lambda: got == [1, 2])
    pair.host_memory["n"] = 3
    await pair.child_memory.async_(timeout=DEADLINE)
    await asyncio.sleep(0)
    assert got == [1, 2]
    async with loops(pair.child):
        await eventually(lambda: got == [1, 2, 2, 3])  # the one whose callback was cancelled comes again


async def test_a_lone_change_is_decoded_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """By who follows the host: the watch gets it along with its bytes, and decodes only what had to wait."""
    decoded: list[bytes] = []
    monkeypatch.setattr(watch_module, "decode_change", lambda event: decoded.append(event) or decode_change(event))
    got: list[Any] = []
    watch = pair.child_memory.watch("n")
    async with loops(pair.child):
        watch(lambda change: got.append(change.value))
        for number in range(5):
            pair.host_memory["n"] = number
            await eventually(lambda: got == [*range(number + 1)])  # noqa: B023  # at once
        assert not decoded
        pair.host_memory["n"] = 5
        pair.host_memory["n"] = 6
        await eventually(lambda: got == [*range(7)])
        assert len(decoded) <= 1  # the last one that came is known


async def test_a_lone_change_is_handled_without_a_turn_of_the_loop(pair: Pair) -> None:
    """By who reads it, in the name of the task."""
    loop = asyncio.get_running_loop()
    got: list[Any] = []
    watch = pair.child_memory.watch("n")
    async with loops(pair.child):
        watch(lambda change: got.append(change.value))
        pair.host_memory["n"] = 1
        await eventually(lambda: got == [1])
        await asyncio.sleep(0)  # the task waits for the next change by now
        handled: list[int] = []

        def read() -> None:
            turn = Turn(loop)
            turn.thread = threading.get_ident()
            reading[loop] = turn
            watch.changed("n", encode_change(7, "n", encode(2), None))
            del reading[loop]
            handled.append(len(got))
            turn.end()
            handled.append(len(got))

        loop.call_soon(read)  # in no task
        await eventually(lambda: got == [1, 2])
        assert handled == [1, 2]


async def test_a_watch_that_is_not_read_ends_instead_of_growing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "LIMIT", 5)
    watch = pair.host_memory.watch("k")
    for number in range(8):
        pair.host_memory.set("k", number)
    got = []
    with pytest.raises(WatchOverrun, match="the watch of 'k' fell behind by 5 changes; read the current state, then"):  # noqa: PT012
        async for change in watch:
            got.append(change.value)
    assert got == [0, 1, 2, 3, 4]
    told: list[object] = []
    monkeypatch.setattr(Watch, "changed", lambda watch, *change: told.append(change))
    pair.host_memory.set("k", "nobody is told any more")
    assert not told


async def test_an_overrun_of_a_decorated_function_is_said_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "LIMIT", 5)
    got: list[int] = []
    with logged() as lines:

        @pair.host_memory.watch("k")
        def slow(change: Changed) -> None:
            got.append(change.value)

        for number in range(8):
            pair.host_memory.set("k", number)
        async with loops(pair.host):
            await eventually(lambda: any("fell behind" in line for line in lines))
    assert got == [0, 1, 2, 3, 4]
    assert len([line for line in lines if "slow: the watch of 'k' fell behind" in line]) == 1


# --- laggards ---------------------------------------------------------------------------------------------------


def test_writers_wait_for_a_process_that_does_not_read_and_go_on_when_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected_pair(window=20_000) as pair:
        withheld: list[bool] = []
        withhold = pair.host.withhold

        def note(*arguments: Any) -> bool:
            withheld.append(withhold(*arguments))
            return withheld[-1]

        monkeypatch.setattr(pair.host, "withhold", note)
        slow = Child(pair, "slow", transports=gated)
        gate: Gate = slow.transports[1]
        gate.open.clear()
        join = in_thread(lambda: [pair.child_memory.set("k", "x" * 1000) for _ in range(300)] and None)
        until(lambda: pair.host.laggards() and pair.host.withholding)
        gate.open.set()
        assert join() is None
        until(lambda: not pair.host.withholding)
        pair.child_memory.sync(timeout=DEADLINE)
        assert slow.listener.closed == []
        until(lambda: memory(slow.node).get("k") == "x" * 1000)
        slow.node.reset()


async def test_the_host_itself_waits_in_threads_and_is_refused_on_the_loop() -> None:
    with connected_pair(window=20_000) as pair:
        slow = await asyncio.to_thread(Child, pair, "slow", transports=gated)
        gate: Gate = slow.transports[1]
        gate.open.clear()

        def fill() -> None:
            while True:
                pair.host_memory.set("k", "x" * 1000)

        with pytest.raises(ChannelFull, match=r"too many writes are on their way.*await shared_memory.aset"):
            fill()
        task = asyncio.create_task(pair.host_memory.aset("k", "later"))
        await asyncio.sleep(0.02)
        assert not task.done()
        gate.open.set()
        await asyncio.wait_for(task, DEADLINE)
        await asyncio.to_thread(slow.node.reset)


def test_credit_that_was_withheld_when_the_laggard_caught_up_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking for laggards and noting the credit, the last one may catch up: then nobody came back for it."""
    from liteyuki_host.hub import Hub
    from liteyuki_host.hub.laggards import Laggards

    hub = Hub()
    granted: list[int] = []

    class Source:
        def used(self, cost: int) -> None:
            granted.append(cost)

        def grant(self) -> None:
            pass

    class Laggard:
        memory_backlog = 0

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    looks = iter([[Laggard()]])  # the first look finds one, every later one nobody
    monkeypatch.setattr(Laggards, "now", lambda self: next(looks, []))
    monkeypatch.setattr(threading.Thread, "start", no_thread)  # the one that watches laggards would look again, too
    hub.withhold(Source(), 77)  # type: ignore[arg-type]
    assert granted == [77]
    hub.memory_read()
    assert granted == [77]


def test_a_process_that_never_reads_is_disconnected_once() -> None:
    with connected_pair(window=5_000, message_limit=5_000) as pair, logged() as lines:
        slow = Child(pair, "slow", transports=gated)
        gate: Gate = slow.transports[1]
        gate.open.clear()
        # Atomic operations are not held up by credit, as somebody waits for each.
        counted = 0
        while not slow.listener.closed:
            counted += 1
            assert pair.child_memory.incr("n") == counted
        told = "child slow has not read its link for a long time"
        until(lambda: any(told in line for line in lines))  # said once the host's lock has been left
        assert len([line for line in lines if told in line]) == 1
        assert pair.listener.closed == []
        gate.open.set()
        slow.node.reset()


def test_a_process_is_disconnected_once_however_many_writes_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    from liteyuki_host.hub import Hub

    closed: list[str] = []

    class Store:
        sent, acknowledged = 1 << 30, 0

    class Silent:
        process = "silent"
        store = Store()
        memory_backlog = 1 << 30
        disconnecting = False

        def close_soon(self, cause: str) -> None:
            closed.append(cause)

    class Source:
        def used(self, cost: int) -> None:
            pass

        def grant(self) -> None:
            pass

    hub = Hub()
    hub.roster.everybody = (Silent(),)  # type: ignore[assignment]
    with logged() as lines:
        for _ in range(5):
            assert hub.withhold(Source(), 1)  # type: ignore[arg-type]
            hub.monitor.settle()
        hub.roster.everybody = ()  # its link is over
        hub.memory_read()
    assert closed == ["it does not read its link"]
    assert len(lines) == 1


def test_a_value_larger_than_the_windows_makes_nobody_a_laggard() -> None:
    """With a small window, one large value and a write behind it disconnected every process at once."""
    with children("b", window=10_000, message_limit=1 << 20) as (pair, [b]):
        for number in range(5):
            pair.child_memory.set("large", "x" * 1_000_000)
            memory(b.node).set("small", number)
        memory(b.node).sync(timeout=DEADLINE)
        pair.child_memory.sync(timeout=DEADLINE)
        assert pair.listener.closed == b.listener.closed == []


def test_a_large_snapshot_is_no_backlog() -> None:
    """A child was disconnected as a laggard for not yet having read the state it begins with."""
    with connected_pair(window=20_000, message_limit=30_000) as pair:
        for number in range(30):
            pair.host_memory.set(f"k{number}", "x" * 20_000)
        pair.child_memory.sync(timeout=DEADLINE)

        def slow_start() -> tuple[Any, Any]:
            ours, theirs = gated()
            theirs.open.clear()
            threading.Thread(target=open_later, args=(theirs,), daemon=True).start()
            return ours, theirs

        def open_later(gate: Gate) -> None:
            until(lambda: pair.host.session("late") is not None)
            for number in range(20):
                pair.child_memory.set("busy", number)
            pair.child_memory.sync(timeout=DEADLINE)
            gate.open.set()

        late = Child(pair, "late", transports=slow_start)
        assert len(memory(late.node)) >= 30
        until(lambda: memory(late.node).get("busy") == 19)
        assert late.listener.closed == []
        late.node.reset()


def test_many_small_values_with_long_keys_make_a_snapshot_that_can_be_read() -> None:
    with connected_pair(message_limit=65_536) as pair:
        for number in range(3000):
            pair.host_memory.set(f"{number:0512}", number % 100)
        late = Child(pair, "late")
        assert len(memory(late.node)) == 3000
        late.node.reset()


# --- bad requests from a child ------------------------------------------------------------------------------------


def test_causality_in_short(pair: Pair) -> None:
    line = pair.child_channel("line")
    pair.child_memory.set("k", 1)
    line.send("look")
    assert channel(pair.host, "line").receive(DEADLINE) == "look"
    assert pair.host_memory["k"] == 1
