"""A bot's half whose callbacks run the event loop again, from inside themselves, by ``nest_asyncio``.

That changes all of asyncio, so it happens in a process of its own. Argument: the name of a scenario. Prints what came
of it, as JSON.

The host's half is in the same process, over sockets, with an event loop in a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import nest_asyncio

from liteyuki_host.comm import Channel, publish, subscribe
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport.posix import socket_link

DEADLINE = 10.0


class Kit:
    """Both halves, with what the loop of the bot's half complains of."""

    def __init__(self) -> None:
        self.pair = Pair("bot", Node(), socket_link)  # sockets, as in use: there the event loop reads the link
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(str(context["exception"])))
        self.errors: list[str] = []
        self.pair.child.attach_loop(self.loop)
        self.hosts_loop = asyncio.new_event_loop()
        threading.Thread(target=self.hosts_loop.run_forever, daemon=True).start()
        self.pair.host.attach_loop(self.hosts_loop)

    def here(self, name: str) -> Channel[Any]:
        return self.pair.child_channel(name)

    def host(self, name: str) -> Channel[Any]:
        return self.pair.host_channel(name)

    @property
    def memory(self) -> SharedMemory:
        return self.pair.child_memory

    async def ask(self, name: str, value: object) -> Any:
        """Ask as the host, from its own loop."""
        asking = asyncio.run_coroutine_threadsafe(self.host(name).request(value, timeout=DEADLINE), self.hosts_loop)
        return await asyncio.wrap_future(asking)

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run the loop until *awaitable* is done, from inside the loop."""
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, DEADLINE))


Scenario = Callable[[Kit], Awaitable[Any]]


async def function(kit: Kit) -> Any:
    """The inner run waits for what another channel brings."""
    arrived = asyncio.Event()
    kit.here("other").on_receive()(lambda data: arrived.set())

    @kit.here("x").on_receive()
    def callback(data: object) -> object:
        kit.host("other").send("go on")
        kit.run(arrived.wait())
        arrived.clear()
        return data

    return [await kit.ask("x", number) for number in range(5)]


async def coroutine(kit: Kit) -> Any:
    """A coroutine runs the loop again, before and after it has waited."""
    arrived = asyncio.Event()
    kit.here("other").on_receive()(lambda data: arrived.set())

    @kit.here("x").on_receive()
    async def callback(data: object) -> object:
        for _ in range(2):
            kit.host("other").send("go on")
            kit.run(arrived.wait())
            arrived.clear()
            await asyncio.sleep(0)
        return data

    return [await kit.ask("x", number) for number in range(5)]


async def applied_inside(kit: Kit) -> Any:
    """``nest_asyncio.apply()`` is first called by the callback itself."""
    return await function(kit)


async def lone_messages(kit: Kit) -> Any:
    """Messages without an answer, each alone: their callback is called by the one who reads."""
    seen: list[object] = []
    done = asyncio.Event()

    @kit.here("x").on_receive()
    def callback(data: int) -> None:
        kit.run(asyncio.sleep(0.001))
        seen.append(data)
        kit.host("x").send(data + 1) if data < 4 else done.set()

    kit.host("x").send(0)
    await asyncio.wait_for(done.wait(), DEADLINE)
    return seen


async def order(kit: Kit) -> Any:
    """What comes for a channel meanwhile waits until its callback has returned."""
    seen: list[object] = []
    inside = 0
    done = asyncio.Event()

    @kit.here("x").on_receive()
    def callback(data: int) -> None:
        nonlocal inside
        inside += 1
        seen.append([data, inside])
        if data % 3 == 0:
            kit.host("x").send(data + 3)
            kit.host("x").send(data + 1)
            kit.host("x").send(data + 2)
            kit.run(asyncio.sleep(0.01))
        inside -= 1
        if len(seen) == 10:
            done.set()

    kit.host("x").send(0)
    await asyncio.wait_for(done.wait(), DEADLINE)
    return seen[:10]


async def deep(kit: Kit) -> Any:
    """The callback of each channel runs the loop until that of the next has been called."""
    depth = 20
    called = [asyncio.Event() for _ in range(depth + 1)]
    called[depth].set()

    def listen(number: int) -> None:
        @kit.here(f"x{number}").on_receive()
        def callback(data: object) -> None:
            called[number].set()
            if number + 1 < depth:
                kit.host(f"x{number + 1}").send(data)
            kit.run(called[number + 1].wait())

    for number in range(depth):
        listen(number)
    kit.host("x0").send("go")
    await asyncio.wait_for(called[depth - 1].wait(), DEADLINE)
    return [event.is_set() for event in called]


async def request_inside(kit: Kit) -> Any:
    """The inner run waits for an answer over the channel whose callback it is in."""

    @kit.host("x").on_receive()
    async def answer(data: object) -> object:
        return [data, "answered"]

    @kit.here("x").on_receive()
    def callback(data: object) -> Any:
        return kit.run(kit.here("x").request(data, timeout=DEADLINE))

    return [await kit.ask("x", number) for number in range(3)]


async def topic_and_watch(kit: Kit) -> Any:
    """Subscribers and watchers."""
    seen: list[object] = []
    done = asyncio.Event()

    @subscribe("news", exchange=kit.pair.child)
    def subscriber(data: object) -> None:
        kit.run(kit.memory.aset("key", data))
        seen.append(["news", data])

    @kit.memory.watch("key")
    def watcher(change: Any) -> None:
        kit.run(kit.memory.async_())
        seen.append(["watch", change.value])
        if change.value == 2:
            done.set()

    await kit.memory.async_()  # the host knows of the subscription now
    for number in range(3):
        publish("news", number, exchange=kit.pair.host)
    await asyncio.wait_for(done.wait(), DEADLINE)
    return sorted(seen, key=str)


async def detached_inside(kit: Kit) -> Any:
    """The loop is taken away and given back while a callback runs it, as by a bot's shutdown hooks."""
    seen: list[object] = []
    done = asyncio.Event()

    async def interrupt() -> None:
        kit.pair.child.detach_loop()
        await asyncio.sleep(0.05)
        kit.pair.child.attach_loop(kit.loop)

    @kit.here("x").on_receive()
    def callback(data: int) -> None:
        if data == 1:
            kit.run(interrupt())
        seen.append(data)
        if data == 4:
            done.set()

    for number in range(3):
        await asyncio.to_thread(kit.host("x").send, number)
    await asyncio.sleep(0)
    for number in (3, 4):
        await asyncio.to_thread(kit.host("x").send, number)
    await asyncio.wait_for(done.wait(), DEADLINE)
    return seen


