"""A NoneBot plugin that does what a test asks of its process: one function per request on the passive channel."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from nonebot import get_driver

from liteyuki_host.comm import Channel
from nonebot_plugin_lycomm import (
    active_channel,
    get_channel,
    passive_channel,
    publish,
    restart_process,
    set_channel,
    shared_memory,
    subscribe,
    unsubscribe,
)

driver = get_driver()
loops: dict[str, int] = {}
published: list[Any] = []
collected: list[Any] = []
own: dict[str, Any] = {}


@driver.on_startup
async def remember_loop() -> None:
    loops["nonebot"] = id(asyncio.get_running_loop())


@driver.on_shutdown
async def say_goodbye() -> None:
    print("lab: shutdown hook ran", flush=True)


@passive_channel.on_receive(filter_func=lambda data: isinstance(data, dict) and "do" in data)
async def work(data: dict[str, Any]) -> Any:
    result = globals()["do_" + data.pop("do")](**data)
    return await result if asyncio.iscoroutine(result) else result


def do_echo(value: Any) -> Any:
    return value


def do_loop_ids() -> list[int]:
    return [loops["nonebot"], id(asyncio.get_running_loop())]


async def do_collect(channel: str) -> str:
    """Gather everything that arrives on a channel."""
    collected.clear()
    get_channel(channel).on_receive()(collected.append)
    return channel


def do_collected() -> list[Any]:
    return list(collected)


async def do_flood(channel: str, count: int) -> int:
    """Send numbers from a thread while the loop goes on."""
    target = get_channel(channel)
    await asyncio.to_thread(lambda: [target.send(["child", number]) for number in range(count)])
    return count


async def do_increment(key: str, times: int, threads: int = 0) -> Any:
    if not threads:
        for _ in range(times):
            await shared_memory.aincr(key)
        return None

    def run() -> None:
        for _ in range(times):
            shared_memory.incr(key)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    await asyncio.to_thread(lambda: [worker.join() for worker in workers])
    return None


async def do_large_values(prefix: str, threads: int, each: int, size: int) -> None:
    def run(thread: int) -> None:
        for number in range(each):
            shared_memory.set(f"{prefix}.{thread}.{number}", chr(97 + thread) * size)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    await asyncio.to_thread(lambda: [worker.join() for worker in workers])


def do_set(key: str, value: Any) -> None:
    shared_memory.set(key, value)


def do_get(key: str) -> Any:
    return shared_memory.get(key)


def do_subscribe(topic: str) -> None:
    published.clear()
    subscribe(topic)(published.append)


def do_published() -> list[Any]:
    return list(published)


def do_publish(topic: str, count: int, name: str) -> None:
    for number in range(count):
        publish(topic, [name, number])


def do_unsubscribe(topic: str) -> int:
    return unsubscribe(topic)


def do_make_channel(name: str) -> Channel[Any]:
    """Make a channel and hand it back: it arrives as a working channel."""
    channel: Channel[Any] = Channel(name)
    set_channel(name, channel)
    own["channel"] = channel
    return channel


async def do_take_channel(channel: Channel[Any]) -> str:
    own["channel"] = channel
    collected.clear()
    channel.on_receive()(collected.append)
    return channel.name


async def do_talk(count: int) -> None:
    for number in range(count):
        await own["channel"].asend(number)


async def do_request_peer(value: Any) -> Any:
    return await own["channel"].request(value, timeout=10)


def do_unknown_channel() -> str:
    started = time.monotonic()
    try:
        get_channel("nope")
    except KeyError as error:
        return f"{type(error).__name__} in {time.monotonic() - started:.1f} s"
    return "no error"


async def do_causality(count: int, key: str, answer_on: str) -> None:
    """Set, then send: the receiver must see at least that value."""
    target = get_channel(answer_on)
    for number in range(count):
        shared_memory.set(key, number)
        await target.asend([key, number])


async def do_check_causality(channel: str) -> None:
    """Compare what arrives with what is visible at that moment."""
    collected.clear()

    def check(message: list[Any]) -> None:
        key, number = message
        seen = shared_memory.get(key)
        collected.append(number if seen is not None and seen >= number else ["missed", number, seen])

    get_channel(channel).on_receive()(check)


def do_restart_me() -> None:
    restart_process()


def do_block(seconds: float) -> None:
    shared_memory.set("blocked", os.getpid())  # written at once: whoever waits for it knows that we are here
    time.sleep(seconds)  # on purpose: the loop is blocked


def do_pid() -> int:
    return os.getpid()


def do_pool() -> int:
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(pow, 2, 10).result(timeout=20)


def do_fork() -> str:
    """What a forked process meets when it uses what its parent's link carries."""
    import multiprocessing

    def use(found: Any) -> None:
        errors = []
        for attempt in (lambda: shared_memory.set("forked", 1), lambda: active_channel.send("forked")):
            try:
                attempt()
                errors.append("no error")
            except Exception as error:
                errors.append(type(error).__name__)
        found.put(" ".join(errors))

    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    process = context.Process(target=use, args=(found,))
    process.start()
    process.join(10)
    return found.get()


async def do_hold_lock(key: str) -> None:
    own["lock"] = shared_memory.lock(key)
    await own["lock"].__aenter__()


async def do_ephemeral(key: str) -> None:
    await shared_memory.aset(key, os.getpid(), ephemeral=True)


def do_crash() -> None:
    os.kill(os.getpid(), 9)


async def do_receive(seconds: float, count: int = 1) -> list[Any]:
    """Active mode, in a thread."""

    def receive() -> list[Any]:
        got = []
        for _ in range(count):
            try:
                got.append(active_channel.receive(timeout=seconds))
            except TimeoutError:
                got.append("timeout")
        return got

    return await asyncio.to_thread(receive)


async def do_flood_for(channel: str, seconds: float, size: int) -> int:
    """Send from a thread for as long; returns how many messages were accepted in that time."""
    target, sent = get_channel(channel), [0]

    def flood() -> None:
        while not own.get("enough"):
            target.send(b"y" * size)
            sent[0] += 1

    threading.Thread(target=flood, daemon=True).start()
    await asyncio.sleep(seconds)
    return sent[0]


def do_drain(channel: str) -> None:
    own["enough"] = True
    get_channel(channel).on_receive()(lambda data: None)


def do_memory() -> int:
    import psutil

    return psutil.Process().memory_info().rss
