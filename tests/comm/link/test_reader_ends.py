"""The end of a link while an event loop begins, or stops, to watch it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from link_kit import DEADLINE, End, descriptors, join, until

if sys.platform != "linux":
    pytest.skip("no event loop reads a link here", allow_module_level=True)

from liteyuki_host.comm.transport.posix import socket_link


class Loop(asyncio.SelectorEventLoop):
    """Calls a function in the middle of the next ``add_reader``, and notes what goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        super().add_reader(fd, callback, *args)
        if callback != self._read_from_self:  # type: ignore[attr-defined]
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()


@contextmanager
def running(loop: Loop) -> Iterator[Loop]:
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    loop.close()


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    before = descriptors()
    host, child = join(socket_link)
    yield host, child
    for end in (host, child):
        end.link.close()
        end.link.join(DEADLINE)
    until(lambda: descriptors() <= before)


def test_a_link_may_end_while_a_loop_begins_to_watch(ends: tuple[End, End]) -> None:
    """The loop went on watching a link that had ended: 49 of 800 children that died at once left a descriptor."""
    host, child = ends
    with running(Loop()) as loop:
        before = descriptors()

        def cut() -> None:
            child.transport.close()
            host.link.join(0.3)  # its end is not over before the loop has begun: then this waits in vain

        loop.meanwhile = cut
        host.link.attach_loop(loop)
        assert host.ended.wait(DEADLINE)
        host.link.join(DEADLINE)
        child.link.join(DEADLINE)
        until(lambda: descriptors() <= before)  # the watch is gone, and the loop still runs
        assert loop.errors == []


def test_a_detached_loop_keeps_no_watch(ends: tuple[End, End]) -> None:
    host, _ = ends
    with running(Loop()) as loop:
        before = descriptors()
        detached = threading.Thread(target=host.link.detach_loop)
        watched = threading.Event()

        def detach() -> None:
            detached.start()
            detached.join(0.3)
            watched.set()

        loop.meanwhile = detach
        host.link.attach_loop(loop)
        assert watched.wait(DEADLINE)
        detached.join(DEADLINE)
        until(lambda: descriptors() <= before)
        assert loop.errors == []


def test_a_loop_that_comes_too_late_watches_nothing(ends: tuple[End, End]) -> None:
    host, child = ends
    with running(Loop()) as loop:
        before = descriptors()
        child.transport.close()
        assert host.ended.wait(DEADLINE)
        host.link.join(DEADLINE)
        host.link.attach_loop(loop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(DEADLINE)
        assert descriptors() <= before
        assert loop.errors == []
