"""For tests of code that uses lycomm: a host and a bot's half joined in memory, without processes.

Installed as a pytest plugin, so the fixture :func:`lycomm_pair` is there without an import. With nonebug, the plugin
under test sees the pair as its host::

    async def test_answers_the_host(app, lycomm_pair):
        host_side = lycomm_pair.host_channel("nonebot-passive")
        assert await host_side.request("ping", timeout=5) == "pong"
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import pytest

if TYPE_CHECKING:
    from types import UnionType

    from liteyuki_host.comm.channel.channel import Channel
    from liteyuki_host.comm.process.node import Node
    from liteyuki_host.comm.storage import SharedMemory
    from liteyuki_host.comm.transport import Transport
    from liteyuki_host.hub import Hub

__all__ = ["Pair", "connected_pair", "lycomm_pair"]

T = TypeVar("T")


class _Expiry:
    """Deletes keys of the shared memory when their ttl ends, as a host does on its event loop; here in a thread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._woken = threading.Event()
        self._over = False
        hub.on_deadline(self._woken.set)
        self._thread = threading.Thread(target=self._run, name="lycomm-expiry", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            self._woken.clear()
            delay = self._hub.authority.expire()
            if not self._over:  # said before the wake-up
                self._woken.wait(delay)

    def end(self) -> None:
        self._hub.on_deadline(self._woken.set, remove=True)
        self._over = True
        self._woken.set()
        self._thread.join()


class Pair:
    """A hub and a node, joined by a link. Made by :func:`connected_pair`.

    Keys with a ttl expire, by the real time. End it with :meth:`close`.

    Attributes:
        host: the host's exchange.
        child: the bot process's exchange; the current one, when made by the fixture.
        transports: the two ends of the current link, the host's and the child's.
        controls: the control requests (verb, process) that the child made; each is answered with ``control_answers``.
    """

    def __init__(
        self, process: str, node: Node, transports: Callable[[], tuple[Transport, Transport]], **limits: int
    ) -> None:
        from liteyuki_host.hub import Hub

        self.process = process
        self.host: Hub = Hub(**limits)
        self.child: Node = node
        self.listener = _noting_listener()
        self.controls: list[tuple[str, str | None]] = []
        self.control_answers: dict[str, Any] = {}
        self._make_transports = transports
        self.transports: tuple[Transport, Transport]
        self.host.declare_process(process)
        self.host.on_control = self._control
        self.connect()
        self._expiry = _Expiry(self.host)

    def connect(self) -> None:
        """Attach the child (again), as a new incarnation."""
        self.transports = ours, theirs = self._make_transports()
        self.host.connect(self.process, ours, self.listener)
        self.child.attach(theirs, self.process, on_stop=lambda reason: None, on_host_gone=lambda cause: None)

    def cut(self) -> None:
        """Break the link without a goodbye, as a killed process would. Both sides know when it returns."""
        session = self.host.session(self.process)
        for transport in self.transports:
            transport.close()
        self.child.wait_detached(5.0)
        if session is not None:
            session.link.join(5.0)

    @overload
    def host_channel(self, name: str, kind: type[T]) -> Channel[T]: ...
    @overload
    def host_channel(self, name: str, kind: UnionType | None = None) -> Channel[Any]: ...
    def host_channel(self, name: str, kind: Any = None) -> Channel[Any]:
        """The host's side of a channel."""
        from liteyuki_host.comm.channel.channel import Channel

        return Channel(name, kind, exchange=self.host)

    @overload
    def child_channel(self, name: str, kind: type[T]) -> Channel[T]: ...
    @overload
    def child_channel(self, name: str, kind: UnionType | None = None) -> Channel[Any]: ...
    def child_channel(self, name: str, kind: Any = None) -> Channel[Any]:
        """The child's side of a channel."""
        from liteyuki_host.comm.channel.channel import Channel

        return Channel(name, kind, exchange=self.child)

    @property
    def host_memory(self) -> SharedMemory:
        """The host's view of the shared memory."""
        from liteyuki_host.comm.storage import SharedMemory

        return SharedMemory(self.host)

    @property
    def child_memory(self) -> SharedMemory:
        """The child's view of the shared memory."""
        from liteyuki_host.comm.storage import SharedMemory

        return SharedMemory(self.child)

    def _control(self, session: Any, request: Any) -> None:
        self.controls.append((request.verb, request.process))
        session.reply_control(request.id, value=self.control_answers.get(request.verb))

    def close(self) -> None:
        """End both sides; the child is a process without a host again."""
        self._expiry.end()
        self.child.reset()
        self.host.close("the test is over")


def _noting_listener() -> Any:
    """A listener that notes in ``ready`` and ``closed`` what a child tells its supervisor.

    The class is made here because its base is in the hub's package, which pytest is not to load with this plugin.
    """
    from liteyuki_host.hub import SessionListener

    class Listener(SessionListener):
        def __init__(self) -> None:
            self.closed: list[str | None] = []
            self.ready: list[str | None] = []

        def on_ready(self, address: str | None, details: Mapping[str, str]) -> None:
            self.ready.append(address)

        def on_closed(self, cause: str | None) -> None:
            self.closed.append(cause)

    return Listener()


@contextmanager
def connected_pair(
    process: str = "nonebot",
    *,
    node: Node | None = None,
    transports: Callable[[], tuple[Transport, Transport]] | None = None,
    **limits: int,
) -> Iterator[Pair]:
    """A connected pair for one block.

    Args:
        node: the child's exchange; by default one of its own, so several pairs can live side by side.
        transports: makes the two ends of each link, the host's and the child's; by default in memory.
        limits: ``window``, ``message_limit``, ``memory_limit`` of the hub, in bytes.
    """
    from liteyuki_host.comm.process.node import Node
    from liteyuki_host.comm.transport.memory import memory_link

    pair = Pair(process, Node() if node is None else node, transports or memory_link, **limits)
    try:
        yield pair
    finally:
        pair.close()


@pytest.fixture
def lycomm_pair() -> Iterator[Pair]:
    """A host for this process's own node, for one test: module-level channels and ``shared_memory`` reach it."""
    from liteyuki_host.comm.process.current import current_node

    with connected_pair(node=current_node()) as pair:
        yield pair
