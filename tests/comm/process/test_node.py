"""A bot's half: attaching, what it tells the supervisor, and leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pair_kit import DEADLINE, Child, children, connected_pair, each_link, eventually, logged, make_link, memory, until

from liteyuki_host.comm.channel import Channel
from liteyuki_host.comm.errors import HostError, HostNotAttached, LinkBroken, LinkClosed, LinkError, RequestTimeout
from liteyuki_host.comm.process.node import Node
from liteyuki_host.comm.protocol import messages as m
from liteyuki_host.comm.protocol.credit import DEFAULT_WINDOW
from liteyuki_host.comm.protocol.frames import Kind, encode_frame
from liteyuki_host.comm.storage import SharedMemory
from liteyuki_host.comm.testing import Pair
from liteyuki_host.hub import Hub, SessionListener

__all__ = ["each_link"]  # the fixture, for pytest

pytestmark = pytest.mark.usefixtures("each_link")


@pytest.fixture
def pair(each_link: None) -> Iterator[Pair]:
    with connected_pair() as made:
        yield made


def ignore(_: str) -> None:
    pass


def attach(node: Node, transport: Any, process: str = "nonebot", timeout: float = DEADLINE) -> None:
    node.attach(transport, process, on_stop=ignore, on_host_gone=ignore, timeout=timeout)


def test_attaching_loads_the_snapshot_and_the_channels_before_it_returns(pair: Pair) -> None:
    pair.host.declare("mine")
    for number in range(200):
        pair.host_memory.set(f"k{number}", ["x" * 1000])
    late = Child(pair, "late")
    assert memory(late.node).get_all() == pair.host_memory.get_all()
    assert late.node.channel_names() >= {"mine", "late-active", "late-passive", "nonebot-active"}
    assert late.node.attached
    assert late.node.process == "late"
    late.node.reset()


def test_an_attached_node_is_not_attached_again(pair: Pair) -> None:
    with pytest.raises(HostError, match="this process is already attached to a host"):
        attach(pair.child, make_link()[0])


class Dumb:
    """A host that answers a greeting with these bytes, and keeps silent."""

    def __init__(self, answer: bytes = b"", *, close: bool = False) -> None:
        self.ours, self.theirs = make_link()
        if answer:
            self.ours.write_all([answer])
        if close:
            self.ours.close()


@pytest.mark.parametrize(
    ("make_host", "error", "words"),
    [
        (partial(Dumb), LinkClosed, "the host did not answer the greeting within 0.1 s"),
        (partial(Dumb, close=True), LinkBroken, "the host went away without a goodbye"),
        (
            partial(Dumb, encode_frame(Kind.CONTROL, m.encode_message(m.Hello(2, "host", 1, "lycomm 2")))),
            LinkBroken,
            "the host broke the link's protocol: the other side speaks version 2 of the link, this side version 1",
        ),
        (
            partial(Dumb, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            LinkBroken,
            "the host broke the link's protocol: a frame of",
        ),
        (
            partial(Dumb, encode_frame(Kind.CONTROL, m.encode_message(m.Goodbye("no bots today"))), close=True),
            LinkClosed,
            "no bots today",
        ),
    ],
    ids=["silent", "gone", "another version", "not ours", "refused"],
)
def test_a_greeting_that_fails_leaves_the_node_as_it_was(
    make_host: Callable[[], Dumb], error: type[LinkError], words: str
) -> None:
    """It used to count as a host that is gone, so even the bot's own memory was closed."""
    node, host = Node(), make_host()
    mine = SharedMemory(node)
    mine.set("a", 1)
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("lycomm-")}
    with pytest.raises(error, match=words):
        attach(node, host.theirs, "bot", timeout=0.1 if error is LinkClosed and "answer" in words else DEADLINE)
    assert not node.attached
    assert node.process == "nonebot"
    mine.set("b", 2)
    assert mine.get_all() == {"a": 1, "b": 2}
    assert mine.incr("n") == 1
    until(lambda: {t for t in threading.enumerate() if t.name.startswith("lycomm-")} <= threads)


def test_a_link_of_another_process_is_refused() -> None:
    hub = Hub()
    hub.declare_process("a")
    ours, theirs = make_link()
    hub.connect("a", ours, SessionListener())
    with pytest.raises(LinkClosed, match="this link belongs to process 'a', not 'b'"):
        attach(Node(), theirs, "b")
    hub.close("over")


def test_the_supervisor_hears_of_hello_hooks_and_ready_in_order() -> None:
    heard: list[Any] = []

    class Listener(SessionListener):
        def on_hello(self, pid: int) -> None:
            heard.append("hello")

        def on_hooks_done(self, adapters: Any, failed_plugins: Any) -> None:
            heard.append(("hooks", list(adapters)))

        def on_ready(self, address: str | None, details: Any) -> None:
            heard.append(("ready", address, dict(details)))

        def on_closed(self, cause: str | None) -> None:
            heard.append(("closed", cause))

    hub, node = Hub(), Node()
    hub.declare_process("bot")
    ours, theirs = make_link()
    stops: list[str] = []
    session = hub.connect("bot", ours, Listener())
    node.attach(theirs, "bot", on_stop=stops.append, on_host_gone=ignore)
    node.hooks_done(adapters=["OneBot V11"])
    node.ready(address="http://127.0.0.1:8080", details={"OneBot V11": "ws://127.0.0.1:8080/onebot/v11/ws"})
    session.stop("restart")
    until(lambda: stops == ["restart"])
    node.detach("bye")
    until(lambda: len(heard) == 4)
    assert heard == [
        "hello",
        ("hooks", ["OneBot V11"]),
        ("ready", "http://127.0.0.1:8080", {"OneBot V11": "ws://127.0.0.1:8080/onebot/v11/ws"}),
        ("closed", None),
    ]
    assert hub.session("bot") is None
    hub.close("over")


