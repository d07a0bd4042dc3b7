"""How lycomm's cost grows: seconds of the same work at more and more of one thing. Children are without NoneBot."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from benchmarks.measures import Job
from benchmarks.payloads import SMALL
from benchmarks.peers.base import DEADLINE, Result
from benchmarks.peers.lycomm import Stage, with_light_host
from benchmarks.peers.lycomm_whole import publications_per_second

SLOWEST = 10_000.0
"""Messages per second, or keys: with fewer something is wrong, and a wait ends."""

SMALL_ENOUGH_TO_REPEAT = 100_000
"""Up to so many messages or keys the median of three goes counts."""

BYTES_PER_VALUE_SIZE = 64 * 2**20
"""A size is sent as often as this allows, 200 times at most."""

MESSAGE_LIMIT = 128 * 2**20
MEMORY_LIMIT = 2 * 2**30

Work = Callable[[Job], Result]
"""The result has ``name of the series|size`` for each point."""


def measure(job: Job) -> Result:
    return CURVES[job.subject](job)


def _burst(stage: Stage, value: Any, count: int) -> float:
    """Seconds until the child has confirmed so many messages."""
    from liteyuki_host.comm import get_channel

    channel = get_channel("bench-passive")
    began = time.perf_counter()
    channel.send(count)
    for _ in range(count):
        channel.send(value)
    channel.receive(DEADLINE + count / SLOWEST)
    return time.perf_counter() - began


def _repeated(work: Callable[[], float], size: int) -> float:
    return median(work() for _ in range(3 if size <= SMALL_ENOUGH_TO_REPEAT else 1))


def _messages(job: Job) -> Result:
    def work(stage: Stage) -> Result:
        _burst(stage, SMALL, 10_000)
        return {
            f"until all are handled|{size}": _repeated(partial(_burst, stage, SMALL, size), size) for size in job.sizes
        }

    return with_light_host(job, ["bench"], "sink", work)


def _values(job: Job) -> Result:
    def one(stage: Stage, size: int) -> float:
        value = bytes(size)
        count = max(min(200, BYTES_PER_VALUE_SIZE // size), 1)
        return _burst(stage, value, count) / count

    def work(stage: Stage) -> Result:
        one(stage, job.sizes[0])
        return {f"one value|{size}": _repeated(partial(one, stage, size), 0) for size in job.sizes}

    return with_light_host(job, ["bench"], "sink", work, message_limit=MESSAGE_LIMIT)


def _keys(job: Job) -> Result:
    """Ever more keys in the same shared memory; each time all of them are written."""

    def work(stage: Stage) -> Result:
        host, result = stage.host, {}
        for size in job.sizes:
            result[f"set all keys|{size}"] = stage.ask(size)
            result[f"get one key|{size}"] = stage.ask(f"key-{size - 1}")
            stage.on_loop(host.astop_process("late"))
            began = time.perf_counter()
            stage.on_loop(host.astart_process("late"))
            result[f"start of a new child|{size}"] = time.perf_counter() - began
        return result

    return with_light_host(job, ["bench", "late"], "store", work, shared_memory_limit=MEMORY_LIMIT)


def _children(job: Job) -> Result:
    def work(stage: Stage) -> Result:
        count = len(names)
        return {
            f"start of all|{count}": stage.started_in,
            f"one publication to all|{count}": 1 / publications_per_second(stage, names),
        }

    names = [f"bot{number}" for number in range(job.sizes[0])]
    return with_light_host(job, names, "listen 1", work)


def _subscribers(job: Job) -> Result:
    def work(stage: Stage) -> Result:
        return {f"one publication to all|{job.sizes[0]}": 1 / publications_per_second(stage, ["bench"])}

    return with_light_host(job, ["bench"], f"listen {job.sizes[0]}", work)


CURVES: dict[str, Work] = {
    "messages": _messages,
    "values": _values,
    "keys": _keys,
    "children": _children,
    "subscribers": _subscribers,
}
