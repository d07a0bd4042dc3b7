"""A message that is sent while the other side, or this process, ends: it is refused with an error, or it counts.

Each test lets the whole end happen between two steps of one sender, where a busy machine may stop a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pair_kit import DEADLINE, Child, channel, logged, until

from liteyuki_host.comm import Channel
from liteyuki_host.comm.errors import ChannelClosed, ChannelTaken, HostNotAttached
from liteyuki_host.comm.link import Link
from liteyuki_host.comm.testing import Pair, connected_pair
from liteyuki_host.comm.waiting.monitor import Monitor

ENDS: dict[str, Callable[[Pair], object]] = {
    "killed": Pair.cut,
    "goodbye": lambda pair: pair.child.detach("its turn is over"),
}


def before(link: Link, step: str, happens: Callable[[], object]) -> None:
    """Let something happen in the middle of the next call of *step*, which has seen the link before that."""
    function = getattr(link, step)

    def late(*args: Any, **options: Any) -> Any:
        setattr(link, step, function)
        happens()
        return function(*args, **options)

    setattr(link, step, late)


def figures(line: Channel[Any]) -> tuple[int, int, int]:
    """Accepted, accepted and not consumed, reported as lost."""
    statistics = line.statistics()
    return statistics.sent, statistics.waiting_to_be_consumed, statistics.lost


def link_of(pair: Pair) -> Link:
    link = pair.child.link
    assert link is not None
    return link


# bytes take the general way of sending; the shortcut of other messages is held to it by tests/comm/link


@pytest.mark.parametrize("end", ENDS)
def test_a_message_that_comes_too_late_is_refused(end: str) -> None:
    with connected_pair("bot") as pair:
        line = pair.child_channel("bot-passive")
        before(link_of(pair), "send", lambda: ENDS[end](pair))
        with pytest.raises(HostNotAttached, match="which is gone: this process is shutting down"):
            line.send(b"late")
        assert figures(line) == (0, 0, 0)


@pytest.mark.parametrize("end", ENDS)
async def test_on_an_event_loop_it_is_refused_in_the_same_words(end: str) -> None:
    """Not as if the channel were full: there will be no room for it."""
    with connected_pair("bot") as pair:
        line = pair.child_channel("bot-passive")
        before(link_of(pair), "send", lambda: ENDS[end](pair))
        with pytest.raises(HostNotAttached):
            line.send(b"late")
        with pytest.raises(HostNotAttached):
            await line.asend(b"later")
        assert figures(line) == (0, 0, 0)


@pytest.mark.parametrize("end", ENDS)
def test_the_first_message_of_a_channel_that_comes_too_late_is_refused(end: str) -> None:
    with connected_pair("bot") as pair:
        line = pair.child_channel("new")
        ENDS[end](pair)  # not in the middle: the first use of a channel and the end of its link are one step each
        for payload in (b"late", b"later"):
            with pytest.raises(HostNotAttached):
                line.send(payload)
        assert figures(line) == (0, 0, 0)
        assert not pair.child.end("new").outbox.bound
        pair.connect()
        line.send(b"to the next host")
        assert pair.host_channel("new").receive(DEADLINE) == b"to the next host"


def test_what_is_sent_after_the_last_write_of_a_leaving_process_is_refused() -> None:
    with connected_pair("bot") as pair:
        line, link = pair.child_channel("bot-passive"), link_of(pair)
        line.send(b"in time")
        outbox = pair.child.end("bot-passive").outbox
        flush, offered = link.flush, []

        def flush_and_offer(timeout: float) -> bool:
            sent = flush(timeout)
            offered.append(outbox.offer(b"late"))  # as of a thread that has looked at everything before
            return sent

        link.flush = flush_and_offer
        with logged() as lines:
            pair.child.detach("its turn is over")
        assert offered == [False]
        assert pair.host_channel("bot-passive").receive(DEADLINE) == b"in time"
        assert pair.host.end("bot-passive").inbox.waiting() == 0
        assert not [text for text in lines if "lost" in text]


def put_off(monitor: Monitor, call: Callable[[], object]) -> None:
    """Make *call* while another thread holds the lock for longer than a call may wait for it, and return when what has
    been put off by that has been performed."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with monitor.lock:
            held.set()
            assert done.wait(DEADLINE)
        monitor.settle()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert held.wait(DEADLINE)
    call()
    assert monitor.due
    done.set()
    holder.join(DEADLINE)
    assert not monitor.due


