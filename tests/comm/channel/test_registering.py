"""Callbacks that are registered wrongly: each of these was accepted, and was never called."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pair_kit import DEADLINE, channel, loops, memory

from liteyuki_host.comm import Channel, subscribe, unsubscribe
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair, connected_pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected_pair() as pair:
        yield pair


@pytest.fixture
def x(pair: Pair) -> Channel[Any]:
    return channel(pair.child, "x")


# Forgotten parentheses. (What types forbid is called through Any.)


def test_bare_decorator_is_refused(x: Any) -> None:
    with pytest.raises(TypeError, match=r"write @channel\.on_receive\(\)$"):

        @x.on_receive
        def callback(data: object) -> None: ...


def test_bare_decorator_of_coroutine(x: Any) -> None:
    with pytest.raises(TypeError, match=r"write @channel\.on_receive\(\)$"):

        @x.on_receive
        async def callback(data: object, more: object = None) -> None:
            await asyncio.sleep(0)


def test_bare_decorator_of_method(x: Any) -> None:
    with pytest.raises(TypeError, match=r"write @channel\.on_receive\(\)$"):

        class Plugin:
            @x.on_receive
            @staticmethod
            def callback(data: object) -> None: ...


def noisy(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def test_bare_decorator_among_others(x: Any) -> None:
    with pytest.raises(TypeError, match=r"write @channel\.on_receive\(\)$"):

        @noisy
        @x.on_receive
        @noisy
        def callback(data: object) -> None: ...


def test_function_alone_is_refused(x: Any) -> None:
    def callback(data: object) -> None: ...

    with pytest.raises(TypeError, match=r"write channel\.on_receive\(\)\(callback\)$"):
        x.on_receive(callback)
    for function in (callback, lambda data: None, [].append, functools.partial(callback)):
        with pytest.raises(TypeError, match=r"write channel\.on_receive\(\)\(callback\)$"):
            x.on_receive(filter_func=function)


def is_short(data: Any) -> bool:
    return len(data) < 3


def decorator_of(x: Channel[Any]) -> Any:
    return x.on_receive(is_short)


async def test_filters_are_still_filters(pair: Pair, x: Channel[Any]) -> None:
    got: list[object] = []
    done = asyncio.Event()

    @x.on_receive(is_short)
    def by_name(data: str) -> None:
        got.append(("name", data))

    @x.on_receive(lambda data: data == "a")
    def by_lambda(data: str) -> None:
        got.append(("lambda", data))

    kept = x.on_receive(filter_func=functools.partial(lambda letter, data: data == letter, "b"))
    kept(lambda data: got.append(("kept", data)))
    x.on_receive(bool)(lambda data: got.append(("class", data)))
    decorator_of(x)(lambda data: got.append(("returned", data)))
    x.on_receive()(lambda data: done.set() if data == "long" else None)
    async with loops(pair.child):
        for text in ("a", "b", "long"):
            channel(pair.host, "x").send(text)
        await asyncio.wait_for(done.wait(), DEADLINE)
    assert got == [
        ("name", "a"),
        ("lambda", "a"),
        ("class", "a"),
        ("returned", "a"),
        ("name", "b"),
        ("kept", "b"),
        ("class", "b"),
        ("returned", "b"),
        ("class", "long"),
    ]


def test_subscribe_needs_a_topic(pair: Pair) -> None:
    bare: Any = subscribe
    with pytest.raises(TypeError, match=r'write @subscribe\("topic"\)$'):

        @bare
        def callback(data: object) -> None: ...

    with pytest.raises(TypeError, match=r'write @subscribe\("topic"\)$'):
        memory(pair.child).on_subscriber_receive(bare)


def test_unsubscribe_needs_a_topic() -> None:
    function: Any = print
    with pytest.raises(TypeError, match="a topic name is a text"):
        unsubscribe(function)


@pytest.mark.parametrize("prefix", [print, None, b"key", 1])
def test_watch_needs_a_text(pair: Pair, prefix: Any) -> None:
    with pytest.raises(TypeError, match=r"write @shared_memory\.watch\(\) with its parentheses$"):
        memory(pair.child).watch(prefix)
    memory(pair.child).set("key", 1)  # nobody watches


# Functions that could never do anything.


def with_yield(data: object) -> Iterator[object]:
    yield data


async def async_with_yield(data: object) -> AsyncIterator[object]:
    yield data


class Callable_:
    def __call__(self, data: object) -> Iterator[object]:
        yield data


NEVER: dict[str, tuple[Any, str]] = {
    "None": (None, "is a function, not None"),
    "a text": ("on_order", "is a function, not 'on_order'"),
    "a generator": (with_yield, "with_yield has a `yield`"),
    "an async generator": (async_with_yield, "async_with_yield has a `yield`"),
    "a partial generator": (functools.partial(with_yield), "has a `yield`"),
    "an object that yields": (Callable_(), "has a `yield`"),
    "no argument": (lambda: None, "takes \\(\\)"),
    "two arguments": (lambda one, two: None, "takes \\(one, two\\)"),
    "a keyword": (lambda data, *, more: None, "takes \\(data, \\*, more\\)"),
}

REGISTER: dict[str, Callable[[Pair], Callable[[Any], object]]] = {
    "on_receive": lambda pair: channel(pair.child, "x").on_receive(),
    "filter": lambda pair: lambda function: (channel(pair.child, "x").on_receive(function),),
    "subscribe": lambda pair: subscribe("news", exchange=pair.child),
    "on_subscriber_receive": lambda pair: memory(pair.child).on_subscriber_receive("news"),
    "watch": lambda pair: memory(pair.child).watch("key"),
}


@pytest.mark.parametrize(
    ("register", "function"),
    [
        (register, name)
        for register in REGISTER
        for name in NEVER
        if register != "filter" or name not in ("None", "a text")  # no filter, and a test of its own
    ],
)
def test_useless_callbacks_are_refused(pair: Pair, register: str, function: str) -> None:
    callback, words = NEVER[function]
    with pytest.raises(TypeError, match=words):
        REGISTER[register](pair)(callback)


@pytest.mark.parametrize("register", [name for name in REGISTER if name != "filter"])
def test_odd_callbacks_are_taken(pair: Pair, register: str) -> None:
    class Odd:
        def __call__(self, data: object, more: object = None) -> None: ...

        def method(self, *data: object) -> None: ...

        @classmethod
        async def for_class(cls, data: object, /) -> None: ...

    for function in (Odd(), Odd().method, Odd.for_class, [].append, print, noisy(is_short), functools.partial(max, 1)):
        assert REGISTER[register](pair)(function) is function


def test_refused_watcher_leaves_no_watch(pair: Pair) -> None:
    shared: SharedMemory = memory(pair.child)
    watch = shared.watch("key")
    with pytest.raises(TypeError):
        watch(None)  # type: ignore[type-var]
    shared.set("key", 1)
    assert list(watch) == []
