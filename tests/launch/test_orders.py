"""Orders of the supervisor that arrive while another one is being passed on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from liteyuki_host._child.orders import Orders
from liteyuki_host._child.stacks import Stacks
from liteyuki_host.comm.protocol.messages import WatchLoop


class ReentrantLoop:
    """A loop whose ``call_soon_threadsafe`` first calls ``inside``, once: as a finalizer would run there."""

    def __init__(self, inside: Callable[[], None]) -> None:
        self.inside: Callable[[], None] | None = inside

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        inside, self.inside = self.inside, None
        function(*args)
        if inside is not None:
            inside()


def finishes(action: Callable[[], None]) -> bool:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def orders_and_loop(inside: Callable[[Orders], None]) -> tuple[Orders, asyncio.AbstractEventLoop]:
    orders = Orders(cast(Stacks, None))
    return orders, cast(asyncio.AbstractEventLoop, ReentrantLoop(lambda: inside(orders)))


def test_an_order_inside_a_post_is_posted_after_it() -> None:
    orders, loop = orders_and_loop(lambda orders: orders.take(WatchLoop(2.0)))
    intervals: list[float] = []
    orders.take(WatchLoop(1.0))
    assert finishes(lambda: orders.watch_by(intervals.append, loop))
    assert intervals == [1.0, 2.0]


def test_another_thread_is_not_held_up_by_a_post() -> None:
    waited: list[bool] = []
    orders, loop = orders_and_loop(lambda orders: waited.append(finishes(lambda: orders.take(WatchLoop(2.0)))))
    intervals: list[float] = []
    orders.take(WatchLoop(1.0))
    assert finishes(lambda: orders.watch_by(intervals.append, loop))
    assert waited == [True]
    assert intervals == [1.0, 2.0]


def test_a_post_that_raises_leaves_later_orders_alone() -> None:
    def interrupted(orders: Orders) -> None:
        raise KeyboardInterrupt

    orders, loop = orders_and_loop(interrupted)
    intervals: list[float] = []
    orders.take(WatchLoop(1.0))
    with pytest.raises(KeyboardInterrupt):
        orders.watch_by(intervals.append, loop)
    orders.take(WatchLoop(2.0))
    assert intervals == [1.0, 2.0]
