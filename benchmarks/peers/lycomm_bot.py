"""The child's half, as a NoneBot plugin: what it does is the job of the process pair."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from nonebot import get_driver

from benchmarks.measures import Job
from benchmarks.payloads import PAYLOADS
from benchmarks.peers.lycomm import JOB_VARIABLE
from benchmarks.peers.lycomm_light import PART, TOPIC
from benchmarks.timing import WARM_UP, microseconds, rate
from liteyuki_host.comm import Channel
from liteyuki_host.comm.process.current import current_node
from nonebot_plugin_lycomm import active_channel, background_thread, passive_channel, shared_memory, subscribe

job = Job.from_json(os.environ[JOB_VARIABLE])
payload = PAYLOADS.get(job.subject, PAYLOADS["S"])
driver = get_driver()


def sink() -> None:
    """The first message is a number; when so many more have come, say so."""
    left = 0

    @passive_channel.on_receive()
    async def take(value: Any) -> None:
        nonlocal left
        if not left:
            left = value
            return
        left -= 1
        if not left:
            await passive_channel.asend("done")


def source() -> None:
    @background_thread
    def send() -> None:
        for count in active_channel:
            for _ in range(count):
                active_channel.send(payload)


def source_on_the_loop() -> None:
    @active_channel.on_receive()
    async def send(count: int) -> None:
        for _ in range(count):
            await active_channel.asend(payload)


def echo() -> None:
    @background_thread
    def work() -> None:
        while True:
            active_channel.send(active_channel.receive())


def answer() -> None:
    @passive_channel.on_receive()
    async def work(value: Any) -> None:
        await passive_channel.asend(value)


def echo_under_load() -> None:
    echo()

    @Channel("flood").on_receive()
    async def take(value: Any) -> None:
        pass

    @passive_channel.on_receive()
    async def control(question: str) -> dict[str, float]:
        taken: list[float] = []
        until = time.perf_counter() + (1 + WARM_UP) * job.seconds
        while (began := time.perf_counter()) < until:
            await current_node().control("status")
            taken.append(time.perf_counter() - began)
        return microseconds(taken[int(len(taken) * WARM_UP) :])


def store() -> None:
    shared_memory.set("S", PAYLOADS["S"])
    shared_memory.set("M", PAYLOADS["M"])

    @shared_memory.watch("tick")
    async def changed(change: Any) -> None:
        await passive_channel.asend(time.perf_counter() - change.value)

    if job.subject != "change":

        @passive_channel.on_receive()
        async def work(question: str) -> dict[str, float]:
            return {"value": await asyncio.to_thread(rate, STORE_WORK[question], job.seconds)}


def get(count: int, key: str = "S") -> float:
    read = shared_memory.get
    began = time.perf_counter()
    for _ in range(count):
        read(key)
    return time.perf_counter() - began


def set_queued(count: int) -> float:
    """Until the host has ordered the last one, which it does in turn."""
    write = shared_memory.set
    began = time.perf_counter()
    for _ in range(count):
        write("key", payload)
    shared_memory.sync()
    return time.perf_counter() - began


def set_confirmed(count: int, tasks: int = 1) -> float:
    async def write(times: int) -> None:
        for _ in range(times):
            await shared_memory.aset("key", payload)

    async def write_all() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(write(-(-count // tasks)) for _ in range(tasks)))
        return (time.perf_counter() - began) * count / (-(-count // tasks) * tasks)

    return asyncio.run_coroutine_threadsafe(write_all(), loops[0]).result()


STORE_WORK: dict[str, Callable[[int], float]] = {
    "get": get,
    "getM": lambda count: get(count, "M"),
    "set": set_queued,
    "confirmed": set_confirmed,
    "confirmed64": lambda count: set_confirmed(count, 64),
}


def hear() -> None:
    """Say after every so many publications that they have come."""
    heard = 0

    @subscribe(TOPIC)
    async def take(value: Any) -> None:
        nonlocal heard
        heard += 1
        if not heard % PART:
            await active_channel.asend(heard)


loops: list[asyncio.AbstractEventLoop] = []


@driver.on_startup
async def remember_the_loop() -> None:
    loops.append(asyncio.get_running_loop())


ROLES: dict[str, Callable[[], None]] = {
    "W1": sink,
    "W1a": sink,
    "W1r": source,
    "W1ar": source_on_the_loop,
    "W2": echo,
    "W2b": answer,
    "W2load": echo_under_load,
    "W3": store,
    "broadcast": hear,
}

if job.workload in ROLES:
    ROLES[job.workload]()