def test_what_was_put_off_until_after_the_goodbye_is_reported() -> None:
    with connected_pair("bot") as pair:
        line, link, monitor = pair.child_channel("bot-passive"), link_of(pair), pair.child.monitor
        line.send(b"in time")
        assert pair.host_channel("bot-passive").receive(DEADLINE) == b"in time"
        until(lambda: line.statistics().waiting_to_be_consumed == 0)
        flush = link.flush

        def flush_and_put_off(timeout: float) -> bool:
            sent = flush(timeout)
            put_off(monitor, lambda: line.send(b"late"))  # of a thread that did not get the lock
            return sent

        link.flush = flush_and_put_off
        with logged() as lines:
            pair.child.detach("its turn is over")
        statistics = line.statistics()
        assert (statistics.waiting_to_be_consumed, statistics.lost) == (0, 1)
        assert len([text for text in lines if "bot-passive: 1 message lost (it was put off" in text]) == 1


def test_what_was_put_off_before_the_goodbye_is_sent() -> None:
    with connected_pair("bot") as pair:
        line = pair.child_channel("bot-passive")
        line.send(b"at once")
        with pair.child.monitor.lock:  # as a finalizer does that interrupts lycomm
            line.send(b"put off")
        assert pair.child.monitor.due
        pair.child.detach("its turn is over")
        received = pair.host_channel("bot-passive")
        assert [received.receive(DEADLINE) for _ in range(2)] == [b"at once", b"put off"]
        assert line.statistics().lost == 0


def test_what_was_put_off_without_room_is_reported() -> None:
    with connected_pair("bot", window=2 * 1024) as pair:
        line, received = pair.child_channel("bot-passive"), pair.host_channel("bot-passive")
        while pair.child.end("bot-passive").outbox.has_room(4):
            line.send(b"room")
        put_off(pair.child.monitor, lambda: line.send(b"none"))
        accepted = line.statistics().sent
        with logged() as lines:
            pair.child.detach("its turn is over")
        assert [received.receive(DEADLINE) for _ in range(accepted - 1)] == [b"room"] * (accepted - 1)
        assert line.statistics().lost == 1
        assert len([text for text in lines if "bot-passive: 1 message lost (this process ended" in text]) == 1


def test_what_the_host_sends_too_late_is_refused() -> None:
    with connected_pair("bot") as pair:
        line, session = pair.host_channel("bot-active"), pair.host.session("bot")
        assert session is not None
        before(session.link, "send", lambda: pair.host.close("the host stops"))
        with pytest.raises(ChannelClosed, match="the host has ended"):
            line.send(b"late")
        assert figures(line) == (0, 0, 0)


@pytest.mark.parametrize("end", ENDS)
def test_what_is_sent_on_a_channel_that_is_refused_meanwhile_is_reported(end: str) -> None:
    with connected_pair("bot") as pair:
        first, second = Child(pair, "first"), Child(pair, "second")
        line, own = pair.child_channel("theirs"), pair.child.end("theirs")

        def taken() -> None:
            channel(first.node, "theirs").send(1)
            assert channel(second.node, "theirs").receive(DEADLINE) == 1
            own.use()
            until(lambda: own.refused)

        taken()
        with pytest.raises(ChannelTaken):
            line.send(b"too late")
        stream = own.outbox.stream
        assert stream is not None
        assert link_of(pair).send(stream, b"late")  # as of a thread that has looked at everything before
        with logged() as lines:
            ENDS[end](pair)
            pair.child.losses.flush()
        assert own.outbox.lost == 1
        assert len([text for text in lines if "theirs: 1 message lost" in text]) == 1
        for child in (first, second):
            child.node.reset()
