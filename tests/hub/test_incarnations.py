"""What many incarnations of a child leave in the host."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "comm"))
from pair_kit import DEADLINE, Child, channel, children, logged, until

from liteyuki_host.comm.errors import ChannelBroken, ChannelFull, HostNotAttached, ReceiveTimeout
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.protocol.connection import Connection
from liteyuki_host.comm.protocol.stream import Stream
from liteyuki_host.comm.testing import Pair
from liteyuki_host.comm.transport.posix import socket_link
from liteyuki_host.hub.session import Session

WINDOW = 10 * 256  # nine messages of three bytes


@pytest.fixture
def narrow() -> Iterator[Pair]:
    with children(window=WINDOW) as (pair, _):
        yield pair


async def fill(child: Child, name: str, incarnation: int) -> int:
    """Send until there is no room; returns how many messages were accepted."""
    line = channel(child.node, name)
    count = 0
    try:
        while True:
            line.send([incarnation, count])  # on an event loop, so it never waits
            count += 1
    except ChannelFull:
        return count


def drain(line: Any) -> list[Any]:
    got = []
    try:
        while True:
            got.append(line.receive(0.2))
    except ReceiveTimeout:
        return got


@pytest.mark.parametrize("reader", ["another child", "the host"])
async def test_incarnations_leave_two_windows_at_most(narrow: Pair, reader: str) -> None:
    """Each one left a window of its own: 832 messages became 6,656 after eight of them."""
    accepted = 0
    if reader == "the host":  # it has used the channel, and does not read it
        channel(narrow.host, "reports").send("for whoever asks")
    with logged() as lines:
        for incarnation in range(6):
            child = Child(narrow, "sender")
            accepted += await fill(child, "reports", incarnation)
            await asyncio.to_thread(child.session.link.ping, DEADLINE)  # all of it has arrived
            await asyncio.to_thread(child.kill)
        line = channel(narrow.host if reader == "the host" else narrow.child, "reports")
        got = await asyncio.to_thread(drain, line)
        narrow.host.losses.flush()
    assert [incarnation for incarnation, _ in got] == sorted(incarnation for incarnation, _ in got)
    assert got[-1][0] == 5  # the newest are there
    assert len(got) <= 2 * WINDOW // 256
    told = [line for line in lines if line.startswith("WARNING reports: ") and "nobody has read them" in line]
    lost = sum(int(line.split()[2].replace(",", "")) for line in told)
    assert lost + len(got) == accepted  # each is received once, or reported


async def test_a_late_end_of_link_drops_nothing(narrow: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a link that the next incarnation has not waited for dropped what one window had kept."""
    monkeypatch.setattr(Session, "close_soon", lambda self, reason: None)  # the old link ends when the test says so
    late = Child(narrow, "sender")
    accepted = await fill(late, "reports", 0)
    await asyncio.to_thread(late.session.link.ping, DEADLINE)
    following = Child(narrow, "sender")
    accepted += await fill(following, "reports", 1)
    await asyncio.to_thread(following.session.link.ping, DEADLINE)
    await asyncio.to_thread(late.kill)
    got = await asyncio.to_thread(drain, channel(narrow.child, "reports"))
    assert len(got) == accepted
    assert got[0] == [0, 0]


async def test_a_reader_in_the_middle_of_a_burst_loses_nothing(narrow: Pair) -> None:
    """What it had read of the burst was charged once more, so up to a window was dropped when the child ended."""
    child = Child(narrow, "short")
    sent = await fill(child, "short-active", 1)
    line = channel(narrow.host, "short-active")
    assert await asyncio.to_thread(child.session.link.ping, DEADLINE) is not None  # the end of the burst is one unit
    for number in range(sent - 1):
        assert await asyncio.to_thread(line.receive, DEADLINE) == [1, number]
    sender = channel(child.node, "short-active")
    for number in range(sent, 2 * sent - 1):
        await asyncio.wait_for(sender.asend([1, number]), DEADLINE)
    assert await asyncio.to_thread(child.session.link.ping, DEADLINE) is not None
    await asyncio.to_thread(child.kill)
    assert await asyncio.to_thread(drain, line) == [[1, number] for number in range(sent - 1, 2 * sent - 1)]
    assert line.statistics().lost == 0


@pytest.mark.parametrize("unread", [False, True])
def test_a_dead_link_is_kept_by_nothing(narrow: Pair, unread: bool) -> None:
    """One unread message kept its link: a read buffer of 512 KiB and all streams."""

    def links() -> tuple[int, int]:
        gc.collect()
        things = gc.get_objects()
        return sum(type(thing) in (Link, Connection) for thing in things), sum(type(t) is Stream for t in things)

    def incarnation(number: int) -> None:
        child = Child(narrow, "short", transports=socket_link)
        line = channel(child.node, "short-active")
        if unread:
            line.send(number)
            assert child.session.link.ping(DEADLINE) is not None
        child.kill()
        child.node.reset()
        del child, line

    incarnation(0)
    before = links()
    for number in range(1, 6):
        incarnation(number)
    assert links() == before
    if unread:
        assert drain(channel(narrow.host, "short-active")) == list(range(6))


def test_a_message_of_a_dead_child_counts_nowhere(narrow: Pair) -> None:
    child = Child(narrow, "short")
    channel(child.node, "short-active").send("last words")
    assert child.session.link.ping(DEADLINE) is not None
    child.kill()
    line = channel(narrow.host, "short-active")
    assert line.receive(DEADLINE) == "last words"
    assert line.statistics().waiting_to_be_read == 0
    again = Child(narrow, "short")
    channel(again.node, "short-active").send("back")
    assert line.receive(DEADLINE) == "back"
    again.node.reset()


async def test_an_answer_to_the_dead_goes_nowhere(narrow: Pair) -> None:
    child = Child(narrow, "short")
    begun, finish = asyncio.Event(), asyncio.Event()

    async def answer(data: Any) -> Any:
        begun.set()
        await finish.wait()
        return data

    narrow.host.attach_loop(asyncio.get_running_loop())
    line = channel(narrow.host, "short-active")
    line.on_receive()(answer)
    asked = asyncio.create_task(channel(child.node, "short-active").request("?", timeout=DEADLINE))
    await begun.wait()
    await asyncio.to_thread(child.kill)
    with pytest.raises(ChannelBroken, match="no answer can come any more"):
        await asked
    finish.set()
    again = Child(narrow, "short")
    assert await channel(again.node, "short-active").request("!", timeout=DEADLINE) == "!"
    assert line.statistics().last_error is None
    narrow.host.detach_loop()
    again.node.reset()
    with pytest.raises(HostNotAttached):
        channel(again.node, "short-active").send(1)
    until(lambda: narrow.host.session("short") is None)
