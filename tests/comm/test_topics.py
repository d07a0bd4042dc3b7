"""Publish/subscribe: every subscriber in every process once, in one order for all."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from pair_kit import DEADLINE, children, connected_pair, each_link, eventually, logged, loops, until

from liteyuki_host.comm.errors import ChannelFull, HostNotAttached, ValueRefused, ValueTooLarge
from liteyuki_host.comm.process.exchange import Exchange
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.topics import apublish, publish, subscribe, unsubscribe

__all__ = ["each_link"]  # the fixture, for pytest

pytestmark = pytest.mark.usefixtures("each_link")


class Subscriber:
    """Collects a topic in one process."""

    def __init__(self, exchange: Exchange, topic: str = "news") -> None:
        self.got: list[Any] = []
        self.exchange = exchange
        self.topic = topic
        subscribe(topic, exchange=exchange)(self.take)

    def take(self, data: Any) -> None:
        self.got.append(data)


async def settled(*exchanges: Exchange) -> None:
    """The host knows of all subscriptions made so far: they and this question go the same ordered way."""
    for exchange in exchanges:
        await SharedMemory(exchange).async_(timeout=DEADLINE)


async def test_two_children_and_the_host_each_get_everything_once_and_in_order() -> None:
    with children("other") as (pair, [other]):
        exchanges: list[Exchange] = [pair.host, pair.child, other.node]
        async with loops(*exchanges):
            subscribers = [Subscriber(exchange) for exchange in exchanges]
            await settled(*exchanges)
            for number in range(100):
                publish("news", number, exchange=exchanges[number % 3])
                await settled(*exchanges)
            for subscriber in subscribers:
                await eventually(lambda subscriber=subscriber: len(subscriber.got) >= 100)
                assert subscriber.got == list(range(100))


async def test_all_see_the_same_order_whoever_publishes() -> None:
    with children("other") as (pair, [other]):
        exchanges: list[Exchange] = [pair.host, pair.child, other.node]
        async with loops(*exchanges):
            subscribers = [Subscriber(exchange) for exchange in exchanges]
            await settled(*exchanges)

            def flood(who: int) -> None:
                for number in range(200):
                    publish("news", [who, number], exchange=exchanges[who])

            threads = [threading.Thread(target=flood, args=(who,), daemon=True) for who in range(3)]
            for thread in threads:
                thread.start()
            for subscriber in subscribers:
                await eventually(lambda subscriber=subscriber: len(subscriber.got) >= 600)
            assert subscribers[0].got == subscribers[1].got == subscribers[2].got
            for who in range(3):
                assert [n for w, n in subscribers[0].got if w == who] == list(range(200))
            for thread in threads:
                thread.join(DEADLINE)


async def test_it_works_with_no_subscriber_in_the_host_and_with_none_at_all() -> None:
    with children("other") as (pair, [other]):
        async with loops(pair.child, other.node):
            publish("nobody", 1, exchange=pair.child)
            publish("nobody", 1, exchange=pair.host)
            subscriber = Subscriber(other.node)
            await settled(other.node)
            publish("news", b"raw", exchange=pair.child)
            await apublish("news", {"a": [1]}, exchange=pair.child)
            await eventually(lambda: len(subscriber.got) == 2)
    assert subscriber.got == [b"raw", {"a": [1]}]


async def test_unsubscribing_one_and_all_and_again() -> None:
    with children() as (pair, _):
        async with loops(pair.child, pair.host):
            mine = [Subscriber(pair.child), Subscriber(pair.child)]
            rest = Subscriber(pair.host)
            await settled(pair.child)
            publish("news", 1, exchange=pair.host)
            await eventually(lambda: len(rest.got) == len(mine[0].got) == len(mine[1].got) == 1)
            assert unsubscribe("news", mine[0].take, exchange=pair.child) == 1  # a bound method, made anew
            assert unsubscribe("news", mine[0].take, exchange=pair.child) == 0
            publish("news", 2, exchange=pair.host)
            await eventually(lambda: len(mine[1].got) == 2)
            assert unsubscribe("news", exchange=pair.child) == 1
            assert unsubscribe("news", exchange=pair.child) == 0
            assert unsubscribe("never heard of", exchange=pair.child) == 0
            await settled(pair.child)
            await eventually(lambda: pair.host.subscribers.counts() == {})
            publish("news", 3, exchange=pair.host)
            again = Subscriber(pair.child)
            await settled(pair.child)
            publish("news", 4, exchange=pair.host)
            await eventually(lambda: again.got == [4])
            await eventually(lambda: rest.got == [1, 2, 3, 4])
            assert (mine[0].got, mine[1].got) == ([1], [1, 2])
            assert unsubscribe("news", exchange=pair.host) == 1
            publish("news", 5, exchange=pair.child)
            await eventually(lambda: again.got == [4, 5])
            assert rest.got == [1, 2, 3, 4]


async def test_subscribing_and_unsubscribing_in_many_threads_ends_as_the_last_of_them_says() -> None:
    with children() as (pair, _):
        async with loops(pair.child):

            def flicker() -> None:
                for _ in range(30):
                    subscriber = Subscriber(pair.child)
                    unsubscribe("news", subscriber.take, exchange=pair.child)

            await asyncio.gather(*(asyncio.to_thread(flicker) for _ in range(4)))
            await settled(pair.child)
            await eventually(lambda: pair.host.subscribers.counts() == {})
            last = Subscriber(pair.child)
            await asyncio.gather(*(asyncio.to_thread(flicker) for _ in range(4)))
            await settled(pair.child)
            await eventually(lambda: "news" in pair.host.subscribers.counts())
            publish("news", "still", exchange=pair.host)
            await eventually(lambda: last.got == ["still"])


async def test_subscriptions_made_before_the_host_count_from_the_attachment() -> None:
    node = Node()
    subscriber = Subscriber(node)
    async with loops(node):
        publish("news", "alone", exchange=node)
        await eventually(lambda: subscriber.got == ["alone"])
        with connected_pair(node=node) as pair:
            await settled(node)
            publish("news", "attached", exchange=pair.host)
            await eventually(lambda: subscriber.got == ["alone", "attached"])
            await asyncio.to_thread(pair.cut)
            await asyncio.to_thread(pair.connect)
            await settled(node)
            publish("news", "again", exchange=pair.host)
            await eventually(lambda: subscriber.got == ["alone", "attached", "again"])


async def test_a_failing_callback_is_named_and_stops_nobody() -> None:
    with connected_pair() as pair, logged() as lines:
        async with loops(pair.child):

            @subscribe("news", exchange=pair.child)
            async def fragile(data: int) -> None:
                if data == 2 and sys.version_info >= (3, 11):  # 3.10 cannot tell whose cancellation it is
                    future = asyncio.get_running_loop().create_future()
                    future.cancel()
                    await future
                raise RuntimeError(str(data))

            subscriber = Subscriber(pair.child)
            await settled(pair.child)
            for number in (1, 2, 3):
                publish("news", number, exchange=pair.host)
            await eventually(lambda: subscriber.got == [1, 2, 3])
        errors = [line for line in lines if line.startswith("ERROR")]
        assert len(errors) == 3
        assert "topic 'news': the callback of test_topics." in errors[0]
        assert "fragile failed; the next message is handled as usual" in errors[0]


async def test_a_slow_subscriber_loses_with_a_report_and_holds_nobody_up() -> None:
    with children("slow", window=20_000) as (pair, [slow]):
        with logged() as lines:
            async with loops(pair.child):
                fast = Subscriber(pair.child)
                lazy = Subscriber(slow.node)  # no loop: nothing there is handled
                await settled(pair.child, slow.node)
                for number in range(600):
                    await apublish("news", [number, "x" * 100], exchange=pair.host)
                    if number % 20 == 0:
                        await eventually(lambda number=number: len(fast.got) == number + 1)
                await eventually(lambda: len(fast.got) == 600)
                pair.host.losses.flush()
                said = [line for line in lines if "lost" in line]
                assert said
                assert all("topic news: " in line and "(process slow is too slow for it)" in line for line in said)
                lost = sum(int(line.split(": ")[1].split()[0].replace(",", "")) for line in said)
                async with loops(slow.node):
                    await eventually(lambda: len(lazy.got) == 600 - lost)
        numbers = [number for number, _ in lazy.got]
        assert numbers == sorted(numbers)
        assert 0 < lost < 600


async def test_what_takes_log_lines_may_publish_them() -> None:
    """A loss used to be logged under the lock that publishing takes: a log forwarded to a topic stood still."""
    from loguru import logger

    with children("slow", window=5_000) as (pair, [slow]):
        Subscriber(slow.node)
        Subscriber(slow.node, "log")
        await settled(slow.node)

        def forward(message: Any) -> None:
            publish("log", str(message), exchange=pair.host)

        sink = logger.add(forward, level="WARNING")
        try:
            thread = threading.Thread(
                target=lambda: [publish("news", "x" * 500, exchange=pair.host) for _ in range(100)], daemon=True
            )
            thread.start()
            thread.join(DEADLINE)
            assert not thread.is_alive()
        finally:
            logger.remove(sink)


async def test_the_hosts_own_slow_subscriber_loses_with_a_report_too() -> None:
    with connected_pair(window=5_000) as pair, logged() as lines:
        subscriber = Subscriber(pair.host)
        for number in range(200):
            await apublish("news", number, exchange=pair.child)
        await settled(pair.child)
        pair.host.losses.flush()
        async with loops(pair.host):
            await eventually(lambda: len(subscriber.got) >= 25_000 // 258)
        assert any("topic news: 1 message lost (the host's own subscribers are too slow for it)" in x for x in lines)
        assert subscriber.got == list(range(len(subscriber.got)))


async def test_a_full_way_to_the_host_is_refused_on_the_loop_and_waited_for_otherwise() -> None:
    with connected_pair(window=5_000) as pair:
        with pair.host.monitor.lock:  # the host takes nothing in meanwhile

            def fill() -> None:
                while True:
                    publish("news", "x" * 1000, exchange=pair.child)

            with pytest.raises(ChannelFull, match=r"topic 'news': the way to the host is full.*await apublish"):
                fill()
            task = asyncio.create_task(apublish("news", "x" * 1000, exchange=pair.child))
            await asyncio.sleep(0.02)
            assert not task.done()
        await asyncio.wait_for(task, DEADLINE)


async def test_values_and_names_are_checked() -> None:
    node = Node()
    with pytest.raises(ValueRefused, match=r"^topic 'news': a value of type object cannot travel"):
        publish("news", object(), exchange=node)
    with pytest.raises(ValueTooLarge, match=r"^topic 'news': the value is"):
        publish("news", b"x" * (16 * 1024 * 1024 + 1), exchange=node)
    for call in (lambda: publish("", 1, exchange=node), lambda: subscribe("", exchange=node)):
        with pytest.raises(ValueError, match="a topic name has 1 to 200 printable characters"):
            call()
    with pytest.raises(TypeError, match="a topic name is a text"):
        publish(5, 1, exchange=node)  # type: ignore[arg-type]


async def test_the_2024_names() -> None:
    with connected_pair() as pair:
        got: list[Any] = []
        async with loops(pair.child):
            pair.child_memory.on_subscriber_receive("event_to_nonebot")(got.append)
            await settled(pair.child)
            pair.host_memory.publish("event_to_nonebot", {"a": 1})
            await eventually(lambda: got == [{"a": 1}])


def test_after_the_host_is_gone_publishing_says_so() -> None:
    with connected_pair() as pair:
        pair.cut()
        with pytest.raises(HostNotAttached, match="topic 'news' needs the host, which is gone"):
            publish("news", 1, exchange=pair.child)


def test_a_killed_child_is_no_slow_one() -> None:
    with connected_pair() as pair, logged() as lines:
        Subscriber(pair.child)
        pair.child_memory.sync(timeout=DEADLINE)
        session = pair.host.session("nonebot")
        assert session is not None
        session.link.writer.closed = True  # between its end and the host's taking note of it
        publish("news", 1, exchange=pair.host)
        session.link.writer.closed = False
        pair.cut()
        publish("news", 2, exchange=pair.host)
        pair.host.losses.flush()
        until(lambda: pair.host.subscribers.counts() == {})
    assert not [line for line in lines if "too slow" in line]


async def test_local_topics_are_bounded_without_counting_everything_each_time() -> None:
    node = Node()
    subscriber = Subscriber(node)
    started = asyncio.get_running_loop().time()
    for number in range(20_000):
        publish("news", number, exchange=node)
    assert asyncio.get_running_loop().time() - started < 5.0  # it was quadratic
    async with loops(node):
        await eventually(lambda: len(subscriber.got) == 20_000)
    assert subscriber.got == list(range(20_000))
