"""What plugin authors write, for type checkers only: nobody runs this file.

In lines that end with ``# error``, each checker has to find an error; in all others none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_type

from liteyuki_host import Host, get_bot
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair
from nonebot_plugin_lycomm import (
    Channel,
    active_channel,
    background_thread,
    get_channel,
    get_channels,
    passive_channel,
    publish,
    set_channel,
    shared_memory,
    subscribe,
    unsubscribe,
)


@dataclass
class Order:
    item: str


# Channels and their types.

texts = Channel("texts", str)
assert_type(texts, Channel[str])
assert_type(Channel[str]("texts"), Channel[str])
assert_type(Channel("orders", Order), Channel[Order])
assert_type(Channel("counts", dict[str, int]), Channel[dict[str, int]])
assert_type(Channel("anything"), Channel[Any])
assert_type(Channel[str | None]("maybe"), Channel[str | None])
assert_type(get_channel("texts", str), Channel[str])
assert_type(get_channel("orders", Order), Channel[Order])
assert_type(get_channel("anything"), Channel[Any])
assert_type(get_channels(), dict[str, Channel[Any]])
declared: Channel[Order] = Channel("orders", Order)
mistaken: Channel[int] = Channel("texts", str)  # error
Channel(1)  # error
get_channel()  # error
set_channel("texts", "texts")  # error


# Sending and receiving.


async def talk(pair: Pair) -> None:
    texts.send("a")
    texts.send(1)  # error
    await texts.asend("a")
    await texts.asend(Order("tea"))  # error
    assert_type(texts.receive(), str)
    assert_type(await texts.areceive(timeout=5), str)
    async for text in texts:
        assert_type(text, str)
    for text in texts:
        assert_type(text, str)
    assert_type(await texts.request("a", timeout=5), Any)
    await texts.request(1)  # error
    await texts.request("a", 5)  # error
    assert_type(active_channel.receive(), Any)
    number: int = await passive_channel.request("how many?")
    passive_channel.send(number)
    assert_type(pair.host_channel("texts", str), Channel[str])
    assert_type(pair.child_channel("texts"), Channel[Any])


# Callbacks.


@texts.on_receive()
def a_text(data: str) -> int:
    return len(data)


assert_type(a_text("x"), int)


@texts.on_receive()
async def an_async_text(data: str) -> int:
    return len(data)


@texts.on_receive(lambda data: data.startswith("a"))
def a_filtered_text(data: str) -> None: ...


@texts.on_receive(lambda data: data.missing)  # error
def a_wrong_filter(data: str) -> None: ...


async def long_enough(data: str) -> bool:
    return len(data) > 3


@texts.on_receive(filter_func=long_enough)
def an_async_filter(data: str) -> None: ...


@texts.on_receive()
def anything(data: object) -> None: ...


@texts.on_receive()  # error
def a_number(data: int) -> None: ...


@texts.on_receive()  # error
async def an_async_number(data: int) -> None: ...


@texts.on_receive()  # error
def no_data() -> None: ...


@texts.on_receive()  # error
def too_much(data: str, more: str) -> None: ...


@texts.on_receive()
def with_a_default(data: str, more: str = "") -> None: ...


@passive_channel.on_receive()
def of_an_untyped_channel(data: Order) -> str:
    return data.item


@passive_channel.on_receive()  # error
def of_an_untyped_channel_without_data() -> None: ...


texts.on_receive("a")  # error
texts.remove(a_text)


# Topics.


@subscribe("news")
def news(data: str) -> int:
    return len(data)


@subscribe("news")
async def async_news(data: dict[str, int]) -> None: ...


assert_type(news("x"), int)


@subscribe("news")  # error
def no_news() -> None: ...


@subscribe("news")  # error
async def no_async_news() -> None: ...


@subscribe  # error
def no_topic(data: str) -> None: ...


@shared_memory.on_subscriber_receive("news")  # error
def no_news_by_its_old_name() -> None: ...


publish("news", {"a": 1})
publish("news")  # error
assert_type(unsubscribe("news", news), int)
unsubscribe(news)  # error


# Shared memory.


@shared_memory.watch("config.")
async def changed(change: Any) -> None: ...


@shared_memory.watch("config.")  # error
def changed_without_it() -> None: ...


@shared_memory.watch("config.")  # error
def changed_to_a_number(change: int) -> None: ...


@shared_memory.watch  # error
def no_prefix(change: Any) -> None: ...


async def remember(memory: SharedMemory) -> None:
    assert_type(memory.get("key"), Any)
    assert_type(memory.get("key", 0), Any)
    assert_type(memory["key"], Any)
    assert_type("key" in memory, bool)
    assert_type(len(memory), int)
    assert_type(await memory.aincr("key"), int | float)
    assert_type(await memory.aset("key", 1, ttl=5.0), int)
    assert_type(await memory.adelete("key"), bool)
    assert_type(await memory.acompare_and_set("key", None, 1), bool)
    assert_type(memory.get_all(), dict[str, Any])
    async with memory.lock("key") as lock:
        assert_type(lock.fence, int)
    async for change in memory.watch("config."):
        assert_type((change.key, change.deleted, change.revision), tuple[str, bool, int])
    memory.get(1)  # error
    memory.set("key")  # error
    await memory.aset("key", 1, 5.0)  # error
    memory.incr("key", "1")  # error


# Background threads.


@background_thread
def in_background() -> None:
    while True:
        active_channel.receive()


@background_thread  # error
async def async_in_background() -> None: ...


@background_thread  # error
def in_background_of(channel: Channel[str]) -> None: ...


# Hooks of the host.

host: Host = get_bot()


@host.on_before_start
def before_start() -> None: ...


@host.on_after_start
async def after_start() -> None: ...


@host.on_after_start  # error
async def after_start_of(name: str) -> None: ...


@host.on_after_restart
def after_any_restart() -> None: ...


@host.on_after_restart
async def after_restart(name: str) -> None: ...


@host.on_before_process_shutdown
def before_shutdown(name: str, context: Any) -> None: ...


@host.on_before_process_restart  # error
def before_restart(name: int) -> None: ...


@host.on_before_process_restart  # error
async def before_restart_with_more(name: str, context: Any, more: str) -> None: ...


@host.on_before_start()  # error
def before_start_with_parentheses() -> None: ...


async def control() -> None:
    host.restart_process("bot")
    await host.wait_ready("bot", timeout=30)
    host.restart_process(1)  # error
    await host.stop()  # error