async def cancelled_inside(kit: Kit) -> Any:
    """A callback cancels its own task and runs the loop again. The next message is handled by a new task."""
    done = asyncio.Event()
    seen: list[object] = []
    task: list[object] = []

    @kit.here("x").on_receive()
    def callback(data: int) -> None:
        task.append(asyncio.current_task())
        if data == 1:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            kit.run(asyncio.sleep(0.05))
        seen.append(data)
        kit.host("x").send(data + 1) if data < 3 else done.set()

    kit.host("x").send(0)
    await asyncio.wait_for(done.wait(), DEADLINE)
    return [seen, task[2] is not task[1]]


async def ended_inside(kit: Kit) -> Any:
    """The bot's half leaves its host while a callback runs the loop. The task ends once the callback has returned."""
    called = asyncio.Event()

    async def leave() -> None:
        await asyncio.to_thread(kit.pair.child.detach)
        called.set()

    names: list[str] = []

    @kit.here("x").on_receive()
    def callback(data: object) -> None:
        names.append(asyncio.current_task().get_name())  # type: ignore[union-attr]
        kit.run(leave())

    await asyncio.to_thread(kit.host("x").send, "go")
    await asyncio.wait_for(called.wait(), DEADLINE)
    return names


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        function,
        coroutine,
        applied_inside,
        lone_messages,
        order,
        deep,
        request_inside,
        topic_and_watch,
        detached_inside,
        cancelled_inside,
        ended_inside,
    )
}


async def main(name: str) -> None:
    kit = Kit()
    if name == "applied_inside":

        def run(awaitable: Awaitable[Any]) -> Any:
            nest_asyncio.apply()
            return asyncio.get_running_loop().run_until_complete(awaitable)  # type: ignore[arg-type]

        kit.run = run  # type: ignore[method-assign]
    else:
        nest_asyncio.apply()
    result = await SCENARIOS[name](kit)
    print(json.dumps({"result": result, "errors": kit.errors}), flush=True)
    os._exit(0)  # the loop of the host's half still runs


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