def test_a_broken_link_tells_both_sides_once_with_words() -> None:
    with children("b") as (_pair, [b]):
        b.kill()
        assert b.gone == ["the host went away without a goodbye"]
        assert b.listener.closed == ["b went away without a goodbye"]
        b.node.detach("later")
        assert len(b.gone) == len(b.listener.closed) == 1


def test_leaving_on_purpose_is_not_the_hosts_end(pair: Pair) -> None:
    other = Child(pair, "b")
    other.node.detach("my own will")
    assert other.gone == []
    until(lambda: other.listener.closed == [None])
    other.node.detach("again")
    with pytest.raises(HostNotAttached, match="which is gone: this process is shutting down"):
        other.node.request_restart()


async def test_control_requests_are_answered_and_refusals_are_words(pair: Pair) -> None:
    pair.control_answers["status"] = [{"name": "nonebot", "state": "ready"}]
    assert await pair.child.control("status") == [{"name": "nonebot", "state": "ready"}]
    assert await pair.child.control("restart", "nonebot") is None
    pair.child.request_restart()
    pair.child.request_restart("other")
    await eventually(lambda: len(pair.controls) == 4)
    assert pair.controls == [("status", None), ("restart", "nonebot"), ("restart", "nonebot"), ("restart", "other")]
    pair.host.on_control = lambda session, request: session.reply_control(request.id, error="no such process")
    with pytest.raises(HostError, match=r"^no such process$"):
        await pair.child.control("restart", "nope")
    pair.host.on_control = None
    with pytest.raises(HostError, match="this host supervises no processes"):
        await pair.child.control("status")
    pair.host.on_control = lambda session, request: None
    with pytest.raises(RequestTimeout, match=r"the host did not answer 'status' within 0.02 s"):
        await pair.child.control("status", timeout=0.02)
    task = asyncio.create_task(pair.child.control("status"))
    await asyncio.sleep(0)
    await asyncio.to_thread(pair.cut)
    with pytest.raises(HostNotAttached, match="the host went away before it answered"):
        await asyncio.wait_for(task, DEADLINE)
    assert pair.child._controls == {}


def test_user_data_never_controls_anything(pair: Pair) -> None:
    """In 2024, ``True`` and ``1.0`` on the active channel restarted the child, and ``False`` stopped it."""
    for value in (True, 1.0, 1, False, 0, None, "restart", {"verb": "stop"}):
        pair.child_channel("nonebot-active").send(value)
    pair.child_memory.sync(timeout=DEADLINE)
    assert [pair.host_channel("nonebot-active").receive(DEADLINE) for _ in range(8)][:4] == [True, 1.0, 1, False]
    assert pair.controls == []
    assert pair.child.attached


def test_leaving_delivers_what_was_sent(pair: Pair) -> None:
    child, host = pair.child_channel("last"), pair.host_channel("last")
    with pytest.raises(TimeoutError):
        host.receive(0)
    with logged() as lines:
        for number in range(1000):
            child.send(number)
        pair.child.detach("bye")
        assert [host.receive(DEADLINE) for _ in range(1000)] == list(range(1000))
    assert not [line for line in lines if "lost" in line]


def test_a_window_above_the_default_stays_readable() -> None:
    """The host is gone, and what it sent within its credit is here: nothing of it is more than may wait."""
    node = Node()
    line = Channel("nonebot-active", exchange=node)
    assert line.statistics().received == 0  # mentioned before the window is known
    large = "x" * (3 * DEFAULT_WINDOW // 8)
    with connected_pair(node=node, window=2 * DEFAULT_WINDOW) as pair:
        for _ in range(4):
            pair.host_channel("nonebot-active").send(large)
        until(lambda: line.statistics().received == 4)
        with logged() as lines:
            pair.cut()
            node.wait_detached(DEADLINE)
            assert [line.receive(DEADLINE) == large for _ in range(4)] == [True] * 4
            node.losses.flush()
    assert not [text for text in lines if "lost" in text]


def test_nothing_of_one_test_reaches_the_next() -> None:
    node = Node()
    with connected_pair(node=node) as pair:
        pair.child_channel("x").send("unheard")
        pair.host_channel("x").send("unread")
        until(lambda: pair.child_channel("x").statistics().received == 1)
        pair.child_memory.set("k", 1)
    assert not node.attached
    assert SharedMemory(node).get_all() == {}
    with connected_pair(node=node) as pair:
        for side in (pair.child_channel("x"), pair.host_channel("x")):
            with pytest.raises(TimeoutError):
                side.receive(0.02)


@pytest.mark.usefixtures("lycomm_pair")
def test_the_fixture_makes_this_process_a_child() -> None:
    from liteyuki_host.comm import active_channel, shared_memory

    active_channel.send("x")
    shared_memory.set("k", 1)
    shared_memory.sync(timeout=DEADLINE)


def test_the_fixture_gives_the_pair(lycomm_pair: Pair) -> None:
    from liteyuki_host.comm import active_channel, shared_memory

    assert "k" not in shared_memory
    lycomm_pair.host_channel("nonebot-active").send("for the plugin")
    assert active_channel.receive(DEADLINE) == "for the plugin"
    assert lycomm_pair.host_memory.get_all() == {}
