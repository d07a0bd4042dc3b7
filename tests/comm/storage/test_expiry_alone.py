"""A watch in a bot without a host hears of an expired key when its time is up, and no thread stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from pair_kit import DEADLINE, logged, memory, until

from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import Changed, SharedMemory
from liteyuki_host.comm.storage.authority import Authority
from liteyuki_host.comm.storage.watch import Watch
from liteyuki_host.comm.testing import connected_pair
from liteyuki_host.comm.threads import DaemonThread


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lycomm-expiry"]


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.reset()
    until(lambda: not threads())


@pytest.fixture
def alone(node: Node) -> SharedMemory:
    return memory(node)


def next_change(watch: Watch) -> Changed:
    """The next change, which has to come within the deadline."""
    got: list[Changed] = []
    reader = threading.Thread(target=lambda: got.append(next(iter(watch))), daemon=True)
    reader.start()
    reader.join(DEADLINE)
    assert got, "no change came"
    return got[0]


def test_a_watch_hears_of_expired_keys(alone: SharedMemory) -> None:
    with alone.watch() as watch:
        alone.set("key", 1, ttl=0.1)
        assert next_change(watch)[1:] == ("key", 1, False)
        assert next_change(watch)[1:] == ("key", None, True)
        until(lambda: not threads())


def test_a_later_watch_hears_of_it(alone: SharedMemory) -> None:
    alone.set("key", 1, ttl=0.2)
    assert not threads()
    with alone.watch() as watch:
        assert next_change(watch)[1:] == ("key", None, True)


def test_a_shorter_ttl_is_noticed(alone: SharedMemory) -> None:
    with alone.watch("short") as watch:
        alone.set("long", 1, ttl=3600)
        until(threads)
        alone.set("short", 1, ttl=0.1)
        assert next_change(watch).deleted is False
        started = time.monotonic()
        assert next_change(watch).deleted
        assert time.monotonic() - started < 30


def test_deleting_the_last_key_ends_the_thread(alone: SharedMemory) -> None:
    with alone.watch():
        alone.set("key", 1, ttl=3600)
        until(threads)
        alone.delete("key")
        until(lambda: not threads())


def test_the_last_watch_ends_the_thread(alone: SharedMemory) -> None:
    with alone.watch():
        alone.set("key", 1, ttl=3600)
        until(threads)
    until(lambda: not threads())


def test_many_keys_need_one_thread(alone: SharedMemory) -> None:
    with alone.watch() as watch:
        for number in range(50):
            alone.set(f"key {number}", number, ttl=0.2)
        assert len(threads()) == 1
        deleted = [change.key for change in (next_change(watch) for _ in range(100)) if change.deleted]
        assert deleted == [f"key {number}" for number in range(50)]


def test_a_host_ends_the_thread(node: Node) -> None:
    mine = memory(node)
    with mine.watch():
        mine.set("key", 1, ttl=3600)
        until(threads)
        with connected_pair(node=node):
            until(lambda: not [thread for thread in threads() if isinstance(thread, DaemonThread)])


def test_a_failing_deletion_is_repeated(alone: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liteyuki_host.comm.storage.expiry.RETRY_SECONDS", 0.01)
    failures = [MemoryError("none left"), ValueError("a fault of ours")]
    expire = Authority.expire

    def failing(self: Authority) -> float | None:
        if failures:
            raise failures.pop()
        return expire(self)

    monkeypatch.setattr(Authority, "expire", failing)
    with logged() as lines, alone.watch() as watch:
        alone.set("key", 1, ttl=0.1)
        assert next_change(watch).deleted is False
        assert next_change(watch).deleted
    assert lines == ["ERROR shared memory: deleting expired keys failed, trying again (ValueError: a fault of ours)"]


def test_a_missing_thread_is_told(alone: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone.watch() as watch, logged() as lines:
        with monkeypatch.context() as short:

            def start(self: DaemonThread) -> None:
                raise RuntimeError("can't start new thread")

            short.setattr(DaemonThread, "start", start)
            alone.set("key", 1, ttl=0.1)
            alone.set("other", 1)
        alone.set("more", 1, ttl=0.1)
        while not next_change(watch).deleted:
            pass
    assert "hear of expired keys only with the next write (can't start new thread)" in lines[0]
