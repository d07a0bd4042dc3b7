"""Key-value stores: everybody's process can read and write. The child does, as fast as it can."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from benchmarks.measures import Job, Measure
from benchmarks.payloads import PAYLOADS
from benchmarks.peers.base import DEADLINE, Peer, Result, answer, end_all, spawning, start
from benchmarks.timing import rate


class StorePeer(Peer):
    """A peer whose store is used like a dict."""

    subjects: tuple[str, ...] = ("get", "getM", "set")
    """``set``, or ``confirmed`` where a set returns when all processes would see it."""

    @abstractmethod
    def make(self) -> Any:
        """The store, in the host; what it is made of is kept as long as the host lives."""

    @abstractmethod
    def seat(self, store: Any) -> Any:
        """What travels to the child by pickle."""

    @abstractmethod
    def open(self, seat: Any) -> Any:
        """The store, in the child."""

    def does(self, measure: Measure) -> bool:
        return measure.workload == "W3" and measure.subject in self.subjects

    def measure(self, job: Job) -> Result:
        store = self.make()
        key = "M" if job.subject.endswith("M") else "S"
        store[key] = PAYLOADS[key]
        control, controlled = spawning.Pipe()
        process = start(_work_in_child, self, self.seat(store), controlled, job, key)
        try:
            return {"value": answer(control)}
        finally:
            end_all([process])


def _work_in_child(peer: StorePeer, seat: Any, control: Connection, job: Job, key: str) -> None:
    store = peer.open(seat)
    control.send(rate(_writing(store) if job.subject in ("set", "confirmed") else _reading(store, key), job.seconds))
    control.poll(DEADLINE)  # until it is ended


def _reading(store: Any, key: str) -> Callable[[int], float]:
    def work(count: int) -> float:
        get = store.get
        began = time.perf_counter()
        for _ in range(count):
            get(key)
        return time.perf_counter() - began

    return work


def _writing(store: Any) -> Callable[[int], float]:
    def work(count: int) -> float:
        value = PAYLOADS["S"]
        began = time.perf_counter()
        for _ in range(count):
            store["key"] = value
        return time.perf_counter() - began

    return work


class ManagerDict(StorePeer):
    """A process of its own holds the dict; each call is a round trip."""

    name = "mp.Manager dict"
    subjects = ("get", "getM", "confirmed")

    def make(self) -> Any:
        self._manager = spawning.Manager()
        return self._manager.dict()

    def seat(self, store: Any) -> Any:
        return store

    def open(self, seat: Any) -> Any:
        return seat

    def __getstate__(self) -> dict[str, Any]:
        return {}  # the manager stays with the host


class SharedMemoryDict(StorePeer):
    """One block of shared memory with all of it pickled; without its lock, as it is by default."""

    name = "shared-memory-dict"
    modules = ("shared_memory_dict",)
    size = 16 * 1024  # bytes; every get copies all of them

    def make(self) -> Any:
        return self.open(f"lycomm-benchmarks-{os.getpid()}")

    def seat(self, store: Any) -> Any:
        return f"lycomm-benchmarks-{os.getpid()}"

    def open(self, seat: Any) -> Any:
        from shared_memory_dict import SharedMemoryDict

        return SharedMemoryDict(name=seat, size=self.size)


class UltraDict(StorePeer):
    """A dict in each process, and the changes in shared memory."""

    name = "UltraDict"
    modules = ("UltraDict",)

    def make(self) -> Any:
        from UltraDict import UltraDict

        return UltraDict(name=f"lycomm-benchmarks-{os.getpid()}")

    def seat(self, store: Any) -> Any:
        return store.name

    def open(self, seat: Any) -> Any:
        from UltraDict import UltraDict

        return UltraDict(name=seat)


class LocalDict(StorePeer):
    """A dict that nobody else sees: nothing can be faster."""

    name = "local dict"

    def make(self) -> Any:
        return {}

    def seat(self, store: Any) -> Any:
        return store

    def open(self, seat: Any) -> Any:
        return seat


class EncodedDict(LocalDict):
    """A local dict of encoded values, decoded by each get: what values that are nobody else's cost at least."""

    name = "local dict + msgspec"
    subjects = ("get", "getM")

    def open(self, seat: Any) -> Any:
        return _Encoded({key: msgspec.msgpack.encode(value) for key, value in seat.items()})


class _Encoded:
    def __init__(self, values: dict[str, bytes]) -> None:
        self._values = values
        self._decode = msgspec.msgpack.Decoder().decode

    def get(self, key: str) -> Any:
        return self._decode(self._values[key])
